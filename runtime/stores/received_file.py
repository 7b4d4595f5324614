"""A file that is filled with a request body while it arrives."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence

from angos.runtime.hashing import resume
from angos.runtime.stores.direct_writer import BLOCK_BYTES, DirectWriter, tell_of_fallback
from angos.sansio.disk.steps import Received
from angos.sansio.effects import HashState

WRITE_BACK_BYTES = 8 << 20  # so that the final fsync finds little left to do, and the disk works while we receive
DIRECT_FROM_BYTES = 64 << 20  # most layers are smaller, and pulled soon: they stay in the page cache
SLICE_BYTES = 1 << 20  # hashed, then written, while the bytes are in the cache of the processor
VECTORS_MAX = 1024  # IOV_MAX of Linux
SYNC_FILE_RANGE_WRITE = 2  # start writing, do not wait


class ReceivedFile:
    """Takes bytes in order, hashes and writes them. Blocks; used by one thread at a time.

    Raises `OSError` on creation and from `take`. Whoever made it calls `discard`, or `hand_over` at the end.
    """

    def __init__(self, path: str, hashes: tuple[HashState, ...], *, sync: bool, shared: bool = False) -> None:
        """`shared`: what has been taken can be read from the file at once."""
        self.path = path
        self.size = 0
        self._algorithms = tuple(state.algorithm for state in hashes)
        self._hashers = tuple(resume(state) for state in hashes)
        self._starts_write_back = sync and _sync_file_range is not None
        self._write_back_from = 0
        self._goes_direct = sync and not shared  # past the page cache, bytes are gathered before they are written
        self._direct: DirectWriter | None = None
        self._descriptor: int | None = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666)

    def lend(self) -> memoryview | None:
        """A buffer to receive into, so that `take` has nothing to copy; None while there is none."""
        return None if self._direct is None else self._direct.room()

    def take(self, views: Sequence[memoryview]) -> None:
        """Append these bytes, which may lie in what `lend` gave."""
        if self._direct is not None:
            self._take_direct(self._direct, views)
            return
        small: list[memoryview] = []
        small_size = 0
        for view in views:
            if small_size + len(view) > SLICE_BYTES or len(small) == VECTORS_MAX:
                self._append(small, small_size)
                small, small_size = [], 0
            if len(view) > SLICE_BYTES:
                for start in range(0, len(view), SLICE_BYTES):
                    piece = view[start : start + SLICE_BYTES]
                    self._append([piece], len(piece))
            else:
                small.append(view)
                small_size += len(view)
        self._append(small, small_size)

    def _append(self, views: list[memoryview], size: int) -> None:
        if not size:
            return
        if self._direct is not None:
            self._take_direct(self._direct, views)
            return
        descriptor = self._descriptor
        if descriptor is None:
            raise ValueError("the file is closed")
        if self._goes_direct and self.size + size >= DIRECT_FROM_BYTES:
            self._go_direct(descriptor, memoryview(b"".join(views)))
            return
        for view in views:
            self._hash(view)
        _write(descriptor, views, size)
        self.size += size
        if self._starts_write_back and self.size - self._write_back_from >= WRITE_BACK_BYTES:
            _start_write_back(descriptor, self._write_back_from, self.size - self._write_back_from)
            self._write_back_from = self.size

    def _hash(self, view: memoryview) -> None:
        for hasher in self._hashers:
            if hasher is not None:
                hasher.update(view)

    def _take_direct(self, direct: DirectWriter, views: Sequence[memoryview]) -> None:
        if len(views) == 1 and direct.is_room(views[0]):
            self._hash(views[0])
            self.size += len(views[0])
            direct.filled(len(views[0]))
            return
        # Gathered first and hashed then, because a chunked body comes in many small pieces.
        room, filled = direct.room(), 0
        for view in views:
            while len(view):
                count = min(len(view), len(room) - filled)
                room[filled : filled + count] = view[:count]
                view, filled = view[count:], filled + count
                if filled == len(room):
                    self._hash(room)
                    self.size += filled
                    direct.filled(filled)
                    room, filled = direct.room(), 0
        if filled:
            self._hash(room[:filled])
            self.size += filled
            direct.filled(filled)

    def _go_direct(self, descriptor: int, view: memoryview) -> None:
        """Take these bytes, from the next block on past the page cache if the file system can."""
        aligned = min(-self.size % BLOCK_BYTES, len(view))
        self._hash(view[:aligned])
        _write(descriptor, [view[:aligned]], aligned)
        self.size += aligned
        rest = view[aligned:]
        if not len(rest):
            return
        self._goes_direct = False
        try:
            self._direct = DirectWriter(descriptor, self.size, self.path)
        except OSError as error:  # a file system that cannot do it: the usual way works everywhere
            tell_of_fallback(self.path, error)
            self._append([rest], len(rest))
        else:
            self._take_direct(self._direct, [rest])

    def received(self, *, whole: bool) -> Received:
        """What has been taken so far."""
        states = zip(self._algorithms, self._hashers, strict=True)
        hashes = tuple(_unknown(name) if hasher is None else hasher.state() for name, hasher in states)
        return Received(self.size, hashes, whole)

    def hand_over(self) -> int:
        """The open descriptor, all bytes written; from now on the caller closes it. May raise `OSError`."""
        if self._direct is not None:
            self._direct.finish()
            self._direct = None
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            raise ValueError("the file is closed")
        return descriptor

    def discard(self) -> None:
        """Close and remove the file; closed already is no error."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        if self._direct is not None:
            self._direct.stop()
        os.close(descriptor)
        try:
            os.unlink(self.path)
        except FileNotFoundError:  # with the whole upload, by another request
            return


def _unknown(algorithm: str) -> HashState:
    """The earlier state could not be continued: no digest, to be computed from the stored bytes."""
    return HashState(algorithm, "", None)


def _write(descriptor: int, views: list[memoryview], size: int) -> None:
    written = os.write(descriptor, views[0]) if len(views) == 1 else os.writev(descriptor, views)
    if written == size:
        return
    for view in views:
        if written >= len(view):
            written -= len(view)
            continue
        rest = view[written:]
        written = 0
        while len(rest):
            rest = rest[os.write(descriptor, rest) :]


def _start_write_back(descriptor: int, start: int, size: int) -> None:
    # A hint: where it does not work, fsync at the end still does all of it.
    if _sync_file_range is not None:
        _sync_file_range(descriptor, start, size, SYNC_FILE_RANGE_WRITE)


def _find_sync_file_range() -> Callable[[int, int, int, int], int] | None:
    try:
        function = ctypes.CDLL(None).sync_file_range
    except (OSError, AttributeError):  # not Linux
        return None
    function.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    function.restype = ctypes.c_int
    call: Callable[[int, int, int, int], int] = function
    return call


_sync_file_range = _find_sync_file_range()
