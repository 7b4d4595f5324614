"""Fills: operations that bring blobs from upstreams, apart from the requests that wait for them.

The invariants are those of `angos.sansio.upstream.effects`. A fill runs in the task group of its process, so nobody who
leaves ends it; whoever follows holds it by its handle, so what they still need lives as long as they do.

Of the workers of one server one fills, by a lease; the fills of the others wait for it. Meanwhile their clients are
sent the same bytes from the same files, of which a `Board` tells. When that worker dies, or gives up, those clients are
cut off, and come again; the next worker begins anew.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Coroutine, Sequence
from itertools import count
from typing import Any

from anyio import Event, create_task_group, move_on_after, sleep
from anyio.abc import TaskGroup

from angos.runtime.performer import Store
from angos.runtime.stores.disk_steps import storage_error
from angos.runtime.threads import run_in_thread
from angos.runtime.upstream.board import Board, Notice
from angos.runtime.upstream.client import OpenedStream
from angos.runtime.upstream.spool import Piece, Sink
from angos.sansio.effects import BodyHandle, BodyTooLarge, StageBody, Staged
from angos.sansio.operation import Operation
from angos.sansio.upstream.effects import (
    FillEnd,
    FillHandle,
    Filling,
    FollowFill,
    ReleaseFill,
    StageFill,
    TakeFillPlace,
    UpstreamUnavailable,
)

ON_LOOP_BYTES = 4 << 10  # so little is written without going to a thread
GATHERED_BYTES = 1 << 20  # of a fill, while a thread is busy with as much
LOOK_SECONDS = 0.05  # between two looks whether another worker is at it
WATCH_SECONDS = 0.02  # between two looks at how much it has got
KEPT_SECONDS = 2.0  # a fill that has ended well, for those who watch it
_log = logging.getLogger("angos.upstream")
_numbers = count(1)

Drive = Callable[[Operation[FillEnd]], Coroutine[Any, Any, FillEnd]]


class FillEndedEarly(Exception):
    """There will be no further bytes. Says why."""


class Fill:
    """One fill, as those see it who follow."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.size: int | None = None
        """Of the blob; None until there is something to follow."""
        self.end: FillEnd | None = None
        self.failure: BaseException | None = None
        """It ended without saying how, because of a bug or because the process ends."""
        self._pieces: list[Piece] = []
        self._notice = Notice(None)
        self._received = 0
        self._released = False
        self._serial: tuple[int, int] | None = None
        """Of the fill of another worker that this one shows."""
        self._changed = Event()

    # --- the fill itself ----------------------------------------------------------------------------------------------

    def show(self, size: int, notice: Notice | None = None) -> None:
        """From now on it can be followed, by other workers too if they get to know by the notice."""
        if self.size is None:
            self.size = size
            self._notice = notice or self._notice
            self._tell()

    def add(self, piece: Piece) -> None:
        """What comes next comes here."""
        self._pieces.append(piece)
        self._notice.add(piece.start, piece.descriptor)

    def received(self, size: int) -> None:
        """So many more bytes can be read."""
        self._received += size
        self._tell()

    def release(self) -> None:
        """All bytes together have the right digest."""
        self._released = True
        self._notice.release()
        self._tell()

    def withdraw(self) -> None:
        """Other workers cannot begin to follow it any more."""
        self._notice.withdraw()

    def mirror(self, board: Board) -> None:
        """Let those who follow have what another worker has got by now."""
        found = board.find(self.name)
        if found is None or self._released:
            return
        if self._serial not in (None, (found.process, found.serial)):
            return  # another one has begun anew: what has been sent of the one before may be wrong
        for start, descriptor in found.pieces[len(self._pieces) :]:
            opened = board.open(self.name, found, descriptor)
            if opened is None:
                return
            self._pieces.append(Piece.of_another(start, opened))
        if self._pieces:
            self._serial = found.process, found.serial
            last = self._pieces[-1]
            self._received = max(self._received, last.start + os.fstat(last.descriptor).st_size)
            self.size = found.size
            self._released = found.released
            self._tell()

    def finish(self, end: FillEnd | None, failure: BaseException | None = None) -> None:
        """Nothing more comes."""
        self.end, self.failure = end, failure
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = Event()

    # --- those who follow ---------------------------------------------------------------------------------------------

    @property
    def has_ended(self) -> bool:
        return self.end is not None or self.failure is not None

    async def begun(self) -> None:
        """Wait until it can be followed, or has ended."""
        while self.size is None and not self.has_ended:
            await self._changed.wait()

    async def readable(self, position: int, end: int) -> int:
        """Wait until somebody who wants the bytes up to `end` may have the one at this position; how far they may read
        now. Fails with `FillEndedEarly`."""
        while True:
            # The last byte of an answer that may be a wrong one is nobody's.
            until = min(self._received, end if self._released else end - 1)
            if until > position:
                return until
            if self.failure is not None:
                raise FillEndedEarly("the registry is being stopped, or failed")
            if self.end is not None:
                raise FillEndedEarly(self.end.message or "it could not be stored, perhaps for lack of space; try again")
            await self._changed.wait()

    def pieces(self, start: int, end: int) -> list[tuple[int, int, int]]:
        """Where bytes lie that can be read: descriptor, offset and length of each piece."""
        found = []
        for number, piece in enumerate(self._pieces):
            until = self._pieces[number + 1].start if number + 1 < len(self._pieces) else end
            first, last = max(start, piece.start), min(end, until)
            if first < last:
                found.append((piece.descriptor, first - piece.start, last - first))
        return found


class FollowedFill(int):
    """The handle that the core gets is the thing itself, so it lives as long as an answer needs it."""

    fill: Fill

    @classmethod
    def of(cls, fill: Fill) -> FollowedFill:
        handle = cls(next(_numbers))
        handle.fill = fill
        return handle


class Fills:
    """All fills of a process."""

    def __init__(self, tasks: Callable[[], TaskGroup | None], board: Board | None = None) -> None:
        """`tasks`: where they run; None when the process does not serve. `board`: what other workers do."""
        self._board = board
        self._fills: dict[str, Fill] = {}
        self._placed: set[str] = set()
        self._tasks = tasks
        self._changed = Event()

    @property
    def running(self) -> int:
        """How many have a place now."""
        return len(self._placed)

    async def follow(self, effect: FollowFill, drive: Drive) -> Filling | FillEnd:
        """`FollowFill`. `drive` runs the operation if it is needed."""
        fill, tasks = self._fills.get(effect.name), self._tasks()
        if fill is not None or tasks is None:
            effect.operation.abandon()
        if fill is None:
            if tasks is None:
                raise UpstreamUnavailable("the registry is being stopped")
            fill = self._fills[effect.name] = Fill(effect.name)
            tasks.start_soon(self._run, fill, effect.operation, drive)
            if self._board is not None:
                tasks.start_soon(self._watch, fill, self._board)
        await fill.begun()
        if fill.size is not None:
            return Filling(FillHandle(FollowedFill.of(fill)), fill.size)
        if fill.end is None:
            raise UpstreamUnavailable("the fill was given up")
        return fill.end

    async def take_place(self, effect: TakeFillPlace) -> bool:
        """`TakeFillPlace`."""
        with move_on_after(effect.wait_seconds):
            while len(self._placed) >= effect.running_max:
                await self._changed.wait()
            self._placed.add(effect.fill)
        if (shown := self._fills[effect.fill]).size is not None:
            # Another worker was at it and has given up. What it has sent may be wrong, so this one begins anew.
            self._fills[effect.fill] = Fill(effect.fill)
            shown.finish(FillEnd(503, "the worker that fetched it has ended; try again"))
        return effect.fill in self._placed

    async def stage(self, effect: StageFill, store: Store) -> Staged:
        """`StageFill`."""
        stream: int = effect.stream
        if not isinstance(stream, OpenedStream):
            raise UpstreamUnavailable("its answer is gone")
        fill = self._fills[effect.fill]
        if effect.size is not None and fill.size is None:
            fill.show(effect.size, None if self._board is None else self._board.post(fill.name, effect.size))
        staged = StageBody(effect.upload, effect.part, BodyHandle(0), effect.hashes, effect.size_max)
        arriving = _Arriving(stream, fill if effect.size is not None else None, effect.start)
        try:
            reply: Any = store.stage_body(staged, arriving)
            found: Staged = await reply
            return found
        except OSError as error:  # of the temporary file beside a bucket
            raise storage_error("storing the bytes of an upstream", error) from error
        finally:
            await stream.close()

    def release(self, effect: ReleaseFill) -> None:
        """`ReleaseFill`."""
        self._fills[effect.fill].release()

    async def _run(self, fill: Fill, operation: Operation[FillEnd], drive: Drive) -> None:
        end: FillEnd | None = None
        failure: BaseException | None = None
        try:
            end = await drive(operation)
        except Exception as error:
            _log.exception("the fill %s failed", fill.name)
            failure = error
        except BaseException as error:
            failure = error
            raise
        finally:
            fill = self._fills.pop(fill.name)  # another one, perhaps
            if self._board is not None and fill.name not in self._placed:
                fill.mirror(self._board)  # it may have been released a moment ago
            self._placed.discard(fill.name)
            fill.finish(end, failure)
            self._changed.set()  # those who wait for a place look again
            self._changed = Event()
            if end is not None and end.stored and end.status == 200 and (tasks := self._tasks()) is not None:
                tasks.start_soon(_keep_for_others, fill)
            else:
                fill.withdraw()

    async def _watch(self, fill: Fill, board: Board) -> None:
        """While another worker fills, let those who follow here have what comes there."""
        while not fill.has_ended and fill.name not in self._placed:
            fill.mirror(board)
            await sleep(WATCH_SECONDS if fill.size is not None else LOOK_SECONDS)


async def _keep_for_others(fill: Fill) -> None:
    """Until every worker has seen that it was released."""
    try:
        await sleep(KEPT_SECONDS)
    finally:
        fill.withdraw()


class _Arriving:
    """The body of an answer, as a store takes the body of a request.

    What arrives while a thread hashes and writes is gathered for its next visit, up to a bound.
    """

    def __init__(self, stream: OpenedStream, fill: Fill | None, start: int) -> None:
        self._stream = stream
        self._fill = fill
        self._start = start
        self._gathered: list[memoryview] = []
        self._size = 0
        self._total = 0
        self._whole: bool | None = None
        """None while more may come."""
        self._changed = Event()

    async def receive(self, sink: Sink, size_max: int | None) -> bool:
        """All of it into `sink`. False when the upstream stopped in the middle. Fails with `BodyTooLarge`."""
        piece = None
        if self._fill is not None:
            piece = await run_in_thread(Piece, self._start, sink)
            self._fill.add(piece)
        failure: Exception | None = None
        async with create_task_group() as tasks:
            tasks.start_soon(self._gather)
            try:
                await self._pour(piece, sink, size_max)
            except Exception as error:
                failure = error
            tasks.cancel_scope.cancel()
        if failure is not None:
            raise failure
        return bool(self._whole)

    async def _gather(self) -> None:
        while self._whole is None:
            try:
                data = await self._stream.receive()
            except UpstreamUnavailable as error:
                _log.warning("a blob broke off after %d bytes: %s", self._start + self._total, error)
                self._whole = False
            else:
                if data:
                    self._gathered.append(memoryview(data))
                    self._size += len(data)
                    self._total += len(data)
                else:
                    self._whole = True
            self._tell()
            while self._size >= GATHERED_BYTES:
                await self._changed.wait()

    async def _pour(self, piece: Piece | None, sink: Sink, size_max: int | None) -> None:
        make_room = getattr(sink, "make_room", None)
        while True:
            if make_room is not None:
                await make_room()
            while not self._gathered:
                if self._whole is not None:
                    if self._whole:
                        await self._stream.finish()
                    return
                await self._changed.wait()
            views, size = self._gathered, self._size
            self._gathered, self._size = [], 0
            self._tell()
            if size_max is not None and self._total > size_max:
                raise BodyTooLarge(size_max)
            if size <= ON_LOOP_BYTES:
                _take(piece, sink, views)
            else:
                await run_in_thread(_take, piece, sink, views)
            if self._fill is not None:
                self._fill.received(size)

    def _tell(self) -> None:
        self._changed.set()
        self._changed = Event()

    async def read(self, size_max: int) -> bytes:
        """Nobody reads a blob into memory."""
        raise NotImplementedError

    def aside(self) -> Any:
        """No request waits here."""
        raise NotImplementedError


def _take(piece: Piece | None, sink: Sink, views: Sequence[memoryview]) -> None:
    if piece is not None:
        piece.take(views)
    sink(views)
