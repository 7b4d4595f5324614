"""What the operator is told about long work: lines in the log and counts."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from angos.sansio.progress import Passed, Progress, Removed

if TYPE_CHECKING:
    from angos.runtime.observability.metrics import Metrics

_log = logging.getLogger("angos.maintenance")

NO_NEWS: Final = frozenset({"examined", "kept", "manifests_kept", "postponed"})
"""Counts that alone are not worth a line at the end."""
LINE_SECONDS: Final = 30.0


class ProgressEvents:
    """Takes what is told in one process."""

    def __init__(self, metrics: Metrics | None, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._metrics = metrics
        self._now = monotonic
        self._began: dict[str, float] = {}
        self._line: dict[str, float] = {}

    def tell(self, event: Progress | Passed | Removed) -> None:
        """Log it and count it."""
        if isinstance(event, Removed):
            _log.info("%s: removed %s: %s", event.work, event.what, event.reason)
            return
        if isinstance(event, Passed):
            _log.error("%s: passed over %s: %s", event.work, event.what, event.problem)
            return
        now = self._now()
        began = self._began.setdefault(event.work, now)
        if event.ended:
            del self._began[event.work]
            self._count(event)
            if any(number for name, number in event.counts if name not in NO_NEWS):
                _log.info("%s: %s in %s", event.work, summary(event), duration_text(now - began))
        elif now - self._line.setdefault(event.work, began) >= LINE_SECONDS:
            self._line[event.work] = now
            _log.info("%s: %s: %s%s", event.work, event.stage, summary(event), estimate(event, now - began))

    def _count(self, event: Progress) -> None:
        if self._metrics is not None:
            for what, number in event.counts:
                self._metrics.count("angos_maintained_total", event.work, what, amount=number)


def summary(event: Progress) -> str:
    """The numbers that are not zero, for a person."""
    told = [f"{number} {name.replace('_', ' ')}" for name, number in event.counts if number and name != "examined"]
    share = f"{event.done} looked at" if event.total is None or event.ended else f"{event.done} of {event.total}"
    return ", ".join((share, *told))


def estimate(event: Progress, seconds: float) -> str:
    """How long it will go on, if that can be told after so many seconds; begins with a comma."""
    if not event.total or not event.done:
        return ""
    return f", some {duration_text(seconds / event.done * max(event.total - event.done, 0))} left"


def duration_text(seconds: float) -> str:
    """For a person, in one unit."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
