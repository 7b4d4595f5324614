"""Worker threads for what waits for a disk.

A visit to a thread of anyio costs 80 to 170 µs of processor time: turns of the loop before it, a limiter, a scope. That
is as much as the writes it is for, and a pushed image pays it ten times. A visit here costs 15 to 75 µs. On trio, whose
threads are its own matter, anyio's are used.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from contextvars import Context, copy_context
from queue import SimpleQueue
from typing import Any, TypeVar

from anyio import CancelScope, from_thread, to_thread
from anyio.lowlevel import checkpoint_if_cancelled

T = TypeVar("T")

THREADS_MAX = 40  # as anyio has it: more disk accesses at once than that do not make a disk faster


async def run_in_thread(call: Callable[..., T], *arguments: Any) -> T:
    """What the call gives or raises, carried out in a worker thread.

    A cancellation is raised before the call begins or when it has ended; in between, `check_cancelled` tells the call.
    """
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return await to_thread.run_sync(call, *arguments)
    await checkpoint_if_cancelled()
    visit = _Visit(loop, call, arguments)
    _workers.submit(visit)
    try:
        await visit.ended
    except asyncio.CancelledError:
        visit.cancelled = True
        if not visit.is_over:
            visit.ended = visit.loop.create_future()
            with CancelScope(shield=True):
                await visit.ended
        raise
    if visit.error is not None:
        try:
            raise visit.error
        finally:
            visit.error = None  # its traceback holds this frame
    return visit.value  # type: ignore[no-any-return]


def check_cancelled() -> None:
    """Raise the loop's cancellation in a worker thread whose caller is cancelled; nothing in any other thread."""
    visit: _Visit | None = getattr(_here, "visit", None)
    if visit is not None:
        if visit.cancelled:
            raise asyncio.CancelledError
        return
    with contextlib.suppress(RuntimeError):  # not a thread of anyio's either
        from_thread.check_cancelled()


class _Visit:
    """A call on its way to a thread and back. All but `carry_out` belongs to the loop's thread."""

    __slots__ = ("_arguments", "_call", "_context", "cancelled", "ended", "error", "is_over", "loop", "value")

    def __init__(self, loop: asyncio.AbstractEventLoop, call: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self._call = call
        self._arguments = arguments
        self._context: Context = copy_context()
        self.loop = loop
        self.ended: asyncio.Future[None] = loop.create_future()
        self.is_over = False
        self.cancelled = False
        self.value: Any = None
        self.error: BaseException | None = None

    def carry_out(self) -> None:
        """In the worker thread."""
        try:
            self.value = self._context.run(self._call, *self._arguments)
        except BaseException as error:
            self.error = error

    def tell(self) -> None:
        """In the worker thread: let whoever waits go on."""
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile, and nobody waits any more
            self.loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        self.is_over = True
        if not self.ended.done():
            self.ended.set_result(None)


class _Workers:
    """Threads that are started as they are needed and kept until the process ends."""

    def __init__(self) -> None:
        self._visits: SimpleQueue[_Visit] = SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._unfinished = 0

    def submit(self, visit: _Visit) -> None:
        """Have it carried out as soon as a thread is free."""
        with self._lock:
            self._unfinished += 1
            starts = self._threads < min(self._unfinished, THREADS_MAX)
            self._threads += starts
        self._visits.put(visit)
        if starts:
            threading.Thread(target=self._work, name="storage", daemon=True).start()

    def _work(self) -> None:
        while True:
            visit = self._visits.get()
            _here.visit = visit
            visit.carry_out()
            _here.visit = None
            with self._lock:
                self._unfinished -= 1
            visit.tell()
            del visit  # with everything that it holds, until the next one comes


_here = threading.local()
_workers = _Workers()
