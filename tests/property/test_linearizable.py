"""The judge of histories, against the definition: some order of what happened explains what everybody saw."""

from __future__ import annotations

import math
from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st

from angos.simulator.oracle.history import Event
from angos.simulator.oracle.linearizable import is_linearizable


@st.composite
def events(draw: st.DrawFn) -> Event:
    """An operation on one register within a few moments."""
    kind = draw(st.sampled_from(("set", "set once", "drop", "drop if", "read")))
    called = draw(st.integers(0, 5))
    required = kind == "read" or draw(st.booleans())
    returned: float = called + draw(st.integers(0, 4))
    if not required and draw(st.booleans()):
        returned = math.inf
    value = None if kind == "drop" else draw(st.sampled_from(("x", "y", None) if kind == "read" else ("x", "y")))
    return Event(kind, value, called, returned, required, "somebody")  # type: ignore[arg-type]


def _explains(order: tuple[Event, ...]) -> bool:
    if any(later.returned < earlier.called for place, earlier in enumerate(order) for later in order[place + 1 :]):
        return False
    value = None
    for event in order:
        if event.kind == "read" and event.value != value:
            return False
        if event.kind == "set once" and value not in (None, event.value):
            return False
        if event.kind in ("set", "set once"):
            value = event.value
        elif event.kind == "drop" or (event.kind == "drop if" and event.value == value):
            value = None
    return True


def _by_definition(history: list[Event]) -> bool:
    """Every order of everything that must have happened and of anything that may have."""
    optional = [event for event in history if not event.required]
    for chosen in range(1 << len(optional)):
        left_out = {id(event) for place, event in enumerate(optional) if not chosen >> place & 1}
        happened = [event for event in history if id(event) not in left_out]
        if any(_explains(order) for order in permutations(happened)):
            return True
    return False


@given(st.lists(events(), max_size=5))
def test_a_history_is_judged_by_the_definition(history: list[Event]) -> None:
    assert is_linearizable(history) == _by_definition(history)
