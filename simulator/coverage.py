"""Which suspension points of the core has which fault struck? An empty cell is something that nobody has tried."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from angos.sansio import effects
from angos.sansio.bucket import requests
from angos.simulator.faults import FAULTS, possible, possible_to
from angos.simulator.simulation import Simulation
from angos.simulator.workload import Seed


@dataclass(slots=True)
class Coverage:
    """The table of (suspension point, fault)."""

    points: set[tuple[str, str]] = field(default_factory=set)
    """Where operations were seen suspended, and on which effect."""
    cells: Counter[tuple[str, str, str]] = field(default_factory=Counter)

    def add(self, seed: Seed) -> None:
        """Run a seed and note what it reaches."""
        simulation = Simulation(seed.scenario, seed.choices())
        simulation.points = self.points
        simulation.run()
        self.cells += simulation.cells

    def empty(self) -> list[tuple[str, str, str]]:
        """What could have been struck and was not."""
        return sorted(
            (where, effect, fault)
            for where, effect in self.points
            for fault in _faults_of(effect, where)
            if not self.cells[where, effect, fault]
        )

    def table(self) -> str:
        """For people: a row for each point, a column for each fault; a dot is an empty cell."""
        names = list(FAULTS)
        lines = ["".join(f"{name[:9]:>10}" for name in names)]
        for where, effect in sorted(self.points):
            able = _faults_of(effect, where)
            row = "".join(f"{self.cells[where, effect, name] or '.' if name in able else '':>10}" for name in names)
            lines.append(f"{row}  {effect}  {_short(where)}")
        possible_count = sum(len(_faults_of(effect, where)) for _, effect in self.points)
        struck = possible_count - len(self.empty())
        lines.append(f"{struck} of {possible_count} cells reached, {len(self.points)} suspension points")
        return "\n".join(lines) + "\n"


def _faults_of(effect: str, where: str) -> tuple[str, ...]:
    if (request := getattr(requests, effect, None)) is not None:
        lasting = effects.DiscardUpload if "discard_" in where.rpartition(" > ")[0] else effects.DeleteKeys
        return possible_to(request, lasting, tuple(FAULTS))[1][1:]
    kind = getattr(effects, effect)
    bucket = possible(kind, tuple(FAULTS), bucket=True)
    disk = possible(kind, tuple(FAULTS), bucket=False)
    return tuple(name for name in FAULTS if name in bucket or name in disk)


def _short(where: str) -> str:
    frames = [frame for frame in where.split(" > ") if not frame.startswith(("_respond", "_dispatch", "__await__"))]
    return " > ".join(frames)
