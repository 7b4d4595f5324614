"""Looks for violations in many seeds, on several cores if wanted; a seed is the same run everywhere."""

from __future__ import annotations

import gc
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from angos.simulator.choices import Recording, Tape
from angos.simulator.minimise import Minimiser
from angos.simulator.report import Report
from angos.simulator.simulation import Simulation
from angos.simulator.workload import Seed, draw

BATCH = 200


@dataclass(slots=True)
class Found:
    """A seed that violates something."""

    seed: int
    kind: str
    sentence: str


@dataclass(slots=True)
class Tally:
    """What a search has done."""

    runs: int = 0
    effects: int = 0
    switches: int = 0
    """How often a task was interrupted by another one."""
    fired: Counter[str] = field(default_factory=Counter)
    found: list[Found] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Take what another search has done."""
        self.runs += other.runs
        self.effects += other.effects
        self.switches += other.switches
        self.fired += other.fired
        self.found += other.found

    def shortcomings(self) -> list[str]:
        """Why this search proves nothing, if so: a search that saw too little must not pass for a good one."""
        reasons = []
        if not self.runs:
            reasons.append("no run was made")
        if not self.fired:
            reasons.append("no fault fired")
        if not self.switches:
            reasons.append("nothing overlapped")
        return reasons


Drawer = Callable[[int], Seed]


def run_seed(seed: Seed) -> tuple[Simulation, Found | None]:
    """One run."""
    simulation = Simulation(seed.scenario, seed.choices())
    violation = simulation.run()
    return simulation, None if violation is None else Found(seed.number, violation.kind, violation.sentence)


def search(
    start: int, end: int, *, draw_seed: Drawer = draw, found_max: int = 20, deadline: float | None = None
) -> Tally:
    """Run the seeds from `start` to `end`, `end` excluded, one after the other."""
    tally = Tally()
    collecting = gc.isenabled()
    gc.disable()  # a run leaves no cycles unless it fails; one look at what is young for every batch will do
    try:
        for number in range(start, end):
            simulation, found = run_seed(draw_seed(number))
            tally.runs += 1
            tally.effects += simulation.effects
            tally.switches += simulation.switches
            tally.fired += simulation.fired
            if found is not None:
                tally.found.append(found)
                if len(tally.found) >= found_max:
                    break
            if number % BATCH == 0:
                gc.collect(1)
                if deadline is not None and time.time() > deadline:
                    break
    finally:
        if collecting:
            gc.enable()
    return tally


def search_in_parallel(
    start: int, end: int, *, jobs: int, seconds: float | None = None, draw_seed: Drawer = draw
) -> Tally:
    """The same on several cores, for `seconds` at most. What draws the seeds has to be known by a name."""
    deadline = None if seconds is None else time.time() + seconds
    if jobs <= 1:
        return search(start, end, deadline=deadline, draw_seed=draw_seed)
    tally = Tally()
    with ProcessPoolExecutor(jobs) as pool:
        for part in pool.map(partial(_search_batch, draw_seed), _batches(start, end, deadline)):
            tally.add(part)
    return tally


def _batches(start: int, end: int, deadline: float | None) -> Iterator[tuple[int, int, float | None]]:
    for first in range(start, end, BATCH):
        yield first, min(first + BATCH, end), deadline


def _search_batch(draw_seed: Drawer, batch: tuple[int, int, float | None]) -> Tally:
    start, end, deadline = batch
    if deadline is not None and time.time() > deadline:
        return Tally()
    return search(start, end, deadline=deadline, draw_seed=draw_seed)


def explain(found: Found, *, draw_seed: Drawer = draw) -> Report:
    """The smallest run with the same violation, with everything written down."""
    seed = draw_seed(found.seed)
    recording = Recording(seed.choices())
    Simulation(seed.scenario, recording).run()
    scenario, picks = Minimiser(seed.scenario, recording.picks, found.kind).run()
    return Report(scenario, Tape([pick.value for pick in picks]), found_by=f"seed {found.seed}")
