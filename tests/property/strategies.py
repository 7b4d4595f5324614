"""Strategies for whole worlds: scenarios, what clients do in them, and choices that hypothesis makes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from hypothesis import strategies as st

from angos.simulator.choices import Choices, Drawn, Recorded, Recording
from angos.simulator.faults import REQUEST_FAULTS
from angos.simulator.report import Report
from angos.simulator.scenario import STORES, Scenario
from angos.simulator.simulation import Simulation
from angos.simulator.workload import STORAGE_FAULTS
from angos.simulator.world.client import FORMS, Act
from angos.simulator.world.images import NAMESPACES, TAGS
from angos.simulator.world.people import PEOPLE
from angos.simulator.world.scripts import SCRIPTS

VERBS = tuple(sorted(set(SCRIPTS) - {"prune"}))
"""What the model of the registry knows. Manifests are pruned in `test_untagged`."""


def acts(verbs: Sequence[str] = VERBS) -> st.SearchStrategy[Act]:
    """Something that a client does; mostly in the first namespace, with few different things, so that clients meet."""
    return st.builds(
        Act,
        verb=st.sampled_from(verbs),
        namespace=st.integers(0, len(NAMESPACES) - 1),
        tag=st.integers(0, len(TAGS) - 1),
        item=st.integers(0, 3),
        form=st.sampled_from(FORMS),
        cut_at=st.none() | st.integers(0, 12),
        other=st.integers(0, 2),
        who=st.integers(0, len(PEOPLE) - 1),
    )


@st.composite
def scenarios(
    draw: st.DrawFn,
    verbs: Sequence[str] = VERBS,
    faults: Sequence[str] = (*STORAGE_FAULTS, *REQUEST_FAULTS),
    access: Literal["open", "private"] = "open",
) -> Scenario:
    """A world with some of the faults, and up to three clients."""
    enabled = draw(st.lists(st.sampled_from(tuple(faults)), unique=True, max_size=4)) if faults else []
    return Scenario(
        clients=tuple(
            map(tuple, draw(st.lists(st.lists(acts(verbs), min_size=1, max_size=2), min_size=1, max_size=3)))
        ),
        before=tuple(draw(st.lists(acts(verbs), max_size=2))),
        store=draw(st.sampled_from(STORES)),
        granularity=draw(st.sampled_from(["coarse", "fine"])),
        replicas=draw(st.integers(1, 2)),
        faults=tuple(enabled),
        faults_max=draw(st.integers(1, 2)) if enabled else 0,
        leases_granted=draw(st.booleans()),
        hash_states=draw(st.booleans()),
        tick_ms=draw(st.integers(0, 1)),
        immutable_tags=draw(st.booleans()),
        redirects=draw(st.booleans()),
        access=access,
    )


def drawn(data: st.DataObject) -> Choices:
    """Choices that hypothesis makes, and therefore shrinks. Most faults are none."""

    def draw(what: str, count: int) -> int:
        if what.startswith("fault"):
            value = data.draw(st.integers(0, 12 * count), label=what)
            return value if value < count else 0
        return data.draw(st.integers(0, count - 1), label=what)

    return Drawn(draw)


def play(scenario: Scenario, choices: Choices) -> Simulation:
    """Run a scenario; a violation fails the test with the timeline of the run."""
    recording = Recording(choices)
    simulation = Simulation(scenario, recording)
    violation = simulation.run()
    if violation is not None:
        raise AssertionError(Report(scenario, Recorded(recording.picks)).text())
    return simulation
