"""The collector in a bucket, request by request: what comes late, twice or not at all, to pushers, deleters and
collectors. Known ways to lose what somebody needs are planted, and the search has to find each of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from angos.sansio import layout
from angos.sansio.bucket import plans
from angos.sansio.bucket.attempts import AttemptFailed
from angos.sansio.collection import collector, expiry
from angos.sansio.config import RegistryConfig
from angos.sansio.effects import CreateKeys, Effect, Key, StatKey, StorageUnavailable
from angos.sansio.operation import Operation
from angos.simulator.registry import SimulatedRegistry
from angos.simulator.scenario import Scenario
from angos.simulator.search import Drawer, search
from angos.simulator.workload import Seed, draw_collected
from angos.simulator.world.client import Act
from angos.simulator.world.clock import Clock
from angos.simulator.world.s3 import S3World
from tests.property import test_planted_collection as collection

Patch = pytest.MonkeyPatch
NIGHTLY = 100
"""So many times as many seeds in long runs."""


def anything(number: int) -> Seed:
    """The workload of collectors, in a bucket."""
    return draw_collected(number, store="s3")


def again(number: int) -> Seed:
    """What was deleted days ago is pushed again."""
    seed = collection.again(number)
    return replace(seed, scenario=replace(seed.scenario, store="s3", granularity="fine" if number % 2 else "coarse"))


def late(number: int) -> Seed:
    """A blob is pushed that is being removed, and one request comes late."""
    return _beside(number, ((Act("collect"),), (Act("push_blob", form="post"), Act("head_blob"))), ("late",), 1)


def taken_over(number: int) -> Seed:
    """The same with a collector that is taken for dead."""
    collectors = (Act("collect"),), (Act("collect"),)
    return _beside(number, (*collectors, (Act("push_blob", form="post"), Act("head_blob"))), ("late", "stall"), 2)


def uploading(number: int) -> Seed:
    """Blobs are pushed in pieces by processes that are killed, and requests are lost."""
    clients = ((Act("push_blob", form="chunks"),), (Act("push_blob", form="patch", item=1), Act("collect")))
    return replace(_beside(number, clients, ("lost_reply", "kill"), 3), fault_rate=0.03)


def _beside(number: int, clients: tuple[tuple[Act, ...], ...], faults: tuple[str, ...], faults_max: int) -> Seed:
    scenario = Scenario(
        clients=clients,
        before=(Act("push_blob"),),
        store="s3",
        granularity="fine",
        replicas=2,
        faults=faults,
        faults_max=faults_max,
        leases_granted=True,
        aged=True,
    )
    return Seed(number, scenario, 0.3, None if number % 2 else 3)


def an_answer_settles_a_removal(patch: Patch) -> None:
    """A removal that was answered when it was sent again is over: the mark goes, and the first request comes then.

    This was so until the search found it.
    """

    async def delete_keys_within(effect: Any, terms: Any) -> None:
        await plans.delete(effect.keys, terms)

    patch.setattr(plans, "delete_keys_within", delete_keys_within)


def what_was_begun_is_left(patch: Patch) -> None:
    """Nobody looks for what killed processes had begun to send."""

    async def discard_abandoned(*_: Any, **__: Any) -> expiry.Expired:
        return expiry.Expired(0)

    patch.setattr(collector, "discard_abandoned", discard_abandoned)


BUGS: dict[Callable[[Patch], None], tuple[Drawer, int]] = {
    an_answer_settles_a_removal: (late, 150),
    what_was_begun_is_left: (uploading, 50),
    collection.writers_do_not_look_at_marks: (anything, 60),
    collection.pushes_keep_nothing: (anything, 150),
    collection.heads_keep_nothing: (anything, 60),
    collection.no_grace: (anything, 20),
    collection.no_mark: (anything, 60),
    collection.revision_before_references: (again, 300),
    collection.references_are_forgotten: (anything, 20),
}


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_a_planted_bug_is_found_request_by_request(bug: Callable[[Patch], None], monkeypatch: Patch) -> None:
    drawer, seeds_max = BUGS[bug]
    bug(monkeypatch)
    tally = search(0, seeds_max, draw_seed=drawer, found_max=1)
    assert tally.found, f"not found in {seeds_max} seeds: {bug.__doc__}"


@pytest.mark.parametrize(
    ("drawer", "seeds"),
    [(anything, 150), (again, 100), (late, 150), (taken_over, 200), (uploading, 60)],
    ids=["anything", "again", "late", "taken over", "uploading"],
)
def test_collectors_in_a_bucket_keep_every_promise(drawer: Drawer, seeds: int) -> None:
    """And afterwards the bucket holds exactly what is reachable, and nothing that was begun and left."""
    tally = search(0, seeds * (NIGHTLY if os.environ.get("HYPOTHESIS_PROFILE") == "nightly" else 1), draw_seed=drawer)
    assert not tally.found, tally.found[0].sentence
    assert not tally.shortcomings()


def test_what_was_created_when_it_was_asked_for_again_is_not_definite() -> None:
    """The request before, which had no answer, may create it anew when somebody has deleted it."""
    world = S3World(Clock(tick_ms=1), {})
    for definite in (False, True):
        key = Key(f"{layout.PERMITS_PREFIX}{definite}")
        carrying = world.carry_out(CreateKeys(((key, b"{}"),), definite=definite), "")
        carrying.fail(carrying.waiting[0], AttemptFailed("no answer yet"))
        if definite:
            with pytest.raises(StorageUnavailable, match="may be carried out yet"):
                carrying.run()
        else:
            assert carrying.run() == (True,)
        assert world.get(key) is not None


def test_a_collector_uses_no_permit_that_could_come_back() -> None:
    """It did until the search found it: a collector that was taken for dead had its permit again, and removed what
    had been pushed since. It draws another one, as often as that is worth it."""
    registry = SimulatedRegistry()
    perform, created, looked_for = registry.perform, list[Key](), set[Key]()
    doubtful = 1

    def doubting(effect: Effect[Any]) -> Any:
        if isinstance(effect, CreateKeys) and effect.entries[0][0].startswith(layout.PERMITS_PREFIX):
            assert effect.definite
            created.append(effect.entries[0][0])
            perform(effect)
            if len(created) <= doubtful:
                raise StorageUnavailable("a request that had no answer may be carried out yet")
        if isinstance(effect, StatKey) and effect.key.startswith(layout.PERMITS_PREFIX):
            looked_for.add(effect.key)
        return perform(effect)

    registry.perform = doubting  # type: ignore[method-assign]
    registry.run(Operation(collector.collect(RegistryConfig())))
    assert len(created) == 2
    assert looked_for == {created[1]}
    created.clear()
    doubtful = 99
    with pytest.raises(StorageUnavailable):
        registry.run(Operation(collector.collect(RegistryConfig())))
    assert len(created) == collector.PERMITS_TRIED
