"""Pulling manifests through the cache (end-3).

A digest, or an immutable tag, that is here is served without asking anybody. Any other tag is compared with the
upstream's by HEAD, which costs nothing at Docker Hub, once in `fresh_seconds` for all who ask; only if it names another
manifest now, that is fetched. When nobody can be asked the stored manifest is served with a ``Warning``, for
`stale_seconds` after it was compared for the last time. That moment is remembered in the cache of this process (or of
Redis): when it is lost, the time begins anew with the first comparison that fails. What all upstreams say they do not
have is a 404, and is remembered briefly; what cannot be known is a 502, 503 or 504.

Bytes are stored after they have been found to hash to the digest that was asked for, or that the upstream names.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from angos.sansio import layout
from angos.sansio.compact_json import compact_json, parse_json
from angos.sansio.config import RegistryConfig, RepositoryConfig
from angos.sansio.effects import ReadCache, ReadClock, StatKey, StorageFull, StorageRefused, Tell, WriteCache
from angos.sansio.errors import Invalid, RegistryError
from angos.sansio.http.message import Inline, Request, Response
from angos.sansio.http.warning import warnings
from angos.sansio.manifests import (
    get_manifest,
    manifest_headers,
    manifest_unknown,
    push_manifest,
)
from angos.sansio.oci.digest import Digest
from angos.sansio.oci.manifest import Manifest, parse_manifest
from angos.sansio.oci.media_type import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, parse_media_type
from angos.sansio.oci.reference import Namespace, Reference, Tag
from angos.sansio.scopes import leased
from angos.sansio.tags import resolve_tag, unset_tag
from angos.sansio.upstream.asking import ask, ask_in_order
from angos.sansio.upstream.config import CacheConfig, Upstream
from angos.sansio.upstream.effects import UpstreamAnswer
from angos.sansio.upstream.events import CacheAnswered, CacheOutcome
from angos.sansio.upstream.failure import UpstreamFailure

ACCEPT = ", ".join((OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST, "application/json;q=0.5", "*/*;q=0.1"))
LEASE_SECONDS = 60.0
WAIT_SECONDS = 30.0
GONE_MAX = 4  # deletions that may cross one pull before it gives up
AGAIN_SECONDS = 1.0
"""A question that failed is not asked again for so long: those who waited for it would all wait once more."""


@dataclass(frozen=True, slots=True)
class _Known:
    """What is remembered about a tag."""

    digest: str = ""
    """The manifest that it named at the upstream."""
    checked_ms: int = 0
    """When it did."""
    unknown_since_ms: int = 0
    """The first comparison that failed, when no earlier one is remembered."""
    failed_ms: int = 0
    """The last comparison that failed."""
    status: int = 0
    message: str = ""
    retry: str = ""

    def is_fresh(self, local: Digest, now_ms: int, cache: CacheConfig) -> bool:
        return self.digest == str(local) and 0 <= now_ms - self.checked_ms < cache.fresh_seconds * 1000

    @property
    def last_ms(self) -> int:
        """When it was compared for the last time, as far as that is remembered."""
        return self.checked_ms or self.unknown_since_ms

    def may_be_stale(self, now_ms: int, cache: CacheConfig) -> bool:
        """Whether what is stored may be served without being compared. A clock that was set back allows it."""
        return cache.stale_seconds > 0 and now_ms - self.last_ms < cache.stale_seconds * 1000

    def failure(self, now_ms: int) -> RegistryError | None:
        if not self.failed_ms or not 0 <= now_ms - self.failed_ms < AGAIN_SECONDS * 1000:
            return None
        headers = {"Retry-After": self.retry} if self.retry else {}
        return RegistryError(self.status, "UNAVAILABLE", self.message, None, headers)


@dataclass(frozen=True, slots=True)
class _Fetched:
    digest: Digest
    body: bytes
    manifest: Manifest


async def get_manifest_through(
    namespace: Namespace, reference: Reference, request: Request, config: RegistryConfig, repository: RepositoryConfig
) -> Response:
    """end-3, GET and HEAD, in a repository with upstreams."""
    try:
        outcome, response = await _answer(namespace, reference, request, config, repository)
    except RegistryError as error:
        refusal = error
    else:
        await Tell(CacheAnswered(repository.namespace, "manifest", outcome))
        return response
    await Tell(CacheAnswered(repository.namespace, "manifest", "absent" if refusal.status == 404 else "failed"))
    raise refusal


class _Gone(Exception):
    """What was here a moment ago has been deleted, by a client or because the cache is too large."""


async def _answer(
    namespace: Namespace, reference: Reference, request: Request, config: RegistryConfig, repository: RepositoryConfig
) -> tuple[CacheOutcome, Response]:
    for _ in range(GONE_MAX):
        try:
            if isinstance(reference, Digest):
                return await _by_digest(namespace, reference, request, config, repository)
            return await _by_tag(namespace, reference, request, config, repository)
        except _Gone:
            continue
    message = f"{reference} of {namespace} is being deleted again and again while it is pulled; try again"
    raise RegistryError(503, "UNAVAILABLE", message, headers={"Retry-After": "5"})


async def _stored(namespace: Namespace, reference: Reference, request: Request, config: RegistryConfig) -> Response:
    """The answer with what is here. Raises `_Gone`: that is nothing which a client may be told."""
    try:
        return await get_manifest(namespace, reference, request, config)
    except RegistryError as error:
        if error.status != 404:
            raise
        raise _Gone from None


# --- by digest --------------------------------------------------------------------------------------------------------


async def _by_digest(
    namespace: Namespace, digest: Digest, request: Request, config: RegistryConfig, repository: RepositoryConfig
) -> tuple[CacheOutcome, Response]:
    try:
        return "hit", await get_manifest(namespace, digest, request, config)
    except RegistryError as error:
        if error.status != 404:
            raise
    async with _one_at_a_time(namespace, digest):
        if not await _is_here(namespace, digest):
            await _refuse_if_missing(namespace, digest)
            found = await ask_in_order(
                repository,
                namespace,
                "manifest",
                f"{namespace}@{digest}",
                lambda upstream, name: _fetch(upstream, name, digest, config),
            )
            if found is None:
                await _remember_missing(namespace, digest, _cache(repository))
                raise manifest_unknown(namespace, digest)
            fetched = found[1]
            try:
                await push_manifest(namespace, digest, fetched.body, fetched.manifest, (), config, whole=False)
            except (StorageFull, StorageRefused):
                return "passed on", _unstored(digest, fetched)
    return "fetched", await _stored(namespace, digest, request, config)


# --- by tag -----------------------------------------------------------------------------------------------------------


async def _by_tag(
    namespace: Namespace, tag: Tag, request: Request, config: RegistryConfig, repository: RepositoryConfig
) -> tuple[CacheOutcome, Response]:
    cache = _cache(repository)
    immutable = config.is_immutable(namespace, tag)
    local = await _local(namespace, tag)
    if local is not None and immutable:
        return "hit", await _stored(namespace, tag, request, config)
    known = await _known(namespace, tag)
    if local is not None and known.is_fresh(local, await ReadClock(), cache):
        return "fresh", await _stored(namespace, tag, request, config)
    stale: RegistryError | None = None
    outcome: CacheOutcome | _Fetched = "fresh"
    async with _one_at_a_time(namespace, tag):
        local, known = await _local(namespace, tag), await _known(namespace, tag)
        now_ms = await ReadClock()
        if local is None or not known.is_fresh(local, now_ms, cache):
            if local is None:
                await _refuse_if_missing(namespace, tag)
            stale = known.failure(now_ms)
            if stale is None:
                try:
                    outcome = await _compare(namespace, tag, local, config, repository)
                except RegistryError as error:
                    stale = error
                if stale is not None:
                    if stale.status == 404:
                        raise stale
                    known = await _note_failure(namespace, tag, known, stale, cache)
    if isinstance(outcome, _Fetched):
        return "passed on", _unstored(tag, outcome)
    if stale is None:
        return outcome, await _stored(namespace, tag, request, config)
    now_ms = await ReadClock()
    if local is None or not known.may_be_stale(now_ms, cache):
        raise stale
    response = await _stored(namespace, tag, request, config)
    age = max(0, now_ms - known.last_ms) // 1000
    text = f"{namespace}:{tag} may be out of date: it was last compared {age} s ago, and now {stale.message}"
    return "stale", replace(response, headers=(*response.headers, *warnings([_printable(text)])))


async def _compare(
    namespace: Namespace, tag: Tag, local: Digest | None, config: RegistryConfig, repository: RepositoryConfig
) -> CacheOutcome | _Fetched:
    """Let the tag name what it names upstream now; what it names if that cannot be stored. Raises a 404 when no
    upstream has it."""
    cache = _cache(repository)
    subject = f"{namespace}:{tag}"
    if local is not None:
        head = await ask_in_order(
            repository, namespace, "manifest head", subject, lambda upstream, name: _look(upstream, name, tag)
        )
        if head is None:
            await _forget(namespace, tag, local, cache)
            raise manifest_unknown(namespace, tag)
        if head[1] == str(local):
            await _note_checked(namespace, tag, local, cache)
            return "unchanged"
    found = await ask_in_order(
        repository, namespace, "manifest", subject, lambda upstream, name: _fetch(upstream, name, tag, config)
    )
    if found is None:
        await _forget(namespace, tag, local, cache)
        raise manifest_unknown(namespace, tag)
    fetched = found[1]
    try:
        await push_manifest(namespace, fetched.digest, fetched.body, fetched.manifest, (tag,), config, whole=False)
    except (StorageFull, StorageRefused):
        return fetched
    except RegistryError as error:
        if error.status != 409:
            raise
        # An immutable tag that another request has set meanwhile, to what the upstream had then: that one stays.
    await _note_checked(namespace, tag, fetched.digest, cache)
    return "fetched"


async def _forget(namespace: Namespace, tag: Tag, local: Digest | None, cache: CacheConfig) -> None:
    """The tag is gone upstream, so it is here; its manifest stays and can be had by digest."""
    if local is not None:
        await unset_tag(namespace, tag, only=local)
    await _remember_missing(namespace, tag, cache)


# --- asking an upstream -----------------------------------------------------------------------------------------------


async def _look(upstream: Upstream, name: str, tag: Tag) -> str:
    """The digest that a tag names there; empty when the upstream does not say."""
    answer = await ask(upstream, name, "HEAD", f"manifests/{tag}", accept=ACCEPT, size_max=0)
    return answer.get("docker-content-digest") or ""


async def _fetch(upstream: Upstream, name: str, reference: Reference, config: RegistryConfig) -> _Fetched:
    """A manifest whose bytes are what they are said to be."""
    path = f"manifests/{reference}"
    answer = await ask(upstream, name, "GET", path, accept=ACCEPT, size_max=config.manifest_size_max)
    digest = _check_digest(answer, reference)
    content_type = answer.get("content-type")
    try:
        manifest = parse_manifest(answer.body, parse_media_type(content_type) if content_type else None)
    except Invalid as error:
        raise UpstreamFailure("unusable", f"what it sent is no manifest: {error}") from None
    return _Fetched(digest, answer.body, manifest)


def _check_digest(answer: UpstreamAnswer, reference: Reference) -> Digest:
    said = answer.get("docker-content-digest")
    wanted = reference if isinstance(reference, Digest) else None
    if wanted is None:
        try:
            wanted = Digest.parse(said) if said else Digest.of(answer.body)
        except Invalid:
            raise UpstreamFailure("unusable", "it names a digest that is none") from None
    found = Digest.of(answer.body, wanted.algorithm)
    if found != wanted:
        raise UpstreamFailure("unusable", f"it sent a manifest that hashes to {found}, not to {wanted}")
    return found


def _unstored(reference: Reference, fetched: _Fetched) -> Response:
    """There is no space for it: readers need it all the same."""
    headers = manifest_headers(reference, fetched.digest, fetched.manifest.media_type)
    return Response(200, headers, Inline(fetched.body))


# --- what is remembered -----------------------------------------------------------------------------------------------


async def _is_here(namespace: Namespace, digest: Digest) -> bool:
    if await StatKey(layout.revision_key(namespace, digest)) is None:
        return False
    return await StatKey(layout.blob_key(digest)) is not None


async def _local(namespace: Namespace, tag: Tag) -> Digest | None:
    digest = await resolve_tag(namespace, tag)
    return digest if digest is not None and await _is_here(namespace, digest) else None


def _one_at_a_time(namespace: Namespace, reference: Reference) -> leased:
    name = f"upstream/{namespace}@{reference}"
    return leased(name, seconds=LEASE_SECONDS, wait_seconds=WAIT_SECONDS, needed=False)


def _cache(repository: RepositoryConfig) -> CacheConfig:
    return repository.cache or CacheConfig()


async def _refuse_if_missing(namespace: Namespace, reference: Reference) -> None:
    if await ReadCache(_name(namespace, reference, "missing")):
        raise manifest_unknown(namespace, reference)


async def _remember_missing(namespace: Namespace, reference: Reference, cache: CacheConfig) -> None:
    if cache.missing_seconds > 0:
        await WriteCache(_name(namespace, reference, "missing"), b"1", cache.missing_seconds)


async def _known(namespace: Namespace, tag: Tag) -> _Known:
    value = await ReadCache(_name(namespace, tag, "tag"))
    try:
        return _Known(**parse_json(value)) if value else _Known()
    except (ValueError, TypeError):
        return _Known()


async def _note_checked(namespace: Namespace, tag: Tag, digest: Digest, cache: CacheConfig) -> None:
    await _remember(namespace, tag, _Known(digest=str(digest), checked_ms=await ReadClock()), cache)


async def _note_failure(
    namespace: Namespace, tag: Tag, known: _Known, failure: RegistryError, cache: CacheConfig
) -> _Known:
    now_ms = await ReadClock()
    known = replace(
        known,
        unknown_since_ms=known.unknown_since_ms or now_ms,
        failed_ms=now_ms,
        status=failure.status,
        message=failure.message[:500],
        retry=failure.headers.get("Retry-After", ""),
    )
    await _remember(namespace, tag, known, cache)
    return known


async def _remember(namespace: Namespace, tag: Tag, known: _Known, cache: CacheConfig) -> None:
    fields = {name: getattr(known, name) for name in _Known.__slots__ if getattr(known, name)}
    seconds = max(cache.fresh_seconds, cache.stale_seconds * 2, AGAIN_SECONDS)
    await WriteCache(_name(namespace, tag, "tag"), compact_json(fields), seconds)


def _name(namespace: Namespace, reference: Reference, what: str) -> str:
    return f"upstream:{what}:{namespace}@{reference}"


def _printable(text: str) -> str:
    return "".join(character if " " <= character <= "~" else "?" for character in text)[:1000]
