"""One client's requests, one after the other."""

from __future__ import annotations

import logging
import time
from typing import Final

from anyio import CancelScope
from anyio.lowlevel import checkpoint

from angos.runtime.server.admission import AdmittedBody, is_exempt
from angos.runtime.server.application import Application
from angos.runtime.server.channel import Channel, receive
from angos.runtime.server.clients import client_of
from angos.runtime.server.deadlines import Deadline, Wait
from angos.runtime.server.framing import Head, HeadRefused, check_beginning
from angos.runtime.server.limits import ServerOptions
from angos.runtime.server.response_writer import AnswerImpossible, ContentTruncated, error_answer, write_response
from angos.runtime.server.surroundings import Surroundings
from angos.sansio.access.peer import client_address
from angos.sansio.effects import BodyHandle
from angos.sansio.http.message import Peer, Request, Response

HURRY_MAX: Final = 16  # pipelined requests answered before others get their turn
LATE_RETRY_SECONDS: Final = 30.0  # what took that long once is not worth trying again at once

_log = logging.getLogger("angos.server")
_BODY: Final = BodyHandle(0)


class Connection:
    """Reads requests, has them answered, and knows when to stop."""

    __slots__ = ("_channel", "_client", "_deadline", "_method", "_peer", "_pending", "_surroundings")

    def __init__(self, channel: Channel, peer: Peer, surroundings: Surroundings) -> None:
        self._channel = channel
        self._peer = peer
        self._client = client_of(peer.address)
        self._surroundings = surroundings
        self._deadline = Deadline(channel)
        self._pending = b""
        self._method = ""
        surroundings.deadlines.add(self._deadline)
        surroundings.clients.enter(self._client)
        surroundings.counters.connections_open += 1

    async def run(self) -> None:
        """Serve this client until either side has had enough."""
        try:
            if await self._begin():
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
            self._surroundings.clients.leave(self._client)
            self._surroundings.counters.connections_open -= 1
            self._channel.close()

    async def _begin(self) -> bool:
        """Whatever comes before the first request. False when there will be none."""
        return True

    def _check_peer(self) -> None:
        """Raises `HeadRefused` when what this connection began with does not hold any more."""

    async def _serve(self) -> None:
        with CancelScope() as scope:
            self._deadline.give_up = scope.cancel
            await self._serve_requests()
            return
        await self._answer_late()

    async def _serve_requests(self) -> None:
        hurry = 0
        while True:
            try:
                raw = await self._receive_head()
                if raw is None:
                    return
                head = self._surroundings.head_parser.parse(raw)
                self._check_peer()
            except HeadRefused as refused:
                self._surroundings.counters.heads_refused += 1
                answer = error_answer(refused.status, refused.code, refused.message)
                await self._write(answer, "", self._surroundings.application, close=True)
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
        deadline = self._deadline
        pending = self._pending
        searched = 0
        while True:
            options = self._surroundings.options
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
        surroundings, deadline = self._surroundings, self._deadline
        application, options, counters = surroundings.application, surroundings.options, surroundings.counters
        body = AdmittedBody(
            head, self._pending, self._channel, deadline, options, surroundings.limiter, surroundings.slots
        )
        request = Request(head.method, head.target, head.headers, _BODY, head.content_length, self._peer)
        self._method = head.method
        began = time.monotonic()
        deadline.begin_request(began + options.query_timeout)
        counters.requests_in_flight += 1
        failed = False
        response: Response | None = None
        try:
            response = await self._admit(request)
            if response is None:
                try:
                    response = await application.respond(request, body)
                except Exception:
                    _log.exception("%s %s failed", head.method, _path(head))
                    response, failed = _internal_error(), True
                finally:
                    surroundings.slots.give_back(options.max_concurrent_requests)
            if body.failure is not None:
                response = error_answer(400, "UNSUPPORTED", f"the request body cannot be decoded: {body.failure}")
            elif body.stalled:
                response = error_answer(408, "UNSUPPORTED", "the request body did not arrive in time")
            keep = head.keep_alive and not (failed or surroundings.draining or deadline.expired)
            keep = keep and body.is_reusable()
            try:
                await self._write(response, head.method, application, close=not keep)
            except AnswerImpossible as error:
                _log.error("%s %s cannot be answered: %s", head.method, _path(head), error)
                keep, response = False, error.instead or _internal_error()
                await self._write(response, head.method, application, close=True)
        finally:
            counters.requests_in_flight -= 1
            deadline.end_request()
            if surroundings.on_answer is not None and (response is not None or deadline.overdue):
                answered = response or _late_answer(options)
                surroundings.on_answer(request, answered, time.monotonic() - began, body.received)
        if keep and (body.finished or await body.skip()):
            self._pending = body.pending
            return True
        if head.keep_alive or not body.finished:
            # The client may be sending: the rest of its body, or the next request.
            await self._linger()
        return False

    async def _admit(self, request: Request) -> Response | None:
        """None when the request may be worked on, in a slot of its own; otherwise its refusal."""
        surroundings = self._surroundings
        options = surroundings.options
        rate = options.max_requests_per_second_per_client
        if rate is not None and not is_exempt(request.target):
            client, proxies = self._client, surroundings.trusted_proxies
            if proxies:
                client = client_of(client_address(self._peer, request.headers, proxies))
            wait = surroundings.rates.ask(client, rate, options.max_request_burst_per_client)
            if wait:
                surroundings.counters.requests_rejected["rate"] += 1
                return error_answer(
                    429, "TOOMANYREQUESTS", f"this client may send {rate} requests per second; try again later", wait
                )
        limit = options.max_concurrent_requests
        if surroundings.slots.take_now(limit):
            return None
        if is_exempt(request.target):
            surroundings.slots.take_anyhow()
            return None
        if await surroundings.slots.take(limit, options.queue_timeout):
            return None
        surroundings.counters.requests_rejected["concurrency"] += 1
        return error_answer(503, "UNAVAILABLE", "the registry has too much to do now; try again soon", 1.0)

    async def _answer_late(self) -> None:
        """The request took too long and was given up: say so, if nothing has been said yet."""
        deadline = self._deadline
        if not deadline.overdue or deadline.answering:
            self._channel.abort()
            return
        deadline.request_ends = time.monotonic() + self._surroundings.options.query_timeout_grace_period
        answer = _late_answer(self._surroundings.options)
        await self._write(answer, self._method, self._surroundings.application, close=True)
        deadline.end_request()
        await self._linger()

    async def _write(self, response: Response, method: str, application: Application, *, close: bool) -> None:
        surroundings = self._surroundings
        self._deadline.answering = True
        await write_response(
            response,
            method,
            close,
            channel=self._channel,
            deadline=self._deadline,
            application=application,
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


def _check_head_size(pending: bytes, end: int, options: ServerOptions) -> None:
    line_end = pending.find(b"\r\n", 0, options.request_line_size_max + 2)
    if line_end < 0 and len(pending) > options.request_line_size_max:
        raise HeadRefused(414, f"the request line is longer than {options.request_line_size_max} bytes")
    if (end + 4 if end >= 0 else len(pending)) > options.head_size_max:
        raise HeadRefused(431, f"the request head is longer than {options.head_size_max} bytes")


def _path(head: Head) -> str:
    """For logs: a query may hold a token."""
    return head.target.partition("?")[0]


def _late_answer(options: ServerOptions) -> Response:
    message = f"the request was given up: it was not answered within {options.query_timeout:g} seconds"
    return error_answer(503, "UNAVAILABLE", message, LATE_RETRY_SECONDS)


def _internal_error() -> Response:
    return error_answer(500, "INTERNAL_ERROR", "the registry failed; its operator finds the cause in the log")
