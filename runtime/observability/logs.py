"""Log lines: for people or for machines, on standard error, one line for each event.

Whatever a client sent can stand in a line, but it cannot end it, begin another one, or move the cursor of a terminal.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Mapping
from contextvars import ContextVar
from functools import lru_cache
from typing import Final, TextIO

from angos.runtime.observability.settings import LogOptions
from angos.runtime.server.application import Application, Content, RequestBody
from angos.sansio.effects import Key
from angos.sansio.http.message import Request, Response

REQUEST_ID_HEADER: Final = "X-Request-Id"
PATH_LENGTH_MAX: Final = 512  # a line stays below the 4 KiB that a pipe takes whole from each of several workers
MESSAGE_LENGTH_MAX: Final = 3072

_SEVERAL_LINES: Final = frozenset({"angos.reload"})
"""Loggers whose messages may have several lines: they say what is in the operator's own files, nothing of clients."""

_encode: Final = json.JSONEncoder(default=str).encode
_request_id: ContextVar[str] = ContextVar("request_id", default="")
_levelled: list[str] = []

_ACCESS_LINE: Final = "%(client)s %(method)s %(path)s %(status)d %(sent)s %(milliseconds).1fms"
_access_log = logging.getLogger("angos.access")


def configure_logging(options: LogOptions, stream: TextIO | None = None) -> None:
    """Write lines like this from now on; may be called again after a reload. `stream` is standard error by default.

    Levels below warning are for loggers of the registry only, unless the options name others: what libraries have to
    say about requests in detail was never checked for secrets.
    """
    handler = _Handler(sys.stderr if stream is None else stream)
    handler.setFormatter(JsonLines() if options.format == "json" else TextLines())
    root = logging.getLogger()
    root.handlers = [*(known for known in root.handlers if not isinstance(known, _Handler)), handler]
    root.setLevel(logging.WARNING)
    while _levelled:
        logging.getLogger(_levelled.pop()).setLevel(logging.NOTSET)
    for name, level in {"angos": options.level, **options.modules}.items():
        logging.getLogger(name).setLevel(level.upper())
        _levelled.append(name)


class _Handler(logging.StreamHandler[TextIO]):
    """The one that `configure_logging` replaces."""

    def handleError(self, _: logging.LogRecord) -> None:  # noqa: N802
        """Nobody takes the lines any more. There is no place left to say so, and the registry goes on."""


class TextLines(logging.Formatter):
    """``angos: INFO: message``. What cannot be seen is written as an escape such as ``\\n``."""

    def format(self, record: logging.LogRecord) -> str:
        """One line; with a traceback, further ones that are indented."""
        line = f"angos: {record.levelname}: {_message(record)}"
        if request_id := _request_id.get():
            line = f"{line} [{request_id}]"
        if record.exc_info:
            told = self.formatException(record.exc_info)
            line = "\n    ".join([line, *map(visible, told.splitlines())])
        return line


class JsonLines(logging.Formatter):
    """One object in each line. A message whose only argument is a mapping has its entries as further members."""

    def format(self, record: logging.LogRecord) -> str:
        """One line of ASCII."""
        entry: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _shortened(record.getMessage()),
            "process": record.process,
        }
        if request_id := _request_id.get():
            entry["request_id"] = request_id
        if isinstance(record.args, Mapping):
            entry = {**record.args, **entry}
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return _encode(entry)


def _time(record: logging.LogRecord) -> str:
    """RFC 3339, to the millisecond."""
    return f"{_second(int(record.created))}.{int(record.msecs):03d}Z"


@lru_cache(maxsize=2)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def _message(record: logging.LogRecord) -> str:
    message = _shortened(record.getMessage())
    if message.isprintable():
        return message
    if record.name in _SEVERAL_LINES:
        return "\n".join(map(visible, message.split("\n")))
    return visible(message)


def _shortened(message: str) -> str:
    return message if len(message) <= MESSAGE_LENGTH_MAX else f"{message[:MESSAGE_LENGTH_MAX]}..."


def visible(text: str) -> str:
    """The text with an escape for each control character, line separator, direction mark or lone surrogate."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class AccessLog:
    """One line for each answer: an error when the registry failed, otherwise for information."""

    def __init__(self, trusted_proxies: tuple[str, ...] = ()) -> None:
        """Networks of the proxies whose word about the address of a client counts."""
        self._client_of = _peer_address
        if trusted_proxies:
            from angos.sansio.access.peer import client_address

            self._client_of = lambda request: client_address(request.peer, request.headers, trusted_proxies)

    def on_answer(self, request: Request, response: Response, seconds: float, received: int) -> None:
        """Log an answered request (`angos.runtime.server.counters.OnAnswer`). A query may hold a token: never shown."""
        level = logging.ERROR if response.status >= 500 else logging.INFO
        if not _access_log.isEnabledFor(level):
            return
        path = request.target.partition("?")[0]
        entry = {
            "client": self._client_of(request) or "-",
            "method": request.method,
            "path": path if len(path) <= PATH_LENGTH_MAX else f"{path[:PATH_LENGTH_MAX]}...",
            "status": response.status,
            "sent": response.content_length,
            "received": received,
            "milliseconds": round(seconds * 1000, 1),
        }
        # Not by way of `Logger.log`, which would look for the line of code that calls it.
        record = logging.LogRecord(_access_log.name, level, "", 0, _ACCESS_LINE, (entry,), None)
        _access_log.handle(record)


def _peer_address(request: Request) -> str | None:
    return request.peer.address


class WithRequestIds:
    """An application whose requests have names: in every log line about them, and in their answers.

    Clients cannot choose the name, or they could make the lines of somebody else's request look like theirs.
    """

    def __init__(self, application: Application) -> None:
        self._application = application

    async def respond(self, request: Request, body: RequestBody) -> Response:
        """The answer of the application, with the name. Lines until the next request of the connection have it too."""
        request_id = os.urandom(8).hex()
        _request_id.set(request_id)
        response = await self._application.respond(request, body)
        return Response(response.status, (*response.headers, (REQUEST_ID_HEADER, request_id)), response.body)

    def open_content(self, key: Key) -> Content | None:
        """Of the application."""
        return self._application.open_content(key)
