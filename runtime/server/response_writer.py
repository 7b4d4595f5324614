"""Answers: the head and a short body in one piece, stored content from its file to the socket."""

from __future__ import annotations

import contextlib
import math
import os
import re
import time
from collections.abc import Sequence
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

from anyio import CapacityLimiter, to_thread

from angos.runtime.server.application import Application, FetchedContent, FileContent
from angos.runtime.server.channel import Channel
from angos.runtime.server.deadlines import Deadline
from angos.runtime.server.limits import ServerOptions
from angos.sansio.effects import EffectError
from angos.sansio.errors import Code, RegistryError
from angos.sansio.http.error_body import error_response, refusal_of
from angos.sansio.http.message import Absent, FromFill, FromKey, FromUpstream, Inline, Redirect, Response, Slices
from angos.sansio.registry import EVERY_ANSWER

LOOP_SIZE_MAX: Final = 64 << 10  # content up to this length is not worth a thread
TURN_SECONDS: Final = 0.05
POLL_MILLISECONDS: Final = 3

_STATUS_LINES: Final = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}
_FORBIDDEN: Final = re.compile(r"[\r\n\0]")

Segment = memoryview | tuple[int, int]
"""Bytes, or offset and length of a piece of a file."""


class ContentTruncated(Exception):
    """A stored value ended before the length that the client was promised."""


class AnswerImpossible(Exception):
    """The answer cannot be sent as described; nothing of it was."""

    def __init__(self, message: str, instead: Response | None = None) -> None:
        """`instead`: what to tell the client; None when it is the server's own fault."""
        super().__init__(message)
        self.instead = instead


def error_answer(status: int, code: Code, message: str, retry_seconds: float | None = None) -> Response:
    """An error in the form of the distribution specification, with what every answer of a registry carries."""
    headers = {} if retry_seconds is None else {"Retry-After": str(max(1, math.ceil(retry_seconds)))}
    return _answer_of(RegistryError(status, code, message, headers=headers))


def _removed(key: str) -> AnswerImpossible:
    """It was there when the answer was made: whoever asks again is told 404, or a mirror fetches it again."""
    message = "the content was removed while it was asked for; ask again"
    return AnswerImpossible(f"{key} is absent", error_answer(503, "UNAVAILABLE", message, 1))


def _answer_of(refusal: RegistryError) -> Response:
    answer = error_response(refusal)
    return Response(answer.status, EVERY_ANSWER + answer.headers, answer.body)


class _Date:
    """The Date field, formatted once a second."""

    __slots__ = ("_line", "_second")

    def __init__(self) -> None:
        self._second = 0
        self._line = ""

    def line(self) -> str:
        second = int(time.time())
        if second != self._second:
            self._second, self._line = second, f"Date: {formatdate(second, usegmt=True)}\r\n"
        return self._line


_date = _Date()


def format_head(response: Response, close: bool) -> bytes:
    """Status line and header fields with the blank line."""
    parts = [_STATUS_LINES.get(response.status) or f"HTTP/1.1 {response.status} \r\n"]
    for name, value in response.headers:
        if _FORBIDDEN.search(value) is not None or _FORBIDDEN.search(name) is not None:
            raise AnswerImpossible(f"the value of the response field {name!r} has a line break")
        parts.append(f"{name}: {value}\r\n")
    length = response.content_length
    if length is not None:
        parts.append(f"Content-Length: {length}\r\n")
    parts.append(_date.line())
    parts.append("Connection: close\r\n\r\n" if close else "\r\n")
    try:
        return "".join(parts).encode("latin-1")
    except UnicodeEncodeError as error:
        raise AnswerImpossible("a response field has characters outside of latin-1") from error


async def write_response(
    response: Response,
    method: str,
    close: bool,
    *,
    channel: Channel,
    deadline: Deadline,
    application: Application,
    options: ServerOptions,
    limiter: CapacityLimiter,
) -> None:
    """Send one answer, all of it.

    Raises `AnswerImpossible` before anything was sent; `ConnectionError` when the client is gone and
    `ContentTruncated` when the content ended early, with nothing left to do but to cut the connection.
    """
    body = response.body
    if isinstance(body, Redirect):
        response = Response(response.status, (*response.headers, body.header))
        body = Inline(b"")
    head = format_head(response, close)
    bodiless = method == "HEAD" or response.content_length is None
    if isinstance(body, Inline):
        value = head if bodiless else head + body.value
        sent = channel.send_now(value)
        if sent != len(value):
            sending = Sending([memoryview(value)[sent or 0 :]], -1, channel)
            await send_pieces(sending, len(value) > LOOP_SIZE_MAX, deadline, options, limiter)
        return
    if isinstance(body, Absent):
        if not bodiless and body.length:
            raise AnswerImpossible("the answer promises a body that it does not describe")
        await send_pieces(Sending([memoryview(head)], -1, channel), False, deadline, options, limiter)
        return
    if isinstance(body, FromFill | FromUpstream):
        # A registry without upstreams starts without it.
        from angos.runtime.upstream.sending import send_from_fill, send_from_upstream

        if isinstance(body, FromFill):
            await send_from_fill(head, body, channel, deadline, options, limiter)
        else:
            await send_from_upstream(head, body, channel, deadline, options, limiter)
        return
    try:
        content = application.open_content(body.key)
    except OSError as error:
        raise AnswerImpossible(f"{body.key} cannot be opened: {error}") from error
    except EffectError as error:
        raise AnswerImpossible(f"{body.key} cannot be opened: {error}", _answer_of(refusal_of(error))) from error
    if content is None:
        raise _removed(body.key)
    if isinstance(content, FetchedContent):
        await _relay(head, [] if bodiless else _segments(body), content, body.key, channel, deadline, options, limiter)
        return
    try:
        segments: list[Segment] = [memoryview(head)]
        if not bodiless:
            segments += _segments(body)
        _check_size(segments, content, body.key)
        length = 0 if bodiless else response.content_length or 0
        if isinstance(body, FromKey) and length > LOOP_SIZE_MAX:
            _read_ahead(content.descriptor, body.start)
        await send_pieces(
            Sending(segments, content.descriptor, channel), length > LOOP_SIZE_MAX, deadline, options, limiter
        )
    finally:
        content.close()


def _segments(body: FromKey | Slices) -> list[Segment]:
    segments: list[Segment] = []
    if isinstance(body, FromKey):
        segments.append((body.start, body.length))
    else:
        for before, start, length in body.slices:
            segments += (memoryview(before), (start, length))
        segments.append(memoryview(body.closing))
    # An empty piece at the end would leave the one before it waiting for company in the socket.
    return [segment for segment in segments if (segment[1] if isinstance(segment, tuple) else segment.nbytes)]


async def _relay(
    head: bytes,
    segments: Sequence[Segment],
    content: FetchedContent,
    key: str,
    channel: Channel,
    deadline: Deadline,
    options: ServerOptions,
    limiter: CapacityLimiter,
) -> None:
    """Send what is fetched as it comes. The head waits for the first piece: until then another answer is possible."""
    ready: list[Segment] = [memoryview(head)]

    begun = False

    async def send() -> None:
        nonlocal begun, ready
        begun = True
        sending, ready = Sending(ready, -1, channel), []
        await send_pieces(sending, False, deadline, options, limiter)

    async def consume(data: bytes) -> None:
        ready.append(memoryview(data))
        await send()

    for segment in segments:
        if isinstance(segment, memoryview):
            ready.append(segment)
            continue
        try:
            found = await content.fetch(*segment, consume)
        except EffectError as error:
            if begun:
                raise ContentTruncated(f"{key} was not sent whole: {error}") from error
            raise AnswerImpossible(f"{key} cannot be read: {error}", _answer_of(refusal_of(error))) from error
        if not found:
            raise ContentTruncated(f"{key} is absent") if begun else _removed(key)
    if ready:
        await send()


def _check_size(segments: Sequence[Segment], content: FileContent, key: str) -> None:
    end = max((segment[0] + segment[1] for segment in segments if isinstance(segment, tuple)), default=0)
    if end > content.size:
        raise AnswerImpossible(f"{key} has {content.size} bytes, the answer needs {end}")


class Sending:
    """Pieces of an answer on their way, and how far they are."""

    __slots__ = ("_channel", "_descriptor", "_index", "_segments")

    def __init__(self, segments: list[Segment], descriptor: int, channel: Channel) -> None:
        self._segments = segments
        self._index = 0
        self._descriptor = descriptor
        self._channel = channel

    @property
    def finished(self) -> bool:
        return self._index == len(self._segments)

    def advance(self, poll_milliseconds: int) -> bool:
        """Send until all is sent, the turn is over, or the client takes nothing more: then True."""
        ends = time.monotonic() + TURN_SECONDS
        while not self.finished:
            segment = self._segments[self._index]
            if isinstance(segment, memoryview):
                more = self._index + 1 < len(self._segments)
                sent = self._channel.send_now(segment, more)
                rest: Segment | None = segment[sent or 0 :] if (sent or 0) < segment.nbytes else None
            else:
                offset, count = segment
                sent = self._channel.send_file_now(self._descriptor, offset, count)
                if sent == 0:
                    raise ContentTruncated(f"the content ended at byte {offset}, {count} bytes early")
                rest = (offset + (sent or 0), count - (sent or 0)) if (sent or 0) < count else None
            if rest is None:
                self._index += 1
            else:
                self._segments[self._index] = rest
            if sent is None and not (poll_milliseconds and self._channel.poll_sendable(poll_milliseconds)):
                return True
            if time.monotonic() >= ends:
                return False
        return False


def _read_ahead(descriptor: int, start: int) -> None:
    """Tell the kernel that a file is sent from here to its end, so that it reads ahead in large pieces."""
    with contextlib.suppress(AttributeError, OSError):  # not on every system, nor for every file: it is only a hint
        os.posix_fadvise(descriptor, start, 0, os.POSIX_FADV_SEQUENTIAL)


async def send_pieces(
    sending: Sending, long: bool, deadline: Deadline, options: ServerOptions, limiter: CapacityLimiter
) -> None:
    """Send all of it, in a worker thread when it is `long`. Raises `ConnectionError` when the client is gone."""
    try:
        while not sending.finished:
            if long:
                blocked = await to_thread.run_sync(sending.advance, POLL_MILLISECONDS, limiter=limiter)
            else:
                blocked = sending.advance(0)
            if blocked:
                deadline.start_sending(options.send_stall_timeout)
                await deadline.channel.wait_sendable()
    finally:
        deadline.stop()
