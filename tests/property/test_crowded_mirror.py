"""A cache with a limit in its simulated world: what goes, what stays, and that nobody who pulls notices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from angos.sansio import layout
from angos.sansio.manifests import get_manifest, push_manifest
from angos.sansio.oci.digest import Digest
from angos.sansio.oci.manifest import parse_manifest
from angos.sansio.oci.reference import Namespace, Tag
from angos.sansio.operation import Operation
from angos.sansio.upstream import eviction, manifests
from angos.sansio.upstream.config import CacheConfig, Upstream
from angos.sansio.upstream.eviction import IN_USE_SECONDS, evict
from angos.simulator.choices import Calm, Seeded
from angos.simulator.crowded import CONFIG, GRACE_SECONDS, Crowded, image, index, large_layer
from angos.simulator.mirror_tasks import Pull
from angos.simulator.world.upstreams import UPSTREAM_FAULTS, SimulatedUpstream, SimulatedUpstreams

SEEDS = 120
HOUR_MS = 3_600_000
ONE = Upstream("hub@one", "https://one.example")
LAYERS = [large_layer(number) for number in range(7)]
IMAGES = {f"image{number}": image(LAYERS[number], LAYERS[6]) for number in range(6)}
"""Each with a layer of its own and one that all share."""
Patch = pytest.MonkeyPatch


def world(**more: bytes) -> SimulatedUpstreams:
    blobs = (CONFIG, *LAYERS)
    return SimulatedUpstreams({ONE.name: SimulatedUpstream(ONE, blobs, 0, images=IMAGES | more)})


def crowded(size_max: int = 36_000, **more: Any) -> Crowded:
    return Crowded(world(), Calm(), size_max, **more)


def pull_all(mirror: Crowded, *tags: str) -> None:
    for tag in tags:
        mirror.pull_image(tag, mirror.images()[tag])
        mirror.clock.now_ms += HOUR_MS


def limit(mirror: Crowded, size_max: int) -> None:
    """Another one."""
    (repository,) = mirror.config.repositories
    assert repository.cache is not None
    repository = replace(repository, cache=replace(repository.cache, size_max=size_max))
    mirror.config, mirror.size_max = replace(mirror.config, repositories=(repository,)), size_max


# --- what goes --------------------------------------------------------------------------------------------------------


def test_what_was_not_pulled_for_longest_goes_first() -> None:
    mirror = crowded()
    pull_all(mirror, "image0", "image1", "image2", "image3")
    mirror.clock.now_ms += 3 * HOUR_MS
    pull_all(mirror, "image0")
    assert mirror.held() > mirror.size_max
    mirror.evict()
    assert mirror.tags() == {"image0", "image3"}
    assert mirror.held() <= mirror.size_max * 9 // 10
    mirror.evict()
    assert mirror.tags() == {"image0", "image3"}, "what is below the limit stays"


def test_what_is_being_pulled_stays_however_large_it_is() -> None:
    mirror = crowded(size_max=1)
    pull_all(mirror, "image0", "image1")
    mirror.clock.now_ms += 2 * HOUR_MS
    mirror.pull_image("image1", IMAGES["image1"])
    mirror.evict()
    assert mirror.tags() == {"image1"}
    mirror.clock.now_ms += int(IN_USE_SECONDS * 1000) + 1000
    mirror.evict()
    assert mirror.tags() == set()


def test_an_index_goes_before_its_manifests_and_keeps_those_that_are_here() -> None:
    mirror = Crowded(world(both=index(IMAGES["image0"], IMAGES["image1"])), Calm(), size_max=36_000)
    both = mirror.images()["both"]
    pull_all(mirror, "image0", "image1", "image2")
    mirror.clock.now_ms += 2 * HOUR_MS
    mirror.run([Pull("/v2/hub/x/manifests/both", method="HEAD")])  # all that a client asks who has it already
    mirror.clock.now_ms += 2 * HOUR_MS
    mirror.evict()
    assert mirror.tags() == {"image0", "image1", "both"}, "the index was used, and so were its manifests"
    limit(mirror, 1)
    plan = Operation(evict(mirror.config, dry_run=True))
    mirror.run([], beside=[plan])
    (measured,) = mirror.done[plan].repositories
    order = [one.digest for one in measured.evicted]
    assert order[0] == Digest.of(both)
    assert mirror.tags() == {"image0", "image1", "both"}, "a dry run changes nothing"


def test_an_image_whose_layers_are_fetched_piece_by_piece_stays() -> None:
    mirror = crowded()
    pull_all(mirror, "image0", "image1", "image2", "image3")
    mirror.clock.now_ms += 2 * HOUR_MS
    mirror.run([Pull(f"/v2/hub/x/blobs/{Digest.of(LAYERS[0])}", fields=(("range", "bytes=3-7"),))])
    mirror.write_down()
    mirror.clock.now_ms += 2 * HOUR_MS
    mirror.evict()
    assert "image0" in mirror.tags()
    assert "image1" not in mirror.tags()


def test_a_layer_that_many_share_keeps_only_what_was_used_last() -> None:
    mirror = crowded()
    pull_all(mirror, "image0", "image1", "image2", "image3")
    mirror.clock.now_ms += 2 * HOUR_MS
    mirror.run([Pull(f"/v2/hub/x/blobs/{Digest.of(LAYERS[6])}")])
    mirror.evict()
    assert "image3" in mirror.tags()
    assert "image0" not in mirror.tags()


def test_records_of_pulls_go_with_what_was_pulled() -> None:
    mirror = crowded()
    pull_all(mirror, "image0", "image1", "image2", "image3")
    mirror.clock.now_ms += 3 * HOUR_MS
    mirror.evict()
    mirror.evict()
    left = {name.partition("!atime/")[2] for name in mirror.store.names("v2/ns/hub/x!atime/")}
    tags = {name.removeprefix("tag/").partition("!")[0] for name in left if name.startswith("tag/")}
    assert tags == mirror.tags() == {"image2", "image3"}
    layers = (LAYERS[2], LAYERS[3], LAYERS[6], CONFIG)
    kept = {f"rev/sha256/{Digest.of(IMAGES[tag]).hex}" for tag in tags}
    kept |= {f"blob/sha256/{Digest.of(each).hex}" for each in layers}
    assert {name.partition("!")[0] for name in left if not name.startswith("tag/")} == kept


def test_repositories_without_a_limit_are_left_alone() -> None:
    mirror = crowded(size_max=1)
    (repository,) = mirror.config.repositories
    mirror.config = replace(mirror.config, repositories=(replace(repository, cache=CacheConfig()),))
    pull_all(mirror, "image0")
    mirror.clock.now_ms += 5 * HOUR_MS
    mirror.run([], beside=[mirror.eviction()])
    assert mirror.tags() == {"image0"}


# --- what comes back, and what stays ----------------------------------------------------------------------------------


def push(mirror: Crowded, name: str, body: bytes, *layers: bytes) -> None:
    """As somebody would who has nothing to do with the cache."""
    for blob in layers:
        digest = Digest.of(blob)
        mirror.store._put(layout.blob_key(digest), blob)
        mirror.store._put(layout.owner_key(digest, Namespace(name)), b"")
    arguments = Namespace(name), Digest.of(body), body, parse_manifest(body, None), (Tag("1"),), mirror.config
    mirror.run([], beside=[Operation(push_manifest(*arguments))])


def test_the_collector_gets_the_space_back_but_for_what_others_need() -> None:
    mirror = crowded(size_max=1)
    pull_all(mirror, "image0", "image1")
    push(mirror, "own/app", image(LAYERS[0]), LAYERS[0], CONFIG)
    mirror.clock.now_ms += 5 * HOUR_MS
    mirror.evict()
    assert mirror.store.get(layout.blob_key(Digest.of(LAYERS[1]))) is not None, "in its grace period"
    mirror.collect()
    left = {digest for name in mirror.store.names("v2/blobs/") if (digest := layout.parse_blob_key(name)) is not None}
    assert left == {Digest.of(each) for each in (image(LAYERS[0]), LAYERS[0], CONFIG)}


def test_history_of_tags_keeps_nothing_of_a_cache() -> None:
    """Nobody can set a tag back where an upstream says what it names."""
    mirror = crowded(size_max=1)
    mirror.config = replace(mirror.config, tag_history_seconds=1e9)
    pull_all(mirror, "image0")
    mirror.clock.now_ms += 5 * HOUR_MS
    mirror.evict()
    mirror.collect()
    assert mirror.store.names("v2/blobs/") == []


def test_what_was_evicted_is_fetched_again_and_an_outage_is_none_of_its_business() -> None:
    mirror = crowded(size_max=1)
    pull_all(mirror, "image0")
    mirror.clock.now_ms += 5 * HOUR_MS
    mirror.evict()
    mirror.collect()
    upstream = mirror.upstreams.registries[ONE.name]
    upstream.steady = "down"
    digest = Digest.of(IMAGES["image0"])
    mirror.run(pulls := [Pull("/v2/hub/x/manifests/image0"), Pull(f"/v2/hub/x/manifests/{digest}")])
    assert [pull.response.status for pull in pulls if pull.response is not None] == [503, 503]
    upstream.steady = ""
    mirror.clock.now_ms += 120_000
    mirror.pull_image("image0", IMAGES["image0"])


# --- search -----------------------------------------------------------------------------------------------------------


def run_seed(seed: int) -> Crowded:
    """Pulls, evictions and collections beside each other, in an order of its own, with and without faults."""
    random = Random(f"crowded {seed}")
    upstreams = world()
    upstreams.faults = tuple(sorted(random.sample(sorted(UPSTREAM_FAULTS), random.randint(1, 4))))
    mirror = Crowded(
        upstreams,
        Seeded(seed, fault_rate=random.choice((0.0, 0.1))),
        random.choice((1, 1, 22_000, 36_000)),
        fresh_seconds=random.choice((0, 60, 100_000)),
        replicas=random.choice((1, 2)),
        leases_granted=random.random() < 0.3,
    )
    tags = list(IMAGES)
    for _ in range(random.randint(3, 6)):
        upstreams.faults_left = random.choice((0, 0, 2))
        pulls, work = [], []
        for tag in random.choices(tags, k=random.randint(1, 2)):
            parts = [f"manifests/{random.choice((tag, Digest.of(IMAGES[tag])))}"]
            parts += [f"blobs/{each.digest}" for each in parse_manifest(IMAGES[tag], None).references]
            method = random.choice(("GET", "GET", "HEAD"))
            begins = random.randrange(150)
            replica = random.randrange(len(mirror.memories))
            pulls += [Pull(f"/v2/hub/x/{part}", method, replica, begins=begins) for part in parts]
        work += [mirror.eviction() for _ in range(random.randint(1, 2))]
        work += [mirror.collection() for _ in range(random.randint(0, 1))]
        mirror.run(pulls, beside=work)
        mirror.clock.now_ms += random.choice((1000, int(GRACE_SECONDS * 1000), 3 * HOUR_MS, 3 * HOUR_MS))
        if random.random() < 0.3:
            mirror.evict()
    return mirror


def test_no_pull_notices_that_something_is_evicted() -> None:
    mirrors = [run_seed(seed) for seed in range(SEEDS)]
    assert sum(mirror.crossed for mirror in mirrors) > SEEDS // 10, "pulls and deletions never met"


def found_by_search(budget: int) -> bool:
    for seed in range(budget):
        try:
            run_seed(seed)
        except AssertionError:
            return True
    return False


def absence_is_told(monkeypatch: Patch) -> None:
    monkeypatch.setattr(manifests, "_stored", get_manifest)


def nothing_is_in_use(monkeypatch: Patch) -> None:
    monkeypatch.setattr(eviction, "IN_USE_SECONDS", -1e9)


def half_is_enough(monkeypatch: Patch) -> None:
    real = eviction.choose

    def timid(*given: Any, **more: Any) -> Any:
        size, chosen = real(*given, **more)
        return size, chosen[: len(chosen) // 2]

    monkeypatch.setattr(eviction, "choose", timid)


PLANTED: dict[str, Callable[[Patch], None]] = {
    "an eviction that becomes a 404": absence_is_told,
    "something in use that goes": nothing_is_in_use,
    "a limit that is not kept": half_is_enough,
}


@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_is_found(bug: str, monkeypatch: Patch) -> None:
    PLANTED[bug](monkeypatch)
    assert found_by_search(SEEDS), f"{bug} was not found"
