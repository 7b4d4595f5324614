"""Taking connections from the listening sockets, as many as are allowed."""

from __future__ import annotations

import logging
import socket
import time
from collections import deque
from collections.abc import Sequence
from heapq import nsmallest
from operator import attrgetter
from typing import Final

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from angos.runtime.server.channel import PlainChannel
from angos.runtime.server.clients import client_of
from angos.runtime.server.connection import Connection
from angos.runtime.server.deadlines import Deadline, Wait
from angos.runtime.server.limits import connections_allowed, raise_descriptor_limit
from angos.runtime.server.reminder import Reminder
from angos.runtime.server.response_writer import error_answer, format_head
from angos.runtime.server.surroundings import Surroundings
from angos.sansio.access.peer import is_trusted
from angos.sansio.http.message import Inline, Peer, Response

ACCEPTS_MAX: Final = 64  # connections accepted before others get their turn
PAUSE_SECONDS_MIN: Final = 0.05  # after a failed accept, doubled up to the maximum
PAUSE_SECONDS_MAX: Final = 1.0
REFUSED_MAX: Final = 64  # refused connections that are kept open for a moment
REFUSED_SECONDS: Final = 1.0  # how long that is, at least
EVICTED_MAX: Final = 32  # idle connections that make room for others at once
EVICTABLE_SECONDS: Final = 1.0  # how long they have been idle, at least
WARNING_SECONDS: Final = 60.0  # between two lines about too many connections

_IDLE: Final = (Wait.REQUEST, Wait.HANDSHAKE)

_log = logging.getLogger("angos.server")


class Acceptor:
    """Of one event loop."""

    __slots__ = ("_descriptors", "_evicted", "_full", "_greedy", "_group", "_refused", "_surroundings")

    def __init__(self, surroundings: Surroundings, group: TaskGroup) -> None:
        self._surroundings = surroundings
        self._group = group
        self._descriptors = raise_descriptor_limit()
        self._refused: deque[tuple[float, socket.socket]] = deque()
        self._evicted: list[Deadline] = []
        self._full = Reminder(WARNING_SECONDS)
        self._greedy = Reminder(WARNING_SECONDS)

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
        counters = self._surroundings.counters
        for _ in range(count_max):
            try:
                connected, address = listening.accept()
            except BlockingIOError:
                return
            except (ConnectionError, InterruptedError):  # the client left before its turn came
                continue
            counters.connections_accepted += 1
            host = _host(address[0])
            if not self._may_have_another(host):
                counters.connections_refused["client"] += 1
                self._refuse(connected, _greedy())
            elif not self._has_room() and not self._evict():
                counters.connections_refused["total"] += 1
                self._refuse(connected, _busy())
            else:
                self._group.start_soon(self._connection(connected, host, f"{address[0]}:{address[1]}").run)

    def _connection(self, connected: socket.socket, host: str, name: str) -> Connection:
        surroundings = self._surroundings
        if surroundings.tls is None:
            return Connection(PlainChannel(connected, name), Peer(host, "http"), surroundings)
        from angos.runtime.server.encrypted import EncryptedConnection  # with all that only TLS needs

        return EncryptedConnection(connected, name, Peer(host, "https"), surroundings, surroundings.tls)

    def _may_have_another(self, host: str) -> bool:
        surroundings = self._surroundings
        limit = surroundings.options.max_connections_per_client
        if limit is None or surroundings.clients.count(client_of(host)) < limit:
            return True
        if surroundings.trusted_proxies and is_trusted(host, surroundings.trusted_proxies):
            return True
        if self._greedy.is_due():
            _log.warning("%s has %d connections open: further ones are refused", host, limit)
        return False

    def _has_room(self) -> bool:
        deadlines = self._surroundings.deadlines
        self._evicted = [deadline for deadline in self._evicted if deadline in deadlines]  # others have gone by now
        return len(deadlines) - len(self._evicted) < self._connections_max()

    def _connections_max(self) -> int:
        return connections_allowed(self._surroundings.options, self._descriptors)

    def _evict(self) -> bool:
        """Close the connections that have been idle for longest. False when none has been for long enough."""
        if self._full.is_due():
            _log.warning("%d connections are open: idle ones are closed, others refused", self._connections_max())
        since_max = time.monotonic() - EVICTABLE_SECONDS
        idle = [
            deadline
            for deadline in self._surroundings.deadlines
            if deadline.wait in _IDLE and deadline.since <= since_max and not deadline.expired
        ]
        oldest = nsmallest(EVICTED_MAX, idle, key=attrgetter("since"))
        for deadline in oldest:
            deadline.expire()
        self._evicted += oldest
        self._surroundings.counters.connections_evicted += len(oldest)
        return bool(oldest)

    def _refuse(self, connected: socket.socket, answer: Response) -> None:
        if self._surroundings.tls is not None:
            # The answer would need a handshake, which costs more than serving most requests.
            connected.close()
            return
        now = time.monotonic()
        while self._refused and (len(self._refused) >= REFUSED_MAX or self._refused[0][0] <= now - REFUSED_SECONDS):
            self._refused.popleft()[1].close()
        body = answer.body.value if isinstance(answer.body, Inline) else b""
        try:
            connected.setblocking(False)
            connected.send(format_head(answer, close=True) + body)
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


def _busy() -> Response:
    return error_answer(503, "UNAVAILABLE", "the registry has too many connections open; try again soon", 1.0)


def _greedy() -> Response:
    return error_answer(429, "TOOMANYREQUESTS", "this client has too many connections open; close some of them", 1.0)


def _host(address: str) -> str:
    """As people write it: an IPv4 address stays one on a socket for both families, and a scope is of no use here."""
    return address.removeprefix("::ffff:") if "." in address else address.partition("%")[0]
