"""What long work tells of itself: the same for the log of a server, the metrics and a terminal."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """Some of the work is done. Told after each piece of it; nothing depends on anybody listening."""

    work: str
    """What is going on, in a word: ``collection``."""
    stage: str
    """Which part of it, for a person."""
    done: int
    total: int | None
    """None: nobody knows how much there is."""
    counts: tuple[tuple[str, int], ...] = ()
    """What it has come to so far."""
    ended: bool = False


@dataclass(frozen=True, slots=True)
class Passed:
    """Something was passed over, because it could not be read or changed."""

    work: str
    what: str
    problem: str


@dataclass(frozen=True, slots=True)
class Removed:
    """Something that clients could see is gone, because the operator's configuration says so."""

    work: str
    what: str
    reason: str
