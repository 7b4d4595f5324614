"""Lines that a flood of clients would otherwise repeat without end."""

from __future__ import annotations

import time


class Reminder:
    """Lets something be said now and then."""

    __slots__ = ("_said", "_seconds")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._said = float("-inf")

    def is_due(self) -> bool:
        """True at most once in these seconds."""
        now = time.monotonic()
        if now - self._said < self._seconds:
            return False
        self._said = now
        return True
