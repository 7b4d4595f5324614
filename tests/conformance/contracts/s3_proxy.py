"""Stands between a registry and a server of S3, sees every request, and does to them what a test says."""

from __future__ import annotations

import http.client
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, unquote, urlsplit

from angos.runtime.client.url import Url

PATIENCE_SECONDS = 30


@dataclass(frozen=True)
class Seen:
    """A request."""

    method: str
    target: str
    fields: Mapping[str, str]
    """Names in lower case."""
    body: bytes

    @property
    def key(self) -> str:
        """What it is about, without the bucket; empty for the bucket itself."""
        return unquote(urlsplit(self.target).path).lstrip("/").partition("/")[2]

    @property
    def query(self) -> dict[str, str]:
        """Decoded."""
        return dict(parse_qsl(urlsplit(self.target).query, keep_blank_values=True))


@dataclass(frozen=True)
class Answer:
    """Instead of the server's."""

    status: int
    body: bytes = b""
    fields: Mapping[str, str] = field(default_factory=dict)
    length: int | None = None
    """What it says about its body, when that is wrong."""


def problem(status: int, code: str, message: str = "") -> Answer:
    """An error document."""
    return Answer(status, f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode())


HANG_UP = "hang up"
"""Close the connection, and pass nothing on."""
LOSE = "lose"
"""Let the server do it, and close the connection instead of passing its answer on."""
RESET = "reset"
"""As `HANG_UP`, with a TCP reset."""
CUT = "cut"
"""Let the server do it, and break its answer off in the middle of its body."""
SILENT = "silent"
"""Say nothing, and pass nothing on, until the registry hangs up or the proxy ends."""

Rule = Callable[[Seen], "Answer | str | None"]
"""None: pass it on."""


class S3Proxy:
    """Serves from ``with`` to its end, on a free port of the loopback address."""

    def __init__(self, server: Url, tls: ssl.SSLContext | None = None) -> None:
        self.seen: list[Seen] = []
        self.rule: Rule = lambda _: None
        self._server = server
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        if tls is not None:
            self._http.socket = tls.wrap_socket(self._http.socket, server_side=True, do_handshake_on_connect=False)
        self._http.daemon_threads = True
        self._http.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients hang up, on purpose
        # Without the shutdown that is usual, after which there would be no reset.
        self._http.shutdown_request = self._http.close_request  # type: ignore[method-assign]
        self.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._http.shutdown()
        self._thread.join(PATIENCE_SECONDS)
        self._http.server_close()

    def about(self, part: str, method: str = "") -> list[Seen]:
        """Requests whose key has this in it."""
        return [seen for seen in self.seen if part in seen.key and method in ("", seen.method)]

    def _pass_on(self, seen: Seen) -> Answer:
        connection = http.client.HTTPConnection(self._server.host, self._server.port, timeout=PATIENCE_SECONDS)
        try:
            connection.request(seen.method, seen.target, seen.body, dict(seen.fields))
            answer = connection.getresponse()
            fields = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, answer.read(), fields)
        finally:
            connection.close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # head and body in one piece: two would wait for each other

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", "0")))
                fields = {name.lower(): value for name, value in self.headers.items()}
                seen = Seen(self.command, self.path, fields, body)
                proxy.seen.append(seen)
                found = proxy.rule(seen)
                if found == SILENT:
                    self.connection.settimeout(PATIENCE_SECONDS)
                    self.connection.recv(1)
                if found in (HANG_UP, RESET, SILENT):
                    self.close_connection = True
                    if found == RESET:
                        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    return
                answer = found if isinstance(found, Answer) else proxy._pass_on(seen)
                if found == LOSE:
                    self.close_connection = True
                    return
                if found == CUT:
                    answer = replace(answer, body=answer.body[: len(answer.body) // 2], length=len(answer.body))
                self.send_response_only(answer.status)
                for name, value in answer.fields.items():
                    if name not in ("content-length", "connection", "transfer-encoding"):
                        self.send_header(name, value)
                length = len(answer.body) if answer.length is None else answer.length
                if seen.method == "HEAD":
                    length = int(answer.fields.get("content-length", "0"))
                self.send_header("Content-Length", str(length))
                self.end_headers()
                if seen.method != "HEAD":
                    self.wfile.write(answer.body)
                self.close_connection = self.close_connection or answer.length is not None

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer  # noqa: N815

            def log_message(self, *_: Any) -> None:
                """Nothing is told."""

        return Handler
