"""What the workers of one server see of each other's fills: enough to send the same bytes.

Memory that they share, made before they are forked, as for the metrics (`angos.runtime.observability.shared_cells`).
Each process has a region of its own there, and nobody else writes to it; a region is taken by a lock that the system
gives back when its process ends. Who fills posts a notice: of which blob, how large it is, and where the bytes lie that
have come, as descriptors of its own. Others open these files by way of ``/proc``, also those that have no name.

A number of a descriptor may come to mean another file. So whoever posts withdraws the notice before closing any, and
whoever has opened one looks whether the notice is still the same: then it was the right file.
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from angos.runtime.observability.shared_cells import anonymous_file

NOTICES: Final = 64  # of one process; of more fills nobody else gets to know
PIECES: Final = 8  # of one fill, which breaks off a few times at most
_STATE, _SERIAL, _SIZE, _COUNT, _NAME, _PIECES = 0, 1, 2, 3, 4, 8
_WORDS: Final = _PIECES + 2 * PIECES
"""Of a notice. A region has them one after the other, behind a word with the process."""
_REGION: Final = (1 + NOTICES * _WORDS) * 8
_FREE, _FILLING, _RELEASED = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Found:
    """A fill of another worker."""

    process: int
    serial: int
    """Of this notice, in that process."""
    size: int
    """Of the blob."""
    pieces: tuple[tuple[int, int], ...]
    """Where each begins in the blob, and its descriptor there."""
    released: bool
    """All bytes have come, and have the right digest."""


class Notice:
    """What this process says about one of its fills."""

    def __init__(self, region: memoryview[int] | None, base: int = 0) -> None:
        """Without a region nobody hears it."""
        self._region = region
        self._base = base

    def add(self, start: int, descriptor: int) -> None:
        """What comes next comes to this file."""
        if self._region is None:
            return
        count = self._region[self._base + _COUNT]
        if count == PIECES:
            self.withdraw()
            return
        at = self._base + _PIECES + 2 * count
        self._region[at], self._region[at + 1] = start, descriptor
        self._region[self._base + _COUNT] = count + 1

    def release(self) -> None:
        """All bytes together have the right digest."""
        if self._region is not None:
            self._region[self._base + _STATE] = _RELEASED

    def withdraw(self) -> None:
        """To be called before a file is closed. Twice is no error."""
        if self._region is not None:
            self._region[self._base + _STATE] = _FREE
            self._region = None


class Board:
    """All notices of all workers."""

    def __init__(self, workers: int) -> None:
        """For this number of processes that are forked later; twice as many for a moment, while some end."""
        self._file = anonymous_file()
        os.ftruncate(self._file, 2 * workers * _REGION)
        memory = memoryview(mmap.mmap(self._file, 2 * workers * _REGION))
        self._regions = [memory[at * _REGION : (at + 1) * _REGION].cast("q") for at in range(2 * workers)]
        self._process = 0
        self._own: memoryview[int] | None = None
        self._serial = 0

    @staticmethod
    def works() -> bool:
        """Whether this system shows the open files of a process."""
        return Path("/proc/self/fd").is_dir()

    def post(self, name: str, size: int) -> Notice:
        """Say that this blob is being brought."""
        region = self._claim()
        for base in range(1, len(region), _WORDS) if region is not None else ():
            if region is not None and region[base + _STATE] == _FREE:
                self._serial += 1
                region[base + _SERIAL], region[base + _SIZE], region[base + _COUNT] = self._serial, size, 0
                for offset, word in enumerate(_key(name)):
                    region[base + _NAME + offset] = word
                region[base + _STATE] = _FILLING  # last: nobody looks at what is free
                return Notice(region, base)
        return Notice(None)

    def find(self, name: str) -> Found | None:
        """What another process says about this blob."""
        key, own = _key(name), os.getpid()
        for region in self._regions:
            if region[0] in (0, own):
                continue
            for base in range(1, len(region), _WORDS):
                if region[base + _STATE] != _FREE and tuple(region[base + _NAME : base + _PIECES]) == key:
                    return _read(region, base)
        return None

    def open(self, name: str, found: Found, descriptor: int) -> int | None:
        """A descriptor of our own for a file of the fill; None when it is over."""
        try:
            opened = os.open(f"/proc/{found.process}/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        again = self.find(name)
        if again is not None and (again.process, again.serial) == (found.process, found.serial):
            return opened
        os.close(opened)
        return None

    def _claim(self) -> memoryview[int] | None:
        """The region of this process, if there is one for it."""
        if self._process == os.getpid():
            return self._own
        self._process, self._own = os.getpid(), None
        for number, region in enumerate(self._regions):
            try:
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
            except OSError:
                continue
            for base in range(1, len(region), _WORDS):
                region[base + _STATE] = _FREE  # what somebody said who has died
            region[0] = self._process
            self._own = region
            break
        return self._own


def _read(region: memoryview[int], base: int) -> Found:
    released = region[base + _STATE] == _RELEASED
    at = base + _PIECES
    pieces = tuple((region[at + 2 * each], region[at + 2 * each + 1]) for each in range(region[base + _COUNT]))
    return Found(region[0], region[base + _SERIAL], region[base + _SIZE], pieces, released)


def _key(name: str) -> tuple[int, ...]:
    return struct.unpack("4q", hashlib.sha256(name.encode()).digest())
