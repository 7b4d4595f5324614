"""Blobs that were found in the bucket a moment ago: for those who check first that somebody owns the blob."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from angos.sansio.effects import Key, Stat

KEPT_SECONDS = 60.0
ENTRIES_MAX = 10_000  # a few megabytes


class RememberedStats:
    """Least recently used first out. Used on one event loop."""

    def __init__(self, now: Callable[[], float] = time.monotonic, entries_max: int = ENTRIES_MAX) -> None:
        """`now`: seconds of a clock that only goes forward."""
        self._now = now
        self._entries_max = entries_max
        self._found: OrderedDict[Key, tuple[float, Stat]] = OrderedDict()

    def get(self, key: Key) -> Stat | None:
        """What was found under this key, unless that was too long ago."""
        found = self._found.get(key)
        if found is None:
            return None
        if found[0] <= self._now():
            del self._found[key]
            return None
        self._found.move_to_end(key)
        return found[1]

    def keep(self, key: Key, stat: Stat) -> None:
        """It was found just now."""
        self._found[key] = (self._now() + KEPT_SECONDS, stat)
        self._found.move_to_end(key)
        if len(self._found) > self._entries_max:
            self._found.popitem(last=False)

    def drop(self, key: Key) -> None:
        """Forget it; unknown is no error."""
        self._found.pop(key, None)
