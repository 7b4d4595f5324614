"""A load balancer that spreads connections over servers in turn, and cuts them when a test wants it to."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Sequence
from typing import Self

CONNECT_SECONDS = 5.0
PIECE_BYTES = 64 << 10
Address = tuple[str, int]


class Balancer:
    """Serves from ``with`` to its end, on a free port of the loopback address. A server that does not let anybody in
    is passed over, as real balancers do."""

    def __init__(self, servers: Sequence[Address]) -> None:
        self.servers = list(servers)
        """May be changed at any time."""
        self.used: list[Address] = []
        """Whom each connection led to, in order."""
        self._turn = 0
        self._cuts: list[int] = []
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def cut_after(self, *sizes: int) -> None:
        """Each of the next connections is reset, both ends, when the client has sent more than so many bytes."""
        with self._lock:
            self._cuts += sizes

    def cut_no_more(self) -> None:
        """Whatever was still to be cut is not."""
        with self._lock:
            self._cuts.clear()

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            left = list(self._open)
        for end in left:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive(), "a connection of the balancer does not end"

    def _start(self, target: Callable[..., object], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._start(self._carry, client)

    def _carry(self, client: socket.socket) -> None:
        with client:
            server = self._next_server()
            if server is None:
                return
            with server:
                with self._lock:
                    self._open |= {client, server}
                    cut = self._cuts.pop(0) if self._cuts else None
                back = threading.Thread(target=_pump, args=(server, client), daemon=True)
                back.start()
                if not _pump(client, server, cut):
                    for end in (client, server):
                        _reset(end)
                back.join()
                with self._lock:
                    self._open -= {client, server}

    def _next_server(self) -> socket.socket | None:
        for _ in range(len(self.servers)):
            with self._lock:
                address = self.servers[self._turn % len(self.servers)]
                self._turn += 1
            with contextlib.suppress(OSError):
                server = socket.create_connection(address, CONNECT_SECONDS)
                server.settimeout(None)
                self.used.append(address)
                return server
        return None


def _pump(source: socket.socket, target: socket.socket, size_max: int | None = None) -> bool:
    """Carry bytes until there are no more, or, then False, more than so many."""
    passed = 0
    with contextlib.suppress(OSError):
        while data := source.recv(PIECE_BYTES):
            passed += len(data)
            if size_max is not None and passed > size_max:
                target.sendall(data[: len(data) - (passed - size_max)])
                return False
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
    return True


def _reset(end: socket.socket) -> None:
    """Let the other side see a reset instead of an end."""
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end.shutdown(socket.SHUT_RD)
