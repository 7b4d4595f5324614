"""The registry pushed around by clients, crashes and restarts, and compared with a model that predicts every answer."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from angos.sansio.oci.reference import Namespace
from angos.sansio.operation import Done, Operation
from angos.sansio.pulls import LastPulls, last_pulls
from angos.simulator.choices import Calm, Seeded
from angos.simulator.oracle.history import Answer
from angos.simulator.oracle.model import Model
from angos.simulator.scenario import Scenario
from angos.simulator.simulation import Simulation
from angos.simulator.world.client import Act, Call
from angos.simulator.world.images import NAMESPACES
from tests.property.strategies import acts

IN_FLIGHT_MAX = 3


@given(
    script=st.lists(acts(), min_size=1, max_size=8),
    store=st.sampled_from(["bucket", "disk"]),
    hashes=st.booleans(),
    redirects=st.booleans(),
)
def test_a_single_client_gets_the_answers_of_the_model(
    script: list[Act], store: str, hashes: bool, redirects: bool
) -> None:
    """Without faults and company every status, list and byte is the one that the reference registry gives."""
    model = Model()
    scenario = Scenario(
        clients=(tuple(script),),
        store="disk" if store == "disk" else "bucket",
        hash_states=hashes,
        replicas=2,
        redirects=redirects,
        records_pulls=True,
    )
    simulation = Simulation(scenario, Calm())

    def compare(call: Call, answer: Answer | None) -> None:
        assert answer is not None, f"{call.method} {call.target} was not answered"
        model.check(call, answer)

    simulation.on_answer = compare
    violation = simulation.run()
    assert violation is None, violation
    for namespace in NAMESPACES:
        recorded = _last_pulls(simulation, namespace)
        assert {str(what) for what in (*recorded.tags, *recorded.digests)} == model.pulled(namespace)


def _last_pulls(simulation: Simulation, namespace: str) -> LastPulls:
    operation = Operation(last_pulls(Namespace(namespace)))
    step = operation.resume()
    while not isinstance(step, Done):
        step = operation.resume(simulation.world.store.apply(step, simulation.world.replicas[0]))
    return step.value


class RegistryMachine(RuleBasedStateMachine):
    """Rules are what happens to a registry; the schedule between them comes from a seed."""

    def __init__(self) -> None:
        super().__init__()
        self.simulation: Simulation | None = None
        self.begun = 0

    @precondition(lambda self: self.simulation is None)
    @rule(seed=st.integers(0, 1000), store=st.sampled_from(["bucket", "disk"]), leases_granted=st.booleans())
    def start(self, seed: int, store: str, leases_granted: bool) -> None:
        scenario = Scenario(
            store="disk" if store == "disk" else "bucket", granularity="fine", replicas=2, leases_granted=leases_granted
        )
        self.simulation = Simulation(scenario, Seeded(seed))

    @precondition(lambda self: self.simulation is not None and self.simulation.in_flight() < IN_FLIGHT_MAX)
    @rule(act=acts())
    def begin(self, act: Act) -> None:
        assert self.simulation is not None
        self.begun += 1
        self.simulation.begin(f"client-{self.begun}", (act,), replica=self.begun)

    @precondition(lambda self: self.simulation is not None)
    @rule(steps=st.integers(1, 30))
    def go_on(self, steps: int) -> None:
        assert self.simulation is not None
        for _ in range(steps):
            self.simulation.step()

    @precondition(lambda self: self.simulation is not None)
    @rule()
    def settle(self) -> None:
        assert self.simulation is not None
        self.simulation.settle()

    @precondition(lambda self: self.simulation is not None)
    @rule()
    def cut_power(self) -> None:
        assert self.simulation is not None
        self.simulation.fired["crash"] += 1
        self.simulation.cut_power()

    @precondition(lambda self: self.simulation is not None)
    @rule(replica=st.sampled_from(["replica-0", "replica-1"]))
    def kill(self, replica: str) -> None:
        assert self.simulation is not None
        self.simulation.fired["kill"] += 1
        self.simulation.kill(replica)

    def teardown(self) -> None:
        if self.simulation is not None:
            self.simulation.settle()
            self.simulation.look_around()


TestRegistryMachine = RegistryMachine.TestCase
