"""Manifests: pulling, pushing, deleting (distribution-spec end-3, end-7, end-9).

A push writes in waves, each durable before the next begins: bytes and references; the revision, which makes the
manifest readable by digest; the tags and the referrer record, which make it found. A delete takes the same way back.
So a crash leaves keys too many, never a name that leads nowhere.

A push and a delete of the same manifest can cross. After its last wave the push looks whether its revision is still
there and writes it again if not; after removing the revision the delete looks again for tags that came meanwhile.
Whichever looks last sees the other one, so no tag is left that names a manifest which is gone.
"""

from __future__ import annotations

from datetime import UTC, datetime

from angos.sansio import layout
from angos.sansio.blobs import stat_blob
from angos.sansio.collection.presence import in_time, is_fresh_at, keep, suspect_and_remove, suspicions, until_unmarked
from angos.sansio.compact_json import compact_json, parse_json
from angos.sansio.config import RegistryConfig
from angos.sansio.effects import (
    BodyInterrupted,
    BodyTooLarge,
    CreateKeys,
    DeleteKeys,
    Key,
    ListKeys,
    NotePull,
    ReadBody,
    ReadClock,
    ReadKey,
    StatKey,
    StorageCorrupt,
)
from angos.sansio.errors import Invalid, RegistryError
from angos.sansio.http.conditional import entity_tag, is_unmodified
from angos.sansio.http.error_body import RETRY_SECONDS
from angos.sansio.http.message import Absent, Header, Inline, Request, Response
from angos.sansio.http.query import Query
from angos.sansio.http.warning import warnings
from angos.sansio.oci.digest import Digest
from angos.sansio.oci.manifest import Descriptor, Manifest, parse_manifest, referrer_descriptor
from angos.sansio.oci.media_type import is_media_type, parse_media_type
from angos.sansio.oci.reference import Namespace, Reference, Tag
from angos.sansio.redirects import may_be_sent_elsewhere, sent_elsewhere
from angos.sansio.tags import resolve_tag, set_immutable_tag, set_tag, unset_tag
from angos.sansio.together import together

TAGS_MAX = 100  # of one push by digest; the specification asks for at least 10
CROSSINGS_MAX = 8  # deletes that may cross one push before it gives up


# --- pulling ----------------------------------------------------------------------------------------------------------


async def get_manifest(
    namespace: Namespace, reference: Reference, request: Request, config: RegistryConfig
) -> Response:
    """end-3, GET and HEAD: exactly the bytes and the type that were pushed, whatever ``Accept`` says; or where the
    store has them."""
    digest = reference if isinstance(reference, Digest) else await resolve_tag(namespace, reference)
    if digest is None:
        raise manifest_unknown(namespace, reference)
    media_type = await read_media_type(namespace, digest)
    if media_type is None:
        raise manifest_unknown(namespace, reference)
    response = await _show(namespace, reference, digest, media_type, request, config)
    if config.records_pulls(namespace):
        pulls = [layout.manifest_pulls_prefix(namespace, digest)]
        if isinstance(reference, Tag):
            pulls.append(layout.tag_pulls_prefix(namespace, reference))
        await NotePull(tuple(pulls))
    return response


async def _show(
    namespace: Namespace,
    reference: Reference,
    digest: Digest,
    media_type: str,
    request: Request,
    config: RegistryConfig,
) -> Response:
    headers = manifest_headers(reference, digest, media_type)
    if is_unmodified(request.headers, digest):
        return Response(304, headers[1:])
    if request.method == "HEAD":
        stat = await StatKey(layout.blob_key(digest), lately=True)
        if stat is None:
            raise manifest_unknown(namespace, reference)
        if stat.size == 0:  # as GET would say
            raise StorageCorrupt(f"the stored bytes of {digest} have another digest")
        return Response(200, headers, Absent(stat.size))
    if config.redirect_manifests and (elsewhere := await _elsewhere(digest, media_type, request)) is not None:
        return elsewhere
    value = await ReadKey(layout.blob_key(digest))
    if value is None:
        raise manifest_unknown(namespace, reference)
    return Response(200, headers, Inline(value))


async def _elsewhere(digest: Digest, media_type: str, request: Request) -> Response | None:
    """Where the store has the manifest. Ranges of manifests are ignored, which a store would not do."""
    key = layout.blob_key(digest)
    if request.headers.get("range") is not None or not may_be_sent_elsewhere(request, 0):
        return None
    return await sent_elsewhere(key, digest, media_type) if await StatKey(key, lately=True) is not None else None


def manifest_headers(reference: Reference, digest: Digest, media_type: str) -> tuple[Header, ...]:
    """What describes a manifest in the answer to a request for this reference; the type first."""
    return (
        ("Content-Type", media_type),
        ("Docker-Content-Digest", str(digest)),
        ("ETag", entity_tag(digest)),
        ("Cache-Control", "max-age=31536000, immutable" if reference == digest else "no-cache"),
    )


async def read_media_type(namespace: Namespace, digest: Digest) -> str | None:
    """The type that the manifest was pushed with, None when it is not in the namespace."""
    record = await ReadKey(layout.revision_key(namespace, digest))
    if record is None:
        return None
    if (media_type := recorded_media_type(record)) is not None:
        return media_type
    # Angos 1.6 need not record it, and a damaged record cannot tell. Nearly all manifests do.
    body = await ReadKey(layout.blob_key(digest))
    if body is None:
        return None
    try:
        return parse_manifest(body, None).media_type
    except Invalid:
        message = f"neither the record of manifest {digest} in {namespace} nor the manifest itself says its type"
        raise StorageCorrupt(message) from None


def recorded_media_type(record: bytes) -> str | None:
    """The type in the record of a revision, None when it does not say it."""
    try:
        media_type = parse_json(record)["media_type"]
    except (ValueError, KeyError, TypeError):
        return None
    return media_type if isinstance(media_type, str) and is_media_type(media_type) else None


# --- pushing ----------------------------------------------------------------------------------------------------------


async def put_manifest(
    namespace: Namespace,
    reference: Reference,
    request: Request,
    query: Query,
    config: RegistryConfig,
    by: str | None = None,
) -> Response:
    """end-7a and 7b: store a manifest and let the tags of the request name it."""
    tags = _tags(reference, query)
    body = await _read_body(request, config)
    manifest = _parse(body, request)
    digest = Digest.of(body, reference.algorithm if isinstance(reference, Digest) else "sha256")
    if isinstance(reference, Digest) and digest != reference:
        raise RegistryError(400, "DIGEST_INVALID", f"the manifest hashes to {digest}, not to {reference}")
    missing = await push_manifest(namespace, digest, body, manifest, tags, config, by=by)
    headers = [
        ("Location", f"/v2/{namespace}/manifests/{reference}"),
        ("Docker-Content-Digest", str(digest)),
    ]
    if manifest.subject is not None:
        headers.append(("OCI-Subject", str(manifest.subject)))
    if isinstance(reference, Digest) and tags:
        headers.append(("OCI-Tag", ", ".join(tag.name for tag in tags)))
    headers += warnings(
        f"{namespace} does not have {descriptor.digest}, which this manifest needs" for descriptor in missing
    )
    return Response(201, tuple(headers))


async def push_manifest(
    namespace: Namespace,
    digest: Digest,
    body: bytes,
    manifest: Manifest,
    tags: tuple[Tag, ...],
    config: RegistryConfig,
    *,
    by: str | None = None,
    whole: bool | None = None,
) -> list[Descriptor]:
    """Store a manifest whose bytes have this digest, and let the tags name it. Gives what it needs and is not there;
    when it has to be `whole`, None for as the configuration says, that is a reason to refuse."""
    whole = not config.allow_missing_manifest_references if whole is None else whole
    fixed = frozenset(tag for tag in tags if config.is_immutable(namespace, tag))
    for tag in tags:
        if tag in fixed:
            _check_unchanged(namespace, tag, digest, await resolve_tag(namespace, tag))

    async def name() -> list[Descriptor] | None:
        missing, found = await find_references(namespace, manifest, config.collection_grace_seconds)
        if missing and whole:
            raise RegistryError(
                400,
                "MANIFEST_BLOB_UNKNOWN",
                f"the manifest needs {len(missing)} blobs or manifests that {namespace} does not have; push them first",
                detail=[{"digest": descriptor.digest} for descriptor in missing],
            )
        await _name_manifest(namespace, digest, body, manifest, tags, found)
        # In time, too: as long as no tag names it retention may let it go.
        await together(_set_tag(namespace, tag, digest, tag in fixed, by) for tag in tags)
        if manifest.subject is not None:
            referrer = referrer_descriptor(manifest, digest, len(body))
            await CreateKeys(((layout.referrer_key(namespace, manifest.subject, digest), referrer),))
        return missing if await StatKey(layout.revision_key(namespace, digest)) is not None else None

    for _ in range(CROSSINGS_MAX):
        missing = await in_time(name, config.collection_grace_seconds)
        if missing is not None:
            return missing
        # A delete crossed this push: the push came later, then.
    message = f"{digest} is being deleted again and again while it is pushed; push it once more"
    raise RegistryError(503, "UNAVAILABLE", message, headers={"Retry-After": RETRY_SECONDS})


async def _name_manifest(
    namespace: Namespace,
    digest: Digest,
    body: bytes,
    manifest: Manifest,
    tags: tuple[Tag, ...],
    found: tuple[tuple[Key, bytes], ...],
) -> None:
    """Write the manifest and its revision. `found` are keys that others wrote and that have to be durable with it."""
    entries = (*plan_references(namespace, digest, body, manifest, tags), *found)
    created = await CreateKeys((*entries, *await suspicions((digest,))))
    undisturbed = await until_unmarked((digest,))
    if not (all(created) and undisturbed):
        await CreateKeys(entries)  # a collector may have been at what was there before
    await CreateKeys(((layout.revision_key(namespace, digest), revision_record(manifest, await ReadClock())),))


async def _set_tag(namespace: Namespace, tag: Tag, digest: Digest, immutable: bool, by: str | None) -> None:
    if immutable:
        _check_unchanged(namespace, tag, digest, await set_immutable_tag(namespace, tag, digest, by))
    else:
        await set_tag(namespace, tag, digest, by)


def _check_unchanged(namespace: Namespace, tag: Tag, digest: Digest, current: Digest | None) -> None:
    if current is not None and current != digest:
        message = f"tag {tag} of {namespace} is immutable and names {current}; push another tag, or delete it first"
        raise RegistryError(409, "DENIED", message)


def _tags(reference: Reference, query: Query) -> tuple[Tag, ...]:
    """The tags that the push sets: the one in the path, or those of ``?tag=`` when the path has a digest."""
    if isinstance(reference, Tag):
        return (reference,)
    texts = query.all("tag")
    if len(texts) > TAGS_MAX:
        raise RegistryError(414, "UNSUPPORTED", f"{len(texts)} tags are too many for one request, {TAGS_MAX} are not")
    try:
        return tuple(sorted({Tag.parse(text): None for text in texts}))
    except Invalid as error:
        raise RegistryError(400, "NAME_INVALID", str(error)) from None


async def _read_body(request: Request, config: RegistryConfig) -> bytes:
    size_max = config.manifest_size_max
    try:
        return await ReadBody(request.body, size_max)
    except BodyTooLarge:
        message = f"the manifest is larger than {size_max} bytes"
        raise RegistryError(413, "MANIFEST_INVALID", message) from None
    except BodyInterrupted:
        raise RegistryError(400, "MANIFEST_INVALID", "the manifest ended before it was complete") from None


def _parse(body: bytes, request: Request) -> Manifest:
    content_type = request.headers.get("content-type")
    try:
        return parse_manifest(body, parse_media_type(content_type) if content_type else None)
    except Invalid as error:
        raise RegistryError(400, "MANIFEST_INVALID", str(error)) from None


async def find_references(
    namespace: Namespace, manifest: Manifest, grace_seconds: float
) -> tuple[list[Descriptor], tuple[tuple[Key, bytes], ...]]:
    """What the manifest names and the namespace cannot show, and the keys by which it shows the rest, which the
    collector leaves alone from now on.

    Another request may have written such a key and not have made it durable yet. The first wave creates it once more,
    which syncs it: an acknowledged manifest must not lose a layer to a power cut that hits somebody else's push.
    """
    fresh = await keep_references(namespace, manifest, grace_seconds)
    needed = [descriptor for descriptor in manifest.references if not descriptor.fetched_elsewhere]
    found = await together(_shown_by(namespace, descriptor.storable, fresh) for descriptor in needed)
    missing = [descriptor for descriptor, entry in zip(needed, found, strict=True) if entry is None]
    return missing, tuple(entry for entry in found if entry is not None)


async def keep_references(namespace: Namespace, manifest: Manifest, grace_seconds: float) -> frozenset[Digest]:
    """Let the collector leave alone what a manifest names, before a revision of it is written.

    Reply: what the namespace owns since a moment ago. Whoever pushed that has seen to it already.
    """
    named = dict.fromkeys(_children(manifest))
    now_ms = await ReadClock()
    owners = await together(_owned_since(namespace, digest) for digest in named)
    fresh = frozenset(
        digest
        for digest, since_ms in zip(named, owners, strict=True)
        if since_ms is not None and is_fresh_at(since_ms, now_ms, grace_seconds)
    )
    if len(fresh) < len(named):
        await keep((digest for digest in named if digest not in fresh), grace_seconds)
    return fresh


async def _owned_since(namespace: Namespace, digest: Digest) -> int | None:
    stat = await StatKey(layout.owner_key(digest, namespace))
    return None if stat is None else stat.modified_ms


async def _shown_by(namespace: Namespace, digest: Digest | None, owned: frozenset[Digest]) -> tuple[Key, bytes] | None:
    # Names do not prove that bytes are there: a push that came too late for the collector may have written them.
    if digest is None or await stat_blob(digest) is None:
        return None
    owner = layout.owner_key(digest, namespace)
    if digest in owned or await StatKey(owner) is not None:
        return owner, b""
    revision = layout.revision_key(namespace, digest)
    record = await ReadKey(revision)
    return None if record is None else (revision, record)


def plan_references(
    namespace: Namespace, digest: Digest, body: bytes, manifest: Manifest, tags: tuple[Tag, ...]
) -> tuple[tuple[Key, bytes], ...]:
    """The first wave: the bytes, and for everything involved why it must not be collected. None of it can be read yet.

    A reference does not let the namespace read a blob that it does not own.
    """
    keys = [layout.catalog_key(namespace), layout.revision_reference_key(digest, namespace)]
    keys += [layout.tag_reference_key(digest, namespace, tag) for tag in tags]
    for descriptor in manifest.references:
        if (child := descriptor.storable) is not None:
            keys.append(layout.manifest_reference_key(child, namespace, digest))
    return ((layout.blob_key(digest), body), *((key, b"") for key in keys))


def revision_record(manifest: Manifest, now_ms: int) -> bytes:
    """What is stored under the key of a revision that was pushed now."""
    created_at = datetime.fromtimestamp(now_ms / 1000, UTC).isoformat(timespec="milliseconds")
    record = {"media_type": manifest.media_type, "created_at": created_at.replace("+00:00", "Z")}
    return compact_json(record)


# --- deleting ---------------------------------------------------------------------------------------------------------


async def delete_manifest(
    namespace: Namespace, digest: Digest, config: RegistryConfig, by: str | None = None
) -> Response:
    """end-9 with a digest: the manifest goes, with every tag that names it and its place among referrers."""
    media_type = await read_media_type(namespace, digest)
    if media_type is None:
        raise manifest_unknown(namespace, digest)
    manifest = await _stored_manifest(namespace, digest)
    subject = manifest.subject if manifest is not None else None

    async def remove() -> None:
        await _unname(namespace, digest, subject, by, media_type)
        await DeleteKeys((layout.revision_key(namespace, digest),))
        await _unname(namespace, digest, subject, by, media_type)

    await suspect_and_remove((digest, *_children(manifest)), remove, config.collection_grace_seconds)
    return Response(202)


async def _stored_manifest(namespace: Namespace, digest: Digest) -> Manifest | None:
    try:
        body = await ReadKey(layout.blob_key(digest))
        return None if body is None else parse_manifest(body, await read_media_type(namespace, digest))
    except StorageCorrupt:
        # Then it can be deleted all the same; its place among referrers is found by a scrub.
        return None
    except Invalid:
        # Stored by another registry under looser rules: it never had a referrer record here.
        return None


def _children(manifest: Manifest | None) -> tuple[Digest, ...]:
    references = manifest.references if manifest is not None else ()
    return tuple(child.storable for child in references if child.storable is not None)


async def _unname(
    namespace: Namespace,
    digest: Digest,
    subject: Digest | None,
    by: str | None = None,
    media_type: str | None = None,
) -> None:
    """Take off everything by which the manifest is found."""
    after, more = "", True
    while more:
        page = await ListKeys(layout.references_prefix(digest, namespace), after)
        for name in page.names:
            if (tag := layout.parse_tag_reference_name(name)) is not None:
                await unset_tag(namespace, tag, only=digest, by=by, media_type=media_type)
        after, more = page.last, page.more
    if subject is not None:
        await DeleteKeys((layout.referrer_key(namespace, subject, digest),))


def manifest_unknown(namespace: Namespace, reference: Reference) -> RegistryError:
    """The manifest or tag is not in this namespace."""
    what = "manifest" if isinstance(reference, Digest) else "tag"
    return RegistryError(404, "MANIFEST_UNKNOWN", f"there is no {what} {reference} in {namespace}")
