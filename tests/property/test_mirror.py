"""The pull-through cache in its simulated world: every upstream fault, every order of effects, planted bugs."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from angos.sansio.effects import PeerUnavailable
from angos.sansio.oci.digest import Digest
from angos.sansio.upstream import asking, tokens
from angos.sansio.upstream import fill as fills
from angos.sansio.upstream.config import CacheConfig, Upstream
from angos.sansio.upstream.events import FillEnded
from angos.sansio.upstream.failure import NotThere
from angos.simulator.choices import Calm, Choices, Seeded
from angos.simulator.mirror import Mirror
from angos.simulator.mirror_tasks import Pull
from angos.simulator.world.leases import Leases
from angos.simulator.world.upstreams import (
    UPSTREAM_FAULTS,
    SimulatedUpstream,
    SimulatedUpstreams,
    layer,
    manifest,
)

SEEDS = 400
LAYER = f"/v2/hub/x/blobs/{Digest.of(layer(0))}"
TAG = "/v2/hub/x/manifests/latest"
FIRST = Upstream("hub@one", "https://one.example", username="me")
SECOND = Upstream("hub@two", "https://two.example")
Patch = pytest.MonkeyPatch


def world(*, second: bool = False, token: bool = False, steady: str = "") -> SimulatedUpstreams:
    found = {FIRST.name: SimulatedUpstream(FIRST, (layer(0), layer(1)), 0, token, steady)}
    if second:
        found[SECOND.name] = SimulatedUpstream(SECOND, (layer(0), layer(1)), 0)
    return SimulatedUpstreams(found)


def warning(pull: Pull) -> str | None:
    assert pull.response is not None
    return dict(pull.response.headers).get("Warning")


def statuses(pulls: list[Pull]) -> list[int]:
    return [pull.response.status for pull in pulls if pull.response is not None]


# --- blobs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(25))
def test_sixteen_clients_cost_one_transfer_in_any_order(seed: int) -> None:
    upstreams = world(token=True)
    mirror = Mirror(upstreams, Seeded(seed))
    pulls = [Pull(LAYER) for _ in range(16)]
    mirror.run(pulls)
    assert all(mirror.body(pull) == layer(0) for pull in pulls)
    assert len(upstreams.opened) == 1
    assert upstreams.tokens == 1
    mirror.run(again := [Pull(LAYER)])
    assert mirror.body(again[0]) == layer(0)
    assert len(upstreams.opened) == 1, "what is stored is not asked for again"


@pytest.mark.parametrize("seed", range(10))
def test_replicas_share_a_fill(seed: int) -> None:
    upstreams = world()
    mirror = Mirror(upstreams, Seeded(seed), replicas=3)
    mirror.run(pulls := [Pull(LAYER, replica=number % 3) for number in range(6)])
    assert all(mirror.body(pull) == layer(0) for pull in pulls)
    assert len(upstreams.opened) == 1


@pytest.mark.parametrize("seed", range(10))
def test_replicas_wait_for_the_one_that_fetches_however_long_it_takes(seed: int) -> None:
    upstreams = world()
    mirror = Mirror(upstreams, Seeded(seed), replicas=3, fills_max=2)
    mirror.stage_ms = 1_800_000
    other = f"/v2/hub/x/blobs/{Digest.of(layer(1))}"
    pulls = [Pull(target, replica=number % 3) for number in range(6) for target in (LAYER, other)]
    mirror.run(pulls)
    assert [mirror.body(pull) for pull in pulls] == [layer(0), layer(1)] * 6
    assert {url for _, url in upstreams.opened} == {f"{FIRST.url}{path.replace('/hub', '')}" for path in (LAYER, other)}
    stored = [event for event in mirror.told if isinstance(event, FillEnded)]
    assert len(stored) == len(upstreams.opened) == 2


def test_when_the_one_that_fetches_dies_another_one_does_it() -> None:
    upstreams = world()
    mirror = Mirror(upstreams, Calm(), replicas=2)
    mirror.stage_ms = 600_000
    mirror.run([Pull(LAYER, replica=0)], crash="replica-0", crash_at_ms=mirror.clock.now_ms + 300_000)
    mirror.run(pulls := [Pull(LAYER, replica=1), Pull(LAYER, replica=1)])
    assert [mirror.body(pull) for pull in pulls] == [layer(0)] * 2
    assert [replica for replica, _ in upstreams.opened] == ["replica-0", "replica-1"]


class Away(Leases):
    """A Redis that does not answer."""

    def acquire(self, name: str, *, until_ms: int) -> str:
        raise PeerUnavailable("Redis is away")


def test_a_mirror_goes_on_when_nobody_can_say_who_has_a_lease() -> None:
    mirror = Mirror(world(token=True), Calm())
    mirror.leases = Away()
    mirror.run(pulls := [Pull(LAYER), Pull(TAG)])
    assert [mirror.body(pull) for pull in pulls] == [layer(0), manifest(0)]


def test_a_transfer_that_breaks_off_goes_on_where_it_ended() -> None:
    upstreams = world()
    upstreams.faults, upstreams.faults_left = ("short",), 1
    mirror = Mirror(upstreams, Fixed({"fault:upstream": 1}))
    mirror.run([pull := Pull(LAYER)])
    assert mirror.body(pull) == layer(0)
    assert len(upstreams.opened) == 2


def test_a_range_of_a_blob_that_is_not_here_follows_the_fill() -> None:
    mirror = Mirror(world(), Calm())
    mirror.run([pull := Pull(LAYER, fields=(("range", "bytes=3-7"),))])
    assert statuses([pull]) == [206]
    assert mirror.body(pull) == layer(0)[3:8]


@pytest.mark.parametrize("fault", ["lying", "long", "html"])
def test_wrong_bytes_are_neither_stored_nor_complete(fault: str) -> None:
    mirror = Mirror(world(steady=fault), Calm())
    mirror.run([pull := Pull(LAYER)])
    assert statuses([pull]) == [502] or mirror.body(pull) is None
    assert not mirror.store.names("v2/blobs/")


def test_another_upstream_has_what_a_liar_spoils() -> None:
    upstreams = world(second=True)
    upstreams.registries[FIRST.name].steady = "lying"
    mirror = Mirror(upstreams, Calm())
    mirror.run([first := Pull(LAYER)])
    mirror.run([second := Pull(LAYER)])
    assert (mirror.body(first), mirror.body(second)) == (None, layer(0))


def test_beyond_the_limit_blobs_are_passed_on_without_being_stored() -> None:
    upstreams = world()
    mirror = Mirror(upstreams, Calm(), fills_max=1)
    taken = Pull(LAYER)
    mirror.places.add(("replica-0", "busy"))
    mirror.run([taken])
    assert mirror.body(taken) == layer(0)
    assert not mirror.store.names("v2/blobs/")


def test_bytes_of_another_repository_are_not_given_away() -> None:
    """A digest is no capability, also for an upstream that names it."""
    upstreams = world()
    mirror = Mirror(upstreams, Calm())
    digest = Digest.of(b"private")
    mirror.store._put(f"v2/blobs/sha256/{digest.hex[:2]}/{digest.hex}/data", b"private")
    mirror.store._put(f"v2/ref/sha256/{digest.hex[:2]}/{digest.hex}/secret!own", b"")
    mirror.run([pull := Pull(f"/v2/hub/missing/blobs/{digest}")])
    assert statuses([pull]) == [404]


# --- manifests --------------------------------------------------------------------------------------------------------


def test_a_tag_is_compared_once_in_a_while_and_followed_when_it_moves() -> None:
    upstreams = world()
    mirror = Mirror(upstreams, Calm(), cache=CacheConfig(fresh_seconds=60))
    mirror.run([Pull(TAG, method="HEAD")])
    mirror.run([Pull(TAG)])
    assert [method for method, _ in upstreams.asked] == ["GET"], "HEAD on a miss fetches, what follows is fresh"
    mirror.clock.now_ms += 61_000
    mirror.run([Pull(TAG)])
    assert [method for method, _ in upstreams.asked] == ["GET", "HEAD"]
    upstreams.registries[FIRST.name].tagged = 1
    mirror.clock.now_ms += 61_000
    mirror.run([moved := Pull(TAG)])
    assert mirror.body(moved) == manifest(1)
    mirror.run([old := Pull(f"/v2/hub/x/manifests/{Digest.of(manifest(0))}")])
    assert mirror.body(old) == manifest(0)
    assert len(upstreams.asked) == 4, "what is asked for by digest and here costs no request"


@pytest.mark.parametrize("fault", sorted(set(UPSTREAM_FAULTS) - {"short", "long", "lying"}))
def test_an_outage_serves_what_is_here_with_a_warning_and_bounded(fault: str) -> None:
    upstreams = world()
    mirror = Mirror(upstreams, Calm(), cache=CacheConfig(fresh_seconds=1, stale_seconds=600))
    mirror.run([Pull(TAG)])
    upstreams.registries[FIRST.name].steady = fault
    mirror.clock.now_ms += 30_000
    mirror.run([stale := Pull(TAG), unknown := Pull("/v2/hub/x/manifests/other")])
    assert mirror.body(stale) == manifest(0)
    assert "out of date" in (warning(stale) or "")
    assert unknown.response is not None
    assert unknown.response.status in (502, 503, 504)
    mirror.clock.now_ms += 600_000
    mirror.run([late := Pull(TAG)])
    assert late.response is not None
    assert late.response.status in (502, 503, 504)
    upstreams.registries[FIRST.name].steady = ""
    mirror.clock.now_ms += 3_600_000
    mirror.run([well := Pull(TAG)])
    assert (mirror.body(well), warning(well)) == (manifest(0), None)


def test_what_is_missing_is_not_asked_for_again_at_once() -> None:
    upstreams = world()
    mirror = Mirror(upstreams, Calm())
    for _ in range(3):
        mirror.run([Pull("/v2/hub/x/manifests/missing")])
    assert len(upstreams.asked) == 1


def test_a_dead_upstream_is_left_alone_for_a_while_and_comes_back() -> None:
    upstreams = world(second=True, steady="down")
    mirror = Mirror(upstreams, Calm(), cache=CacheConfig(fresh_seconds=0))
    for _ in range(10):
        mirror.run([pull := Pull(TAG)])
        assert mirror.body(pull) == manifest(0)
    assert upstreams.fired.count("down") == 3
    upstreams.registries[FIRST.name].steady = ""
    mirror.clock.now_ms += 10_000
    mirror.run([Pull(TAG)])
    assert upstreams.asked[-1][1].startswith(FIRST.url)


# --- credentials ------------------------------------------------------------------------------------------------------


def test_a_realm_of_somebody_else_gets_nothing() -> None:
    upstreams = world(steady="evil realm")
    mirror = Mirror(upstreams, Calm())
    mirror.run([pull := Pull(TAG)])
    assert statuses([pull]) == [502]
    assert upstreams.tokens == 0
    assert pull.response is not None
    assert b"https://evil.example" in (mirror.body(pull) or b"")


# --- who may do what --------------------------------------------------------------------------------------------------


def test_nothing_can_be_pushed_but_a_tag_can_be_deleted() -> None:
    mirror = Mirror(world(), Calm())
    mirror.run([Pull(TAG)])
    refused = [Pull(TAG, method="PUT"), Pull("/v2/hub/x/blobs/uploads/", method="POST")]
    for pull in (*refused, deleted := Pull(TAG, method="DELETE")):
        try:
            mirror.run([pull])
        except AssertionError:
            continue  # 405 and 202 are not among the answers to a pull
    assert statuses([*refused, deleted]) == [405, 405, 202]


def test_a_mirror_is_found_by_the_host_that_it_mirrors() -> None:
    mirror = Mirror(world(), Calm())
    mirror.run([pull := Pull("/v2/x/manifests/latest?ns=HUB.example")])
    assert mirror.body(pull) == manifest(0)
    assert pull.response is not None
    assert ("OCI-Namespace", "HUB.example") in pull.response.headers


# --- search -----------------------------------------------------------------------------------------------------------


class Fixed:
    """Calm but for one label."""

    def __init__(self, values: dict[str, int]) -> None:
        self._values = values

    def pick(self, what: str, count: int) -> int:
        return min(self._values.get(what, 0), count - 1)


def run_seed(seed: int) -> Mirror:
    """A run that differs from others in everything that may differ."""
    random = Random(f"mirror {seed}")
    upstreams = world(second=random.random() < 0.5, token=random.random() < 0.5)
    upstreams.faults = tuple(sorted(random.sample(sorted(UPSTREAM_FAULTS), random.randint(1, 4))))
    upstreams.faults_left = random.randint(0, 4)
    choices: Choices = Seeded(seed, fault_rate=random.choice((0.05, 0.3)))
    replicas = random.choice((1, 1, 2))
    mirror = Mirror(
        upstreams,
        choices,
        cache=CacheConfig(fresh_seconds=random.choice((0, 1, 60)), stale_seconds=random.choice((0, 600))),
        fills_max=random.choice((1, 2, 4)),
        replicas=replicas,
        leases_granted=random.random() < 0.3,
    )
    targets = [TAG, LAYER, f"/v2/hub/x/blobs/{Digest.of(layer(1))}", "/v2/hub/x/manifests/missing"]
    for _ in range(random.randint(1, 3)):
        pulls = [
            Pull(random.choice(targets), random.choice(("GET", "GET", "HEAD")), random.randrange(replicas))
            for _ in range(random.randint(1, 5))
        ]
        mirror.run(pulls)
        if random.random() < 0.5:
            mirror.clock.now_ms += random.choice((500, 5_000, 120_000))
            upstreams.faults_left += random.randint(0, 2)
        if random.random() < 0.2:
            upstreams.registries[FIRST.name].tagged = 1
    return mirror


def test_every_seed_holds_and_every_fault_strikes() -> None:
    fired = {fault for seed in range(SEEDS) for fault in run_seed(seed).upstreams.fired}
    assert fired == set(UPSTREAM_FAULTS)


def found_by_search(budget: int) -> bool:
    """Whether one of so many seeds sees that something is wrong."""
    for seed in range(budget):
        try:
            run_seed(seed)
        except AssertionError:
            return True
    return False


def no_check(*_: Any) -> Any:
    async def nothing() -> None:
        return None

    return nothing()


def outage_is_absence(monkeypatch: Patch) -> None:
    async def absent(_: object) -> Exception:
        return NotThere()

    monkeypatch.setattr(asking, "_failure_of_status", absent)


def unchecked_digest(monkeypatch: Patch) -> None:
    monkeypatch.setattr(fills._Fill, "_check", no_check)


def unchecked_realm(monkeypatch: Patch) -> None:
    monkeypatch.setattr(tokens, "_check_realm", lambda *_: None)


def kept_upload(monkeypatch: Patch) -> None:
    class keeping:  # noqa: N801
        def __init__(self, upload: Any) -> None:
            self.upload = upload

        async def __aenter__(self) -> Any:
            return self.upload

        async def __aexit__(self, *_: object) -> None:
            return None

    monkeypatch.setattr(fills, "scratch", keeping)


PLANTED: dict[str, Callable[[Patch], None]] = {
    "a digest that nobody checks": unchecked_digest,
    "a realm that nobody checks": unchecked_realm,
    "an upload that is left": kept_upload,
    "an error that counts as absence": outage_is_absence,
}


@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_is_found(bug: str, monkeypatch: Patch) -> None:
    PLANTED[bug](monkeypatch)
    assert found_by_search(SEEDS), f"{bug} was not found"
