"""Small values that were checked against the digest in their key, kept in memory."""

from __future__ import annotations

import os
from collections import OrderedDict

KEPT_BYTES = 16 << 20
VALUE_BYTES_MAX = 256 << 10

Stamp = tuple[int, int, int]
"""Inode, modification time in nanoseconds, size: what tells that a file is still the one that was checked."""


def stamp_of(stat: os.stat_result) -> Stamp:
    """The stamp of a file."""
    return (stat.st_ino, stat.st_mtime_ns, stat.st_size)


class VerifiedValues:
    """Least recently used first out. Used by the loop only."""

    def __init__(self, kept_bytes: int = KEPT_BYTES) -> None:
        self._values: OrderedDict[str, tuple[Stamp, bytes]] = OrderedDict()
        self._bytes = 0
        self._bytes_max = kept_bytes

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def get(self, key: str, stamp: Stamp) -> bytes | None:
        """The value, if it was checked in this very file."""
        found = self._values.get(key)
        if found is None:
            return None
        if found[0] != stamp:
            self.drop(key)
            return None
        self._values.move_to_end(key)
        return found[1]

    def keep(self, key: str, stamp: Stamp, value: bytes) -> None:
        """Remember a value that has just been checked; large ones are not."""
        if len(value) > min(VALUE_BYTES_MAX, self._bytes_max):
            return
        self.drop(key)
        self._values[key] = (stamp, value)
        self._bytes += len(value)
        while self._bytes > self._bytes_max:
            _, (_, dropped) = self._values.popitem(last=False)
            self._bytes -= len(dropped)

    def drop(self, key: str) -> None:
        """Forget a value; unknown is no error."""
        _, dropped = self._values.pop(key, (None, b""))
        self._bytes -= len(dropped)
