"""Receiving chunks of one size straight to where their payload belongs.

Clients copy a body through a buffer, so they send chunks of the size of that buffer, one like the other. Then it is
known beforehand where the framing between two chunks will be, and one call can receive the payload around it: every
other piece into the room, the framing into a scratch. Nothing is taken for granted: the framing is compared
afterwards, and from the first one on that is different, the bytes are put back in line and decoded as usual.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Final

REPEATS_MIN: Final = 8  # chunks of one size that make the next one certain enough
SIZE_MIN: Final = 4096  # of chunks; a copy costs less than many short pieces
VIEWS_MAX: Final = 1000  # IOV_MAX of Linux is 1024
SCRATCH_BYTES: Final = 16 << 10


class Scatter:
    """Where the bytes of one receiving call go, if the chunks go on as they did."""

    __slots__ = ("_framing", "_left", "_scratch", "_size", "chunks", "views")

    def __init__(self, left: int, size: int, framing: bytes, room: memoryview, scratch: bytearray) -> None:
        """The present chunk has `left` bytes, then `framing` and chunks of `size` bytes take turns.

        `scratch` has `SCRATCH_BYTES`.
        """
        self._left = left
        self._size = size
        self._framing = framing
        self._scratch = scratch
        self.views = [room[:left]]
        """What the call has to fill, in order."""
        width, end = len(framing), len(room)
        framings = memoryview(scratch)
        filled, chunks = left, 0
        count_max = min(VIEWS_MAX // 2, SCRATCH_BYTES // width)
        while filled < end and chunks < count_max:
            self.views.append(framings[chunks * width : (chunks + 1) * width])
            self.views.append(room[filled : filled + size])
            filled += size
            chunks += 1
        self.chunks = chunks
        """How many chunks begin in it, after the present one."""

    def sort_out(self, received: int) -> tuple[int, int, int, bytes]:
        """What became of `received` bytes.

        Gives the length of the payload in the room, how many chunks were begun in it, how much the last one of them
        lacks, and the bytes from where things were not as expected.
        """
        behind = received - self._left
        if behind <= 0:
            return received, 0, -behind, b""
        width, size = len(self._framing), self._size
        whole, part = divmod(behind, width + size)
        begun = whole + (part >= width)
        if self._scratch.startswith(self._framing * begun):
            if part >= width:
                return received - begun * width, begun, size + width - part, b""
            good = whole
        else:
            good = next(
                number for number in range(begun) if not self._scratch.startswith(self._framing, number * width)
            )
        return self._left + good * size, good, 0, self._behind(1 + 2 * good, received)

    def _behind(self, first: int, received: int) -> bytes:
        """The bytes received into the views from number `first` on, in line."""
        pieces = []
        for view, end in zip(self.views, accumulate(map(len, self.views)), strict=True):
            pieces.append(view[: max(0, len(view) - max(0, end - received))])
        return b"".join(pieces[first:])
