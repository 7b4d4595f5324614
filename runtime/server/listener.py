"""Listening sockets, the loop that accepts, and an orderly end."""

from __future__ import annotations

import errno
import logging
import signal
import socket
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Protocol

import anyio
from anyio import CancelScope, CapacityLimiter

from angos.runtime.server.acceptor import Acceptor
from angos.runtime.server.application import Application
from angos.runtime.server.deadlines import expire_overdue
from angos.runtime.server.framing import HeadParser, ParseFields
from angos.runtime.server.limits import ServerOptions
from angos.runtime.server.surroundings import Surroundings

if TYPE_CHECKING:
    from angos.runtime.server.tls import ServerTls

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


def url_of(bound: socket.socket, *, encrypted: bool = False) -> str:
    """``http://127.0.0.1:8000``."""
    host, port = bound.getsockname()[:2]
    scheme = "https" if encrypted else "http"
    return f"{scheme}://[{host}]:{port}" if bound.family == socket.AF_INET6 else f"{scheme}://{host}:{port}"


async def serve(
    application: Application,
    options: ServerOptions,
    *,
    sockets: Sequence[socket.socket],
    stop: StopSignal,
    on_ready: Callable[[], None] = lambda: None,
    hand_over: Callable[[Surroundings], None] = lambda _: None,
    tls: ServerTls | None = None,
) -> None:
    """Serve until `stop` is set, then let requests in flight end and return. Closes the sockets.

    With `tls`, nothing is served without it. `hand_over` gets the surroundings before the first connection, so that
    parts of them can be replaced later.
    """
    surroundings = Surroundings(
        application,
        options,
        HeadParser(choose_parser(options), options.fields_max),
        CapacityLimiter(options.transfer_threads),
        tls,
    )
    hand_over(surroundings)
    try:
        async with anyio.create_task_group() as connections, anyio.create_task_group() as housekeeping:
            housekeeping.start_soon(_sweep, surroundings)
            acceptor = Acceptor(surroundings, connections)
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
    tls: ServerTls | None = None,
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
        await serve(
            application, options, sockets=sockets, stop=stopping, on_ready=on_ready, hand_over=hand_over, tls=tls
        )
        group.cancel_scope.cancel()


async def _sweep(surroundings: Surroundings) -> None:
    """Expire what is overdue, for ever."""
    while True:
        await anyio.sleep(surroundings.options.sweep_seconds)
        grace_seconds = surroundings.options.query_timeout_grace_period
        expire_overdue(surroundings.deadlines, grace_seconds, surroundings.counters)


async def _drain(surroundings: Surroundings) -> bool:
    """Wait for the open connections to end. False when the time was over before they had."""
    ends = time.monotonic() + surroundings.options.drain_seconds
    while surroundings.deadlines:
        surroundings.end_idle()
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
