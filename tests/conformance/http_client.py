"""A strict HTTP/1.1 client: every answer is checked against RFC 9112 and what the registry owes every client.

It keeps to bare sockets, so that tests can send what no library would send: cut bodies, odd heads.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

CODES = frozenset(
    [
        "BLOB_UNKNOWN",
        "BLOB_UPLOAD_INVALID",
        "BLOB_UPLOAD_UNKNOWN",
        "DIGEST_INVALID",
        "MANIFEST_BLOB_UNKNOWN",
        "MANIFEST_INVALID",
        "MANIFEST_UNKNOWN",
        "NAME_INVALID",
        "NAME_UNKNOWN",
        "SIZE_INVALID",
        "UNAUTHORIZED",
        "DENIED",
        "UNSUPPORTED",
        "TOOMANYREQUESTS",
    ]
)
"""The error codes of the distribution specification."""
CODES_OF_5XX = frozenset({"INSUFFICIENT_STORAGE", "INTERNAL_ERROR", "UNAVAILABLE"})

_STATUS_LINE = re.compile(r"HTTP/1\.1 ([1-5][0-9][0-9]) ([ -~\t]*)")
_FIELD = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t]*", re.DOTALL)
_WARNING = re.compile(r'299 - "(?:[^"\\]|\\.)*"')
_ONCE = [
    "content-length",
    "content-type",
    "date",
    "location",
    "etag",
    "docker-content-digest",
    "range",
    "content-range",
    "connection",
    "allow",
    "link",
    "docker-upload-uuid",
    "retry-after",
    "oci-subject",
    "cache-control",
    "accept-ranges",
]

Fields = Sequence[tuple[str, str]]
Body = bytes | Iterable[bytes] | None


class ProtocolViolation(AssertionError):
    """The server broke a rule that holds for every answer."""


class Closed(ProtocolViolation):
    """The server closed the connection where an answer was due."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A final response with its whole body."""

    method: str
    target: str
    status: int
    reason: str
    headers: tuple[tuple[str, str], ...]
    """Names in lower case."""
    body: bytes
    interim: tuple[int, ...] = ()
    """The 1xx statuses that came before."""

    def all(self, name: str) -> list[str]:
        """Every value of a header."""
        return [value for key, value in self.headers if key == name.lower()]

    def get(self, name: str) -> str | None:
        """The value of a header that occurs at most once."""
        values = self.all(name)
        if len(values) > 1:
            raise ProtocolViolation(f"{self}: {name} occurs {len(values)} times")
        return values[0] if values else None

    def __getitem__(self, name: str) -> str:
        value = self.get(name)
        if value is None:
            raise ProtocolViolation(f"{self}: no {name} in {dict(self.headers)}")
        return value

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def location(self) -> str:
        """The Location: a path, unless the content is got from elsewhere."""
        return self["location"]

    @property
    def size(self) -> int:
        """The Content-Length, which of a HEAD answer is not the length of the body."""
        return int(self["content-length"])

    @property
    def next_page(self) -> str | None:
        """The target of the Link to the next page."""
        link = self.get("link")
        if link is None:
            return None
        match = re.fullmatch(r'<(/[^>]*)>; rel="next"', link)
        if match is None:
            raise ProtocolViolation(f"{self}: not the one form of Link that all clients understand: {link}")
        return match[1]

    @property
    def codes(self) -> list[str]:
        """The codes of an OCI error body, whose shape is checked."""
        if not self["content-type"].startswith("application/json"):
            raise ProtocolViolation(f"{self}: error body of type {self['content-type']}")
        document = self.json
        if not isinstance(document, dict) or not isinstance(document.get("errors"), list) or not document["errors"]:
            raise ProtocolViolation(f"{self}: not an OCI error body: {self.body[:200]!r}")
        known = CODES if self.status < 500 else CODES | CODES_OF_5XX
        for error in document["errors"]:
            if error["code"] not in known or not isinstance(error.get("message", ""), str):
                raise ProtocolViolation(f"{self}: not an OCI error: {error}")
        return [error["code"] for error in document["errors"]]

    def __str__(self) -> str:
        shown = self.target if len(self.target) < 200 else self.target[:197] + "..."
        return f"{self.method} {shown} -> {self.status} {self.body[:300]!r}"


def refused(answer: Answer, status: int | Iterable[int], code: str | Iterable[str] = ()) -> None:
    """Assert that an answer is this refusal: one of these statuses, with an OCI error body and one of these codes."""
    statuses = {status} if isinstance(status, int) else set(status)
    codes = {code} if isinstance(code, str) else set(code)
    assert answer.status in statuses, f"{answer}, expected {statuses}"
    if answer.method != "HEAD":
        assert set(answer.codes) <= (codes or CODES | CODES_OF_5XX), f"{answer}, expected {codes}"
        message = answer.json["errors"][0].get("message", "")
        assert message, f"{answer}: the error says nothing to a person"
        assert "Traceback" not in message


class Connection:
    """One TCP connection on which requests can be sent piece by piece."""

    def __init__(self, host: str, port: int, timeout_seconds: float = 30.0) -> None:
        self.socket = socket.create_connection((host, port), timeout_seconds)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""
        self.finished = False
        """The server said that it will close."""

    def send(self, data: bytes) -> None:
        """Send these bytes. A server that answered early and closed is not an error here: the answer is still read."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(data)

    def answer(self, method: str, target: str = "", *, head_only: bool = False) -> Answer:
        """Read the next answer, checking everything that holds for all of them."""
        interim = []
        while True:
            head = self._until(b"\r\n\r\n", f"the head of the answer to {method} {target[:200]}")
            status, reason, headers = _parse_head(head)
            if status >= 200:
                break
            interim.append(status)
        answer = Answer(method, target, status, reason, headers, b"", tuple(interim))
        if method != "HEAD" and status not in (204, 304) and not head_only:
            body = self._exactly(answer.size)
            answer = Answer(method, target, status, reason, headers, body, tuple(interim))
        self.finished = "close" in (answer.get("connection") or "").lower()
        check(answer)
        return answer

    def receive(self, size: int) -> bytes:
        """Exactly so many bytes of a body whose head was read with `head_only`."""
        return self._exactly(size)

    def interim(self) -> int:
        """Read one interim answer, and nothing else."""
        status, _, _ = _parse_head(self._until(b"\r\n\r\n", "an interim answer"))
        return status

    def closed_by_server(self) -> bool:
        """Wait for the end of the connection; True when nothing else came."""
        while True:
            try:
                data = self.socket.recv(65536)
            except ConnectionResetError:
                return not self._buffer
            if not data:
                return not self._buffer
            self._buffer += data

    def close(self) -> None:
        """End the connection without a reset, and without looking at what else may have come."""
        self.socket.close()

    def finish(self) -> None:
        """End the connection, making sure that the server sent not one byte more than its answers."""
        try:
            self.socket.shutdown(socket.SHUT_WR)
            stray = self._buffer + self.socket.recv(65536)
        except OSError:
            stray = self._buffer
        finally:
            self.socket.close()
        if stray:
            raise ProtocolViolation(f"bytes after the last answer: {stray[:200]!r}")

    def _until(self, end: bytes, what: str) -> bytes:
        while end not in self._buffer:
            self._more(what)
        found, _, self._buffer = self._buffer.partition(end)
        return found

    def _exactly(self, size: int) -> bytes:
        pieces, missing = [self._buffer[:size]], size - len(self._buffer)
        self._buffer = self._buffer[size:]
        while missing > 0:
            data = self.socket.recv(min(missing, 1 << 20))
            if not data:
                raise Closed(f"the connection ended {missing} bytes before the end of a body of {size}")
            pieces.append(data)
            missing -= len(data)
        return b"".join(pieces)

    def _more(self, what: str) -> None:
        try:
            data = self.socket.recv(65536)
        except ConnectionResetError as error:
            raise Closed(f"connection reset where {what} was due; got {self._buffer[:200]!r}") from error
        except TimeoutError as error:
            raise ProtocolViolation(f"nothing came where {what} was due; got {self._buffer[:200]!r}") from error
        if not data:
            raise Closed(f"connection closed where {what} was due; got {self._buffer[:200]!r}")
        self._buffer += data


def _parse_head(head: bytes) -> tuple[int, str, tuple[tuple[str, str], ...]]:
    lines = head.decode("latin-1").split("\r\n")
    status_line = _STATUS_LINE.fullmatch(lines[0])
    if status_line is None:
        raise ProtocolViolation(f"not a status line: {lines[0]!r}")
    headers = []
    for line in lines[1:]:
        match = _FIELD.fullmatch(line)
        if match is None or not match[2].isprintable():
            raise ProtocolViolation(f"not a header field: {line!r}")
        headers.append((match[1].lower(), match[2]))
    return int(status_line[1]), status_line[2], tuple(headers)


def check(answer: Answer) -> None:
    """Everything that holds for every answer of the registry."""

    def require(condition: bool, rule: str) -> None:
        if not condition:
            raise ProtocolViolation(f"{answer}: {rule}; headers {dict(answer.headers)}")

    for name in _ONCE:
        require(len(answer.all(name)) <= 1, f"{name} occurs twice")
    require("date" in dict(answer.headers), "no Date (RFC 9110 section 6.6.1)")
    require(answer.get("docker-distribution-api-version") == "registry/2.0", "no Docker-Distribution-API-Version")
    require(answer.get("x-content-type-options") == "nosniff", "no X-Content-Type-Options")
    require(answer.get("content-encoding") is None, "Content-Encoding makes clients lose the length and the digest")
    require(answer.get("transfer-encoding") is None, "chunked answers have no length")
    require(answer.status != 406, "content negotiation never refuses")
    if answer.status == 204:
        require(answer.get("content-length") is None, "204 with a Content-Length (RFC 9110 section 8.6)")
    elif answer.status != 304:
        require((answer.get("content-length") or "").isdigit(), "no Content-Length")
    if answer.status == 307:
        require("://" in answer["location"], "who is sent elsewhere must be told where")
        require(answer["cache-control"] == "no-store", "a URL that lapses must not be kept")
        require(answer.method == "GET" and not answer.body, "only a GET can be sent elsewhere, without a body")
    for name in () if answer.status == 307 else ("location", "docker-upload-location"):
        value = answer.get(name)
        require(value is None or value.startswith("/v2/"), f"{name} must be a path")
    require((answer.get("link") or "</v2/").startswith("</v2/"), "Link must be a path")
    warnings = answer.all("warning")
    require(all(_WARNING.fullmatch(warning) for warning in warnings), "malformed Warning")
    require(sum(map(len, warnings)) <= 4096, "more than 4096 bytes of Warning")
    if answer.status >= 400 and answer.method != "HEAD":
        require(bool(answer.codes), "no OCI error body")
    if answer.status == 405:
        # An empty one is for what can be done nowhere here (section 10.2.1).
        require(answer.get("allow") is not None, "405 without Allow (RFC 9110 section 15.5.6)")


def chunked(pieces: Iterable[bytes], *, end: bool = True) -> Iterable[bytes]:
    """The chunked transfer coding of these pieces (RFC 9112 section 7.1)."""
    for piece in pieces:
        if piece:
            yield f"{len(piece):x}\r\n".encode() + piece + b"\r\n"
    if end:
        yield b"0\r\n\r\n"


def request_head(method: str, target: str, headers: Fields) -> bytes:
    """The head of a request, as given."""
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode("latin-1")


@dataclass(slots=True)
class Client:
    """Sends requests one after the other, on one connection as long as the server keeps it."""

    host: str
    port: int
    timeout_seconds: float = 30.0
    _connection: Connection | None = field(default=None, repr=False)

    @classmethod
    def of(cls, url: str) -> Self:
        """A client of the server at this address."""
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        return cls(parts.hostname, parts.port)

    def connect(self) -> Connection:
        """Another connection, for a test to play with."""
        return Connection(self.host, self.port, self.timeout_seconds)

    def request(self, method: str, target: str, body: Body = None, headers: Fields = ()) -> Answer:
        """Send a request and read its answer. Bytes go with a Content-Length; an iterable goes chunked.

        Without a body, POST, PUT and PATCH say ``Content-Length: 0``.
        """
        connection = self._connection
        if connection is None or connection.finished:
            if connection is not None:
                connection.finish()
            connection = self._connection = self.connect()
        fields = [("Host", f"{self.host}:{self.port}"), *headers]
        named = {name.lower() for name, _ in headers}
        if isinstance(body, bytes):
            if "content-length" not in named:
                fields.append(("Content-Length", str(len(body))))
            connection.send(request_head(method, target, fields) + body)
        elif body is None:
            if method in ("POST", "PUT", "PATCH") and not named & {"content-length", "transfer-encoding"}:
                fields.append(("Content-Length", "0"))
            connection.send(request_head(method, target, fields))
        else:
            connection.send(request_head(method, target, [*fields, ("Transfer-Encoding", "chunked")]))
            for piece in chunked(body):
                connection.send(piece)
        try:
            return connection.answer(method, target)
        except BaseException:
            connection.close()
            self._connection = None
            raise

    def get(self, target: str, headers: Fields = ()) -> Answer:
        """GET."""
        return self.request("GET", target, None, headers)

    def head(self, target: str, headers: Fields = ()) -> Answer:
        """HEAD."""
        return self.request("HEAD", target, None, headers)

    def post(self, target: str, body: Body = None, headers: Fields = ()) -> Answer:
        """POST."""
        return self.request("POST", target, body, headers)

    def put(self, target: str, body: Body = None, headers: Fields = ()) -> Answer:
        """PUT."""
        return self.request("PUT", target, body, headers)

    def patch(self, target: str, body: Body = None, headers: Fields = ()) -> Answer:
        """PATCH."""
        return self.request("PATCH", target, body, headers)

    def delete(self, target: str, headers: Fields = ()) -> Answer:
        """DELETE."""
        return self.request("DELETE", target, None, headers)

    def close(self) -> None:
        """End the connection, looking for stray bytes."""
        if self._connection is not None:
            self._connection.finish()
            self._connection = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        elif self._connection is not None:
            self._connection.close()
