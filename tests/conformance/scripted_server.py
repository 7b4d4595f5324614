"""A server that answers exactly the bytes that a test says: an identity provider or a webhook in any mood."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self


@dataclass(frozen=True)
class Asked:
    """One request as it came."""

    connection: int
    """Counted from 0."""
    line: str
    fields: tuple[tuple[str, str], ...]
    """Names as they were sent."""

    @property
    def target(self) -> str:
        """Path and query."""
        return self.line.split(" ")[1]

    def values(self, name: str) -> list[str]:
        """Of all fields of this name."""
        return [value for key, value in self.fields if key.lower() == name.lower()]


@dataclass(frozen=True)
class Said:
    """What the server does with a request."""

    parts: Iterable[bytes]
    then: str = "stay"
    """``stay`` on the connection, ``close`` it, or keep ``silent``."""


def said(
    body: bytes = b"", status: str = "200 OK", *fields: str, length: int | None = None, then: str = "stay"
) -> Said:
    """An answer, by default a correct one. `length` is what it says about its body."""
    head = "\r\n".join(("HTTP/1.1 " + status, f"Content-Length: {len(body) if length is None else length}", *fields))
    return Said((head.encode("latin-1") + b"\r\n\r\n" + body,), then)


SILENT = Said((), "silent")

Script = Callable[[Asked], Said]


@dataclass
class ScriptedServer:
    """Serves from ``with`` to its end, on a free port of the loopback address."""

    script: Script
    tls: ssl.SSLContext | None = None
    greeting: bytes = b""
    """Said before anything is asked."""
    asked: list[Asked] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)
    """Handshakes and connections that broke."""

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._connections: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._ended = threading.Event()

    @property
    def origin(self) -> str:
        """By the address, which certificates for ``127.0.0.1`` fit."""
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def connections(self) -> int:
        """How many there have been."""
        return len(self._connections)

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        for open_socket in (self._listener, *self._connections):
            with contextlib.suppress(OSError):
                open_socket.shutdown(socket.SHUT_RDWR)
            open_socket.close()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()

    def drop_connections(self) -> None:
        """As a server does when it restarts."""
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            self._start(self._serve, connection, len(self._connections) - 1)

    def _serve(self, plain: socket.socket, number: int) -> None:
        try:
            plain.sendall(self.greeting)
            if self.tls is None:
                self._answer(plain, number)
                return
            with self.tls.wrap_socket(plain.dup(), server_side=True) as encrypted:
                self._answer(encrypted, number)
        except OSError as error:  # an SSLError is one
            self.failures.append(error)
            with contextlib.suppress(OSError):
                plain.shutdown(socket.SHUT_RDWR)

    def _answer(self, connection: socket.socket, number: int) -> None:
        with connection.makefile("rb") as stream:
            while (line := stream.readline().decode("latin-1").strip()) and not self._ended.is_set():
                fields = []
                while field_line := stream.readline().decode("latin-1").strip("\r\n"):
                    name, _, value = field_line.partition(":")
                    fields.append((name, value.strip(" ")))
                asked = Asked(number, line, tuple(fields))
                self.asked.append(asked)
                answer = self.script(asked)
                for part in answer.parts:
                    connection.sendall(part)
                if answer.then == "silent":
                    self._ended.wait()
                if answer.then != "stay":
                    connection.shutdown(socket.SHUT_RDWR)
                    return
