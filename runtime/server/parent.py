"""The parent of worker processes: one loop for each core, on one port.

Workers are forked before any loop or thread exists, rather than started afresh: they share the imported modules, and
the parent never needs to know how it was itself started. The parent keeps the port by a socket that does not listen,
so a port chosen by the system stays the same when workers come and go. Each worker has listening sockets of its own
(SO_REUSEPORT) and the kernel spreads connections over them.

The parent looks for changes of the configuration and has all workers reload together (`Round`). A worker that starts
later is forked from a parent that has the newest configuration already.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from types import FrameType
from typing import Final, Literal, NoReturn

import anyio

from angos.runtime.server.limits import ServerOptions
from angos.runtime.server.listener import bind, url_of
from angos.runtime.server.messages import Kind, Mailbox, Message
from angos.runtime.server.reload_round import Round
from angos.runtime.server.reloading import LOOK_SECONDS, look, prepare, reload_as_told
from angos.runtime.server.serving import HandOver, NotServable, OpenServing, Reloader, serve_with
from angos.runtime.server.surroundings import Surroundings

RESTART_SECONDS_MIN: Final = 0.5  # after a worker died, doubled for each further one up to the maximum
RESTART_SECONDS_MAX: Final = 30.0
STEADY_SECONDS: Final = 60.0  # a worker that lived this long starts the doubling over
KILL_SECONDS: Final = 10.0  # after the time for draining, workers that still run are killed

_HANDLED: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)

_log = logging.getLogger("angos.server")


@dataclass(slots=True)
class _Worker:
    number: int
    process: int
    started: float
    mailbox: Mailbox
    ready: bool = False


class Parent:
    """Starts workers, restarts those that die, and ends when they have ended."""

    def __init__(
        self,
        open_serving: OpenServing,
        options: ServerOptions,
        loop: Literal["asyncio", "trio"],
        encrypted: bool,
        on_ready: Callable[[Sequence[str]], None],
        hand_over: HandOver,
        reloader: Reloader | None,
    ) -> None:
        self._open_serving = open_serving
        self._loop = loop
        self._encrypted = encrypted
        self._on_ready = on_ready
        self._hand_over = hand_over
        self._reloader = reloader
        # A port that others share with us would bind without complaint: another registry on it has to be noticed.
        for probe in bind(options, listening=False):
            probe.close()
        self._reserved = bind(options, shared=True, listening=False)
        self._options = replace(options, port=self._reserved[0].getsockname()[1])
        self._workers: dict[int, _Worker] = {}
        self._pause = RESTART_SECONDS_MIN
        self._restarts: list[tuple[float, int]] = []
        self._stopping: float | None = None
        self._signals = 0
        self._asked = False
        self._looked = time.monotonic()
        self._rounds = 0
        self._round: Round | None = None
        self._announced = False
        self._code = 0
        self._wake_read, self._wake_write = os.pipe()
        for descriptor in (self._wake_read, self._wake_write):
            os.set_blocking(descriptor, False)

    def run(self) -> int:
        before = signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        handled = [number for number in _HANDLED if number != signal.SIGHUP or self._reloader is not None]
        handlers = [signal.signal(number, self._note) for number in handled]
        try:
            for number in range(self._options.workers):
                self._start(number)
            while self._workers or self._stopping is None:
                self._wait()
                self._hear()
                self._collect()
                self._announce()
                self._forward_signals()
                self._reload()
                self._restart()
            return self._code
        finally:
            for worker in self._workers.values():
                os.kill(worker.process, signal.SIGKILL)
                worker.mailbox.close()
            for number, handler in zip(handled, handlers, strict=True):
                signal.signal(number, handler)
            signal.set_wakeup_fd(before)
            for bound in self._reserved:
                bound.close()
            os.close(self._wake_read)
            os.close(self._wake_write)

    def _note(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self._asked = True
        elif number != signal.SIGCHLD:
            self._signals += 1

    def _wait(self) -> None:
        moments = [] if self._round is not None else [moment for moment, _ in self._restarts]
        if self._stopping is not None:
            moments.append(self._stopping + self._options.drain_seconds + KILL_SECONDS)
        elif self._round is not None:
            moments.append(self._round.ends_at)
        elif self._reloader is not None and self._announced:
            moments.append(self._looked + LOOK_SECONDS)
        poll = select.poll()
        poll.register(self._wake_read, select.POLLIN)
        for worker in self._workers.values():
            if not worker.mailbox.ended:
                poll.register(worker.mailbox, select.POLLIN | (select.POLLOUT if worker.mailbox.has_unsent else 0))
        poll.poll(max(0.0, min(moments) - time.monotonic()) * 1000 if moments else None)
        with suppress(BlockingIOError):
            os.read(self._wake_read, 4096)

    def _start(self, number: int) -> None:
        ours, theirs = socket.socketpair()
        # A signal must not meet the handlers of the parent in the child: it would be noted and never acted upon.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
        process = os.fork()
        if process == 0:
            ours.close()
            self._be_worker(number, blocked, Mailbox(theirs))
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        theirs.close()
        self._workers[process] = _Worker(number, process, time.monotonic(), Mailbox(ours))

    def _be_worker(self, number: int, mask: set[signal.Signals | int], parent: Mailbox) -> NoReturn:
        """In the new process. Never returns into the code of the parent."""
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            # A terminal sends it to all processes: the parent says what to do.
            signal.signal(signal.SIGHUP, signal.SIG_DFL if self._reloader is None else signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            os.close(self._wake_read)
            os.close(self._wake_write)
            for worker in self._workers.values():  # or they would not see the end of the parent
                worker.mailbox.close()
            sockets = bind(self._options, shared=True)
            for bound in self._reserved:
                bound.close()
            serve = partial(_serve_as_worker, self._open_serving, sockets, self._hand_over, parent, self._reloader)
            anyio.run(serve, backend=self._loop)
            status = 0
        except BaseException:
            _log.exception("worker %d failed", number)
        finally:
            logging.shutdown()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def _hear(self) -> None:
        for worker in self._workers.values():
            worker.mailbox.send_rest()
            for message in worker.mailbox.take():
                if message.kind is Kind.READY:
                    worker.ready = True
                elif self._round is not None:
                    self._round.hear(worker.number, message)

    def _announce(self) -> None:
        if not self._announced and sum(worker.ready for worker in self._workers.values()) >= self._options.workers:
            self._announced = True
            self._looked = time.monotonic()
            self._on_ready([url_of(bound, encrypted=self._encrypted) for bound in self._reserved])

    def _collect(self) -> None:
        while self._workers:
            process, status = os.waitpid(-1, os.WNOHANG)
            if process == 0:
                return
            worker = self._workers.pop(process, None)
            if worker is None:
                continue
            worker.mailbox.close()
            if self._round is not None:
                self._round.lose(worker.number)
            if self._stopping is not None:
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

    def _reload(self) -> None:
        """Look for a change now and then, and see a reload through."""
        if self._reloader is None or self._stopping is not None or not self._announced:
            return
        now = time.monotonic()
        if self._round is None:
            if self._asked or now >= self._looked + LOOK_SECONDS:
                at_once, self._asked, self._looked = self._asked, False, now
                self._begin_round(self._reloader, at_once)
            return
        self._round.give_up(now)
        if self._round.settled:
            decided, self._round = self._round, None
            if decided.refusals:
                self._reloader.refuse(decided.refusals)
            else:
                decided.serving.take_effect()
                self._options = replace(decided.serving.options, port=self._options.port)
                self._reloader.accept()

    def _begin_round(self, reloader: Reloader, at_once: bool) -> None:
        try:
            candidate = look(reloader, at_once=at_once)
            if candidate is None:
                return
            installation = prepare(reloader, candidate)
        except NotServable as refused:
            reloader.refuse([str(refused)])
            return
        self._rounds += 1
        mailboxes = {worker.number: worker.mailbox for worker in self._workers.values()}
        self._round = Round(self._rounds, candidate, installation.serving, mailboxes, time.monotonic())

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
        if self._round is not None:
            return  # a worker is forked with what is decided, and nothing is yet
        now = time.monotonic()
        due = [number for moment, number in self._restarts if moment <= now]
        self._restarts = [(moment, number) for moment, number in self._restarts if moment > now]
        for number in due:
            self._start(number)


def _ending(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"


async def _serve_as_worker(
    open_serving: OpenServing,
    sockets: Sequence[socket.socket],
    hand_over: HandOver,
    parent: Mailbox,
    reloader: Reloader | None,
) -> None:
    stop = anyio.Event()

    def end_with_parent() -> None:  # the kernel closes the line however the parent ends
        if not stop.is_set():
            _log.warning("the parent process is gone, stopping")
            stop.set()

    async with open_serving() as serving, anyio.create_task_group() as group:

        def start(surroundings: Surroundings) -> None:
            hand_over(surroundings)
            group.start_soon(reload_as_told, parent, reloader, surroundings, end_with_parent)

        await serve_with(
            serving,
            sockets=sockets,
            on_ready=lambda: parent.put(Message(Kind.READY)),
            hand_over=start,
            stop=stop,
        )
        group.cancel_scope.cancel()
