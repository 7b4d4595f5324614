"""Which part of the runtime carries out which effect."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence, Set
from contextlib import AbstractContextManager, ExitStack
from time import monotonic
from types import CoroutineType, MappingProxyType
from typing import Any, Final, Protocol, TypeAlias, TypeVar

from angos.runtime.driver import NOTHING_IN_THREAD, InThread
from angos.sansio.effects import (
    AcquireLease,
    AskWebhook,
    BodyHandle,
    CopyKey,
    CreateKeys,
    DeleteKeys,
    DeleteKeysWithin,
    DiscardPart,
    DiscardUnfinished,
    DiscardUpload,
    DrawId,
    Effect,
    FetchDocument,
    HashKey,
    HashParts,
    Key,
    ListFolders,
    ListKeys,
    ListStats,
    ListUnfinished,
    Page,
    PromoteParts,
    ReadBody,
    ReadClock,
    ReadKey,
    ReleaseLease,
    SignedUrl,
    SignUrl,
    Sleep,
    StageBody,
    Staged,
    Stat,
    StatKey,
    StatKeys,
    StatPage,
    StatsBelow,
    Unfinished,
    VerifyPassword,
)
from angos.sansio.layout import store_of

T = TypeVar("T")
Now: TypeAlias = T | Coroutine[Any, Any, T]
"""A reply, or a coroutine that ends with it."""


class Body(Protocol):
    """The body of a request."""

    async def read(self, size_max: int) -> bytes:
        """All of it. Fails with `BodyTooLarge` or `BodyInterrupted`."""
        ...

    def receive(self, sink: Callable[[Sequence[memoryview]], None], size_max: int | None) -> Awaitable[bool]:
        """All of it into `sink`. False when the client stopped in the middle. Fails with `BodyTooLarge`."""
        ...

    def aside(self) -> AbstractContextManager[None]:
        """While this is entered the request waits for its turn and takes no place among those that are worked on."""
        ...


class Store(Protocol):
    """What keeps keys, bodies or both. Methods are named after their effects and fail as these do."""

    @property
    def in_thread(self) -> InThread:
        """What of it the driver may do in a worker thread."""
        ...

    def read_key(self, effect: ReadKey) -> Now[bytes | None]: ...
    def stat_key(self, effect: StatKey) -> Now[Stat | None]: ...
    def list_keys(self, effect: ListKeys) -> Now[Page]: ...
    def list_folders(self, effect: ListFolders) -> Now[Page]: ...
    def list_stats(self, effect: ListStats) -> Now[StatPage]: ...
    def stat_keys(self, effect: StatKeys) -> Now[tuple[Stat | None, ...]]: ...
    def stats_below(self, effect: StatsBelow) -> Now[tuple[tuple[tuple[str, Stat], ...], ...]]: ...
    def sign_url(self, effect: SignUrl) -> Now[SignedUrl | None]: ...
    def create_keys(self, effect: CreateKeys) -> Now[tuple[bool, ...]]: ...
    def delete_keys(self, effect: DeleteKeys) -> Now[None]: ...
    def hash_key(self, effect: HashKey) -> Now[str | None]: ...
    def copy_key(self, effect: CopyKey) -> Now[bool | None]: ...
    def delete_keys_within(self, effect: DeleteKeysWithin) -> Now[None]: ...
    def stage_body(self, effect: StageBody, body: Body) -> Now[Staged]: ...
    def hash_parts(self, effect: HashParts) -> Now[str | None]: ...
    def promote_parts(self, effect: PromoteParts) -> Now[bool]: ...
    def discard_part(self, effect: DiscardPart) -> Now[None]: ...
    def discard_upload(self, effect: DiscardUpload) -> Now[None]: ...
    def list_unfinished(self, effect: ListUnfinished) -> Now[tuple[Unfinished, ...]]: ...
    def discard_unfinished(self, effect: DiscardUnfinished) -> Now[None]: ...


class Leases(Protocol):
    """Who may be the only one for a while."""

    def acquire(self, effect: AcquireLease) -> Now[str | None]: ...
    def release(self, effect: ReleaseLease) -> Now[None]: ...


class Clock(Protocol):
    """Time."""

    def read(self, effect: ReadClock) -> Now[int]: ...
    def sleep(self, effect: Sleep) -> Now[None]: ...


class Entropy(Protocol):
    """Randomness."""

    def draw_id(self, effect: DrawId) -> Now[str]: ...


Perform = Callable[[Any], Any]

WAITS_FOR_OTHERS: Final[Set[type[Effect[Any]]]] = frozenset({VerifyPassword, AskWebhook, FetchDocument, AcquireLease})
"""Effects during which the registry itself has nothing to do for the request."""


class Services:
    """What all requests share: a table from the kind of an effect to the method that performs it."""

    def __init__(
        self,
        blobs: Store,
        metadata: Store,
        leases: Leases,
        clock: Clock,
        entropy: Entropy,
        access: Mapping[type[Effect[Any]], Perform] = MappingProxyType({}),
    ) -> None:
        """`access`: what performs the effects of credentials and services (`angos.runtime.access.services`)."""
        self.blobs = blobs
        self.metadata = metadata
        self.table: dict[type[Effect[Any]], Perform] = {
            HashParts: blobs.hash_parts,
            PromoteParts: blobs.promote_parts,
            DiscardPart: blobs.discard_part,
            DiscardUpload: blobs.discard_upload,
            ListUnfinished: blobs.list_unfinished,
            DiscardUnfinished: blobs.discard_unfinished,
            AcquireLease: leases.acquire,
            ReleaseLease: leases.release,
            ReadClock: clock.read,
            Sleep: clock.sleep,
            DrawId: entropy.draw_id,
            ReadKey: blobs.read_key,
            StatKey: blobs.stat_key,
            ListKeys: blobs.list_keys,
            ListFolders: blobs.list_folders,
            ListStats: blobs.list_stats,
            StatKeys: blobs.stat_keys,
            StatsBelow: blobs.stats_below,
            SignUrl: blobs.sign_url,
            CreateKeys: blobs.create_keys,
            DeleteKeys: blobs.delete_keys,
            HashKey: blobs.hash_key,
            CopyKey: blobs.copy_key,
            DeleteKeysWithin: blobs.delete_keys_within,
            **access,
        }
        self.waits_for_others: Set[type[Effect[Any]]] = WAITS_FOR_OTHERS
        self.in_thread = NOTHING_IN_THREAD
        """For the driver."""
        if metadata is blobs and blobs.in_thread is not NOTHING_IN_THREAD:
            quick = blobs.in_thread.quick | {ReadClock: clock.read, DrawId: entropy.draw_id}
            self.in_thread = InThread(blobs.in_thread.waiting, quick)
        if metadata is not blobs:
            self.table |= {
                ReadKey: lambda effect: self.of(effect.key).read_key(effect),
                StatKey: lambda effect: self.of(effect.key).stat_key(effect),
                ListKeys: lambda effect: self.of(effect.prefix).list_keys(effect),
                ListFolders: lambda effect: self.of(effect.prefix).list_folders(effect),
                ListStats: lambda effect: self.of(effect.prefix).list_stats(effect),
                StatKeys: lambda effect: self.of(effect.keys[0]).stat_keys(effect) if effect.keys else (),
                StatsBelow: lambda effect: self.of(effect.prefixes[0]).stats_below(effect) if effect.prefixes else (),
                SignUrl: lambda effect: self.of(effect.key).sign_url(effect),
                CreateKeys: self._create_keys,
                DeleteKeys: self._delete_keys,
                HashKey: lambda effect: self.of(effect.key).hash_key(effect),
                CopyKey: lambda effect: self.of(effect.key).copy_key(effect),
                DeleteKeysWithin: self._delete_keys_within,
            }

    def of(self, name: str) -> Store:
        """The store of a key or prefix."""
        return self.blobs if store_of(name) == "blobs" else self.metadata

    async def _create_keys(self, effect: CreateKeys) -> tuple[bool, ...]:
        created: dict[int, bool] = {}
        for store in (self.blobs, self.metadata):
            mine = [index for index, (key, _) in enumerate(effect.entries) if self.of(key) is store]
            if mine:
                some = CreateKeys(tuple(effect.entries[index] for index in mine), effect.durable, effect.definite)
                created |= zip(mine, await _reply(store.create_keys(some)), strict=True)
        return tuple(created[index] for index in range(len(effect.entries)))

    async def _delete_keys(self, effect: DeleteKeys) -> None:
        for store in (self.blobs, self.metadata):
            mine: tuple[Key, ...] = tuple(key for key in effect.keys if self.of(key) is store)
            if mine:
                await _reply(store.delete_keys(DeleteKeys(mine)))

    async def _delete_keys_within(self, effect: DeleteKeysWithin) -> None:
        until = monotonic() + effect.within_seconds
        for store in (self.blobs, self.metadata):
            mine: tuple[Key, ...] = tuple(key for key in effect.keys if self.of(key) is store)
            if mine:
                await _reply(store.delete_keys_within(DeleteKeysWithin(mine, until - monotonic())))


class RequestPerformer:
    """Performs the effects of one request."""

    __slots__ = ("_bodies", "_services", "_table")

    def __init__(self, services: Services, bodies: Mapping[BodyHandle, Body]) -> None:
        self._services = services
        self._table = services.table
        self._bodies = bodies

    def perform(self, effect: Effect[Any]) -> Any:
        """The reply, or a coroutine that ends with it. `Together` is the driver's."""
        perform = self._table.get(type(effect))
        if perform is not None:
            reply = perform(effect)
            if type(reply) is CoroutineType and type(effect) in self._services.waits_for_others:
                return self._wait_aside(reply)
            return reply
        if isinstance(effect, StageBody):
            return self._services.blobs.stage_body(effect, self._bodies[effect.body])
        if isinstance(effect, ReadBody):
            return self._bodies[effect.body].read(effect.size_max)
        raise TypeError(f"nothing performs {type(effect).__name__}")

    async def _wait_aside(self, waiting: Coroutine[Any, Any, T]) -> T:
        """Many may wait for a password to be checked, or a webhook to answer; others must not wait for them."""
        with ExitStack() as stack:
            for body in self._bodies.values():
                stack.enter_context(body.aside())
            return await waiting


async def _reply(now: Now[T]) -> T:
    reply: Any = now
    if type(reply) is CoroutineType:
        reply = await reply
    done: T = reply
    return done
