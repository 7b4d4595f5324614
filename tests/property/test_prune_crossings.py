"""Pruning and pushes that cross: whoever is told 201 has the tag, in every order, and wherever the pruner is killed.

Bug class 66, and an earlier version of this registry: a push of the same tag crossed the deletion, the pruner died, and
the push was lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from angos.sansio import layout, tags
from angos.sansio.config import RegistryConfig
from angos.sansio.effects import AcquireLease, CreateKeys, Effect, ReadClock, StorageUnavailable
from angos.sansio.oci.digest import Digest
from angos.sansio.oci.reference import Namespace, Tag
from angos.sansio.operation import Operation
from angos.sansio.prune import Pruned, prune
from angos.sansio.retention import RetentionConfig
from angos.sansio.tags import newest_event, resolve_tag, set_immutable_tag, set_tag, unset_event
from angos.simulator.choices import Exhaustive
from angos.simulator.registry import SimulatedRegistry
from tests.property.crossing import Crossing, requested
from tests.property.test_immutable_tags import TYPE, manifest
from tests.property.test_retention import rule

NAMESPACE, TAG = Namespace("a"), Tag("v1")
DAY_MS = 86_400_000
MONTH = RetentionConfig(
    (rule(lambda variables: variables["image"]["pushed_at"] > variables["now()"] - 30 * 86_400),), min_age_seconds=0
)
"""Keeps what was pushed in the last thirty days."""
OLD, NEW = manifest(1), manifest(2)
KIND = TYPE["Content-Type"]


@dataclass
class Skewed(SimulatedRegistry):
    """The clock of whoever is told so is wrong."""

    wrong_by_ms: int = 0

    def perform(self, effect: Effect[Any]) -> Any:
        reply = super().perform(effect)
        return reply + self.wrong_by_ms if isinstance(effect, ReadClock) else reply


@dataclass(frozen=True)
class Push:
    """A push of the tag that is old."""

    body: bytes
    target: str = "/v2/a/manifests/v1"
    config: RegistryConfig = field(default_factory=RegistryConfig)
    before: tuple[bytes, ...] = (OLD,)
    method: str = "PUT"


PUSHES = {
    "the same manifest": Push(OLD),
    "another manifest": Push(NEW),
    "another manifest by digest": Push(NEW, f"/v2/a/manifests/{Digest.of(NEW)}?tag=v1"),
    "the same manifest, immutable": Push(OLD, config=RegistryConfig(immutable_tags=True)),
    "a restore": Push(OLD, f"/v2/_ext/a/_restore?tag=v1&to={Digest.of(OLD)}", before=(OLD, NEW), method="POST"),
}


def old_world(push: Push) -> SimulatedRegistry:
    """The tag was pushed forty days ago."""
    world = SimulatedRegistry(push.config)
    for body in push.before:
        assert world.send("PUT", "/v2/a/manifests/v1", TYPE, body).status == 201
    world.world.clock.now_ms += 40 * DAY_MS
    return world


def crossing_of(world: SimulatedRegistry, push: Push) -> Crossing:
    """0 is the push, 1 the pruner."""
    pushing = requested(world, push.method, push.target, push.body if push.method == "PUT" else b"", KIND)
    return Crossing(world, [pushing, Operation(prune(MONTH))])


def lengths(push: Push) -> tuple[int, int]:
    """How many effects each of the two has when it is alone."""
    return tuple(crossing_of(old_world(push), push).advance(number) for number in (0, 1))  # type: ignore[return-value]


def schedules(push: Push) -> Iterator[tuple[int, int, int, int]]:
    """How far each of them is when the other one goes on: push, pruner, push, pruner; then the push ends.

    All with the pruner in one piece, cut off or not; in two pieces, those that are some effects long.
    """
    pushing, pruning = lengths(push)
    for first in range(pushing + 1):
        for second in range(pruning + 1):
            yield first, second, first, second
            for third in range(first + 1, min(first + 4, pushing)):
                for fourth in range(second + 1, min(second + 4, pruning)):
                    yield first, second, third, fourth


def check(world: SimulatedRegistry, push: Push, crossing: Crossing) -> None:
    assert crossing.results[0].status == 201
    answer = world.send("GET", "/v2/a/manifests/v1")
    assert (answer.status, answer.body) == (200, push.body), "an acknowledged push was lost"
    done: Pruned = world.run(Operation(prune(MONTH, dry_run=True)))
    assert [judged.outcome for judged in done.tags] == ["kept"], "what was pushed just now counts as old"


@pytest.mark.parametrize("what", PUSHES)
def test_a_push_stands_in_every_order_and_wherever_the_pruner_is_killed(what: str) -> None:
    push = PUSHES[what]
    deleted_before_the_end = runs = 0
    for first, second, third, fourth in schedules(push):
        for killed in (False, True):
            world = old_world(push)
            crossing = crossing_of(world, push)
            crossing.advance(0, first)
            crossing.advance(1, second)
            crossing.advance(0, third - first)
            crossing.advance(1, fourth - second)
            deletions = [name for name in world.world.store.names("v2/ns/a!tag/v1!/") if ".del." in name]
            deleted_before_the_end += bool(deletions)
            if killed:
                crossing.kill(1)
            crossing.advance(0)
            crossing.advance(1)
            check(world, push, crossing)
            runs += 1
    assert runs > 600
    assert deleted_before_the_end > 50, "the deletion never came first"


def test_what_nobody_pushes_goes() -> None:
    world = old_world(Push(OLD))
    done: Pruned = world.run(Operation(prune(MONTH)))
    assert [judged.outcome for judged in done.tags] == ["deleted"]
    assert world.send("GET", "/v2/a/manifests/v1").status == 404
    assert world.send("GET", f"/v2/a/manifests/{Digest.of(OLD)}").status == 200
    again: Pruned = world.run(Operation(prune(MONTH)))
    assert again.tags == ()


@pytest.mark.parametrize("step", range(12))
def test_what_a_killed_pruner_left_the_next_one_does(step: int) -> None:
    world = old_world(Push(OLD))
    killed = Crossing(world, [Operation(prune(MONTH))])
    killed.advance(0, step)
    killed.kill(0)
    world.run(Operation(prune(MONTH)))
    assert world.send("GET", "/v2/a/manifests/v1").status == 404


SETTINGS = {"the same": (False, OLD), "another": (False, NEW), "the same, immutable": (True, OLD)}


def set_while_taken_back(what: str, wrong_by_ms: int, pruners: int, bounds: dict[str, int]) -> int:
    """In every order; how many there are."""
    immutable, body = SETTINGS[what]
    wanted = Digest.of(body)
    runs = 0
    for choices in Exhaustive(bounds):
        world = Skewed(RegistryConfig(immutable_tags=immutable))
        assert world.send("PUT", "/v2/a/manifests/v1", TYPE, OLD).status == 201
        decided = world.run(Operation(newest_event(NAMESPACE, TAG)))
        assert decided is not None
        world.wrong_by_ms = wrong_by_ms
        setting = set_immutable_tag(NAMESPACE, TAG, wanted) if immutable else set_tag(NAMESPACE, TAG, wanted)
        taking = [Operation(unset_event(NAMESPACE, TAG, decided)) for _ in range(pruners)]
        Crossing(world, [Operation(setting), *taking]).run_by(choices, {})
        assert world.run(Operation(resolve_tag(NAMESPACE, TAG))) == wanted
        runs += 1
    return runs


@pytest.mark.parametrize("wrong_by_ms", [-100 * DAY_MS, -1, 0, 100 * DAY_MS])
@pytest.mark.parametrize("what", SETTINGS)
def test_a_tag_is_set_while_an_older_event_is_taken_back_whatever_the_clock_says(what: str, wrong_by_ms: int) -> None:
    assert set_while_taken_back(what, wrong_by_ms, 1, {}) >= 20


@pytest.mark.parametrize("what", SETTINGS)
def test_a_tag_is_set_while_two_take_back_an_older_event(what: str) -> None:
    assert set_while_taken_back(what, 0, 2, {"turn": 3}) > 100


@settings(max_examples=300)
@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=80),
    st.dictionaries(st.integers(0, 4), st.integers(0, 8), max_size=2),
    st.integers(1, 2),
)
def test_pushes_of_an_immutable_tag_agree_while_it_is_pruned(
    choices: list[int], deaths: dict[int, int], pruners: int
) -> None:
    """A pruner takes away nothing that was acknowledged, and no two manifests are acknowledged."""
    world = SimulatedRegistry(RegistryConfig(immutable_tags=True))
    assert world.send("PUT", "/v2/a/manifests/v1", TYPE, OLD).status == 201
    decided = world.run(Operation(newest_event(NAMESPACE, TAG)))
    assert decided is not None
    digests = [Digest.of(OLD), Digest.of(OLD), Digest.of(NEW)]
    operations: list[Operation[Any]] = [Operation(set_immutable_tag(NAMESPACE, TAG, digest)) for digest in digests]
    operations += [Operation(unset_event(NAMESPACE, TAG, decided)) for _ in range(pruners)]
    crossing = Crossing(world, operations)
    crossing.run(choices, dict(deaths))
    acknowledged = {digest for number, digest in enumerate(digests) if crossing.results.get(number, digest) is None}
    assert len(acknowledged) <= 1, "two manifests were acknowledged"
    if acknowledged:
        assert world.run(Operation(resolve_tag(NAMESPACE, TAG))) in acknowledged


def test_retention_and_immutable_tags_are_at_peace() -> None:
    """An immutable tag goes when its time has come, and can be pushed anew with whatever there is then."""
    push = Push(NEW, config=RegistryConfig(immutable_tags=True))
    world = old_world(push)
    assert world.send("PUT", "/v2/a/manifests/v1", TYPE, NEW).status == 409
    done: Pruned = world.run(Operation(prune(MONTH)))
    assert [judged.outcome for judged in done.tags] == ["deleted"]
    assert world.send("PUT", "/v2/a/manifests/v1", TYPE, NEW).status == 201
    assert world.send("PUT", "/v2/a/manifests/v1", TYPE, OLD).status == 409


def test_another_manifest_for_an_immutable_tag_is_refused_or_stands_in_every_order() -> None:
    push = Push(NEW, config=RegistryConfig(immutable_tags=True))
    seen = set()
    for first, second, third, fourth in schedules(push):
        world = old_world(push)
        crossing = crossing_of(world, push)
        for number, effects in ((0, first), (1, second), (0, third - first), (1, fourth - second)):
            crossing.advance(number, effects)
        crossing.kill(1)
        crossing.advance(0)
        status = crossing.results[0].status if 0 in crossing.results else 409
        seen.add(status)
        answer = world.send("GET", "/v2/a/manifests/v1")
        if status == 201:
            assert answer.body == NEW
        else:
            assert answer.status == 404 or answer.body == OLD
    assert seen == {201, 409}


def test_a_deletion_that_cannot_be_written_is_told_and_the_tag_stays() -> None:
    """Bug class 49."""
    world = old_world(Push(OLD))
    perform = world.perform

    def failing(effect: Effect[Any]) -> Any:
        if isinstance(effect, CreateKeys):
            raise StorageUnavailable("the disk is away")
        return perform(effect)

    world.perform = failing  # type: ignore[method-assign]
    done: Pruned = world.run(Operation(prune(MONTH)))
    assert ([judged.outcome for judged in done.tags], done.passed) == (["failed"], 1)
    world.perform = perform  # type: ignore[method-assign]
    assert world.send("GET", "/v2/a/manifests/v1").status == 200


def test_nothing_is_done_while_another_run_is_going_on() -> None:
    world = old_world(Push(OLD))
    perform = world.perform
    world.perform = lambda effect: None if isinstance(effect, AcquireLease) else perform(effect)  # type: ignore[method-assign]
    assert world.run(Operation(prune(MONTH))) == Pruned(busy=True)
    assert world.send("GET", "/v2/a/manifests/v1").status == 200


# --- planted bugs -----------------------------------------------------------------------------------------------------


def test_a_deletion_dated_by_the_clock_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    async def by_the_clock(namespace: Namespace, tag: Tag, event: layout.TagEvent, *_: str | None) -> None:
        await tags._write_event(namespace, tag, layout.TagEvent(await ReadClock(), "del", event.digest), b"")

    monkeypatch.setattr(tags, "_take_back", by_the_clock)
    with pytest.raises(AssertionError, match="an acknowledged push was lost"):
        test_a_push_stands_in_every_order_and_wherever_the_pruner_is_killed("another manifest")


def test_a_push_of_the_same_that_is_no_event_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from angos.sansio import manifests

    async def only_if_changed(namespace: Namespace, tag: Tag, digest: Digest, by: str | None) -> None:
        if await resolve_tag(namespace, tag) != digest:
            await set_tag(namespace, tag, digest, by)

    monkeypatch.setattr(manifests, "set_tag", only_if_changed)
    with pytest.raises(AssertionError, match=r"an acknowledged push was lost|counts as old"):
        test_a_push_stands_in_every_order_and_wherever_the_pruner_is_killed("the same manifest")
