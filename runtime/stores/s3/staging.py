"""A request body on its way into one object of a bucket.

A body up to the size of one piece is sent when it is complete. A longer one is sent in pieces: while one is on its way
the next one is received, as long as there is memory for a second buffer; then the client has to wait, because nothing
is read from its connection. So an upload needs the memory of two pieces at most, and many uploads that of one each.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from threading import BoundedSemaphore, Lock

from anyio import Event, create_task_group
from anyio.abc import TaskGroup

from angos.runtime.hashing import resume
from angos.runtime.performer import Body
from angos.runtime.stores.s3 import multipart, objects
from angos.runtime.stores.s3.bucket import Bucket
from angos.runtime.stores.s3.carrying_out import carry_out
from angos.runtime.stores.s3.options import PART_BYTES_MAX
from angos.sansio.bucket import plans
from angos.sansio.bucket.joining import PIECES_MAX
from angos.sansio.bucket.requests import BeginPieces, Content, Put, PutPiece
from angos.sansio.effects import HashState, Part, StageBody, Staged, StorageRefused

SMALL_BYTES = 64 << 10  # held as it comes
SECOND_BUFFERS = 8  # in the whole process
GROWTH_PIECES = 2000  # after so many pieces each one is as long as all before it divided by this

_second_buffers = BoundedSemaphore(SECOND_BUFFERS)


def piece_bytes(before: int, least: int) -> int:
    """How long the piece after `before` bytes is: 10,000 pieces of 5 MiB would be 50 GB, these ones are 500 GB."""
    grown = before // GROWTH_PIECES
    return min(max(least, grown - grown % mmap.PAGESIZE), PART_BYTES_MAX)


async def stage(bucket: Bucket, key: str, effect: StageBody, body: Body) -> Staged:
    """`StageBody`."""
    failure: Exception | None = None
    staging = Staging(bucket, key, effect)
    try:
        async with create_task_group() as tasks:
            staging.tasks = tasks
            try:
                whole = await body.receive(staging, effect.size_max)
                await staging.send_rest()
            except Exception as error:
                failure = error
                tasks.cancel_scope.cancel()
        failure = staging.failure or failure
        if failure is not None:
            raise failure
        await staging.complete()
    except BaseException:
        await staging.discard()
        raise
    finally:
        staging.release()
    return Staged(Part(effect.part, staging.size), staging.hashes(), whole)


class Staging:
    """Takes the bytes of one body: a sink of the server. Called in one thread at a time."""

    def __init__(self, bucket: Bucket, key: str, effect: StageBody) -> None:
        self.size = 0
        self.failure: Exception | None = None
        """Why a piece could not be sent."""
        self.tasks: TaskGroup | None = None
        """Where pieces are sent."""
        self._bucket = bucket
        self._key = key
        self._algorithms = tuple(state.algorithm for state in effect.hashes)
        self._hashers = tuple(resume(state) for state in effect.hashes)
        self._held = bytearray()
        """What came while there was no buffer."""
        self._buffer: memoryview | None = None
        self._filled = 0
        self._buffers_max = 1
        self._spare: memoryview | None = None
        """A buffer whose piece has been sent: using it again costs less than another one."""
        self._sending = 0
        self._sent_one = Event()
        self._sent_bytes = 0
        self._numbers = 0
        self._upload_id: str | None = None
        self._tags: dict[int, str] = {}
        self._lock = Lock()
        self._ended = False

    # --- in a worker thread, or on the loop when the body is small ----------------------------------------------------

    @property
    def is_full(self) -> bool:
        """There is no room until `make_room`."""
        if self._buffer is None:
            return len(self._held) > SMALL_BYTES
        return self._filled == len(self._buffer)

    def lend(self) -> memoryview | None:
        """Where the next bytes may be received into; None while anywhere will do."""
        return None if self._ended or self._buffer is None or self.is_full else self._buffer[self._filled :]

    def __call__(self, views: Sequence[memoryview]) -> None:
        """The next bytes of the body."""
        with self._lock:
            if self._ended:
                return
            for view in views:
                for hasher in self._hashers:
                    if hasher is not None:
                        hasher.update(view)
                self.size += len(view)
                self._hold(view)

    def _hold(self, view: memoryview) -> None:
        if self._buffer is not None and not self._held:
            count = min(len(view), len(self._buffer) - self._filled)
            if view.obj is not self._buffer.obj:
                self._buffer[self._filled : self._filled + count] = view[:count]
            self._filled += count
            view = view[count:]
        self._held += view

    # --- on the loop --------------------------------------------------------------------------------------------------

    async def make_room(self) -> None:
        """Wait until there is some. Fails when a piece could not be sent."""
        while True:
            if self._buffer is not None and self._filled == len(self._buffer):
                await self._send_buffer()
            if self.failure is not None:
                raise self.failure
            if self._buffer is None:
                await self._take_buffer()
            count = min(len(self._held), self._room())
            if not count:
                return
            self._fill_from_held(count)

    def _room(self) -> int:
        return 0 if self._buffer is None else len(self._buffer) - self._filled

    def _fill_from_held(self, count: int) -> None:
        assert self._buffer is not None, "bytes are moved into a buffer"
        self._buffer[self._filled : self._filled + count] = self._held[:count]
        self._filled += count
        del self._held[:count]

    async def _take_buffer(self) -> None:
        while self._sending >= self._buffers_max:
            if self._buffers_max == 1 and _second_buffers.acquire(blocking=False):
                self._buffers_max = 2
                break
            self._sent_one = Event()
            await self._sent_one.wait()
            if self.failure is not None:
                raise self.failure
        options = self._bucket.options
        size = options.part_bytes if options.uniform_parts else piece_bytes(self._sent_bytes, options.part_bytes)
        buffer, self._spare = self._spare, None
        if buffer is None or len(buffer) != size:
            # Private: pages that could be shared with other processes take longer to come and to go.
            buffer = memoryview(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        self._buffer, self._filled = buffer, 0

    async def _send_buffer(self) -> None:
        if self._upload_id is None:
            self._upload_id = await multipart.begin(self._bucket, BeginPieces(self._key))
        assert self.tasks is not None, "pieces are sent in tasks"
        assert self._buffer is not None, "a buffer is sent"
        self._numbers += 1
        if self._numbers > PIECES_MAX:
            raise StorageRefused(
                f"creating {self._key}: one object cannot have more than {PIECES_MAX} parts; make multipart_part_size"
                " larger, or leave out multipart_uniform_parts"
            )
        buffer, self._buffer = self._buffer, None
        self._sent_bytes += self._filled
        self._sending += 1
        piece = PutPiece(self._key, self._upload_id, self._numbers, (buffer[: self._filled],))
        self.tasks.start_soon(self._send, piece, buffer)

    async def _send(self, piece: PutPiece, buffer: memoryview) -> None:
        try:
            self._tags[piece.number] = await multipart.put(self._bucket, piece)
        except Exception as error:
            self.failure = self.failure or error
        finally:
            self._sending -= 1
            self._spare = buffer
            self._sent_one.set()

    async def send_rest(self) -> None:
        """The body has ended: begin to send what is left of one that is too long for a single request."""
        if self._upload_id is None and (self._buffer is None or not self._held):
            return
        if self._held:
            await self.make_room()
        if self._upload_id is not None and self._buffer is not None and self._filled:
            await self._send_buffer()

    async def complete(self) -> None:
        """All pieces have been sent: make them the object."""
        if self._upload_id is not None:
            tags = tuple(tag for _, tag in sorted(self._tags.items()))
            terms = self._bucket.terms
            await carry_out(self._bucket, plans.complete(self._key, self._upload_id, tags, terms, new_size=self.size))
            return
        content: Content = (self._held,)
        if self._buffer is not None:
            content = (self._buffer[: self._filled], *content)
        await objects.put(self._bucket, Put(self._key, content))

    async def discard(self) -> None:
        """Leave nothing behind, as far as the store can be asked now."""
        with self._lock:
            self._ended = True
        if self._upload_id is not None:
            await multipart.abort_in_any_case(self._bucket, self._key, self._upload_id)

    def release(self) -> None:
        """Give back what other uploads may use."""
        self._buffer = self._spare = None
        if self._buffers_max == 2:
            self._buffers_max = 1
            _second_buffers.release()

    def hashes(self) -> tuple[HashState, ...]:
        """The digests of what was taken."""
        states = zip(self._algorithms, self._hashers, strict=True)
        return tuple(HashState(name, "", None) if hasher is None else hasher.state() for name, hasher in states)
