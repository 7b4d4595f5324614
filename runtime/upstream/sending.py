"""Answers whose bytes are still on their way from an upstream.

At least the last byte waits until all of them are known to be right. So a client that has got everything has the blob
that it asked for, and any other one sees its connection break before the length that it was promised.
"""

from __future__ import annotations

from anyio import CapacityLimiter
from anyio.to_thread import run_sync

from angos.runtime.hashing import Hasher
from angos.runtime.server.channel import Channel
from angos.runtime.server.deadlines import Deadline
from angos.runtime.server.limits import ServerOptions
from angos.runtime.server.response_writer import (
    LOOP_SIZE_MAX,
    AnswerImpossible,
    ContentTruncated,
    Segment,
    Sending,
    error_answer,
    send_pieces,
)
from angos.runtime.upstream.client import OpenedStream
from angos.runtime.upstream.fills import FillEndedEarly, FollowedFill
from angos.sansio.effects import EffectError
from angos.sansio.http.message import FromFill, FromUpstream, Response

SEND_BYTES = 4 << 20  # so that a client that is far behind does not hold a thread for long


async def send_from_fill(
    head: bytes, body: FromFill, channel: Channel, deadline: Deadline, options: ServerOptions, limiter: CapacityLimiter
) -> None:
    """Send a slice of what a fill brings, as it comes. Raises as `write_response` does."""
    handle: int = body.fill
    if not isinstance(handle, FollowedFill):
        raise AnswerImpossible("the answer follows a fill that there is not")
    fill, position, end = handle.fill, body.start, body.start + body.length
    before: list[Segment] = [memoryview(head)]
    while position < end:
        try:
            until = min(await fill.readable(position, end), position + SEND_BYTES)
        except FillEndedEarly as error:
            if before:
                raise AnswerImpossible(f"a fill ended early: {error}", _bad_gateway(str(error))) from None
            raise ContentTruncated(f"an answer was not sent whole: {error}") from None
        for descriptor, offset, length in fill.pieces(position, until):
            sending = Sending([*before, (offset, length)], descriptor, channel)
            before = []
            await send_pieces(sending, length > LOOP_SIZE_MAX, deadline, options, limiter)
        position = until


async def send_from_upstream(
    head: bytes,
    body: FromUpstream,
    channel: Channel,
    deadline: Deadline,
    options: ServerOptions,
    limiter: CapacityLimiter,
) -> None:
    """Pass an answer on that is stored nowhere. Raises as `write_response` does."""
    handle: int = body.stream
    if not isinstance(handle, OpenedStream):
        raise AnswerImpossible("the answer passes something on that there is not")
    try:
        await _pass_on(head, body, handle, channel, deadline, options, limiter)
    finally:
        await handle.close()


async def _pass_on(
    head: bytes,
    body: FromUpstream,
    stream: OpenedStream,
    channel: Channel,
    deadline: Deadline,
    options: ServerOptions,
    limiter: CapacityLimiter,
) -> None:
    hasher, left = Hasher(body.algorithm), body.length
    before: list[Segment] = [memoryview(head)]
    held = b""
    problem = ""
    while left and not problem:
        try:
            data = await stream.receive()
        except EffectError as error:
            problem = str(error)
            break
        if not data or len(data) > left:
            problem = f"{left} bytes are missing" if not data else "it sends more than it promised"
            break
        left -= len(data)
        if len(data) > LOOP_SIZE_MAX:
            await run_sync(hasher.update, data, limiter=limiter)
        else:
            hasher.update(data)
        data, held = held + data[:-1], data[-1:]
        if data:
            sending, before = Sending([*before, memoryview(data)], -1, channel), []
            await send_pieces(sending, False, deadline, options, limiter)
    if not problem and hasher.hex() != body.hex:
        problem = f"it hashes to {hasher.hex()}"
    if problem:
        message = f"an upstream did not send {body.algorithm}:{body.hex}: {problem}"
        if before:
            raise AnswerImpossible(message, _bad_gateway(message))
        raise ContentTruncated(message)
    await stream.finish()
    await send_pieces(Sending([*before, memoryview(held)], -1, channel), False, deadline, options, limiter)


def _bad_gateway(message: str) -> Response:
    return error_answer(502, "UNAVAILABLE", message)
