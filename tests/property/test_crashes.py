"""Every fault at every effect of every operation: in a bucket, and on a disk that forgets what was not synced."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from angos.simulator.choices import Tape
from angos.simulator.exhaust import OPERATIONS, enumerate_runs, scenarios
from angos.simulator.report import Report
from angos.simulator.scenario import STORES, Scenario
from tests.property.strategies import drawn, play
from tests.property.strategies import scenarios as drawn_scenarios

REFUSED = ("private_push_against_a_webhook",)  # before the store is asked for anything


CASES = [
    (operation, store)
    for store in STORES
    for operation in OPERATIONS
    if store != "s3" or "private" not in operation  # who may do it does not depend on where it is kept
]


@pytest.mark.parametrize(("operation", "store"), CASES)
def test_any_single_fault_leaves_every_promise_kept(operation: str, store: str) -> None:
    """A request or a reply lost, late or twice; the disk full or failing; a process killed or the power cut at any step
    of any plan, with everything, nothing or one single thing of what was not durable kept; in S3 any attempt of any
    request."""
    fired: Counter[str] = Counter()
    for scenario, bounds in scenarios(operation, 1):
        if scenario.store != store:
            continue
        seen = enumerate_runs(scenario, bounds)
        fired += seen.fired
        for violation, found_in, recording in seen.violations:
            report = Report(found_in, Tape([pick.value for pick in recording.picks]))
            raise AssertionError(f"{violation}\n{report.text()}")
    wanted = {"kill", "cancel"} | ({"throttled", "refused"} if store == "s3" else {"stall"})
    if operation not in REFUSED:
        wanted |= {"lost_request", "lost_reply", "crash"}
    assert wanted <= fired.keys(), f"faults that never fired: {sorted(wanted - fired.keys())}"


@given(scenario=drawn_scenarios(faults=("crash", "kill")), data=st.data())
def test_what_was_acknowledged_survives_power_cuts_and_kills(scenario: Scenario, data: st.DataObject) -> None:
    """Whoever was told 201 finds it after the restart, whatever else was going on."""
    play(scenario, drawn(data))
