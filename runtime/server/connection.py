"""One client's requests, one after the other."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import Final

from anyio import CapacityLimiter
from anyio.lowlevel import checkpoint

from angos.runtime.server.application import Application
from angos.runtime.server.body_reader import BodyReader
from angos.runtime.server.channel import Channel, receive
from angos.runtime.server.deadlines import Deadline, Wait
from angos.runtime.server.framing import Head, HeadParser, HeadRefused, check_beginning
from angos.runtime.server.limits import ServerOptions
from angos.runtime.server.response_writer import AnswerImpossible, ContentTruncated, error_answer, write_response
from angos.sansio.effects import BodyHandle
from angos.sansio.http.message import Request, Response

HURRY_MAX: Final = 16  # pipelined requests answered before others get their turn

_log = logging.getLogger("angos.server")
_access_log = logging.getLogger("angos.access")
_BODY: Final = BodyHandle(0)


@dataclass(slots=True)
class Surroundings:
    """What the connections of one event loop share."""

    application: Application
    options: ServerOptions
    head_parser: HeadParser
    limiter: CapacityLimiter
    """Of the threads that move large bodies."""
    deadlines: set[Deadline] = field(default_factory=set)
    """One for each open connection."""
    draining: bool = False
    """No further requests are wanted: every answer closes its connection."""


class Connection:
    """Reads requests, has them answered, and knows when to stop."""

    __slots__ = ("_channel", "_deadline", "_pending", "_surroundings")

    def __init__(self, channel: Channel, surroundings: Surroundings) -> None:
        self._channel = channel
        self._surroundings = surroundings
        self._deadline = Deadline(channel)
        self._pending = b""
        surroundings.deadlines.add(self._deadline)

    async def run(self) -> None:
        """Serve this client until either side has had enough."""
        try:
            await self._serve()
        except ConnectionError as error:
            _log.debug("connection with %s lost: %s", self._channel.peer, error)
        except ContentTruncated as error:
            _log.error("connection with %s cut: %s", self._channel.peer, error)
            self._channel.abort()
        except Exception:
            _log.exception("connection with %s cut after a failure in the server", self._channel.peer)
            self._channel.abort()
        finally:
            self._surroundings.deadlines.discard(self._deadline)
            self._channel.close()

    async def _serve(self) -> None:
        hurry = 0
        while True:
            try:
                raw = await self._receive_head()
                if raw is None:
                    return
                head = self._surroundings.head_parser.parse(raw)
            except HeadRefused as refused:
                await self._write(error_answer(refused.status, refused.code, refused.message), "", close=True)
                await self._linger()
                return
            if not await self._answer(head):
                return
            if self._pending:
                hurry += 1
                if hurry % HURRY_MAX == 0:
                    await checkpoint()

    async def _receive_head(self) -> bytes | None:
        """The next head with its blank line, None at the end of the stream. Raises `HeadRefused`."""
        options = self._surroundings.options
        deadline = self._deadline
        pending = self._pending
        searched = 0
        while True:
            if searched == 0 and pending.startswith(b"\r\n"):
                # Some clients send an empty line too many after a body (RFC 9112 section 2.2).
                pending = pending[2:]
                continue
            end = pending.find(b"\r\n\r\n", searched)
            if end > options.request_line_size_max or (end < 0 and pending):
                _check_head_size(pending, end, options)
            if end >= 0:
                deadline.stop()
                self._pending = pending[end + 4 :]
                return pending[: end + 4]
            if not pending:
                deadline.start(Wait.REQUEST, options.idle_timeout)
            else:
                check_beginning(pending)
                if deadline.wait is not Wait.HEAD:
                    deadline.start(Wait.HEAD, options.head_timeout)
            searched = max(0, len(pending) - 3)
            await self._channel.wait_receivable()
            received = await receive(self._channel)
            if not received:
                if pending and deadline.expired:
                    raise HeadRefused(408, f"the request head took longer than {options.head_timeout:g} seconds")
                return None
            pending = pending + received if pending else received

    async def _answer(self, head: Head) -> bool:
        """Have one request answered. True when the connection can carry another."""
        surroundings = self._surroundings
        began = time.perf_counter() if surroundings.options.access_log else 0.0
        body = BodyReader(
            head, self._pending, self._channel, self._deadline, surroundings.options, surroundings.limiter
        )
        request = Request(head.method, head.target, head.headers, _BODY, head.content_length)
        failed = False
        try:
            response = await surroundings.application.respond(request, body)
        except Exception:
            _log.exception("%s %s failed", head.method, _path(head))
            response, failed = _internal_error(), True
        if body.failure is not None:
            response = error_answer(400, "UNSUPPORTED", f"the request body cannot be decoded: {body.failure}")
        elif body.stalled:
            response = error_answer(408, "UNSUPPORTED", "the request body did not arrive in time")
        keep = head.keep_alive and not (failed or surroundings.draining or self._deadline.expired)
        keep = keep and body.is_reusable()
        try:
            await self._write(response, head.method, close=not keep)
        except AnswerImpossible as error:
            _log.error("%s %s cannot be answered: %s", head.method, _path(head), error)
            keep, response = False, _internal_error()
            await self._write(response, head.method, close=True)
        if surroundings.options.access_log:
            self._log_access(head, response, began)
        if keep and (body.finished or await body.skip()):
            self._pending = body.pending
            return True
        if head.keep_alive or not body.finished:
            # The client may be sending: the rest of its body, or the next request.
            await self._linger()
        return False

    async def _write(self, response: Response, method: str, *, close: bool) -> None:
        surroundings = self._surroundings
        await write_response(
            response,
            method,
            close,
            channel=self._channel,
            deadline=self._deadline,
            application=surroundings.application,
            options=surroundings.options,
            limiter=surroundings.limiter,
        )

    async def _linger(self) -> None:
        """Let the client see the last answer.

        Closing a socket with unread bytes resets the connection, and the reset overtakes the answer. So say that
        nothing follows and listen a little longer (RFC 9112 section 9.6).
        """
        options = self._surroundings.options
        self._channel.end_sending()
        self._deadline.start(Wait.CLOSING, options.linger_seconds)
        left = options.linger_size_max
        while left > 0 and (received := await receive(self._channel)):
            left -= len(received)

    def _log_access(self, head: Head, response: Response, began: float) -> None:
        _access_log.info(
            "%s %s %s %d %s %.1fms",
            self._channel.peer,
            head.method,
            _path(head),
            response.status,
            response.content_length,
            (time.perf_counter() - began) * 1000,
        )


def _check_head_size(pending: bytes, end: int, options: ServerOptions) -> None:
    line_end = pending.find(b"\r\n", 0, options.request_line_size_max + 2)
    if line_end < 0 and len(pending) > options.request_line_size_max:
        raise HeadRefused(414, f"the request line is longer than {options.request_line_size_max} bytes")
    if (end + 4 if end >= 0 else len(pending)) > options.head_size_max:
        raise HeadRefused(431, f"the request head is longer than {options.head_size_max} bytes")


def _path(head: Head) -> str:
    """For logs: a query may hold a token."""
    return head.target.partition("?")[0]


def _internal_error() -> Response:
    return error_answer(500, "INTERNAL_ERROR", "the registry failed; its operator finds the cause in the log")
