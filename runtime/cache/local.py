"""What one process remembers for a while."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from time import monotonic

from angos.sansio.effects import ReadCache, WriteCache

KEPT_BYTES = 16 << 20
ENTRY_BYTES = 400  # of an entry beside its name and value


@dataclass(frozen=True, slots=True)
class _Entry:
    value: bytes
    until: float
    """Clock of `monotonic`, in seconds: it does not jump when somebody sets the time."""
    cost: int


class LocalCache:
    """Least recently used first out. Used on one event loop; survives changes of the configuration."""

    def __init__(self, kept_bytes: int = KEPT_BYTES) -> None:
        self._entries: OrderedDict[tuple[str, str], _Entry] = OrderedDict()
        self._bytes = 0
        self._bytes_max = kept_bytes

    def read_cache(self, effect: ReadCache) -> bytes | None:
        """`ReadCache`."""
        key = (effect.name, effect.variant.value)
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.until <= monotonic():
            self._forget(key)
            return None
        self._entries.move_to_end(key)
        return entry.value

    def write_cache(self, effect: WriteCache) -> None:
        """`WriteCache`. Zero seconds or less forget it; so does a value that is larger than everything may be."""
        key = (effect.name, effect.variant.value)
        self._forget(key)
        cost = len(effect.value) + len(effect.name) + len(effect.variant.value) + ENTRY_BYTES
        if effect.seconds <= 0 or cost > self._bytes_max:
            return
        self._entries[key] = _Entry(effect.value, monotonic() + effect.seconds, cost)
        self._bytes += cost
        while self._bytes > self._bytes_max:
            self._forget(next(iter(self._entries)))

    def _forget(self, key: tuple[str, str]) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= entry.cost
