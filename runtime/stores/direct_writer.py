"""Writing past the page cache, while the next bytes are received and hashed.

A processor that hashes at a gigabyte a second has little left for copying a large layer into the page cache and having
it written back from there; and a layer of some gigabytes would push everything else out of that cache. So the rest of
a long body goes from aligned buffers straight to the disk (O_DIRECT), in a thread of its own, because such a write
takes as long as the disk does.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import threading
from queue import SimpleQueue

BLOCK_BYTES = 4096  # what offsets and lengths have to be multiples of, on every disk in use
BUFFER_BYTES = 1 << 20
BUFFERS = 2  # one is filled while the other one is written

_O_DIRECT: int = getattr(os, "O_DIRECT", 0)


class DirectWriter:
    """Appends to a file from an aligned offset on. Blocks; used by one thread at a time, until `finish` or `stop`.

    An `OSError` of a write is raised by a later call: at the latest by `finish`.
    """

    def __init__(self, descriptor: int, offset: int) -> None:
        """OSError when the file system cannot be asked for direct writes."""
        assert offset % BLOCK_BYTES == 0, "direct writes begin at a block"
        if not _O_DIRECT:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        self._descriptor = descriptor
        _set_direct(descriptor, True)
        self._free: SimpleQueue[mmap.mmap] = SimpleQueue()
        for _ in range(BUFFERS):
            self._free.put(mmap.mmap(-1, BUFFER_BYTES))
        self._full: SimpleQueue[tuple[mmap.mmap, int, int] | None] = SimpleQueue()
        self._filling: mmap.mmap | None = None
        self._filled = 0
        self._offset = offset
        self._failure: OSError | None = None
        self._thread = threading.Thread(target=self._write_all, name="direct writer", daemon=True)
        self._thread.start()

    def room(self) -> memoryview:
        """Where the next bytes belong: fill the beginning of it, then say how far with `filled`. Never empty."""
        if self._filling is None:
            self._filling, self._filled = self._free.get(), 0
            self._check()
        return memoryview(self._filling)[self._filled :]

    def is_room(self, view: memoryview) -> bool:
        """True when `view` is the beginning of what `room` gave last."""
        return self._filling is not None and view.obj is self._filling

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
            rest = self._filling[blocks : self._filled]
            self._hand_over(self._filling, blocks)
            self._filling = None
        self.stop()
        self._check()
        _set_direct(self._descriptor, False)
        _write_at(self._descriptor, memoryview(rest), self._offset)

    def stop(self) -> None:
        """End the thread, having written what was handed over. The descriptor can be closed afterwards."""
        if self._thread.is_alive():
            self._full.put(None)
            self._thread.join()

    def _hand_over(self, buffer: mmap.mmap, count: int) -> None:
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

    def _write(self, buffer: mmap.mmap, count: int, offset: int) -> None:
        with memoryview(buffer)[:count] as view:
            try:
                _write_at(self._descriptor, view, offset)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                # The file system takes the flag but not the writes, or stopped between blocks: then as usual.
                _set_direct(self._descriptor, False)
                _write_at(self._descriptor, view, offset)


def _write_at(descriptor: int, view: memoryview, offset: int) -> None:
    while len(view):
        count = os.pwrite(descriptor, view, offset)
        view, offset = view[count:], offset + count


def _set_direct(descriptor: int, wanted: bool) -> None:
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | _O_DIRECT if wanted else flags & ~_O_DIRECT)
