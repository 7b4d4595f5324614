"""Numbers that several processes count up and any of them can read.

All workers are forked from one parent, so a block of anonymous shared memory that the parent makes reaches every one
of them, also those that are started later. Of the other ways to add up over workers, files mapped into memory would
have to be removed again after every kind of end, and asking each worker over a pipe makes a scrape wait for the
slowest and loses what a dead one had counted.

Each process has a region of its own and is the only one to write there: no lock, no lost update. Whoever reads adds the
regions up. The numbers of a process that died stay, and the process that takes its place goes on from them, so a
counter never goes down. Claims are locks on single bytes of the block, which the kernel gives back when their owner
ends, however that happens.
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass
from threading import Lock
from typing import Final

CELLS: Final = 16384
NAMES_SIZE: Final = 256 << 10
_WORD: Final = 8
_HEADER: Final = 4096
_REGION: Final = _HEADER + CELLS * _WORD + NAMES_SIZE  # a multiple of the page size; pages never used cost nothing

# Words of the header.
_PROCESS: Final = 0
_NAMES_USED: Final = 1
_CELLS_USED: Final = 2

Labels = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Region:
    """What one process has counted, or those before it whose place it took."""

    number: int
    """0 is the process that made the block."""
    process: int
    """Its id; 0 when it has ended."""
    series: dict[Labels, list[float]]
    """By name, with the values of the labels after it."""


class SharedCells:
    """The block, and this process's region in it. Adding to `values` is for one thread, the methods are for any."""

    def __init__(self, processes: int = 1) -> None:
        """For this process and at most `processes` at a time that are forked from it."""
        self._file = anonymous_file()
        self._regions = 1 + processes
        os.ftruncate(self._file, self._regions * _REGION)
        self._block = memoryview(mmap.mmap(self._file, self._regions * _REGION))
        self._allocating = Lock()
        self._take(0)

    def claim(self) -> bool:
        """Take a region that belongs to no living process. False when this process has one already."""
        if self._header[_PROCESS] == os.getpid():
            return False
        for number in range(1, self._regions):
            try:
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
            except OSError:
                continue
            self._take(number)
            return True
        raise RuntimeError(f"more than {self._regions - 1} processes count into one block of metrics")

    def _take(self, number: int) -> None:
        self._number = number
        self._header = self._words(number)
        self.values = self._cells(number)
        """The cells of this process."""
        self.offsets: dict[Labels, int] = {}
        """Where each series of this process begins in `values`."""
        for offset, _, series in self._names(number):
            self.offsets[series] = offset
        self._header[_PROCESS] = os.getpid()

    def allocate(self, series: Labels, count: int) -> int | None:
        """Where the `count` cells of a series begin. None when there is no room for a new one."""
        with self._allocating:
            if series in self.offsets:
                return self.offsets[series]
            begin, names_used = self._header[_CELLS_USED], self._header[_NAMES_USED]
            line = json.dumps([begin, count, *series]).encode() + b"\n"
            if begin + count > CELLS or names_used + len(line) > NAMES_SIZE:
                return None
            start = self._number * _REGION + _HEADER + CELLS * _WORD + names_used
            self._block[start : start + len(line)] = line
            self._header[_CELLS_USED] = begin + count
            self._header[_NAMES_USED] = names_used + len(line)  # last: readers look no further than this
            self.offsets[series] = begin
            return begin

    def read(self) -> Iterator[Region]:
        """The regions that were ever used."""
        for number in range(self._regions):
            process = self._words(number)[_PROCESS]
            if process:
                values = self._cells(number)
                series = {name: list(values[begin : begin + count]) for begin, count, name in self._names(number)}
                yield Region(number, process if _lives(process) else 0, series)

    def _words(self, number: int) -> memoryview[int]:
        start = number * _REGION
        return self._block[start : start + _HEADER].cast("q")

    def _cells(self, number: int) -> memoryview[float]:
        start = number * _REGION + _HEADER
        return self._block[start : start + CELLS * _WORD].cast("d")

    def _names(self, number: int) -> Iterator[tuple[int, int, Labels]]:
        start = number * _REGION + _HEADER + CELLS * _WORD
        used = self._words(number)[_NAMES_USED]
        for line in bytes(self._block[start : start + used]).splitlines():
            begin, count, *series = json.loads(line)
            yield begin, count, tuple(series)


def anonymous_file() -> int:
    """A file without a name, which is gone with the last process that has it open."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("angos-metrics")
    import tempfile  # macOS, BSD

    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
