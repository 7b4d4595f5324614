"""A client that knows nothing of HTTP but how to cut answers out of the stream: it sends whatever a test wants."""

from __future__ import annotations

import json
import socket
import ssl
from dataclasses import dataclass
from typing import Any, Self

PATIENCE_SECONDS = 20.0
"""Only to fail instead of hanging; no test depends on how fast anything is."""


@dataclass(frozen=True)
class Answer:
    """One response. Names of fields are in lower case."""

    status: int
    fields: dict[str, str]
    body: bytes

    @property
    def closes(self) -> bool:
        """The server said that it closes the connection."""
        return self.fields.get("connection") == "close"

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    def error_code(self) -> str:
        """The code of an error body of the distribution specification."""
        assert self.fields["content-type"] == "application/json"
        return str(self.json()["errors"][0]["code"])


class Wire:
    """One connection to the server."""

    def __init__(
        self,
        address: tuple[str, int],
        receive_buffer: int | None = None,
        context: ssl.SSLContext | None = None,
        source: str | None = None,
    ) -> None:
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(PATIENCE_SECONDS)
        if source is not None:
            self.socket.bind((source, 0))
        self.socket.connect(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context is not None:
            # A cut connection has to look different from one that the server ended in good order.
            self.socket = context.wrap_socket(self.socket, server_hostname=address[0], suppress_ragged_eofs=False)
        self._pending = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def send(self, value: bytes) -> None:
        try:
            self.socket.sendall(value)
        except ssl.SSLEOFError as error:
            raise ConnectionError("the server cut the connection") from error

    def receive(self, size: int) -> bytes:
        """Some bytes; empty at the end of the stream."""
        try:
            return self.socket.recv(size)
        except ssl.SSLEOFError as error:
            raise ConnectionError("the server cut the connection") from error

    def end_sending(self) -> None:
        """Nothing follows; answers can still come. (`SSLSocket.shutdown` would forget the keys.)"""
        socket.socket.shutdown(self.socket, socket.SHUT_WR)

    def get(self, target: str = "/small", *fields: str, method: str = "GET") -> Answer:
        """Ask, and give the answer."""
        self.ask(target, *fields, method=method)
        return self.answer(head_only=method == "HEAD")

    def ask(self, target: str = "/small", *fields: str, method: str = "GET", body: bytes = b"") -> None:
        """Send a request; a body needs its own framing field."""
        lines = [f"{method} {target} HTTP/1.1", "Host: test", *fields, "", ""]
        self.send("\r\n".join(lines).encode() + body)

    def put(self, target: str, body: bytes) -> Answer:
        """Send a body of known length, and give the answer."""
        self.ask(target, f"Content-Length: {len(body)}", method="PUT", body=body)
        return self.answer()

    def put_chunked(self, target: str, *chunks: bytes) -> Answer:
        """Send a body in these chunks, and give the answer."""
        self.ask(target, "Transfer-Encoding: chunked", method="PUT", body=chunked(*chunks))
        return self.answer()

    def interim(self) -> bytes:
        """The status line of the next, interim, answer."""
        head = self._until(b"\r\n\r\n")
        return head.split(b"\r\n")[0]

    def answer(self, head_only: bool = False) -> Answer:
        """Read the next answer."""
        lines = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        version, status, _ = lines[0].split(" ", 2)
        assert version == "HTTP/1.1"
        fields: dict[str, str] = {}
        for line in lines[1:]:
            name, _, value = line.partition(": ")
            assert name.lower() not in fields, f"{name} came twice"
            fields[name.lower()] = value
        bodiless = head_only or status in ("204", "304")
        length = 0 if bodiless else int(fields["content-length"])
        return Answer(int(status), fields, self._exactly(length))

    def rest(self) -> bytes:
        """Everything up to the end of the stream."""
        value, self._pending = self._pending, b""
        while received := self.receive(1 << 20):
            value += received
        return value

    def is_closed(self) -> bool:
        """Wait for the server to close; False when it sends something instead."""
        try:
            return self.rest() == b""
        except ConnectionError:
            return True

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._pending:
            self._more()
        value, _, self._pending = self._pending.partition(mark)
        return value

    def _exactly(self, length: int) -> bytes:
        pieces, have = [self._pending], len(self._pending)
        while have < length:
            received = self.receive(1 << 20)
            if not received:
                raise EOFError(f"the answer ended after {have} of {length} bytes")
            pieces.append(received)
            have += len(received)
        whole = b"".join(pieces)
        self._pending = whole[length:]
        return whole[:length]

    def _more(self) -> None:
        received = self.receive(1 << 16)
        if not received:
            raise EOFError(f"the server closed the connection after {self._pending[:200]!r}")
        self._pending += received


def chunked(*chunks: bytes) -> bytes:
    """These chunks and the end of a chunked body."""
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
