"""Writing past the page cache, while the next bytes are received and hashed.

A processor that hashes at a gigabyte a second has little left for copying a large layer into the page cache and having
it written back from there; and a layer of some gigabytes would push everything else out of that cache. So the rest of
a long body goes from aligned buffers straight to the disk (O_DIRECT), in a thread of its own, because such a write
takes as long as the disk does.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import logging
import mmap
import os
import threading
from queue import Empty, SimpleQueue

BLOCK_BYTES = 4096  # what offsets and lengths have to be multiples of, on every disk in use
HUGE_PAGE_BYTES = 2 << 20  # of x86-64, and of arm64 with the usual small pages
BUFFER_BYTES = HUGE_PAGE_BYTES  # to receive, hash and write one page costs the kernel less than 512
SECOND_BUFFERS = 4  # in the whole process; more uploads at once than this overlap with each other anyway

_log = logging.getLogger("angos.storage")
_told: set[int | None] = set()

_O_DIRECT: int = getattr(os, "O_DIRECT", 0)
_second_buffers = threading.BoundedSemaphore(SECOND_BUFFERS)


class DirectWriter:
    """Appends to a file from an aligned offset on. Blocks; used by one thread at a time, until `finish` or `stop`.

    An `OSError` of a write is raised by a later call: at the latest by `finish`.
    """

    def __init__(self, descriptor: int, offset: int, path: str) -> None:
        """OSError when the file system cannot be asked for direct writes. `path` is for the operator's log."""
        assert offset % BLOCK_BYTES == 0, "direct writes begin at a block"
        self._descriptor = descriptor
        self._path = path
        set_direct(descriptor, True)
        self._free: SimpleQueue[memoryview] = SimpleQueue()
        self._free.put(_allocate(BUFFER_BYTES))
        self._has_second = False
        self._full: SimpleQueue[tuple[memoryview, int, int] | None] = SimpleQueue()
        self._filling: memoryview | None = None
        self._filled = 0
        self._offset = offset
        self._failure: OSError | None = None
        self._thread = threading.Thread(target=self._write_all, name="direct writer", daemon=True)
        self._thread.start()

    def room(self) -> memoryview:
        """Where the next bytes belong: fill the beginning of it, then say how far with `filled`. Never empty."""
        if self._filling is None:
            self._filling, self._filled = self._take_free(), 0
            self._check()
        return self._filling[self._filled :]

    def is_room(self, view: memoryview) -> bool:
        """True when `view` is the beginning of what `room` gave last."""
        return self._filling is not None and view.obj is self._filling.obj

    def filled(self, count: int) -> None:
        """So many bytes of the room were filled."""
        assert self._filling is not None, "only room can be filled"
        self._filled += count
        if self._filled == BUFFER_BYTES:
            self._hand_over(self._filling, BUFFER_BYTES)
            self._filling = None

    def finish(self) -> None:
        """Write what is left and wait for all of it. Not durable yet, as after any write."""
        rest = b""
        if self._filling is not None:
            blocks = self._filled - self._filled % BLOCK_BYTES
            rest = bytes(self._filling[blocks : self._filled])
            self._hand_over(self._filling, blocks)
            self._filling = None
        self.stop()
        self._check()
        set_direct(self._descriptor, False)
        _write_at(self._descriptor, memoryview(rest), self._offset)

    def stop(self) -> None:
        """End the thread, having written what was handed over. The descriptor can be closed afterwards."""
        if self._thread.is_alive():
            self._full.put(None)
            self._thread.join()
            self._filling, self._free = None, SimpleQueue()  # gives the memory back
            if self._has_second:
                _second_buffers.release()

    def _take_free(self) -> memoryview:
        """A buffer to be filled while another one is written, or, when there are too many uploads, after it was."""
        with contextlib.suppress(Empty):
            return self._free.get_nowait()
        if not self._has_second and _second_buffers.acquire(blocking=False):
            self._has_second = True
            return _allocate(BUFFER_BYTES)
        return self._free.get()

    def _hand_over(self, buffer: memoryview, count: int) -> None:
        self._full.put((buffer, count, self._offset))
        self._offset += count

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _write_all(self) -> None:
        while (job := self._full.get()) is not None:
            buffer, count, offset = job
            if self._failure is None:
                try:
                    self._write(buffer, count, offset)
                except OSError as error:
                    self._failure = error
            self._free.put(buffer)

    def _write(self, buffer: memoryview, count: int, offset: int) -> None:
        with buffer[:count] as view:
            try:
                _write_at(self._descriptor, view, offset)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                # The file system takes the flag but not the writes, or stopped between blocks: then as usual.
                tell_of_fallback(self._path, error)
                set_direct(self._descriptor, False)
                _write_at(self._descriptor, view, offset)


def tell_of_fallback(path: str, error: OSError) -> None:
    """Let the operator know, once in the life of a process, that long bodies are written as usual, and why."""
    if error.errno not in _told:
        _told.add(error.errno)
        _log.warning(
            "%s cannot be written past the page cache (O_DIRECT): %s; from now on large uploads go through that cache,"
            " where they take more of the processor and push other content out",
            path,
            (error.strerror or type(error).__name__).lower(),
        )


def _write_at(descriptor: int, view: memoryview, offset: int) -> None:
    while len(view):
        count = os.pwrite(descriptor, view, offset)
        view, offset = view[count:], offset + count


def set_direct(descriptor: int, wanted: bool) -> None:
    """Write past the page cache from now on, or not any more. OSError when the file system cannot be asked for it."""
    if not _O_DIRECT:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | _O_DIRECT if wanted else flags & ~_O_DIRECT)


def _allocate(size: int) -> memoryview:
    """Memory that begins at a multiple of a huge page, and is made of such pages where the system has them."""
    # The part in front of that multiple is never touched, so it stays an address without memory.
    whole = mmap.mmap(-1, size + HUGE_PAGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(AttributeError, OSError):  # not Linux, or a kernel without them
        whole.madvise(mmap.MADV_HUGEPAGE)
    start = -ctypes.addressof(ctypes.c_char.from_buffer(whole)) % HUGE_PAGE_BYTES
    return memoryview(whole)[start : start + size]
