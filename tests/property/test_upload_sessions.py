"""Uploads survive what clients, networks and machines do to them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from angos.simulator.choices import Calm
from angos.simulator.exhaust import enumerate_runs
from angos.simulator.scenario import Scenario
from angos.simulator.world.client import FORMS, Act, Form
from angos.simulator.world.images import NAMESPACES, blob
from tests.property.strategies import drawn, play, scenarios

UPLOADING = (
    "push_blob",
    "join_upload",
    "leave_upload",
    "cancel_upload",
    "cancel_other",
    "mount_blob",
    "head_blob",
    "delete_blob",
)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("store", ["bucket", "disk"])
@pytest.mark.parametrize("hash_states", [True, False], ids=["exported", "rehashed"])
def test_a_connection_that_breaks_after_any_byte_costs_only_time(form: Form, store: str, hash_states: bool) -> None:
    """The client resumes on the other replica, or starts again where there is nothing to resume, and is done."""
    for index in range(8):  # the four sizes, under sha256 and under sha512
        wanted = blob(index)
        for cut_at in range(len(wanted.content) + 1):
            act = Act("push_blob", item=index, form=form, cut_at=cut_at)
            scenario = Scenario(clients=((act,),), replicas=2, hash_states=hash_states)
            simulation = play(scenario if store == "bucket" else _on_disk(scenario), Calm())
            blobs = simulation.history.registers["blob", NAMESPACES[0], str(wanted.digest)]
            assert any(event.kind == "read" and event.value for event in blobs), (index, cut_at)


def _on_disk(scenario: Scenario) -> Scenario:
    return replace(scenario, store="disk")


@given(scenario=scenarios(UPLOADING), data=st.data())
def test_uploads_keep_their_promises_whatever_happens(scenario: Scenario, data: st.DataObject) -> None:
    """Offsets that were told are durable, bytes hash to their digest, a 201 is kept."""
    play(scenario, drawn(data))


@pytest.mark.parametrize("other", ["join_upload", "cancel_other"])
@pytest.mark.parametrize("store", ["bucket", "disk"])
@pytest.mark.parametrize("cut_at", [None, 8])
@pytest.mark.parametrize("leases_granted", [False, True], ids=["polite", "rude"])
def test_two_clients_on_one_upload_in_every_order(
    other: str, store: str, cut_at: int | None, leases_granted: bool
) -> None:
    """With at most two interruptions every schedule is tried, with leases and without any mutual exclusion."""
    scenario = Scenario(
        before=(Act("leave_upload", cut_at=cut_at),),
        clients=((Act("join_upload"),), (Act(other),)),
        replicas=2,
        leases_granted=leases_granted,
    )
    seen = enumerate_runs(scenario if store == "bucket" else _on_disk(scenario), {"next": 2, "turn": 1})
    assert not seen.violations, seen.violations[0][0]
    assert seen.switches, "the clients never met"
