"""Request bodies, outside of any parser.

A short body is read on the loop. A long one is moved in *turns*: a worker thread reads into a large buffer of its own,
decodes, and calls the sink, until the client has nothing to say or the turn is over. So a slow client never holds a
thread, a fast one never holds the loop, and the memory of a transfer is that of a thread, not of a connection.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from anyio import CapacityLimiter, to_thread

from angos.runtime.server.application import Sink
from angos.runtime.server.channel import RECEIVE_SIZE, Channel, receive, send
from angos.runtime.server.chunked import ChunkedDecoder, MalformedBody
from angos.runtime.server.deadlines import Deadline, Wait
from angos.runtime.server.framing import Head
from angos.runtime.server.limits import ServerOptions
from angos.runtime.server.scatter import SCRATCH_BYTES, Scatter
from angos.sansio.effects import BodyInterrupted, BodyTooLarge

LOOP_SIZE_MAX: Final = 64 << 10  # a body up to this length is not worth a thread
BUFFER_SIZE: Final = 1 << 20
TURN_SECONDS: Final = 0.05
POLL_MILLISECONDS: Final = 3  # shorter than the way back to the loop and into a thread again is not worth it
FAST_SIZE: Final = 64 << 10  # moved in a turn
RUNS_MAX: Final = 64  # views handed to the sink at once

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class _Buffers(threading.local):
    def __init__(self) -> None:
        self.buffer = bytearray(BUFFER_SIZE)
        self.view = memoryview(self.buffer)
        self.scratch = bytearray(SCRATCH_BYTES)


_buffers = _Buffers()


class BodyReader:
    """The body of one request: an `angos.runtime.server.application.RequestBody`."""

    __slots__ = (
        "_channel",
        "_deadline",
        "_decoder",
        "_ended",
        "_expects_continue",
        "_left",
        "_limiter",
        "_options",
        "_sink",
        "_size_max",
        "_taken",
        "failure",
        "finished",
        "pending",
    )

    def __init__(
        self,
        head: Head,
        pending: bytes,
        channel: Channel,
        deadline: Deadline,
        options: ServerOptions,
        limiter: CapacityLimiter,
    ) -> None:
        self._channel = channel
        self._deadline = deadline
        self._options = options
        self._limiter = limiter
        length = head.content_length
        self._left = length if length is not None else 0
        self._decoder = ChunkedDecoder() if length is None else None
        self._expects_continue = head.expects_continue
        self._taken = False
        self._ended = False
        self._sink: Sink = _skip
        self._size_max: int | None = None
        self.pending = pending
        """Bytes received and not used; once the body is finished they belong to the next request."""
        self.finished = length == 0
        """The whole body was read."""
        self.failure: str | None = None
        """Why the bytes cannot be decoded; then nothing more can be read from this client."""

    @property
    def stalled(self) -> bool:
        """The client was given up because it sent nothing."""
        return self._ended and self._deadline.expired

    async def read(self, size_max: int) -> bytes:
        """See `RequestBody`."""
        length = self._left
        if self._decoder is None and length <= len(self.pending) and length <= size_max and not self._taken:
            self._taken = self.finished = True
            value, self.pending = self.pending[:length], self.pending[length:]
            return value
        collected = bytearray()

        def collect(views: Sequence[memoryview]) -> None:
            for view in views:
                collected.extend(view)

        if not await self.receive(collect, size_max):
            raise BodyInterrupted(self.failure or "the client stopped in the middle of the request body")
        return bytes(collected)

    async def receive(self, sink: Sink, size_max: int | None) -> bool:
        """See `RequestBody`."""
        if self._taken:
            raise RuntimeError("the body of this request was taken before")
        self._taken = True
        if size_max is not None and self._left > size_max:
            raise BodyTooLarge(size_max)
        self._sink, self._size_max = sink, size_max
        try:
            if self.pending and not self.finished:
                self._feed_pending()
            if self.finished:
                return True
            if self._expects_continue:
                self._expects_continue = False
                await send(self._channel, _CONTINUE)
            if self._decoder is None and self._left <= LOOP_SIZE_MAX:
                await self._receive_on_loop()
            else:
                await self._receive_in_turns()
        except MalformedBody as error:
            self.failure = str(error)
        except ConnectionError:
            self._ended = True
        finally:
            self._sink = _skip
            self._deadline.stop()
        return self.finished

    def is_reusable(self) -> bool:
        """Whether another request can follow, perhaps after `skip`. Reads on if the end of the body is close."""
        if self.finished:
            return True
        if self._ended or self.failure is not None or self._expects_continue:
            # Whoever was not told to continue may send the body or not: only closing tells the two apart.
            return False
        if self._decoder is None:
            return self._left <= self._options.unread_size_max
        if self._taken:
            return False
        try:
            self._sink = _skip
            self.pending = self.pending or self._channel.receive_now(RECEIVE_SIZE) or b""
            self._feed_pending()
        except (MalformedBody, ConnectionError):
            self._ended = True
        return self.finished

    async def skip(self) -> bool:
        """Throw away what the application did not take. False when the client stopped."""
        self._sink, self._size_max = _skip, None
        if self.pending and not self.finished:
            self._feed_pending()
        if not self.finished:
            await self._receive_on_loop()
            self._deadline.stop()
        return self.finished

    async def _receive_on_loop(self) -> None:
        while not self.finished:
            self._deadline.start(Wait.BODY, self._options.body_stall_timeout)
            received = await receive(self._channel, min(RECEIVE_SIZE, self._left))
            if not received:
                self._ended = True
                return
            self._feed(received, memoryview(received), len(received))

    async def _receive_in_turns(self) -> None:
        make_room = getattr(self._sink, "make_room", None)
        while not self.finished and not self._ended:
            if make_room is not None:
                await make_room()
            if await to_thread.run_sync(self._turn, limiter=self._limiter):
                self._deadline.start(Wait.BODY, self._options.body_stall_timeout)
                await self._channel.wait_receivable()
                self._deadline.stop()

    def _turn(self) -> bool:
        """In a thread: move what there is. True when the client has nothing to say at the moment."""
        channel = self._channel
        ends = time.monotonic() + TURN_SECONDS
        moved = 0
        while True:
            count, received = self._move()
            moved += count
            if self.finished:
                return False
            if received == 0:
                self._ended = True
                return False
            if time.monotonic() >= ends or getattr(self._sink, "is_full", False):
                return False
            # Only a client that is fast deserves that a thread waits for it.
            if received is None and not (moved >= FAST_SIZE and channel.poll_receivable(POLL_MILLISECONDS)):
                return True

    def _move(self) -> tuple[int, int | None]:
        """Receive what there is, a buffer full at most, and feed it: how much it was, and what the last call said."""
        received: int | None = 0
        lend: Callable[[], memoryview | None] | None = getattr(self._sink, "lend", None)
        lent = lend() if lend is not None else None
        if lent is not None and self._decoder is not None:
            scatter = self._decoder.scatter(lent, _buffers.scratch, self._size_max)
            receive_scattered = getattr(self._channel, "receive_scattered_now", None)
            if scatter is not None and receive_scattered is not None:
                received = receive_scattered(scatter.views)
                if received:
                    self._feed_scattered(self._decoder, scatter, lent, received)
                return received or 0, received
            lent = None
        # The payload of a counted body is what is received, so it may go straight to where the sink wants it.
        buffer, view = (_buffers.buffer, _buffers.view) if lent is None else (b"", lent)
        # A chunked body may bring bytes of the next request along, a counted one never asks for them.
        room = min(len(view), self._left) if self._decoder is None else BUFFER_SIZE
        count = 0
        while count < room:
            received = self._channel.receive_into_now(view[count:room])
            if not received:
                break
            count += received
        if count:
            position = self._feed(buffer, view, count)
            if self.finished:
                self.pending = bytes(view[position:count])
        return count, received

    def _feed_scattered(self, decoder: ChunkedDecoder, scatter: Scatter, lent: memoryview, received: int) -> None:
        size, chunks, left, rest = scatter.sort_out(received)
        decoder.skip(chunks, left)
        if size:
            self._sink((lent[:size],))
        position = self._feed(rest, memoryview(rest), len(rest))
        if self.finished:
            self.pending = rest[position:]

    def _feed_pending(self) -> None:
        pending = self.pending
        self.pending = b""
        self.pending = pending[self._feed(pending, memoryview(pending), len(pending)) :]

    def _feed(self, data: bytes | bytearray, view: memoryview, count: int) -> int:
        """Give the payload in ``data[:count]`` to the sink; how many of these bytes belong to the body."""
        if self._decoder is None:
            taken = min(count, self._left)
            self._left -= taken
            self.finished = self._left == 0  # before the sink, which may fail on the very last bytes
            self._sink((view[:taken],))
            return taken
        position = 0
        while position < count and not self._decoder.finished:
            runs: list[memoryview] = []
            malformed: MalformedBody | None = None
            try:
                position = self._decoder.decode(data, view, position, count, runs, RUNS_MAX)
            except MalformedBody as error:
                malformed = error
            if self._size_max is not None and self._decoder.announced > self._size_max:
                raise BodyTooLarge(self._size_max)
            if runs:
                self._sink(runs)
            if malformed is not None:
                raise malformed
        self.finished = self._decoder.finished
        return position


def _skip(views: object) -> None:
    """The sink of bytes that nobody wants."""
