"""Stores under test: every implementation behind one plain interface, so that one contract is asked of all."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import anyio
from anyio.from_thread import BlockingPortal, start_blocking_portal

from angos.runtime.clock import SystemClock
from angos.runtime.driver import drive
from angos.runtime.entropy import SystemEntropy
from angos.runtime.leases.local import LocalLeases
from angos.runtime.performer import RequestPerformer, Services
from angos.runtime.stores.directory import DirectoryStore
from angos.runtime.stores.s3.store import S3Store
from angos.sansio.bucket.requests import Terms
from angos.sansio.effects import BodyHandle, BodyInterrupted, BodyTooLarge, Effect
from angos.sansio.operation import Operation
from angos.simulator.world.bodies import ArrivingBody, SyntheticBody
from angos.simulator.world.bucket import AMAZON, Limits
from angos.simulator.world.clock import Clock
from angos.simulator.world.directory import DirectoryWorld
from angos.simulator.world.s3 import S3World
from angos.simulator.world.store import KeyWorld
from tests.conformance.contracts.s3 import s3_bucket

T = TypeVar("T")
BODY = BodyHandle(0)


@dataclass(frozen=True, slots=True)
class Sent:
    """A body that a client sends, or a part of it."""

    content: bytes
    cut_at: int | None = None
    """The client stops after so many bytes."""
    turn: int = 100_000
    """How many bytes arrive at a time."""


class StoreUnderTest(Protocol):
    """What the contract asks a store through."""

    def do(self, effect: Effect[T], sent: Sent | None = None) -> T:
        """Carry out one effect."""
        ...

    def do_together(self, effects: Sequence[Effect[T]]) -> list[T]:
        """Carry out effects at the same time, as far as the implementation knows such a thing."""
        ...


class SentBody:
    """A body as the runtime's server offers it: pieces come in, a sink takes them in a worker thread."""

    def __init__(self, sent: Sent) -> None:
        self._sent = sent

    async def read(self, size_max: int) -> bytes:
        pieces: list[bytes] = []
        if not await self.receive(lambda views: pieces.extend(map(bytes, views)), size_max):
            raise BodyInterrupted("cut")
        return b"".join(pieces)

    async def receive(self, sink: Callable[[Sequence[memoryview]], None], size_max: int | None) -> bool:
        content = self._sent.content[: self._sent.cut_at]
        for start in range(0, len(content), self._sent.turn):
            if (make_room := getattr(sink, "make_room", None)) is not None and getattr(sink, "is_full", False):
                await make_room()
            piece = bytearray(content[start : start + self._sent.turn])
            if size_max is not None and start + len(piece) > size_max:
                raise BodyTooLarge(size_max)
            middle = len(piece) // 2
            await anyio.to_thread.run_sync(sink, [memoryview(piece)[:middle], memoryview(piece)[middle:]])
            piece[:] = bytes(len(piece))  # the views are valid during the call only
        return self._sent.cut_at is None

    def aside(self) -> AbstractContextManager[None]:
        return nullcontext()


async def perform(effect: Effect[T], services: Services, sent: Sent | None) -> T:
    """Drive one effect through the runtime."""

    async def alone() -> T:
        return await effect

    bodies = {} if sent is None else {BODY: SentBody(sent)}
    return await drive(Operation(alone()), RequestPerformer(services, bodies))


class RealStore:
    """A store of the runtime, on an event loop in a thread of its own."""

    def __init__(self, services: Services, portal: BlockingPortal) -> None:
        self._services = services
        self._portal = portal

    def do(self, effect: Effect[T], sent: Sent | None = None) -> T:
        return self._portal.call(perform, effect, self._services, sent)

    def do_together(self, effects: Sequence[Effect[T]]) -> list[T]:
        async def all_of_them() -> list[T]:
            results: dict[int, T] = {}

            async def one(index: int) -> None:
                results[index] = await perform(effects[index], self._services, None)

            async with anyio.create_task_group() as tasks:
                for index in range(len(effects)):
                    tasks.start_soon(one, index)
            return [results[index] for index in range(len(effects))]

        return self._portal.call(all_of_them)


class SimulatedStore:
    """A store of the simulator: effects are applied at once."""

    def __init__(self, make: Callable[[Clock, dict[int, ArrivingBody]], Any]) -> None:
        self._bodies: dict[int, ArrivingBody] = {}
        self._world = make(Clock(tick_ms=1), self._bodies)

    def do(self, effect: Effect[T], sent: Sent | None = None) -> T:
        if sent is not None:
            self._bodies[BODY] = ArrivingBody(SyntheticBody(sent.content, sent.cut_at))
        reply: T = self._world.apply(effect, "r0")
        return reply

    def do_together(self, effects: Sequence[Effect[T]]) -> list[T]:
        return [self.do(effect) for effect in effects]


def services_on(root: Path, *, separate: bool = False, sync: bool = False) -> Services:
    """The services of a runtime whose data is in a folder; with `separate`, in two."""
    blobs = DirectoryStore(root / "blobs" if separate else root, sync)
    metadata = DirectoryStore(root / "metadata", sync) if separate else blobs
    return Services(blobs, metadata, LocalLeases(), SystemClock(), SystemEntropy())


@contextmanager
def _directory(
    root: Path, backend: Literal["asyncio", "trio"], *, separate: bool = False, sync: bool = False
) -> Iterator[StoreUnderTest]:
    with start_blocking_portal(backend) as portal:
        yield RealStore(services_on(root, separate=separate, sync=sync), portal)


@contextmanager
def _bucket(
    backend: Literal["asyncio", "trio"], *, blobs: Path | None = None, metadata: Path | None = None
) -> Iterator[StoreUnderTest]:
    """A store in a bucket; what has a folder is kept there instead."""
    with s3_bucket() as options, start_blocking_portal(backend) as portal:
        bucket = S3Store(options)
        services = Services(
            DirectoryStore(blobs) if blobs else bucket,
            DirectoryStore(metadata) if metadata else bucket,
            LocalLeases(),
            SystemClock(),
            SystemEntropy(),
        )
        try:
            yield RealStore(services, portal)
        finally:
            portal.call(bucket.close)


@contextmanager
def _simulated(make: Callable[[Clock, dict[int, ArrivingBody]], Any]) -> Iterator[StoreUnderTest]:
    yield SimulatedStore(make)


NARROW = Limits(piece_bytes_min=64 << 10, listing_max=7, deletions_max=3)
"""So small that what the tests put, list and delete meets each of them."""


def _simulated_bucket(limits: Limits, *, tried_out: bool) -> AbstractContextManager[StoreUnderTest]:
    terms = Terms(
        "simulated bucket",
        limits.piece_bytes_min,
        limits.piece_bytes_max,
        copy_bytes_max=limits.piece_bytes_min * 20,
        copy_piece_bytes=limits.piece_bytes_min * 2,
        copies_at_once=4,
        attempts=3,
        listing_max=limits.listing_max,
        deletions_max=limits.deletions_max,
    )
    return _simulated(partial(S3World, limits=limits, terms=terms, tried_out=tried_out))


IMPLEMENTATIONS: dict[str, Callable[[Path], AbstractContextManager[StoreUnderTest]]] = {
    "directory on asyncio": lambda root: _directory(root, "asyncio"),
    "directory on trio": lambda root: _directory(root, "trio"),
    "directory with sync": lambda root: _directory(root, "asyncio", sync=True),
    "two directories": lambda root: _directory(root, "asyncio", separate=True),
    "bucket on asyncio": lambda _: _bucket("asyncio"),
    "bucket on trio": lambda _: _bucket("trio"),
    "blobs in a bucket": lambda root: _bucket("asyncio", metadata=root),
    "simulated keys": lambda root: _simulated(KeyWorld),
    "simulated bucket": lambda root: _simulated_bucket(AMAZON, tried_out=False),
    "narrow simulated bucket": lambda root: _simulated_bucket(NARROW, tried_out=True),
    "simulated directory": lambda root: _simulated(DirectoryWorld),
}

_numbers = itertools.count()


def fresh_prefix() -> str:
    """The beginning of keys that no other test, nor another example of the same one, has used."""
    return f"v2/ns/x{next(_numbers)}!rev/"


def fresh_upload() -> str:
    """The prefix of an upload that nobody else uses."""
    return f"v2/repositories/x/_uploads/u/{next(_numbers)}."
