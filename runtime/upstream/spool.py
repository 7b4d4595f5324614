"""The bytes of a fill where any number of clients can be sent them from: a file that grows.

Clients differ in speed, and none of them may hold up the others or fill the memory. So what has come lies in files, and
each client is sent from there with `sendfile` at its own pace. A store in a directory writes its part as a file anyway,
and that one is shared; for a bucket there is a temporary file without a name beside it, in the folder for temporary
files of the system (``TMPDIR``).

A break upstream begins another part, so there may be several pieces. A descriptor lives as long as anybody may read
from it: files whose names are gone stay readable.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from typing import Protocol

Sink = Callable[[Sequence[memoryview]], None]


class Shared(Protocol):
    """A sink that can give its bytes away while it takes them."""

    def share(self) -> int:
        """A descriptor to read from, which the caller closes. From now on what has been taken can be read there, at
        the offsets at which it came. Before the first byte. May raise `OSError`. Blocks."""
        ...


class Piece:
    """Some bytes of a blob, in a file."""

    __slots__ = ("_writes", "descriptor", "start")

    def __init__(self, start: int, sink: Sink) -> None:
        """`start`: where in the blob they begin. Raises `OSError`. Blocks."""
        self.descriptor = -1
        self.start = start
        share: Callable[[], int] | None = getattr(sink, "share", None)
        self._writes = share is None
        self.descriptor = _temporary_file() if share is None else share()

    @classmethod
    def of_another(cls, start: int, descriptor: int) -> Piece:
        """Bytes that another process writes; the descriptor becomes the piece's."""
        piece = cls.__new__(cls)
        piece.start, piece.descriptor, piece._writes = start, descriptor, False
        return piece

    def take(self, views: Sequence[memoryview]) -> None:
        """What has been given to the sink, or will be. Raises `OSError`. Blocks."""
        if not self._writes:
            return
        for view in views:
            rest = view
            while len(rest):
                rest = rest[os.write(self.descriptor, rest) :]

    def __del__(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)


def _temporary_file() -> int:
    with tempfile.TemporaryFile(buffering=0) as file:
        return os.dup(file.fileno())
