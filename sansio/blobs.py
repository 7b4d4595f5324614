"""Blobs at rest: reading, existence, deletion (distribution-spec end-2, end-10), and who may read them.

A digest is not a capability. A blob can be read through a namespace only if the namespace owns it (somebody uploaded
or mounted it there) or if it is a manifest of the namespace. That the same bytes are in another namespace changes
nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from angos.sansio import layout
from angos.sansio.collection.presence import (
    in_time,
    keep,
    keep_suspected,
    suspect_and_remove,
    suspicions,
    until_unmarked,
)
from angos.sansio.config import RegistryConfig
from angos.sansio.effects import CreateKeys, DeleteKeys, Key, ListKeys, Part, Prefix, PromoteParts, Stat, StatKey
from angos.sansio.errors import RegistryError
from angos.sansio.http.byte_range import Slice, parse_range
from angos.sansio.http.conditional import entity_tag, is_unmodified, range_applies
from angos.sansio.http.message import Absent, Body, FromKey, Header, Request, Response, Slices
from angos.sansio.oci.digest import Digest
from angos.sansio.oci.reference import Namespace
from angos.sansio.redirects import may_be_sent_elsewhere, sent_elsewhere

OCTETS = "application/octet-stream"  # never a descriptor's type: a browser must not run what somebody uploaded
FOREVER = "max-age=31536000, immutable"


async def blob_is_readable(namespace: Namespace, digest: Digest) -> bool:
    """True when `namespace` may show the blob; says nothing about whether its bytes are there."""
    if await StatKey(layout.owner_key(digest, namespace)) is not None:
        return True
    return await StatKey(layout.revision_key(namespace, digest)) is not None


async def stat_blob(digest: Digest, *, lately: bool = False) -> Stat | None:
    """Size and age of the bytes, None when there are none. `lately`: see `StatKey`.

    A file without bytes that has to have some is what disks leave behind that lose what was written. It counts as
    absent, so that clients push the blob again, which replaces it.
    """
    key = layout.blob_key(digest)
    stat = await StatKey(key, lately=lately)
    if stat is None or stat.size or digest == Digest.of(b"", digest.algorithm):
        return stat
    stat = await StatKey(key) if lately else stat  # it may have been replaced since
    return stat if stat is not None and stat.size else None


async def get_blob(namespace: Namespace, digest: Digest, request: Request, config: RegistryConfig) -> Response:
    """end-2, GET and HEAD: the bytes, a slice of them, or several; or where the store has them."""
    if request.method == "HEAD":  # whoever asks like this is about to push a manifest that needs it
        await keep_suspected(digest, config.collection_grace_seconds)
    # Bytes come before the names that make them readable, and go after them. So they need not be looked for each time.
    readable = await blob_is_readable(namespace, digest)
    # HEAD looks afresh: nobody pushes what it says is there, also when it was moved away as damaged a moment ago.
    stat = await stat_blob(digest, lately=request.method != "HEAD") if readable else None
    if stat is None:
        raise blob_unknown(namespace, digest)
    key = layout.blob_key(digest)
    if (
        config.redirect_blobs
        and may_be_sent_elsewhere(request, stat.size)
        and not is_unmodified(request.headers, digest)
        and (elsewhere := await sent_elsewhere(key, digest, OCTETS)) is not None
    ):
        return elsewhere
    return answer_with_blob(digest, stat.size, request, config, lambda start, length: FromKey(key, start, length))


def answer_with_blob(
    digest: Digest,
    size: int,
    request: Request,
    config: RegistryConfig,
    piece: Callable[[int, int], Body],
    *,
    stored: bool = True,
) -> Response:
    """The bytes, a slice of them, or several; `piece` says where those from an offset on come from.

    Several slices need bytes that are stored; otherwise all are sent, which RFC 9110 section 14.2 allows."""
    headers = (
        ("Docker-Content-Digest", str(digest)),
        ("Accept-Ranges", "bytes"),
        ("ETag", entity_tag(digest)),
        ("Cache-Control", FOREVER),
    )
    if is_unmodified(request.headers, digest):
        return Response(304, headers)
    typed = (("Content-Type", OCTETS), *headers)
    if request.method == "HEAD":
        return Response(200, typed, Absent(size))
    wanted = request.headers.joined("range")
    if wanted is None or not range_applies(request.headers, digest):
        return Response(200, typed, piece(0, size))

    match parse_range(wanted, size, ranges_max=config.ranges_max):
        case "everything":
            return Response(200, typed, piece(0, size))
        case "too many":
            raise RegistryError(400, "SIZE_INVALID", f"at most {config.ranges_max} ranges can be asked for at once")
        case "unsatisfiable":
            message = f"none of the ranges {wanted[:100]!r} lies within the {size} bytes of the blob"
            raise RegistryError(416, "SIZE_INVALID", message, headers={"Content-Range": f"bytes */{size}"})
        case (one,):
            partial = (("Content-Type", OCTETS), ("Content-Range", one.content_range(size)), *headers)
            return Response(206, partial, piece(one.start, one.length))
        case several:
            return _multipart(digest, several, size, headers) if stored else Response(200, typed, piece(0, size))


def _multipart(digest: Digest, slices: tuple[Slice, ...], size: int, headers: tuple[Header, ...]) -> Response:
    """RFC 9110 section 14.6. The boundary comes from the digest: bytes cannot be made to contain their own hash."""
    boundary = f"angos-{digest.hex[:48]}"
    parts = []
    for index, part in enumerate(slices):
        before = (
            f"{'' if index == 0 else chr(13) + chr(10)}--{boundary}\r\n"
            f"Content-Type: {OCTETS}\r\nContent-Range: {part.content_range(size)}\r\n\r\n"
        )
        parts.append((before.encode(), part.start, part.length))
    body = Slices(layout.blob_key(digest), tuple(parts), f"\r\n--{boundary}--\r\n".encode())
    return Response(206, (("Content-Type", f"multipart/byteranges; boundary={boundary}"), *headers), body)


async def make_blob(
    namespace: Namespace, digest: Digest, upload: Prefix, parts: tuple[Part, ...], grace_seconds: float
) -> bool:
    """Turn parts of an upload, whose bytes have this digest, into a blob of the namespace. The parts stay.

    Reply: False when one of them is missing: then nobody has been promised anything.
    """
    # Bytes before names: a crash between the two leaves bytes that nobody can read.
    if not await PromoteParts(upload, parts, layout.blob_key(digest)):
        return False
    return await in_time(lambda: _own(namespace, digest, upload, parts), grace_seconds, undone=False)


async def _own(namespace: Namespace, digest: Digest, upload: Prefix, parts: tuple[Part, ...]) -> bool:
    owner = (layout.owner_key(digest, namespace), b"")
    created, *_ = await CreateKeys((owner, *await suspicions((digest,))))
    undisturbed = await until_unmarked((digest,))
    there = await StatKey(layout.blob_key(digest)) is not None
    if not there and not await PromoteParts(upload, parts, layout.blob_key(digest)):
        return False
    if not (created and undisturbed and there):
        await CreateKeys((owner,))
    return True


async def claim_blob(namespace: Namespace, digest: Digest, grace_seconds: float) -> bool:
    """Let the namespace own a blob whose bytes it need not bring. Reply: False when they are not there."""
    return await in_time(lambda: _claim(namespace, digest, grace_seconds), grace_seconds, undone=False)


async def _claim(namespace: Namespace, digest: Digest, grace_seconds: float) -> bool:
    await keep((digest,), grace_seconds)
    if await stat_blob(digest) is None:
        return False
    await CreateKeys(((layout.owner_key(digest, namespace), b""),))
    return True


async def delete_blob(namespace: Namespace, digest: Digest, config: RegistryConfig) -> Response:
    """end-10: the namespace gives the blob up; the bytes go when nobody owns them any more.

    A blob that a manifest of the namespace needs stays: deleting it would break images, and every client that means
    to delete both deletes the manifest first.
    """
    owner = layout.owner_key(digest, namespace)
    if await StatKey(owner) is None:
        if await StatKey(layout.revision_key(namespace, digest)) is not None:
            raise _needed(namespace, digest, digest)
        raise blob_unknown(namespace, digest)
    if (manifest := await _needing(namespace, digest)) is not None:
        raise _needed(namespace, digest, manifest)
    await suspect_and_remove((digest,), lambda: _disown(owner), config.collection_grace_seconds)
    # A manifest that was pushed meanwhile found the blob owned, or at least counted on it: give it back.
    if (manifest := await _needing(namespace, digest)) is not None:
        await CreateKeys(((owner, b""),))
        raise _needed(namespace, digest, manifest)
    return Response(202)


async def _disown(owner: Key) -> None:
    await DeleteKeys((owner,))


async def _needing(namespace: Namespace, digest: Digest) -> Digest | None:
    """A manifest of the namespace that names the blob, None when there is none."""
    after, more = "", True
    while more:
        page = await ListKeys(layout.references_prefix(digest, namespace), after)
        for name in page.names:
            manifest = layout.parse_manifest_reference_name(name)
            if manifest is not None and await StatKey(layout.revision_key(namespace, manifest)) is not None:
                return manifest
        after, more = page.last, page.more
    return None


def _needed(namespace: Namespace, digest: Digest, manifest: Digest) -> RegistryError:
    what = "it is a manifest" if manifest == digest else f"the manifest {manifest} needs it"
    message = f"the blob {digest} of {namespace} cannot be deleted: {what}; delete the manifest first"
    return RegistryError(405, "UNSUPPORTED", message, headers={"Allow": "GET, HEAD"})


def blob_unknown(namespace: Namespace, digest: Digest) -> RegistryError:
    """The blob is not in this namespace; whether it is in another one is nobody's business."""
    return RegistryError(404, "BLOB_UNKNOWN", f"there is no blob {digest} in {namespace}")


def blob_location(namespace: Namespace, digest: Digest) -> str:
    """Where a client reads the blob: path only, so that it is right behind every proxy."""
    return f"/v2/{namespace}/blobs/{digest}"
