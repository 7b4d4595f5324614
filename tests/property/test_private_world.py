"""A private registry with everything that can happen to it: nobody does what the table of permissions does not hold."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from angos.sansio import trace
from angos.simulator.choices import Calm
from angos.simulator.exhaust import enumerate_runs, scenarios
from angos.simulator.faults import ACCESS_FAULTS, FAULTS
from angos.simulator.oracle.access import may
from angos.simulator.oracle.history import Answer
from angos.simulator.report import Report, read_trace
from angos.simulator.scenario import Scenario
from angos.simulator.simulation import Simulation
from angos.simulator.world.client import Act, Call
from angos.simulator.world.images import NAMESPACES
from angos.simulator.world.people import PEOPLE
from tests.property.strategies import drawn, play
from tests.property.strategies import scenarios as drawn_scenarios

STRANGER, JOB, FORGER = (PEOPLE.index(name) for name in ("stranger", "job", "forger"))


@pytest.mark.parametrize("person", PEOPLE)
@pytest.mark.parametrize("namespace", range(len(NAMESPACES)))
def test_everybody_can_do_what_the_table_says_and_nothing_else(person: str, namespace: int) -> None:
    """Without a fault every answer is known. The oracle knows which refusal it is."""
    rights = {"push_blob": "push", "head_blob": "read", "list_tags": "read", "delete_tag": "delete"}
    for verb, right in rights.items():
        simulation = Simulation(Scenario(access="private"), Calm())
        simulation.begin("alice", (Act("push_image", namespace),))
        simulation.settle()
        answers: list[Answer] = []
        _collect(simulation, answers)
        simulation.begin(person, (Act(verb, namespace, who=PEOPLE.index(person)),))
        simulation.settle()
        assert (answers[0].status < 400) == may(person, right, NAMESPACES[namespace])


def _collect(simulation: Simulation, answers: list[Answer]) -> None:
    def collect(call: Call, answer: Answer | None) -> None:
        assert answer is not None
        answers.append(answer)

    simulation.on_answer = collect


@given(scenario=drawn_scenarios(faults=tuple(FAULTS), access="private"), data=st.data())
def test_nobody_gets_in_whatever_happens(scenario: Scenario, data: st.DataObject) -> None:
    """Services fail, keys change, caches and processes are lost: an outage is a 503 or a denial."""
    play(scenario, drawn(data))


@pytest.mark.parametrize("operation", ["private_pull_by_token", "private_push_past_a_webhook", "private_mount"])
def test_every_fault_of_a_service_is_tried_where_it_can_happen(operation: str) -> None:
    fired: Counter[str] = Counter()
    for scenario, bounds in scenarios(operation, 1):
        seen = enumerate_runs(scenario, bounds)
        assert not seen.violations, seen.violations[0][0]
        fired += seen.fired
    wanted = set(ACCESS_FAULTS) if "token" in operation else {"unanswered", "garbage", "slow", "forgotten"}
    assert wanted <= fired.keys(), f"faults that never fired: {sorted(wanted - fired.keys())}"


@pytest.mark.parametrize(
    ("strangers", "replicas", "known", "interruptions"),
    [(2, 1, True, 4), (2, 1, False, 4), (3, 1, True, 2), (3, 1, False, 2), (4, 1, True, 2), (3, 2, True, 2)],
)
def test_tokens_of_unknown_keys_cost_the_provider_one_request(
    strangers: int, replicas: int, known: bool, interruptions: int
) -> None:
    """However many come at once, in every schedule with a few interruptions, whether or not keys were there already."""
    clients = tuple((Act("head_blob", who=STRANGER), Act("head_blob", who=FORGER)) for _ in range(strangers))
    before = (Act("head_blob", who=JOB),) if known else ()
    scenario = Scenario(clients=clients, before=before, replicas=replicas, access="private")
    seen = enumerate_runs(scenario, {"next": interruptions, "turn": 0})
    assert not seen.violations, seen.violations[0][0]
    assert seen.switches


def test_the_rules_of_a_private_registry_stand_in_a_trace() -> None:
    """The configuration is written and read again; rules are made of nodes, not of code."""
    config = Scenario(access="private").registry_config
    assert trace.decode(trace.encode(config)) == config


def test_the_trace_of_a_private_run_holds_who_did_what_and_nothing_secret() -> None:
    acts = tuple(Act("head_blob", who=who) for who in range(len(PEOPLE)))
    scenario = Scenario(clients=(acts,), immutable_tags=True, access="private")
    text = Report(scenario, Calm()).trace()
    assert read_trace(text)[0] == scenario
    for secret in ("wonderland", "builder", "carillon", "guessed"):
        assert secret not in text
