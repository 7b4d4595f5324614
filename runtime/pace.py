"""Doing no more in a second than was agreed."""

from __future__ import annotations

import time
from collections.abc import Callable


class Pace:
    """How far work on bytes is ahead of its time."""

    def __init__(self, bytes_per_second: int | None, now: Callable[[], float] = time.monotonic) -> None:
        """None: as fast as it goes."""
        self._rate = bytes_per_second
        self._now = now
        self._began = now()
        self._done = 0

    def early(self, count: int) -> float:
        """For how many seconds to pause, now that so many more bytes are done; 0 or less for not at all."""
        self._done += count
        return 0.0 if self._rate is None else self._began + self._done / self._rate - self._now()
