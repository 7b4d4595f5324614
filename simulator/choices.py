"""Every decision of a run goes through one method: which task goes on, which fault strikes, what a power cut keeps.

A run is a function of a scenario and its choices. Zero is always the calm option, so making a tape of choices smaller
makes the run calmer, and whoever shrinks it needs to know nothing about registries.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol

EVEN = frozenset({"next", "turn"})
"""Labels that are picked at every step and are never a fault: known without looking at their letters."""


class Choices(Protocol):
    """Decides. `what` is a stable label (``next``, ``fault:CreateKeys``), `count` the number of options, at least 1."""

    def pick(self, what: str, count: int) -> int:
        """A number from 0, the calm option, to `count` - 1."""
        ...


def exceeded(choices: Choices, what: str) -> None:
    """The last pick of this label was beyond what there was: larger ones make the same run, so nobody need try them."""
    if isinstance(choices, (Recording, _Odometer)):
        choices.exceeded(what)


@dataclass(frozen=True, slots=True)
class Pick:
    """One decision that was made."""

    what: str
    count: int
    value: int


class Calm:
    """Always the calm option."""

    def pick(self, what: str, count: int) -> int:
        """Zero."""
        return 0


class Seeded:
    """Chances from a seed. Faults are rare: one in `1 / fault_rate` effects; everything else is even."""

    def __init__(self, seed: int | str, *, fault_rate: float = 0.04) -> None:
        self._random = Random(str(seed)).random
        self._scale = 1 / math.log1p(-fault_rate) if 0 < fault_rate < 1 else 0.0
        self._calm_left = self._calm_stretch()

    def pick(self, what: str, count: int) -> int:
        """See `Choices`."""
        if what not in EVEN and what.startswith("fault"):
            self._calm_left -= 1
            if self._calm_left >= 0 or count == 1:
                return 0
            self._calm_left = self._calm_stretch()
            return 1 + int(self._random() * (count - 1))
        return int(self._random() * count)

    def _calm_stretch(self) -> int:
        """How many effects pass before the next fault: geometric, so that one draw serves many picks."""
        return int(math.log(1 - self._random()) * self._scale) if self._scale else 1 << 60


class Prioritised:
    """Runs each task as far as it gets and interrupts at a few random points only (after PCT, Burckhardt 2010).

    A race that needs `d` interruptions at particular points is found far sooner than by tossing a coin at every step.
    Faults and the rest are those of `Seeded`.
    """

    def __init__(self, seed: int | str, *, interruptions: int = 3, steps: int = 120, fault_rate: float = 0.04) -> None:
        self._seeded = Seeded(f"{seed}/rest", fault_rate=fault_rate)
        random = Random(str(seed))
        self._interruptions = frozenset(random.randrange(steps) for _ in range(interruptions))
        self._step = 0

    def pick(self, what: str, count: int) -> int:
        """See `Choices`."""
        if what != "next":
            return self._seeded.pick(what, count)
        self._step += 1
        if count == 1 or self._step not in self._interruptions:
            return 0
        return 1 + self._seeded.pick("interruption", count - 1)


class Drawn:
    """Lets something else decide, such as hypothesis: it gives a number from 0 to `count` - 1."""

    def __init__(self, draw: Callable[[str, int], int]) -> None:
        self._draw = draw

    def pick(self, what: str, count: int) -> int:
        """See `Choices`. What has one option is not asked for."""
        return self._draw(what, count) if count > 1 else 0


class Diverged(Exception):
    """A recorded run came to another decision than the one that was recorded. A fact, not a failure."""


class Recorded:
    """Repeats what was recorded; calm after its end. Raises `Diverged` at the first decision that is another one."""

    def __init__(self, picks: Iterable[Pick]) -> None:
        self._picks = iter(tuple(picks))
        self._position = 0

    def pick(self, what: str, count: int) -> int:
        """See `Choices`."""
        if count == 1:
            return 0
        recorded = next(self._picks, None)
        if recorded is None:
            return 0
        if (recorded.what, recorded.count) != (what, count):
            raise Diverged(
                f"choice {self._position}: recorded {recorded.what!r} of {recorded.count},"
                f" the code now asks for {what!r} of {count}"
            )
        self._position += 1
        return recorded.value


class Tape:
    """Plays numbers whatever they were meant for, calm after their end. For minimising: any tape is a valid run."""

    def __init__(self, values: Sequence[int]) -> None:
        self._values = iter(values)

    def pick(self, what: str, count: int) -> int:
        """See `Choices`. A number that is too large is the last option."""
        return min(next(self._values, 0), count - 1) if count > 1 else 0


class Recording:
    """Wraps other choices and remembers them. What has one option is no decision and not remembered."""

    def __init__(self, choices: Choices) -> None:
        self._choices = choices
        self.picks: list[Pick] = []

    def pick(self, what: str, count: int) -> int:
        """See `Choices`."""
        value = self._choices.pick(what, count)
        if count > 1:
            self.picks.append(Pick(what, count, value))
        return value

    def exceeded(self, what: str) -> None:
        """See the function of this name."""
        exceeded(self._choices, what)


class _Odometer:
    def __init__(self, prefix: Sequence[int], bounds: Mapping[str, int]) -> None:
        self._prefix = prefix
        self._bounds = dict(bounds)
        self.turns: list[tuple[int, int]] = []
        self.last_interruptions: set[int] = set()
        """Places of picks that were, or would be, the last interruption there may be."""
        self._places: dict[str, int] = {}

    def pick(self, what: str, count: int) -> int:
        if count == 1:
            return 0
        kind = what.partition(":")[0]
        left = self._bounds.get(kind)
        if left == 0:
            return 0
        position = len(self.turns)
        if left == 1 and what == "next":
            self.last_interruptions.add(position)
        value = self._prefix[position] if position < len(self._prefix) else 0
        if value and left is not None:
            self._bounds[kind] = left - 1
        self.turns.append((value, count))
        self._places[what] = position
        return value

    def exceeded(self, what: str) -> None:
        if (place := self._places.get(what)) is not None:
            value, _ = self.turns[place]
            self.turns[place] = (value, value + 1)


class Exhaustive:
    """Every run there is, one after the other: iterate, and give each item to one run.

    `bounds` limits how many times a run may leave the calm option, by the label up to its colon: ``{"fault": 1}`` is
    every run with at most one fault, ``{"next": 2}`` every schedule with at most two interruptions.

    Most schedules have as many interruptions as they may. Of those only every `share`-th is a run, evenly spread.
    """

    def __init__(self, bounds: Mapping[str, int] | None = None, *, share: int = 1) -> None:
        self._bounds = dict(bounds or {})
        self._share = share

    def __iter__(self) -> Iterator[Choices]:
        prefix: list[int] = []
        left_out = 0
        while True:
            odometer = _Odometer(prefix, self._bounds)
            yield odometer
            turns = odometer.turns
            while True:
                while turns and turns[-1][0] + 1 >= turns[-1][1]:
                    turns.pop()
                if not turns:
                    return
                value, count = turns[-1]
                turns[-1] = (value + 1, count)
                if len(turns) - 1 not in odometer.last_interruptions:
                    break
                left_out = (left_out + 1) % self._share
                if not left_out:
                    break
            prefix = [value for value, _ in turns]
