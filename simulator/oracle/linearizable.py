"""Is there an order of these operations that explains what everybody saw? (Wing and Gong 1993, with a memo.)

Searching is exponential at worst; per register and below forty operations it costs a millisecond.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter

from angos.simulator.oracle.history import SETS, Event


def is_linearizable(events: Sequence[Event], initial: str | None = None) -> bool:
    """True when some order, in which nothing comes before what had returned before it was called, explains all reads.

    Events that are not required may be left out.
    """
    pending = sorted(events, key=attrgetter("called", "returned"))
    if _explains(pending, initial) or _explains(sorted(events, key=attrgetter("returned", "called")), initial):
        return True
    everything = (1 << len(pending)) - 1
    required = sum(1 << index for index, event in enumerate(pending) if event.required)
    seen: set[tuple[int, str | None]] = set()
    stack: list[tuple[int, str | None]] = [(everything, initial)]
    while stack:
        left, value = stack.pop()
        if not left & required:
            return True
        if (left, value) in seen:
            continue
        seen.add((left, value))
        # Only what was called before the earliest return of the required rest can come next.
        horizon = min(event.returned for index, event in enumerate(pending) if left >> index & 1 and event.required)
        for index, event in enumerate(pending):
            if event.called > horizon:
                break
            if not left >> index & 1:
                continue
            if event.kind == "read":
                if event.value == value:
                    stack.append((left & ~(1 << index), value))
            elif event.kind == "set once" and value not in (None, event.value):
                continue
            elif not _too_late(event, left, pending):
                stack.append((left & ~(1 << index), _after(event, value)))
    return False


def _explains(order: Sequence[Event], value: str | None) -> bool:
    """Whether it all happened in this order.

    Of two events of which one had returned before the other was called, the order of the calls and that of the returns
    have the same one first: both are orders that nothing speaks against, and most often one of them explains it all.
    """
    for event in order:
        if event.kind == "read":
            if event.value != value:
                return False
        elif event.kind != "set once" or value is None:
            value = _after(event, value)
        elif event.required and event.value != value:
            return False
    return True


def _too_late(event: Event, left: int, pending: list[Event]) -> bool:
    """An optional event that has returned cannot happen after something that was called later has been taken."""
    if event.required:
        return False
    return any(not left >> index & 1 and other.called > event.returned for index, other in enumerate(pending))


def _after(event: Event, value: str | None) -> str | None:
    if event.kind in SETS:
        return event.value
    if event.kind == "drop":
        return None
    return None if value == event.value else value
