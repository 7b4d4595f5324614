"""Worker processes: one loop for each core, on one port.

Workers are forked before any loop or thread exists, rather than started afresh: they share the imported modules, and
the parent never needs to know how it was itself started. The parent keeps the port by a socket that does not listen,
so a port chosen by the system stays the same when workers come and go. Each worker has listening sockets of its own
(SO_REUSEPORT) and the kernel spreads connections over them.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from types import FrameType
from typing import Final, Literal, NoReturn

import anyio

from angos.runtime.server.application import Application
from angos.runtime.server.limits import ServerOptions
from angos.runtime.server.listener import bind, choose_parser, serve_until_signal, url_of

MakeApplication = Callable[[], AbstractAsyncContextManager[Application]]
"""Called in the process and on the loop that serves; left when the last request has ended."""

RESTART_SECONDS_MIN: Final = 0.5  # after a worker died, doubled for each further one up to the maximum
RESTART_SECONDS_MAX: Final = 30.0
STEADY_SECONDS: Final = 60.0  # a worker that lived this long starts the doubling over
KILL_SECONDS: Final = 10.0  # after the time for draining, workers that still run are killed

_HANDLED: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)

_log = logging.getLogger("angos.server")


def run(
    make_application: MakeApplication,
    options: ServerOptions,
    *,
    loop: Literal["asyncio", "trio"] = "asyncio",
    on_ready: Callable[[Sequence[str]], None],
) -> int:
    """Serve until SIGTERM or SIGINT. Gives the exit code.

    `on_ready` gets the URLs once every worker accepts connections. Raises
    `angos.runtime.server.listener.ListenError`. 1 when workers ended before they had ever been ready: what keeps them
    from starting will not go away by itself.
    """
    choose_parser(options)
    if options.workers == 1:
        sockets = bind(options)
        urls = [url_of(bound) for bound in sockets]
        anyio.run(_serve, make_application, options, sockets, lambda: on_ready(urls), None, backend=loop)
        return 0
    return _Parent(make_application, options, loop, on_ready).run()


async def _serve(
    make_application: MakeApplication,
    options: ServerOptions,
    sockets: Sequence[socket.socket],
    on_ready: Callable[[], None],
    parent: int | None,
) -> None:
    stop = anyio.Event()
    async with make_application() as application, _stopped_by_end_of(parent, stop):
        await serve_until_signal(application, options, sockets=sockets, on_ready=on_ready, stop=stop)


@asynccontextmanager
async def _stopped_by_end_of(parent: int | None, stop: anyio.Event) -> AsyncIterator[None]:
    """Stop when the other end of the pipe `parent` closes, which the kernel does however the parent ends."""

    async def watch(descriptor: int) -> None:
        await anyio.wait_readable(descriptor)
        if not stop.is_set():
            _log.warning("the parent process is gone, stopping")
            stop.set()

    async with anyio.create_task_group() as group:
        if parent is not None:
            group.start_soon(watch, parent)
        yield
        group.cancel_scope.cancel()


@dataclass(slots=True)
class _Worker:
    number: int
    process: int
    started: float


class _Parent:
    """Starts workers, restarts those that die, and ends when they have ended."""

    def __init__(
        self,
        make_application: MakeApplication,
        options: ServerOptions,
        loop: Literal["asyncio", "trio"],
        on_ready: Callable[[Sequence[str]], None],
    ) -> None:
        self._make_application = make_application
        self._loop = loop
        self._on_ready = on_ready
        # A port that others share with us would bind without complaint: another registry on it has to be noticed.
        for probe in bind(options, listening=False):
            probe.close()
        self._reserved = bind(options, shared=True, listening=False)
        self._options = replace(options, port=self._reserved[0].getsockname()[1])
        self._workers: dict[int, _Worker] = {}
        self._ready = 0
        self._pause = RESTART_SECONDS_MIN
        self._restarts: list[tuple[float, int]] = []
        self._stopping: float | None = None
        self._signals = 0
        self._announced = False
        self._code = 0
        self._life_read, self._life_write = os.pipe()
        self._ready_read, self._ready_write = os.pipe()
        self._wake_read, self._wake_write = os.pipe()
        for descriptor in (self._ready_read, self._wake_read, self._wake_write):
            os.set_blocking(descriptor, False)

    def run(self) -> int:
        before = signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        handlers = [signal.signal(number, self._note) for number in _HANDLED]
        try:
            for number in range(self._options.workers):
                self._start(number)
            while self._workers or self._stopping is None:
                self._wait()
                self._collect()
                self._hear_ready()
                self._forward_signals()
                self._restart()
            return self._code
        finally:
            for worker in self._workers.values():
                os.kill(worker.process, signal.SIGKILL)
            for number, handler in zip(_HANDLED, handlers, strict=True):
                signal.signal(number, handler)
            signal.set_wakeup_fd(before)
            for bound in self._reserved:
                bound.close()
            self._close_pipes()

    def _note(self, number: int, _: FrameType | None) -> None:
        if number != signal.SIGCHLD:
            self._signals += 1

    def _close_pipes(self) -> None:
        for descriptor in (
            self._life_read,
            self._life_write,
            self._ready_read,
            self._ready_write,
            self._wake_read,
            self._wake_write,
        ):
            os.close(descriptor)

    def _wait(self) -> None:
        now = time.monotonic()
        moments = [moment for moment, _ in self._restarts]
        if self._stopping is not None:
            moments.append(self._stopping + self._options.drain_seconds + KILL_SECONDS)
        seconds = max(0.0, min(moments) - now) if moments else None
        select.select([self._wake_read, self._ready_read], [], [], seconds)
        _read_all(self._wake_read)

    def _start(self, number: int) -> None:
        # A signal must not meet the handlers of the parent in the child: it would be noted and never acted upon.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
        process = os.fork()
        if process == 0:
            self._be_worker(number, blocked)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        self._workers[process] = _Worker(number, process, time.monotonic())

    def _be_worker(self, number: int, mask: set[signal.Signals | int]) -> NoReturn:
        """In the new process. Never returns into the code of the parent."""

        def tell_ready() -> None:
            os.write(self._ready_write, b".")

        status = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            for descriptor in (self._life_write, self._ready_read, self._wake_read, self._wake_write):
                os.close(descriptor)
            sockets = bind(self._options, shared=True)
            for bound in self._reserved:
                bound.close()
            anyio.run(
                _serve,
                self._make_application,
                self._options,
                sockets,
                tell_ready,
                self._life_read,
                backend=self._loop,
            )
            status = 0
        except BaseException:
            _log.exception("worker %d failed", number)
        finally:
            logging.shutdown()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def _collect(self) -> None:
        while self._workers:
            process, status = os.waitpid(-1, os.WNOHANG)
            if process == 0:
                return
            worker = self._workers.pop(process, None)
            if worker is None or self._stopping is not None:
                continue
            if not self._announced:
                _log.error("worker %d could not start, giving up", worker.number)
                self._code = 1
                self._signals += 1
                continue
            now = time.monotonic()
            if now - worker.started >= STEADY_SECONDS:
                self._pause = RESTART_SECONDS_MIN
            _log.error(
                "worker %d (process %d) ended unexpectedly, %s; another one starts in %g s",
                worker.number,
                process,
                _ending(status),
                self._pause,
            )
            self._restarts.append((now + self._pause, worker.number))
            self._pause = min(self._pause * 2, RESTART_SECONDS_MAX)

    def _hear_ready(self) -> None:
        self._ready += len(_read_all(self._ready_read))
        if self._ready >= self._options.workers and not self._announced:
            self._announced = True
            self._on_ready([url_of(bound) for bound in self._reserved])

    def _forward_signals(self) -> None:
        signals, self._signals = self._signals, 0
        for _ in range(signals):
            for process in self._workers:
                os.kill(process, signal.SIGTERM)
        if signals and self._stopping is None:
            self._stopping = time.monotonic()
            self._restarts.clear()
        if self._stopping is not None and (
            time.monotonic() >= self._stopping + self._options.drain_seconds + KILL_SECONDS
        ):
            for worker in self._workers.values():
                _log.error("worker %d (process %d) does not end and is killed", worker.number, worker.process)
                os.kill(worker.process, signal.SIGKILL)

    def _restart(self) -> None:
        now = time.monotonic()
        due = [number for moment, number in self._restarts if moment <= now]
        self._restarts = [(moment, number) for moment, number in self._restarts if moment > now]
        for number in due:
            self._start(number)


def _read_all(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 4096)
    except BlockingIOError:
        return b""


def _ending(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
