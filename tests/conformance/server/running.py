"""A server in a thread of the test process, with a stand-in behind it."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
from anyio.from_thread import BlockingPortal, start_blocking_portal

from angos.runtime.server.application import Application
from angos.runtime.server.limits import ServerOptions
from angos.runtime.server.listener import bind, serve
from angos.runtime.server.surroundings import Surroundings
from angos.runtime.server.tls import ServerTls
from tests.conformance.server.stand_in import StandIn
from tests.conformance.server.wire import PATIENCE_SECONDS, Wire

StartServer = Callable[..., "RunningServer"]


class RunningServer:
    """Serves on a free port of 127.0.0.1 from construction until `stop`."""

    surroundings: Surroundings

    def __init__(
        self,
        portal: BlockingPortal,
        loop: str,
        stand_in: StandIn,
        options: ServerOptions,
        tls: ServerTls | None = None,
        context: ssl.SSLContext | None = None,
        sockets: list[socket.socket] | None = None,
    ) -> None:
        self.loop = loop
        self.context = context
        """What clients trust and show."""
        self.stand_in = stand_in
        self.options = options
        sockets = sockets or bind(options)
        self.address: tuple[str, int] = sockets[0].getsockname()[:2]
        self._portal = portal
        self._stop: anyio.Event = portal.call(anyio.Event)
        ready = anyio_ready = portal.call(anyio.Event)
        application: Application = stand_in
        self.ended: Future[Any] = portal.start_task_soon(
            partial(
                serve,
                application,
                options,
                sockets=sockets,
                stop=self._stop,
                on_ready=anyio_ready.set,
                hand_over=partial(setattr, self, "surroundings"),
                tls=tls,
            )
        )
        portal.call(ready.wait)

    def connect(self, receive_buffer: int | None = None) -> Wire:
        """A new connection to it."""
        return Wire(self.address, receive_buffer, self.context)

    def change(self, change: Callable[[Surroundings], None]) -> None:
        """Change what the connections share, as a reload does."""
        self._portal.call(change, self.surroundings)

    def release(self) -> None:
        """Let all requests for ``/hold`` be answered, those that come next included."""
        self._portal.call(self.stand_in.go.set)

    def wait_until(self, condition: Callable[[StandIn], bool]) -> None:
        """Until the stand-in is in this state; fails rather than waiting for ever."""
        ends = time.monotonic() + PATIENCE_SECONDS
        while not condition(self.stand_in):
            assert time.monotonic() < ends, "the server does not get there"
            time.sleep(0.01)

    def begin_stop(self) -> None:
        """Tell it to stop."""
        self._portal.call(self._stop.set)

    def stop(self) -> None:
        """Tell it to stop and wait for its end; it must end without a failure."""
        self.begin_stop()
        self.ended.result(timeout=30)


@contextmanager
def starting_servers(
    loop: str, folder: Path, tls: ServerTls | None = None, context: ssl.SSLContext | None = None
) -> Iterator[StartServer]:
    """Gives a function that starts servers; all of them are stopped at the end."""
    started: list[RunningServer] = []
    with start_blocking_portal(backend=loop) as portal:

        def start(
            *,
            tls: ServerTls | None = tls,
            context: ssl.SSLContext | None = context,
            sockets: list[socket.socket] | None = None,
            **limits: Any,
        ) -> RunningServer:
            options = ServerOptions(**{"port": 0, "sweep_seconds": 0.05, "drain_seconds": 5.0, **limits})
            server = RunningServer(portal, loop, StandIn(folder), options, tls, context, sockets)
            started.append(server)
            return server

        try:
            yield start
        finally:
            for server in started:
                if not server.ended.done():
                    server.stop()
