"""A fill: brings one blob from an upstream into the store, while responses follow it.

Replicas, and workers of one machine, agree by a lease on who of them does it. The others wait for as long as that one
lives, however long the transfer takes, since whoever is alive keeps its lease; then they serve what has been stored.
Only when it died, or gave up, the next one asks the upstream again. While it waits for others a fill takes no place
among those that run.

An upstream that breaks off in the middle is asked for the rest, or another one is: bytes are addressed by their
content, so it does not matter who sends them. Only the digest of all of them decides. One that was wrong is remembered
with those that sent parts of it, so that the next fill asks somebody else.
"""

from __future__ import annotations

from angos.sansio import layout
from angos.sansio.blobs import blob_unknown, make_blob, stat_blob
from angos.sansio.config import RegistryConfig, RepositoryConfig
from angos.sansio.effects import (
    BodyTooLarge,
    DrawId,
    EffectError,
    HashParts,
    HashState,
    Part,
    Prefix,
    ReadCache,
    Sleep,
    StatKey,
    StorageFull,
    Tell,
    WriteCache,
)
from angos.sansio.errors import RegistryError
from angos.sansio.http.error_body import refusal_of
from angos.sansio.oci.content_range import ContentRange
from angos.sansio.oci.digest import Digest
from angos.sansio.oci.reference import Namespace
from angos.sansio.scopes import leased, scratch
from angos.sansio.upstream.asking import ask_in_order, open_blob
from angos.sansio.upstream.config import CacheConfig, Upstream
from angos.sansio.upstream.effects import (
    CloseUpstream,
    FillEnd,
    Opened,
    ReleaseFill,
    StageFill,
    TakeFillPlace,
    UpstreamAnswer,
    UpstreamUnavailable,
)
from angos.sansio.upstream.events import FillEnded
from angos.sansio.upstream.failure import UpstreamFailure, failure_of
from angos.sansio.upstream.health import note_failure

LEASE_SECONDS = 60.0
LEASE_WAIT_SECONDS = 10.0  # after which it is looked whether the blob has come in another way
PLACE_SECONDS = 5.0
BREAKS_MAX = 4
BREAK_SECONDS = 0.5  # before the rest is asked for; doubles
LIED_SECONDS = 30.0
FULL_SECONDS = 60.0
FULL_NAME = "upstream:no space"
"""Remembered for a while: whoever follows a fill that finds no space is cut off, so not everybody has to try."""


def fill_name(namespace: Namespace, digest: Digest) -> str:
    """The name under which a fill runs."""
    return f"{namespace}@{digest}"


async def fill_blob(
    namespace: Namespace, digest: Digest, config: RegistryConfig, repository: RepositoryConfig
) -> FillEnd:
    """The operation. It never raises for anything that an upstream or a store can cause."""
    refusal: RegistryError | None = None
    try:
        end = None
        while end is None:
            end = await _take_turn(namespace, digest, config, repository)
        return end
    except RegistryError as error:
        refusal = error
    except StorageFull:
        refusal = None
    except EffectError as error:
        refusal = refusal_of(error)
    if refusal is None:
        await WriteCache(FULL_NAME, b"1", FULL_SECONDS)
        return FillEnd(stored=False)
    return FillEnd(refusal.status, refusal.message, int(refusal.headers.get("Retry-After", "0")))


async def _take_turn(
    namespace: Namespace, digest: Digest, config: RegistryConfig, repository: RepositoryConfig
) -> FillEnd | None:
    """None: somebody else is still at it."""
    name = fill_name(namespace, digest)
    scope = leased(f"fill/{name}", seconds=LEASE_SECONDS, wait_seconds=LEASE_WAIT_SECONDS, needed=False)
    async with scope as alone:
        if await StatKey(layout.owner_key(digest, namespace)) and await stat_blob(digest):
            return FillEnd()
        if await ReadCache(missing_name(namespace, digest)):
            return FillEnd(404, blob_unknown(namespace, digest).message)
        if await ReadCache(FULL_NAME):
            return FillEnd(stored=False)
        if not alone:
            return None
        if not await TakeFillPlace(name, config.fills_max, PLACE_SECONDS):
            return FillEnd(stored=False)
        return await _Fill(namespace, digest, config, repository, name).run()


async def open_somewhere(
    namespace: Namespace, digest: Digest, repository: RepositoryConfig, start: int = 0
) -> tuple[Upstream, Opened] | None:
    """The bytes of a blob from an offset on, as the first upstream begins to send them; None when none has it."""

    async def question(upstream: Upstream, name: str) -> Opened:
        opened = await open_blob(upstream, name, str(digest), start)
        problem = _problem(opened, digest, start)
        if problem is not None:
            if opened.stream is not None:
                await CloseUpstream(opened.stream)
            raise UpstreamFailure("unusable", problem)
        return opened

    liars = [upstream.name for upstream in repository.upstreams if await ReadCache(_lied_name(upstream, digest))]
    subject = f"blob {digest} of {namespace}"
    return await ask_in_order(repository, namespace, "blob", subject, question, without=frozenset(liars))


def check_opened(answer: UpstreamAnswer, digest: Digest) -> None:
    """Raises `UpstreamFailure` for an answer that cannot be about this blob."""
    if (problem := _problem(answer, digest, 0)) is not None:
        raise UpstreamFailure("unusable", problem)


def _problem(answer: Opened | UpstreamAnswer, digest: Digest, start: int) -> str | None:
    said = answer.get("docker-content-digest")
    if said is not None and said != str(digest):
        return f"it says that it sends {said[:100]}"
    if said is None and (answer.get("content-type") or "").lower().startswith("text/html"):
        return "it sends a web page"
    if start and answer.status != 206:
        return "it cannot send the rest alone"
    if answer.status == 206:
        try:
            found = ContentRange.parse(answer.get("content-range") or "")
        except ValueError:
            return "it does not say which part of the blob it sends"
        if found.start != start:
            return f"it sends the blob from byte {found.start} on, not from {start}"
    return None


async def remember_missing(namespace: Namespace, digest: Digest, repository: RepositoryConfig) -> None:
    """No upstream has the blob; that is not asked again at once."""
    seconds = (repository.cache or CacheConfig()).missing_seconds
    if seconds > 0:
        await WriteCache(missing_name(namespace, digest), b"1", seconds)


def missing_name(namespace: Namespace, digest: Digest) -> str:
    """Under what it is remembered that no upstream has a blob."""
    return f"upstream:missing blob:{namespace}@{digest}"


class _Fill:
    """What a fill knows while it goes on."""

    def __init__(
        self,
        namespace: Namespace,
        digest: Digest,
        config: RegistryConfig,
        repository: RepositoryConfig,
        name: str,
    ) -> None:
        self._namespace = namespace
        self._digest = digest
        self._config = config
        self._repository = repository
        self._name = name
        self._parts: list[Part] = []
        self._offset = 0
        self._size: int | None = None
        self._hashes: tuple[HashState, ...] = (HashState(digest.algorithm, "", None),)
        self._senders: dict[str, Upstream] = {}

    async def run(self) -> FillEnd:
        async with scratch(layout.upload_prefix(self._namespace, await DrawId())) as upload:
            end = await self._receive(upload)
            if end is not None:
                return end
            problem = await self._check(upload)
            if problem is not None:
                for upstream in self._senders.values():
                    await WriteCache(_lied_name(upstream, self._digest), b"1", LIED_SECONDS)
                await self._tell(problem)
                return FillEnd(502, f"{self._who()} sent something else as {self._digest}: {problem}")
            # Whoever follows has all bytes now, whatever becomes of them here.
            await ReleaseFill(self._name)
            grace_seconds = self._config.collection_grace_seconds
            if not await make_blob(self._namespace, self._digest, upload, tuple(self._parts), grace_seconds):
                await self._tell("its parts were removed before they were the blob")
                return FillEnd(stored=False)
            await self._tell("")
        return FillEnd()

    async def _receive(self, upload: Prefix) -> FillEnd | None:
        """Bring all bytes. None when they are here; otherwise how the fill ends."""
        for breaks in range(BREAKS_MAX + 1):
            if breaks:
                await Sleep(BREAK_SECONDS * 2.0 ** (breaks - 1))
            found = await open_somewhere(self._namespace, self._digest, self._repository, self._offset)
            if found is None:
                if self._offset:
                    return FillEnd(502, f"{self._who()} broke off, and now no upstream has {self._digest}")
                await remember_missing(self._namespace, self._digest, self._repository)
                return FillEnd(404, blob_unknown(self._namespace, self._digest).message)
            upstream, opened = found
            assert opened.stream is not None
            if not self._offset:
                self._size = opened.size
            if (self._size or 0) > self._config.blob_size_max:
                await CloseUpstream(opened.stream)
                return FillEnd(stored=False)
            self._senders[upstream.name] = upstream
            failure: UpstreamFailure
            try:
                staged = await StageFill(
                    self._name,
                    upload,
                    await DrawId(),
                    opened.stream,
                    self._offset,
                    self._size or None,
                    self._hashes,
                    (self._config.blob_size_max if self._size is None else self._size) - self._offset,
                )
            except BodyTooLarge:
                failure = UpstreamFailure("unusable", "it sends more bytes than it promised, or than a blob may have")
            except UpstreamUnavailable as error:
                failure = failure_of(error)
            else:
                if staged.part.size or (staged.whole and not self._parts):
                    self._parts.append(staged.part)
                self._offset += staged.part.size
                self._hashes = tuple(state for state in staged.hashes if state.state is not None or staged.whole)
                if staged.whole:
                    return None
                failure = UpstreamFailure("unavailable", f"it broke off after {self._offset} bytes", status=503)
            await note_failure(upstream, "blob", failure)
            if failure.outcome == "unusable":
                await self._tell(failure.problem)
                return FillEnd(failure.status, f"{upstream.name}: {failure.problem}")
        await self._tell(f"it broke off {BREAKS_MAX + 1} times")
        return FillEnd(504, f"{self._who()} broke off {BREAKS_MAX + 1} times while sending {self._digest}", 5)

    async def _check(self, upload: Prefix) -> str | None:
        """Why the bytes are not the blob; None when they are."""
        if self._size is not None and self._offset != self._size:
            return f"{self._offset} bytes instead of {self._size}"
        found = next((state.hex for state in self._hashes if state.algorithm == self._digest.algorithm), None)
        found = found or await HashParts(upload, tuple(self._parts), self._digest.algorithm)
        return None if found == self._digest.hex else f"it hashes to {found}"

    async def _tell(self, problem: str) -> None:
        await Tell(FillEnded(self._who(), self._namespace, str(self._digest), self._offset, problem))

    def _who(self) -> str:
        return ", ".join(self._senders)


def _lied_name(upstream: Upstream, digest: Digest) -> str:
    return f"upstream:lied:{upstream.name}:{upstream.url}:{digest}"
