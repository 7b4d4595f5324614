"""Small values that were read before, kept in memory as long as their files are the same.

A key never changes its value, but it may be deleted and created again, by another process too. So a value is taken
from here only for the very file that it was read from. What saves time is not to open, read and hash it again.
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict

KEPT_BYTES = 16 << 20
VALUE_BYTES_MAX = 256 << 10
ENTRY_BYTES = 600  # of an entry beside its value
STILL_NS = 50_000_000  # a file younger than this may yet be replaced within one tick of the file system's clock

Stamp = tuple[int, int, int]
"""Inode, modification time in nanoseconds, size: what tells that a file is still the one that was read."""


def stamp_of(stat: os.stat_result) -> Stamp:
    """The stamp of a file."""
    return (stat.st_ino, stat.st_mtime_ns, stat.st_size)


class RememberedValues:
    """Least recently used first out. Used by the loop only."""

    def __init__(self, kept_bytes: int = KEPT_BYTES) -> None:
        self._values: OrderedDict[str, tuple[Stamp, bytes]] = OrderedDict()
        self._bytes = 0
        self._bytes_max = kept_bytes

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def get(self, key: str, stamp: Stamp) -> bytes | None:
        """The value, if it was read from this very file."""
        found = self._values.get(key)
        if found is None:
            return None
        if found[0] != stamp:
            self.drop(key)
            return None
        self._values.move_to_end(key)
        return found[1]

    def keep(self, key: str, stamp: Stamp, value: bytes) -> None:
        """Remember a value that has just been read, and checked if it can be; large and very young ones are not."""
        cost = len(value) + ENTRY_BYTES
        if cost > min(VALUE_BYTES_MAX, self._bytes_max) or time.time_ns() - stamp[1] < STILL_NS:
            return
        self.drop(key)
        self._values[key] = (stamp, value)
        self._bytes += cost
        while self._bytes > self._bytes_max:
            self.drop(next(iter(self._values)))

    def drop(self, key: str) -> None:
        """Forget a value; unknown is no error."""
        dropped = self._values.pop(key, None)
        if dropped is not None:
            self._bytes -= len(dropped[1]) + ENTRY_BYTES
