"""Pulling blobs through the cache (end-2): served from here, or while they are stored here.

A blob that the namespace owns is served like any other. One that is missing is brought by a *fill*
(`angos.sansio.upstream.fill`), which all who ask for it follow. When `fills_max` others run and none ends within some
seconds, or when a blob cannot be stored, it is passed on without being stored: readers must not wait for a cache. What
is passed on has its digest checked on the way as well.

A blob whose bytes are here already because another namespace of the same repository has them is not fetched again: its
upstream is asked by HEAD whether this name has it, too. Bytes that came from anywhere else do not count. A digest is
not a capability, and an upstream must not be able to give away, by naming it, what somebody has pushed here.
"""

from __future__ import annotations

from contextlib import suppress

from angos.sansio import layout
from angos.sansio.blobs import answer_with_blob, blob_unknown, claim_blob, get_blob, stat_blob
from angos.sansio.config import RegistryConfig, RepositoryConfig
from angos.sansio.effects import ListKeys, NotePull, ReadCache, StatKey, Tell
from angos.sansio.errors import RegistryError
from angos.sansio.http.message import FromFill, FromUpstream, Headers, Inline, Request, Response
from angos.sansio.oci.digest import Digest
from angos.sansio.oci.reference import Namespace
from angos.sansio.operation import Operation
from angos.sansio.upstream.asking import ask, ask_in_order
from angos.sansio.upstream.config import Upstream
from angos.sansio.upstream.effects import FillEnd, Filling, FollowFill
from angos.sansio.upstream.events import CacheAnswered, CacheOutcome
from angos.sansio.upstream.failure import UpstreamFailure
from angos.sansio.upstream.fill import (
    check_opened,
    fill_blob,
    fill_name,
    missing_name,
    open_somewhere,
    remember_missing,
)

ENDED_MAX = 3  # fills that may end between the look at what is here and the wish to follow
OWNERS_LIMIT = 100


async def get_blob_through(
    namespace: Namespace, digest: Digest, request: Request, config: RegistryConfig, repository: RepositoryConfig
) -> Response:
    """end-2, GET and HEAD, in a repository with upstreams."""
    try:
        outcome, response = await _get(namespace, digest, request, config, repository)
    except RegistryError as error:
        refusal = error
    else:
        if repository.records_pulls:
            await NotePull((layout.blob_pulls_prefix(namespace, digest),))
        await Tell(CacheAnswered(repository.namespace, "blob", outcome))
        return response
    if refusal.status == 416:
        raise refusal
    await Tell(CacheAnswered(repository.namespace, "blob", "absent" if refusal.status == 404 else "failed"))
    raise refusal


async def _get(
    namespace: Namespace, digest: Digest, request: Request, config: RegistryConfig, repository: RepositoryConfig
) -> tuple[CacheOutcome, Response]:
    try:
        return "hit", await get_blob(namespace, digest, request, config)
    except RegistryError as error:
        if error.status != 404:
            raise
    if await ReadCache(missing_name(namespace, digest)):
        raise blob_unknown(namespace, digest)
    stat = await stat_blob(digest)
    shared = stat if stat is not None and await _owned_nearby(digest, repository) else None
    if shared is not None and await StatKey(layout.owner_key(digest, namespace)) is not None:
        with suppress(RegistryError):  # a fill has ended since we looked
            return "hit", await get_blob(namespace, digest, request, config)
    if shared is not None or request.method == "HEAD":
        size = await _look(namespace, digest, repository, None if shared is None else shared.size)
        if request.method == "HEAD":
            return "passed on", answer_with_blob(digest, size, request, config, lambda *_: Inline(b""))
        if await claim_blob(namespace, digest, config.collection_grace_seconds):
            with suppress(RegistryError):  # it may be deleted at once
                return "unchanged", await get_blob(namespace, digest, request, config)
    return await _follow(namespace, digest, request, config, repository)


async def _follow(
    namespace: Namespace, digest: Digest, request: Request, config: RegistryConfig, repository: RepositoryConfig
) -> tuple[CacheOutcome, Response]:
    for _ in range(ENDED_MAX):
        fill = Operation(fill_blob(namespace, digest, config, repository))
        match await FollowFill(fill_name(namespace, digest), fill):
            case Filling(handle, size):
                response = answer_with_blob(
                    digest, size, request, config, lambda start, length: FromFill(handle, start, length), stored=False
                )
                return "followed", response
            case FillEnd(status=200, stored=True):
                with suppress(RegistryError):  # deleted at once: by a client, or because the cache is too small
                    return "fetched", await get_blob(namespace, digest, request, config)
            case FillEnd(status=200):
                break
            case FillEnd(404):
                raise blob_unknown(namespace, digest)
            case FillEnd(status, message, retry_seconds):
                headers = {"Retry-After": str(retry_seconds)} if retry_seconds else {}
                raise RegistryError(status, "UNAVAILABLE", message, None, headers)
    return "passed on", await _pass_on(namespace, digest, request, config, repository)


async def _pass_on(
    namespace: Namespace, digest: Digest, request: Request, config: RegistryConfig, repository: RepositoryConfig
) -> Response:
    """The bytes as they come, stored nowhere; ranges are ignored, as RFC 9110 section 14.2 allows."""
    found = await open_somewhere(namespace, digest, repository)
    if found is None:
        await remember_missing(namespace, digest, repository)
        raise blob_unknown(namespace, digest)
    upstream, opened = found
    stream, size = opened.stream, opened.size
    if size is None or stream is None:
        message = f"{upstream.name} does not say how long {digest} is, and there is no place to store it now"
        raise RegistryError(503, "UNAVAILABLE", message, headers={"Retry-After": "5"})
    whole = FromUpstream(stream, size, digest.algorithm, digest.hex)
    if size == 0:
        if digest != Digest.of(b"", digest.algorithm):
            raise RegistryError(502, "UNAVAILABLE", f"{upstream.name} sent nothing where {digest} should be")
        return answer_with_blob(digest, 0, request, config, lambda *_: Inline(b""))
    without_range = Request(
        request.method,
        request.target,
        Headers(tuple(one for one in request.headers.fields if one[0] != "range")),
        request.body,
        0,
        request.peer,
    )
    return answer_with_blob(digest, size, without_range, config, lambda *_: whole, stored=False)


async def _look(namespace: Namespace, digest: Digest, repository: RepositoryConfig, size: int | None) -> int:
    """The size of the blob, which an upstream must name unless it is known. Raises a 404 when none has the blob."""

    async def look(upstream: Upstream, name: str) -> int:
        answer = await ask(upstream, name, "HEAD", f"blobs/{digest}", accept="*/*", size_max=0)
        check_opened(answer, digest)
        if size is not None:
            return size
        length = answer.get("content-length") or ""
        if not length.isdecimal() or len(length) > 18:
            raise UpstreamFailure("unusable", "it does not say how long the blob is")
        return int(length)

    found = await ask_in_order(repository, namespace, "blob head", f"blob {digest} of {namespace}", look)
    if found is None:
        await remember_missing(namespace, digest, repository)
        raise blob_unknown(namespace, digest)
    return found[1]


async def _owned_nearby(digest: Digest, repository: RepositoryConfig) -> bool:
    """Whether a namespace of the repository owns the blob, as far as one look tells."""
    after = layout.before_owners(repository.namespace)
    page = await ListKeys(layout.blob_references_prefix(digest), after, OWNERS_LIMIT)
    for name in page.names:
        owner = layout.parse_owner_name(name)
        if owner is not None and (owner == repository.namespace or owner.startswith(f"{repository.namespace}/")):
            return True
    return False
