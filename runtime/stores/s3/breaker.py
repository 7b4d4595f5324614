"""Sparing a store that does not answer, and those who would wait for it."""

from __future__ import annotations

from collections.abc import Callable


class Breaker:
    """Opens after failures in a row; then, from time to time, one attempt finds out whether it may close again.

    Every attempt asks `admit` before and tells `succeeded`, `failed` or `abandoned` after.
    """

    def __init__(self, threshold: int, cooldown_seconds: float, now: Callable[[], float]) -> None:
        """`now`: seconds of a clock that only goes forward."""
        self._threshold = threshold
        self._cooldown = cooldown_seconds
        self._now = now
        self._failures = 0
        self._opened_at = 0.0
        self._probing = False

    def follow(self, threshold: int, cooldown_seconds: float) -> None:
        """Other limits from now on."""
        self._threshold = threshold
        self._cooldown = cooldown_seconds

    def admit(self) -> float | None:
        """None: go ahead. Otherwise the seconds after which it may be worth asking again."""
        if self._failures < self._threshold:
            return None
        left = self._opened_at + self._cooldown - self._now()
        if left > 0 or self._probing:
            return max(left, 1.0)
        self._probing = True
        return None

    def succeeded(self) -> bool:
        """The store answered. True when that has closed the breaker."""
        was_open = self._failures >= self._threshold
        self._failures = 0
        self._probing = False
        return was_open

    def failed(self) -> bool:
        """The store did not answer, or only that it cannot. True when that has opened the breaker."""
        self._failures += 1
        self._opened_at = self._now()
        self._probing = False
        return self._failures == self._threshold

    def abandoned(self) -> None:
        """Nobody waits for the outcome any more: it says nothing about the store, and another attempt may probe."""
        self._probing = False
