"""Pushing blobs: every form of upload, and mounting (distribution-spec, Pushing blobs; end-4 to end-6, 11, 13, 14).

The effects of an upload, in order. Opening: its session key. Bringing bytes: a part, then the chunk key that makes it
count (`upload_session`). Closing: the blob from the parts, then the owner key, then the upload is discarded. A blob
pushed in a single request goes from part to blob without a chunk key between them.

Invariants, watched by the simulator: what a client is told about an offset is durable; the bytes of a blob hash to its
digest; a 201 means blob and owner key are durable; a request that is refused leaves the upload as it was, so that the
client can go on; whatever two requests do to one upload at once, at most one of them extends it at an offset.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from angos.sansio import layout
from angos.sansio.blobs import blob_is_readable, blob_location, claim_blob, make_blob, stat_blob
from angos.sansio.config import RegistryConfig
from angos.sansio.effects import (
    BodyTooLarge,
    CreateKeys,
    DiscardPart,
    DiscardUpload,
    DrawId,
    EffectError,
    HashParts,
    HashState,
    ListKeys,
    Part,
    Prefix,
    ReadClock,
    StageBody,
    Staged,
    StatKey,
)
from angos.sansio.errors import Invalid, RegistryError
from angos.sansio.http.message import Request, Response
from angos.sansio.http.query import Query
from angos.sansio.oci.content_range import ContentRange
from angos.sansio.oci.digest import Digest, parse_algorithm
from angos.sansio.oci.reference import Namespace, parse_namespace
from angos.sansio.scopes import leased
from angos.sansio.upload_session import (
    STATE_PARAMETER,
    Chunk,
    UploadSession,
    chunk_key,
    load_parts,
    resume_session,
    session_key,
)

if TYPE_CHECKING:
    from angos.sansio.access.authorize import Caller

MOUNT_CANDIDATES_MAX = 32  # namespaces tried for a mount that names none


# --- beginning --------------------------------------------------------------------------------------------------------


async def start_upload(
    namespace: Namespace, request: Request, query: Query, config: RegistryConfig, caller: Caller | None
) -> Response:
    """end-4a, 4b, 4c and 11: open an upload, push a whole blob at once, or mount one.

    With `caller` None anybody may do anything.
    """
    if (mount := query.get("mount")) is not None:
        digest = _parse_digest(mount)
        if await _mount_blob(namespace, digest, query.get("from"), config, caller):
            return _blob_created(namespace, digest)
        if caller is not None:
            await caller.require_upload(namespace)
        return await _open_upload(namespace, None)

    if (text := query.get("digest")) is not None:
        digest = _parse_digest(text)
        # Without bytes this is a client that only announces what it will push with PUT, unless the blob is empty.
        if request.content_length != 0 or digest == Digest.of(b"", digest.algorithm):
            return await _push_whole_blob(namespace, digest, request, config)
        return await _open_upload(namespace, digest.algorithm)

    algorithm = query.get("digest-algorithm")
    try:
        return await _open_upload(namespace, parse_algorithm(algorithm) if algorithm is not None else None)
    except Invalid as error:
        raise RegistryError(400, "DIGEST_INVALID", str(error)) from None


async def _open_upload(namespace: Namespace, algorithm: str | None) -> Response:
    upload_id = await DrawId()
    prefix = layout.upload_prefix(namespace, upload_id)
    session = UploadSession(prefix, await ReadClock(), algorithm, (), None)
    # Nothing is lost with an upload that has no bytes; its first chunk lies beside this key and makes it durable.
    await CreateKeys(((session_key(prefix, session.started_ms, algorithm), b""),), durable=False)
    return Response(202, _progress(namespace, upload_id, session))


async def _push_whole_blob(namespace: Namespace, digest: Digest, request: Request, config: RegistryConfig) -> Response:
    upload_id = await DrawId()
    session = UploadSession(layout.upload_prefix(namespace, upload_id), 0, digest.algorithm, (), None)
    staged = await _stage(session.prefix, upload_id, request, session.hashes, config.blob_size_max)
    if staged.whole and staged.hashes[0].hex == digest.hex:
        await _promote(namespace, upload_id, session, (staged.part,), digest, config)
        return _blob_created(namespace, digest)
    await _discard(session.prefix)
    if not staged.whole:
        raise RegistryError(400, "SIZE_INVALID", f"the body ended after {staged.part.size} bytes; push it again")
    raise _digest_mismatch(digest, staged.hashes[0].hex)


async def _mount_blob(
    namespace: Namespace, digest: Digest, source: str | None, config: RegistryConfig, caller: Caller | None
) -> bool:
    """Make the blob readable in `namespace` because the caller may read it in another one. False: the client has to
    push it, which shows that it has the bytes."""
    if await stat_blob(digest) is None:
        return False
    if not await blob_is_readable(namespace, digest):
        if source is not None:
            try:
                candidates = [parse_namespace(source)]
            except Invalid:
                return False
        else:
            candidates = await _owners(digest)
        for candidate in candidates:
            if await blob_is_readable(candidate, digest) and (
                caller is None or await caller.may_read(candidate, digest)
            ):
                break
        else:
            return False
    return await claim_blob(namespace, digest, config.collection_grace_seconds)


async def _owners(digest: Digest) -> list[Namespace]:
    page = await ListKeys(layout.blob_references_prefix(digest))
    owners = [owner for name in page.names if (owner := layout.parse_owner_name(name)) is not None]
    return owners[:MOUNT_CANDIDATES_MAX]


# --- going on ---------------------------------------------------------------------------------------------------------


async def append_to_upload(
    namespace: Namespace, upload_id: str, request: Request, query: Query, config: RegistryConfig
) -> Response:
    """end-5: the next bytes of an upload, with or without saying which ones they are."""
    content_range = _content_range(request)
    async with _polite(upload_id, config):
        session = await _load(namespace, upload_id, query.get(STATE_PARAMETER))
        await _check_order(namespace, upload_id, session, content_range)
        if request.content_length == 0:
            await _confirm(session)
            return Response(202, _progress(namespace, upload_id, session))
        staged = await _stage_next(session, request, session.hashes, config)
        await _check_length(session, staged, content_range)
        session = await _commit(namespace, upload_id, session, staged)
    if not staged.whole:
        raise _interrupted(namespace, upload_id, session)
    return Response(202, _progress(namespace, upload_id, session))


async def show_upload(namespace: Namespace, upload_id: str, query: Query, config: RegistryConfig) -> Response:
    """end-13: how far the upload has come."""
    async with _polite(upload_id, config):
        session = await _load(namespace, upload_id, query.get(STATE_PARAMETER))
        await _confirm(session)
    return Response(204, _progress(namespace, upload_id, session))


async def cancel_upload(namespace: Namespace, upload_id: str) -> Response:
    """end-14: forget the upload."""
    session = await _load(namespace, upload_id)
    await DiscardUpload(session.prefix)
    return Response(204)


async def finish_upload(
    namespace: Namespace, upload_id: str, request: Request, query: Query, config: RegistryConfig
) -> Response:
    """end-6: the last bytes, if any, and the digest of all of them."""
    text = query.get("digest")
    if text is None:
        raise RegistryError(400, "DIGEST_INVALID", "closing an upload needs ?digest=, the digest of the whole blob")
    digest = _parse_digest(text)
    content_range = _content_range(request)
    try:
        async with _polite(upload_id, config):
            session = await _load(namespace, upload_id)
            await _check_order(namespace, upload_id, session, content_range)
            parts = await _take_last_bytes(namespace, upload_id, session, request, content_range, digest, config)
            await _promote(namespace, upload_id, session, parts, digest, config)
    except RegistryError as error:
        if error.code != "BLOB_UPLOAD_UNKNOWN":
            raise
        unknown = error
    else:
        return _blob_created(namespace, digest)
    # A client whose answer was lost asks again, and one that is in doubt may ask twice at once. Whoever comes second
    # finds the upload gone and the blob in place, so the answer is the same. Creating the owner key again syncs it.
    if await StatKey(layout.owner_key(digest, namespace)) is None or not await claim_blob(
        namespace, digest, config.collection_grace_seconds
    ):
        raise unknown
    return _blob_created(namespace, digest)


async def _take_last_bytes(
    namespace: Namespace,
    upload_id: str,
    session: UploadSession,
    request: Request,
    content_range: ContentRange | None,
    digest: Digest,
    config: RegistryConfig,
) -> tuple[Part, ...]:
    """The parts of the blob, checked against its digest. After a refusal the upload is as it was."""
    parts = await load_parts(session)
    if parts is None:
        await _discard(session.prefix)
        raise _upload_unknown(upload_id)
    if request.content_length == 0 and parts:
        found = _hex(session.last.hashes if session.last is not None else (), digest.algorithm)
        found = found or await HashParts(session.prefix, parts, digest.algorithm)
        if found is None:
            await _discard(session.prefix)
            raise _upload_unknown(upload_id)
        if found != digest.hex:
            raise _digest_mismatch(digest, found)
        return parts

    fresh = HashState(digest.algorithm, "", None)
    continued = tuple(state for state in session.hashes if state.algorithm == digest.algorithm)
    staged = await _stage_next(session, request, continued if parts else (fresh,), config)
    if not staged.whole:
        session = await _commit(namespace, upload_id, session, staged)
        raise _interrupted(namespace, upload_id, session)
    await _check_length(session, staged, content_range)
    found = _hex(staged.hashes, digest.algorithm)
    found = found or await HashParts(session.prefix, (*parts, staged.part), digest.algorithm)
    if found == digest.hex:
        # A closing request often has an empty body; a part of nothing would cost a copy of all the others.
        return parts if parts and staged.part.size == 0 else (*parts, staged.part)
    if parts and content_range is None:
        # Clients that lost the connection start over in the same upload, with the whole blob in this body.
        alone = await HashParts(session.prefix, (staged.part,), digest.algorithm)
        if alone == digest.hex:
            return (staged.part,)
    await _discard_part(session, staged)
    if found is None:
        await _discard(session.prefix)
        raise _upload_unknown(upload_id)
    raise _digest_mismatch(digest, found)


# --- steps ------------------------------------------------------------------------------------------------------------


def _polite(upload_id: str, config: RegistryConfig) -> leased:
    """Wait a little for another request on this upload: it may be the remains of a cut connection, about to store what
    it got. Who is not given the lease goes on all the same: the chunk keys decide, not the lease."""
    return leased(f"upload/{upload_id}", seconds=config.upload_lease_seconds, wait_seconds=config.upload_wait_seconds)


async def _load(namespace: Namespace, upload_id: str, state: str | None = None) -> UploadSession:
    session = await resume_session(layout.upload_prefix(namespace, upload_id), state)
    if session is None:
        raise _upload_unknown(upload_id)
    return session


async def _stage_next(
    session: UploadSession, request: Request, hashes: tuple[HashState, ...], config: RegistryConfig
) -> Staged:
    return await _stage(session.prefix, await DrawId(), request, hashes, config.blob_size_max - session.offset)


async def _stage(prefix: Prefix, part: str, request: Request, hashes: tuple[HashState, ...], size_max: int) -> Staged:
    if request.content_length is not None and request.content_length > size_max:
        raise _blob_too_large(size_max)
    try:
        return await StageBody(prefix, part, request.body, hashes, size_max)
    except BodyTooLarge:
        raise _blob_too_large(size_max) from None


async def _commit(namespace: Namespace, upload_id: str, session: UploadSession, staged: Staged) -> UploadSession:
    """Make what was staged count, unless another request was faster."""
    if staged.part.size == 0:
        await _discard_part(session, staged)
        return session
    before = session.last.part.name if session.last is not None else None
    chunk = Chunk(session.offset, staged.part, staged.hashes, before)
    (created,) = await CreateKeys(((chunk_key(session.prefix, chunk.offset), chunk.to_json()),))
    if not created:
        await _discard_part(session, staged)
        session = await _load(namespace, upload_id)
        await _confirm(session)
        raise _out_of_order(namespace, upload_id, session)
    return session.appended(chunk)


async def _promote(
    namespace: Namespace,
    upload_id: str,
    session: UploadSession,
    parts: tuple[Part, ...],
    digest: Digest,
    config: RegistryConfig,
) -> None:
    """Turn the parts of an upload into a blob of the namespace, and forget the upload."""
    is_there = await make_blob(namespace, digest, session.prefix, parts, config.collection_grace_seconds)
    await _discard(session.prefix)
    if not is_there:  # another request finished or cancelled it, or a crash took parts that were never promised
        raise _upload_unknown(upload_id)


async def _discard(prefix: Prefix) -> None:
    """Clean up behind an answer that is already decided. A failure must not change it; the collector comes later."""
    with suppress(EffectError):
        await DiscardUpload(prefix)


async def _discard_part(session: UploadSession, staged: Staged) -> None:
    """As `_discard`, for a part that nothing refers to."""
    with suppress(EffectError):
        await DiscardPart(session.prefix, staged.part.name)


async def _confirm(session: UploadSession) -> None:
    """Make the offset that is about to be told durable. Whoever wrote the last chunk may still be at it, or may have
    failed or died after its name could be seen; creating it again syncs it."""
    if session.last is not None:
        await CreateKeys(((chunk_key(session.prefix, session.last.offset), session.last.to_json()),))


def _content_range(request: Request) -> ContentRange | None:
    text = request.headers.get("content-range")
    if text is None:
        return None
    try:
        found = ContentRange.parse(text)
    except Invalid as error:
        raise RegistryError(400, "BLOB_UPLOAD_INVALID", str(error)) from None
    if request.content_length is not None and request.content_length != found.size:
        message = f"Content-Range {found} covers {found.size} bytes, Content-Length says {request.content_length}"
        raise RegistryError(400, "SIZE_INVALID", message)
    return found


async def _check_order(
    namespace: Namespace, upload_id: str, session: UploadSession, content_range: ContentRange | None
) -> None:
    if content_range is not None and content_range.start != session.offset:
        await _confirm(session)
        raise _out_of_order(namespace, upload_id, session)


async def _check_length(session: UploadSession, staged: Staged, content_range: ContentRange | None) -> None:
    """The body of a chunked request has to fill its ``Content-Range``; one that was cut short may be kept."""
    if content_range is None or staged.part.size == content_range.size:
        return
    if not staged.whole and staged.part.size < content_range.size:
        return
    await _discard_part(session, staged)
    message = f"Content-Range {content_range} covers {content_range.size} bytes, the body has {staged.part.size}"
    raise RegistryError(400, "SIZE_INVALID", message)


def _hex(hashes: tuple[HashState, ...], algorithm: str) -> str | None:
    return next((state.hex for state in hashes if state.algorithm == algorithm), None)


def _parse_digest(text: str) -> Digest:
    try:
        return Digest.parse(text)
    except Invalid as error:
        raise RegistryError(400, "DIGEST_INVALID", str(error)) from None


# --- answers ----------------------------------------------------------------------------------------------------------


def _progress(namespace: Namespace, upload_id: str, session: UploadSession) -> tuple[tuple[str, str], ...]:
    """What every answer about an open upload says. ``Range`` cannot express "nothing yet"; 0-0 is what clients read."""
    query = "" if session.state is None else f"?{STATE_PARAMETER}={session.state}"
    return (
        ("Location", f"/v2/{namespace}/blobs/uploads/{upload_id}{query}"),
        ("Range", f"0-{max(session.offset - 1, 0)}"),
        ("Docker-Upload-UUID", upload_id),
    )


def _blob_created(namespace: Namespace, digest: Digest) -> Response:
    return Response(201, (("Location", blob_location(namespace, digest)), ("Docker-Content-Digest", str(digest))))


def _upload_unknown(upload_id: str) -> RegistryError:
    message = f"there is no upload {upload_id}: it was finished, cancelled or given up; start a new one"
    return RegistryError(404, "BLOB_UPLOAD_UNKNOWN", message)


def _out_of_order(namespace: Namespace, upload_id: str, session: UploadSession) -> RegistryError:
    return RegistryError(
        416,
        "BLOB_UPLOAD_INVALID",
        f"the upload holds {session.offset} bytes, so the next chunk has to start there",
        headers=dict(_progress(namespace, upload_id, session)),
    )


def _interrupted(namespace: Namespace, upload_id: str, session: UploadSession) -> RegistryError:
    return RegistryError(
        400,
        "SIZE_INVALID",
        f"the body ended early; the upload holds {session.offset} bytes, go on from there",
        headers=dict(_progress(namespace, upload_id, session)),
    )


def _digest_mismatch(digest: Digest, found: str) -> RegistryError:
    message = f"the bytes hash to {digest.algorithm}:{found}, not to {digest}"
    return RegistryError(400, "DIGEST_INVALID", message)


def _blob_too_large(size_max: int) -> RegistryError:
    message = f"the blob is larger than this registry takes; at most {size_max} more bytes would have been accepted"
    return RegistryError(413, "BLOB_UPLOAD_INVALID", message)
