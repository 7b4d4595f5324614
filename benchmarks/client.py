"""A client on a plain socket: it costs little, so that what is measured is the server."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from benchmarks.content import Content

RECEIVE_SIZE = 1 << 20
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"


class Unexpected(Exception):
    """A server answered what it should not have."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The head of a response, and its body unless that was thrown away."""

    status: int
    headers: dict[str, str]
    body: bytes


class Connection:
    """One keep-alive connection."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(
        self,
        method: str,
        target: str,
        status: int | tuple[int, ...],
        headers: Iterable[str] = (),
        body: Iterable[bytes | memoryview] = (),
    ) -> Answer:
        """Send a request whose body, if any, is described by `headers`; raises `Unexpected` for any other status."""
        self._send(method, target, headers, body)
        answer, length = self._receive_head()
        if method != "HEAD" and length:
            while len(self._buffer) < length:
                self._buffer += self._more()
            answer = Answer(answer.status, answer.headers, self._buffer[:length])
            self._buffer = self._buffer[length:]
        if answer.status not in (status if isinstance(status, tuple) else (status,)):
            raise Unexpected(f"{method} {target} was answered {answer.status}, not {status}: {answer.body[:500]!r}")
        return answer

    def download(self, target: str, size_max: int | None = None) -> int:
        """GET, throwing the body away; no more than `size_max` bytes of it. How many there are in all."""
        self._send("GET", target, (), ())
        answer, length = self._receive_head()
        if answer.status != 200:
            raise Unexpected(f"GET {target} was answered {answer.status}")
        left = (length if size_max is None else min(length, size_max)) - len(self._buffer)
        self._buffer = b""
        buffer = memoryview(bytearray(RECEIVE_SIZE))
        while left > 0:
            received = self._socket.recv_into(buffer, min(left, RECEIVE_SIZE))
            if not received:
                raise Unexpected(f"GET {target} ended {left} bytes early")
            left -= received
        return length

    def _send(self, method: str, target: str, headers: Iterable[str], body: Iterable[bytes | memoryview]) -> None:
        head = "\r\n".join([f"{method} {target} HTTP/1.1", "Host: 127.0.0.1", *headers, "", ""])
        self._socket.sendall(head.encode())
        try:
            for piece in body:
                self._socket.sendall(piece)
        except (BrokenPipeError, ConnectionResetError):
            answer, _ = self._receive_head()  # what the server said before it stopped listening
            raise Unexpected(
                f"{method} {target} was cut short and answered {answer.status}: {self._buffer!r}"
            ) from None

    def _receive_head(self) -> tuple[Answer, int]:
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            self._buffer += self._more()
        lines = self._buffer[:end].decode("latin-1").split("\r\n")
        self._buffer = self._buffer[end + 4 :]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        if "transfer-encoding" in headers:
            raise Unexpected("a chunked response, which this client does not read")
        return Answer(int(lines[0].split(" ", 2)[1]), headers, b""), int(headers.get("content-length", "0"))

    def _more(self) -> bytes:
        received = self._socket.recv(1 << 16)
        if not received:
            raise Unexpected("the server closed the connection in the middle of an answer")
        return received


def wait_until_answering(port: int, process: subprocess.Popen[bytes], patience_seconds: float = 20.0) -> None:
    """Return after the first answer to GET /v2/; raises `Unexpected` when none comes in time or the server ended."""
    wait_until_listening(port, process, patience_seconds)
    with Connection(port) as connection:
        connection.ask("GET", "/v2/", (200, 401))


def wait_until_listening(port: int, process: subprocess.Popen[bytes], patience_seconds: float = 20.0) -> None:
    """Return when connections are accepted; raises `Unexpected` when none is in time or the server ended."""
    deadline = time.monotonic() + patience_seconds
    while True:
        try:
            with Connection(port):
                return
        except ConnectionRefusedError:
            if process.poll() is not None:
                raise Unexpected(f"the server for port {port} ended with status {process.returncode}") from None
            if time.monotonic() > deadline:
                raise Unexpected(f"nothing answered on port {port} within {patience_seconds:.0f} s") from None
            time.sleep(0.001)


def open_upload(connection: Connection, namespace: str) -> str:
    """POST. The target for what follows."""
    answer = connection.ask("POST", f"/v2/{namespace}/blobs/uploads/", 202, ["Content-Length: 0"])
    return _target(answer.headers["location"])


def close_upload(connection: Connection, target: str, content: Content, with_body: bool = False) -> None:
    """PUT, with the whole content or without a body."""
    target = f"{target}{'&' if '?' in target else '?'}digest={content.digest}"
    length = content.size if with_body else 0
    headers = ["Content-Type: application/octet-stream", f"Content-Length: {length}"]
    connection.ask("PUT", target, 201, headers, content.pieces() if with_body else ())


def patch_upload(connection: Connection, target: str, content: Content, chunked: bool) -> str:
    """PATCH the whole content. The target for what follows."""
    headers = ["Content-Type: application/octet-stream"]
    if chunked:
        headers.append("Transfer-Encoding: chunked")
        answer = connection.ask("PATCH", target, 202, headers, content.chunks())
    else:
        headers.append(f"Content-Length: {content.size}")
        answer = connection.ask("PATCH", target, 202, headers, content.pieces())
    return _target(answer.headers["location"])


def push_as_clients_do(connection: Connection, namespace: str, content: Content) -> None:
    """HEAD, POST, PATCH, PUT: what docker, podman and skopeo send for a layer that is not there."""
    connection.ask("HEAD", f"/v2/{namespace}/blobs/{content.digest}", 404)
    target = open_upload(connection, namespace)
    target = patch_upload(connection, target, content, chunked=False)
    close_upload(connection, target, content)


def push_manifest(connection: Connection, namespace: str, tag: str, config: Content, layers: list[Content]) -> None:
    """PUT an image manifest under a tag."""
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": _descriptor("application/vnd.oci.image.config.v1+json", config),
            "layers": [_descriptor("application/vnd.oci.image.layer.v1.tar+gzip", layer) for layer in layers],
        }
    ).encode()
    headers = [f"Content-Type: {MANIFEST_TYPE}", f"Content-Length: {len(manifest)}"]
    connection.ask("PUT", f"/v2/{namespace}/manifests/{tag}", 201, headers, [manifest])


def _descriptor(media_type: str, content: Content) -> dict[str, object]:
    return {"mediaType": media_type, "digest": content.digest, "size": content.size}


def _target(location: str) -> str:
    parts = urlsplit(location)
    return f"{parts.path}?{parts.query}" if parts.query else parts.path
