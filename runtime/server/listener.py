"""Listening sockets, the loop that accepts, and an orderly end."""

from __future__ import annotations

import errno
import logging
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from heapq import nsmallest
from operator import attrgetter
from typing import Final, Protocol

import anyio
from anyio import CancelScope, CapacityLimiter
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from angos.runtime.server.application import Application
from angos.runtime.server.channel import PlainChannel
from angos.runtime.server.connection import Connection, Surroundings
from angos.runtime.server.deadlines import Deadline, Wait, sweep
from angos.runtime.server.framing import HeadParser, ParseFields
from angos.runtime.server.limits import ServerOptions, connections_allowed, raise_descriptor_limit
from angos.runtime.server.response_writer import format_head
from angos.sansio.errors import RegistryError
from angos.sansio.http.error_body import error_response
from angos.sansio.http.message import Inline

ACCEPTS_MAX: Final = 64  # connections accepted before others get their turn
PAUSE_SECONDS_MIN: Final = 0.05  # after a failed accept, doubled up to the maximum
PAUSE_SECONDS_MAX: Final = 1.0
REFUSED_MAX: Final = 64  # refused connections that are kept open for a moment
REFUSED_SECONDS: Final = 1.0  # how long that is, at least
EVICTED_MAX: Final = 32  # idle connections that make room for others at once
EVICTABLE_SECONDS: Final = 1.0  # how long they have been idle, at least
WARNING_SECONDS: Final = 60.0  # between two lines about too many connections
DRAIN_LOOK_SECONDS: Final = 0.02

_log = logging.getLogger("angos.server")


class ListenError(Exception):
    """The server cannot start as it is configured. The text is for the person who starts the server."""


class StopSignal(Protocol):
    """What tells a server to stop: an `anyio.Event`, for instance."""

    def is_set(self) -> bool: ...

    async def wait(self) -> None: ...


def bind(options: ServerOptions, *, shared: bool = False, listening: bool = True) -> list[socket.socket]:
    """Sockets for every address of the host. Raises `ListenError`.

    `shared` lets other processes bind the same port (SO_REUSEPORT). A socket that is bound but not `listening` keeps
    the port for them without being sent any connection.
    """
    where = f"{options.host or '*'}:{options.port}"
    try:
        found = socket.getaddrinfo(
            options.host or None, options.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV
        )
    except socket.gaierror as error:
        raise ListenError(f"cannot listen on {where}: {error.strerror}; choose another --host") from error
    sockets: list[socket.socket] = []
    port = options.port
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            try:
                bound = _bind_one(family, kind, protocol, (str(address[0]), port, *address[2:]), shared)
            except OSError as error:
                # IPv6 may be switched off although names resolve to it.
                if error.errno == errno.EAFNOSUPPORT or (error.errno == errno.EADDRNOTAVAIL and len(found) > 1):
                    continue
                raise
            sockets.append(bound)
            port = bound.getsockname()[1]  # with port 0, the second family gets the port of the first
        for bound in sockets:
            if listening:
                bound.listen(options.backlog)
    except OSError as error:
        for bound in sockets:
            bound.close()
        advice = {
            errno.EADDRINUSE: "another program uses this port; stop it or choose another --port",
            errno.EACCES: "ports below 1024 need privileges; choose another --port",
            errno.EADDRNOTAVAIL: "this machine has no such address; choose another --host",
        }.get(error.errno or 0, "choose another --host or --port")
        raise ListenError(f"cannot listen on {where}: {error.strerror}; {advice}") from error
    if not sockets:
        raise ListenError(f"cannot listen on {where}: this system supports none of its addresses")
    return sockets


def _bind_one(
    family: socket.AddressFamily, kind: socket.SocketKind, protocol: int, address: tuple[object, ...], shared: bool
) -> socket.socket:
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind(address)
    except BaseException:
        bound.close()
        raise
    bound.setblocking(False)
    return bound


def url_of(bound: socket.socket) -> str:
    """``http://127.0.0.1:8000``."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if bound.family == socket.AF_INET6 else f"http://{host}:{port}"


async def serve(
    application: Application,
    options: ServerOptions,
    *,
    sockets: Sequence[socket.socket],
    stop: StopSignal,
    on_ready: Callable[[], None] = lambda: None,
    hand_over: Callable[[Surroundings], None] = lambda _: None,
) -> None:
    """Serve until `stop` is set, then let requests in flight end and return. Closes the sockets.

    `hand_over` gets the surroundings before the first connection, so that parts of them can be replaced later.
    """
    surroundings = Surroundings(
        application,
        options,
        HeadParser(choose_parser(options), options.fields_max),
        CapacityLimiter(options.transfer_threads),
    )
    hand_over(surroundings)
    try:
        async with anyio.create_task_group() as connections, anyio.create_task_group() as housekeeping:
            housekeeping.start_soon(sweep, surroundings.deadlines, options.sweep_seconds)
            acceptor = _Acceptor(surroundings, connections)
            with CancelScope() as accepting:
                async with anyio.create_task_group() as listeners:
                    for listening in sockets:
                        listeners.start_soon(acceptor.run, listening)
                    on_ready()
                    await stop.wait()
                    accepting.cancel()
            acceptor.accept_rest(sockets)
            for listening in sockets:
                listening.close()
            surroundings.draining = True
            if not await _drain(surroundings):
                connections.cancel_scope.cancel()
            acceptor.close_refused()
            housekeeping.cancel_scope.cancel()
    finally:
        for listening in sockets:
            listening.close()
        for deadline in surroundings.deadlines:
            deadline.channel.close()  # of connections whose task was cancelled before it began


async def serve_until_signal(
    application: Application,
    options: ServerOptions,
    *,
    sockets: Sequence[socket.socket],
    on_ready: Callable[[], None] = lambda: None,
    hand_over: Callable[[Surroundings], None] = lambda _: None,
    stop: anyio.Event | None = None,
) -> None:
    """`serve` until SIGTERM or SIGINT; a second signal ends requests in flight at once."""
    stopping = stop if stop is not None else anyio.Event()

    async def listen_to_signals(scope: CancelScope) -> None:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as received:
            listening.set()
            async for number in received:
                if stopping.is_set():
                    _log.warning("second %s: ending requests in flight", number.name)
                    scope.cancel()
                else:
                    stopping.set()

    listening = anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(listen_to_signals, group.cancel_scope)
        await listening.wait()
        await serve(application, options, sockets=sockets, stop=stopping, on_ready=on_ready, hand_over=hand_over)
        group.cancel_scope.cancel()


async def _drain(surroundings: Surroundings) -> bool:
    """Wait for the open connections to end. False when the time was over before they had."""
    ends = time.monotonic() + surroundings.options.drain_seconds
    while surroundings.deadlines:
        for deadline in surroundings.deadlines:
            if deadline.wait is Wait.REQUEST:
                # Nothing is in flight here. A request that has arrived already is still found and answered.
                deadline.channel.end_receiving()
        if time.monotonic() >= ends:
            _log.warning(
                "%d connections did not end within %g seconds and are cut",
                len(surroundings.deadlines),
                surroundings.options.drain_seconds,
            )
            return False
        await anyio.sleep(DRAIN_LOOK_SECONDS)
    return True


def choose_parser(options: ServerOptions) -> ParseFields:
    """The configured head parser; nothing of the other one is imported. Raises `ListenError` when it is missing."""
    if options.head_parser == "httptools":
        from angos.runtime.server.head_httptools import ParserMissing, load_parse_fields

        try:
            return load_parse_fields()
        except ParserMissing as error:
            raise ListenError(str(error)) from error
    from angos.runtime.server.head_h11 import parse_fields

    return parse_fields


class _Acceptor:
    """Takes connections from the listening sockets, as many as are allowed."""

    __slots__ = ("_connections_max", "_evicted", "_group", "_refused", "_surroundings", "_warned")

    def __init__(self, surroundings: Surroundings, group: TaskGroup) -> None:
        self._surroundings = surroundings
        self._group = group
        self._connections_max = connections_allowed(surroundings.options, raise_descriptor_limit())
        self._refused: deque[tuple[float, socket.socket]] = deque()
        self._evicted: list[Deadline] = []
        self._warned = float("-inf")

    async def run(self, listening: socket.socket) -> None:
        """Accept for ever. No failure of a single accept ends it."""
        pause = PAUSE_SECONDS_MIN
        while True:
            await anyio.wait_readable(listening)
            try:
                self._accept(listening, ACCEPTS_MAX)
                pause = PAUSE_SECONDS_MIN
            except OSError as error:
                # Out of descriptors or memory, most likely: connections that end will help.
                _log.error("cannot accept connections now, trying again in %g s: %s", pause, error.strerror)
                await anyio.sleep(pause)
                pause = min(pause * 2, PAUSE_SECONDS_MAX)
            await checkpoint()

    def accept_rest(self, sockets: Sequence[socket.socket]) -> None:
        """Take in what the system has accepted for us already: closing the socket would reset these clients."""
        for listening in sockets:
            try:
                self._accept(listening, self._surroundings.options.backlog)
            except OSError as error:
                _log.error("cannot accept the last connections: %s", error.strerror)

    def _accept(self, listening: socket.socket, count_max: int) -> None:
        for _ in range(count_max):
            try:
                connected, address = listening.accept()
            except BlockingIOError:
                return
            except (ConnectionError, InterruptedError):  # the client left before its turn came
                continue
            if not self._has_room() and not self._evict():
                self._refuse(connected)
                continue
            channel = PlainChannel(connected, f"{address[0]}:{address[1]}")
            self._group.start_soon(Connection(channel, self._surroundings).run)

    def _has_room(self) -> bool:
        deadlines = self._surroundings.deadlines
        self._evicted = [deadline for deadline in self._evicted if deadline in deadlines]  # others have gone by now
        return len(deadlines) - len(self._evicted) < self._connections_max

    def _evict(self) -> bool:
        """Close the connections that have been idle for longest. False when none has been for long enough."""
        now = time.monotonic()
        if now - self._warned >= WARNING_SECONDS:
            self._warned = now
            _log.warning("%d connections are open: idle ones are closed, others refused", self._connections_max)
        idle_since_max = now + self._surroundings.options.idle_timeout - EVICTABLE_SECONDS
        idle = [
            deadline
            for deadline in self._surroundings.deadlines
            if deadline.wait is Wait.REQUEST and deadline.at <= idle_since_max
        ]
        oldest = nsmallest(EVICTED_MAX, idle, key=attrgetter("at"))
        for deadline in oldest:
            deadline.expire()
        self._evicted += oldest
        return bool(oldest)

    def _refuse(self, connected: socket.socket) -> None:
        now = time.monotonic()
        while self._refused and (len(self._refused) >= REFUSED_MAX or self._refused[0][0] <= now - REFUSED_SECONDS):
            self._refused.popleft()[1].close()
        try:
            connected.setblocking(False)
            connected.send(_busy())
            connected.shutdown(socket.SHUT_WR)
        except OSError:
            connected.close()
            return
        # Closing at once would reset the connection when its request arrives, and the client would miss the answer.
        self._refused.append((now, connected))

    def close_refused(self) -> None:
        """Forget the refused connections."""
        while self._refused:
            self._refused.popleft()[1].close()


def _busy() -> bytes:
    error = RegistryError(
        503, "UNAVAILABLE", "the registry has too many connections open; try again soon", headers={"Retry-After": "1"}
    )
    response = error_response(error)
    body = response.body.value if isinstance(response.body, Inline) else b""
    return format_head(response, close=True) + body
