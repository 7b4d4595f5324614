"""Time: one true clock that the scheduler moves, and one wall clock per replica that may be wrong."""

from __future__ import annotations

START_MS = 1_760_000_000_000


class Clock:
    """Virtual time in milliseconds."""

    __slots__ = ("now_ms", "offsets_ms", "tick_ms")

    def __init__(self, *, tick_ms: int, offsets_ms: dict[str, int] | None = None) -> None:
        self.now_ms = START_MS
        self.tick_ms = tick_ms
        """Passes each time somebody looks. With 0 everything happens within the same millisecond."""
        self.offsets_ms = dict(offsets_ms or {})

    def look(self, replica: str) -> int:
        """The wall clock of a replica."""
        self.now_ms += self.tick_ms
        return self.now_ms + self.offsets_ms.get(replica, 0)

    def skew(self, replica: str, by_ms: int) -> None:
        """The wall clock of a replica jumps, forwards or backwards."""
        self.offsets_ms[replica] = self.offsets_ms.get(replica, 0) + by_ms
