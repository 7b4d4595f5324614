"""Content to push: cheap to make, different every time, its digest known before the clock starts."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass

BLOCK_SIZE = 1 << 20
CHUNK_SIZE = 32 << 10
"""Of chunked bodies: what Go's clients send, whose copy buffer is this large."""

_BLOCK = os.urandom(BLOCK_SIZE)
_BLOCK_CHUNKED = b"".join(
    b"%x\r\n%b\r\n" % (CHUNK_SIZE, _BLOCK[start : start + CHUNK_SIZE]) for start in range(0, BLOCK_SIZE, CHUNK_SIZE)
)
_TAIL_SIZE = 64
_serial = itertools.count()
_run = os.urandom(8).hex()


@dataclass(frozen=True, slots=True)
class Content:
    """A blob: the same block again and again, and a tail of its own."""

    blocks: int
    partial: int
    """Bytes of the block that follow the whole blocks."""
    tail: bytes
    digest: str

    @property
    def size(self) -> int:
        """In bytes."""
        return self.blocks * BLOCK_SIZE + self.partial + len(self.tail)

    def pieces(self) -> Iterator[bytes | memoryview]:
        """The bytes."""
        for _ in range(self.blocks):
            yield _BLOCK
        yield memoryview(_BLOCK)[: self.partial]
        yield self.tail

    def chunks(self) -> Iterator[bytes | memoryview]:
        """The bytes as a chunked body, its end included."""
        for _ in range(self.blocks):
            yield _BLOCK_CHUNKED
        rest = _BLOCK[: self.partial] + self.tail
        yield b"%x\r\n%b\r\n0\r\n\r\n" % (len(rest), rest)


class ContentMaker:
    """Makes contents of one size, each different. Only the tails are hashed anew."""

    def __init__(self, size: int) -> None:
        self._blocks, self._partial = divmod(size - _TAIL_SIZE, BLOCK_SIZE)
        self._hash = hashlib.sha256()
        for _ in range(self._blocks):
            self._hash.update(_BLOCK)
        self._hash.update(_BLOCK[: self._partial])

    def make(self) -> Content:
        """A content that was not made before, in this process or another."""
        tail = f"{_run} {os.getpid()} {next(_serial)}".encode().ljust(_TAIL_SIZE)
        whole = self._hash.copy()
        whole.update(tail)
        return Content(self._blocks, self._partial, tail, f"sha256:{whole.hexdigest()}")
