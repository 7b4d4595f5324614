"""Makes a failing run smaller: fewer clients, acts and faults in the scenario, calmer choices, the same violation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from angos.simulator.choices import Pick, Recording, Tape
from angos.simulator.scenario import Scenario
from angos.simulator.simulation import Simulation

RUNS_MAX = 4000


class Minimiser:
    """One search for a smaller run."""

    def __init__(self, scenario: Scenario, picks: list[Pick], kind: str, *, runs_max: int = RUNS_MAX) -> None:
        self.scenario = scenario
        self.picks = picks
        self._kind = kind
        self._runs_left = runs_max

    def run(self) -> tuple[Scenario, list[Pick]]:
        """The smallest that was found."""
        while self._runs_left > 0 and (self._smaller_scenario() or self._calmer_choices()):
            pass
        return self.scenario, self.picks

    def _fails(self, scenario: Scenario, values: list[int]) -> bool:
        if self._runs_left <= 0:
            return False
        self._runs_left -= 1
        recording = Recording(Tape(values))
        violation = Simulation(scenario, recording).run()
        if violation is None or violation.kind != self._kind:
            return False
        picks = recording.picks
        while picks and not picks[-1].value:
            picks.pop()
        if scenario == self.scenario and _weight(picks) >= _weight(self.picks):
            return False
        self.scenario, self.picks = scenario, picks
        return True

    def _smaller_scenario(self) -> bool:
        values = [pick.value for pick in self.picks]
        return any(self._fails(scenario, values) or self._fails(scenario, []) for scenario in _smaller(self.scenario))

    def _calmer_choices(self) -> bool:
        progress = False
        size = max(len(self.picks) // 2, 1)
        while size and self._runs_left > 0:
            start = 0
            while start < len(self.picks):
                values = [pick.value for pick in self.picks]
                cut = values[:start] + values[start + size :]
                calm = values[:start] + [0] * len(values[start : start + size]) + values[start + size :]
                if self._fails(self.scenario, cut) or (
                    any(values[start : start + size]) and self._fails(self.scenario, calm)
                ):
                    progress = True
                else:
                    start += size
            size //= 2
        for position in range(len(self.picks)):
            values = [pick.value for pick in self.picks]
            if position < len(values) and values[position] > 1:
                for lower in range(1, values[position]):
                    if self._fails(self.scenario, [*values[:position], lower, *values[position + 1 :]]):
                        progress = True
                        break
        return progress


def _weight(picks: list[Pick]) -> tuple[int, int, int]:
    """Fewer departures from calm, a shorter tape, smaller numbers: in this order."""
    return sum(1 for pick in picks if pick.value), len(picks), sum(pick.value for pick in picks)


def _smaller(scenario: Scenario) -> Iterator[Scenario]:
    clients = scenario.clients
    for number in range(len(clients)):
        yield replace(scenario, clients=clients[:number] + clients[number + 1 :])
    for number, acts in enumerate(clients):
        for place in range(len(acts)):
            if len(acts) > 1:
                fewer = acts[:place] + acts[place + 1 :]
                yield replace(scenario, clients=(*clients[:number], fewer, *clients[number + 1 :]))
    for place in range(len(scenario.before)):
        yield replace(scenario, before=scenario.before[:place] + scenario.before[place + 1 :])
    for name in scenario.faults:
        yield replace(scenario, faults=tuple(fault for fault in scenario.faults if fault != name))
    if scenario.faults_max:
        yield replace(scenario, faults_max=scenario.faults_max - 1)
    calmer: dict[str, object] = {
        "granularity": "coarse",
        "store": "bucket",
        "replicas": 1,
        "lossy_answers": False,
        "leases_granted": False,
        "hash_states": True,
        "offsets_ms": (),
        "tick_ms": 1,
        "allow_missing": True,
        "immutable_tags": False,
        "access": "open",
        "quirks": (),
        "tried_out": True,
    }
    for name, value in calmer.items():
        if getattr(scenario, name) != value:
            yield replace(scenario, **{name: value})  # type: ignore[arg-type]
    for number, acts in enumerate(clients):
        for place, act in enumerate(acts):
            for simpler in (
                replace(act, cut_at=None),
                replace(act, namespace=0),
                replace(act, tag=min(act.tag, 0)),
                replace(act, item=0),
                replace(act, form="post"),
                replace(act, form="put"),
                replace(act, other=0),
                replace(act, who=0),
                replace(act, verb="push_blob") if act.verb == "push_image" else act,
            ):
                if simpler != act and not (simpler.form == "put" and act.form == "post"):
                    changed = (*acts[:place], simpler, *acts[place + 1 :])
                    yield replace(scenario, clients=(*clients[:number], changed, *clients[number + 1 :]))
