"""Collectors beside everybody else: nothing that anybody needs goes, and everything else does."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from angos.sansio import layout
from angos.sansio.bucket.requests import BeginPieces, Put
from angos.sansio.collection.collector import REMOVAL_SECONDS, Collected, collect, let_writers_pass
from angos.sansio.collection.expiry import discard_expired
from angos.sansio.collection.presence import mark_value
from angos.sansio.collection.sweep import suspect_needless
from angos.sansio.config import RegistryConfig
from angos.sansio.effects import (
    AcquireLease,
    CreateKeys,
    DeleteKeys,
    DrawId,
    Effect,
    Key,
    ListStats,
    ReadClock,
    ReleaseLease,
    Sleep,
    Stat,
    StatKey,
    StorageUnavailable,
    Tell,
)
from angos.sansio.history import restore_tag
from angos.sansio.oci.digest import Digest
from angos.sansio.oci.reference import Namespace, Tag
from angos.sansio.operation import Done, Operation
from angos.simulator.exhaust import IMAGE, interleavings
from angos.simulator.registry import SimulatedRegistry
from angos.simulator.scenario import Scenario
from angos.simulator.world import store
from angos.simulator.world.client import Act
from angos.simulator.world.clock import Clock
from angos.simulator.world.images import CONFIG_TYPE, LAYER_TYPE, MANIFEST_TYPE, blob, image
from angos.simulator.world.s3 import S3World
from angos.simulator.world.store import PERFORMERS, KeyWorld
from tests.nightly import SHARE
from tests.property.strategies import drawn, play, scenarios

DELETE = Act("delete_manifest")
BLOB = Act("push_blob")

# What was there days ago, what happens beside a collector now, and how many interruptions.
BESIDE: dict[str, tuple[tuple[Act, ...], Act, int]] = {
    "push of a blob": ((BLOB,), Act("push_blob", form="post"), 2),
    "mount": ((Act("push_blob", namespace=1),), Act("mount_blob", other=1), 2),
    "look at a blob": ((BLOB,), Act("head_blob"), 2),
    "push of a manifest": ((IMAGE, DELETE), Act("put_manifest"), 1),
    "deletion": ((IMAGE,), DELETE, 1),
    "deletion of a blob": ((BLOB,), Act("delete_blob"), 1),
    "another collector": ((BLOB,), Act("collect"), 1),
}


@pytest.mark.parametrize("beside", BESIDE)
def test_a_collector_and_one_request_in_every_order_keep_every_promise(beside: str) -> None:
    """And when all is done, exactly what can be reached is left."""
    before, act, interruptions = BESIDE[beside]
    seen = interleavings(before, Act("collect"), act, interruptions=interruptions, aged=True, share=SHARE)
    assert not seen.violations, seen.violations[0][0]
    assert seen.switches, "they never met"


@pytest.mark.parametrize("beside", ["push of a blob", "mount"])
def test_bytes_that_look_old_are_as_safe(beside: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system dates a blob by the end of its upload, long before it gets its name when the client pauses."""

    def look(world: KeyWorld, effect: StatKey) -> Stat | None:
        stat: Stat | None = PERFORMERS[StatKey](world, effect)
        is_blob = layout.parse_blob_key(effect.key) is not None
        return replace(stat, modified_ms=0) if stat is not None and is_blob else stat

    before, act, interruptions = BESIDE[beside]
    monkeypatch.setattr(store, "PERFORMERS", {**PERFORMERS, StatKey: look})
    seen = interleavings(before, Act("collect"), act, interruptions=interruptions, aged=True, share=SHARE)
    assert not seen.violations, seen.violations[0][0]
    assert seen.switches, "they never met"


WORK = (
    "push_image",
    "push_blob",
    "put_manifest",
    "mount_blob",
    "delete_manifest",
    "delete_blob",
    "head_blob",
    "collect",
)


@given(scenario=scenarios(WORK), data=st.data())
def test_collectors_keep_every_promise_whatever_happens(scenario: Scenario, data: st.DataObject) -> None:
    """With faults, several collectors, and clocks that jump."""
    play(scenario, drawn(data))


# --- one registry, nobody else ----------------------------------------------------------------------------------------

CONFIG = RegistryConfig()
DAY_MS = 86_400_000


def _registry() -> SimulatedRegistry:
    registry = SimulatedRegistry()
    for index in image(0).blobs:
        _push_blob(registry, index)
    _push_image(registry)
    return registry


def _push_blob(registry: SimulatedRegistry, index: int) -> None:
    content, digest = blob(index).content, blob(index).digest
    assert registry.send("POST", f"/v2/a/blobs/uploads/?digest={digest}", body=content).status == 201


def _push_image(registry: SimulatedRegistry) -> None:
    headers = {"Content-Type": image(0).media_type}
    assert registry.send("PUT", "/v2/a/manifests/v1", headers, image(0).content).status == 201


def _collect(registry: SimulatedRegistry, *, days: int = 2, dry_run: bool = False) -> Collected:
    registry.world.clock.now_ms += days * DAY_MS
    return registry.run(Operation(collect(CONFIG, dry_run=dry_run)))


def _blobs(registry: SimulatedRegistry) -> list[str]:
    return registry.world.store.names("v2/blobs/")


def test_a_deleted_image_is_taken_in_one_run_after_the_grace_period_and_not_before() -> None:
    """Manifest, config and layer, and every name of them."""
    registry = _registry()
    assert registry.send("DELETE", f"/v2/a/manifests/{image(0).digest}").status == 202
    young = _collect(registry, days=0)
    assert (young.examined, young.waiting) == (0, 3)
    done = _collect(registry)
    assert (done.blobs, done.names) == (3, 6)
    assert done.size == len(image(0).content) + sum(len(blob(index).content) for index in image(0).blobs)
    assert not _blobs(registry)
    assert not registry.world.store.names("v2/ref/")
    assert not registry.world.store.names("v2/suspect/")


def test_what_was_pushed_and_never_named_is_taken() -> None:
    registry = _registry()
    _push_blob(registry, 2)
    done = _collect(registry)
    assert (done.examined, done.blobs, done.needed) == (4, 1, 3)
    assert len(_blobs(registry)) == 3
    assert registry.send("HEAD", f"/v2/a/blobs/{blob(2).digest}").status == 404


def test_what_a_manifest_names_twice_is_needed_once_and_goes_with_it() -> None:
    registry = SimulatedRegistry()
    for index in (0, 1):
        _push_blob(registry, index)
    config, layer = ({"digest": str(blob(index).digest), "size": len(blob(index).content)} for index in (0, 1))
    config["mediaType"], layer["mediaType"] = CONFIG_TYPE, LAYER_TYPE
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": config, "layers": [layer, config, layer]}
    headers, body = {"Content-Type": MANIFEST_TYPE}, json.dumps(manifest).encode()
    assert registry.send("PUT", "/v2/a/manifests/v1", headers, body).status == 201
    assert _collect(registry).blobs == 0
    assert registry.send("DELETE", f"/v2/a/manifests/{Digest.of(body)}").status == 202
    assert _collect(registry).blobs == 3
    assert not registry.world.store.names("v2/ref/")


def test_an_upload_that_cannot_be_listed_stays_and_a_damaged_one_goes() -> None:
    registry = SimulatedRegistry()
    for namespace in ("a", "a/b"):
        location = dict(registry.send("POST", f"/v2/{namespace}/blobs/uploads/").headers)["Location"]
        assert registry.send("PATCH", location, body=b"12345678").status == 202
    uploads = registry.world.store.names("v2/repositories/")
    (chunk,) = (name for name in uploads if ".chunk." in name and "/a/b/" not in name)
    registry.world.store.apply(DeleteKeys((Key(chunk),)), "")
    registry.world.store.apply(CreateKeys(((Key(chunk), b"no JSON"),)), "")
    perform = registry.perform

    def refuse(effect: Effect[Any]) -> Any:
        if isinstance(effect, ListStats) and "/a/b/" in effect.prefix:
            raise StorageUnavailable("the bucket does not answer")
        return perform(effect)

    registry.perform = refuse  # type: ignore[method-assign]
    now_ms = registry.world.clock.now_ms + 2 * DAY_MS
    found = registry.run(Operation(discard_expired(now_ms, 86400.0)))
    assert (found.number, [where for where, _ in found.problems]) == (1, ["a/b"])
    left = registry.world.store.names("v2/repositories/")
    assert left
    assert all("/a/b/" in name for name in left)


def test_a_dry_run_changes_nothing_and_counts_what_would_go() -> None:
    registry = _registry()
    registry.send("DELETE", f"/v2/a/manifests/{image(0).digest}")
    before = registry.world.store.names("v2/")
    told = _collect(registry, dry_run=True)
    assert registry.world.store.names("v2/") == before
    done = _collect(registry, days=0)
    assert (told.blobs, told.size, told.names) == (done.blobs, done.size, done.names) == (3, done.size, 6)


def test_a_namespace_loses_what_only_others_need() -> None:
    """Its layers are not for it to read any more; the bytes stay for those who need them."""
    registry = _registry()
    for index in image(0).blobs:
        assert registry.send("POST", f"/v2/a/b/blobs/uploads/?mount={blob(index).digest}&from=a").status == 201
    headers = {"Content-Type": image(0).media_type}
    assert registry.send("PUT", "/v2/a/b/manifests/v1", headers, image(0).content).status == 201
    registry.send("DELETE", f"/v2/a/manifests/{image(0).digest}")
    done = _collect(registry)
    assert (done.blobs, done.needed) == (0, 3)
    assert done.names
    digest = blob(image(0).blobs[0]).digest
    assert registry.send("GET", f"/v2/a/blobs/{digest}").status == 404
    assert registry.send("GET", f"/v2/a/b/blobs/{digest}").status == 200


def test_a_name_of_an_unknown_kind_keeps_its_blob() -> None:
    """Another version wrote it, and knows why."""
    registry = _registry()
    _push_blob(registry, 2)
    digest = blob(2).digest
    unknown = Key(f"{layout.references_prefix(digest, Namespace('a'))}layer")
    registry.perform(CreateKeys(((unknown, b""),)))
    assert _collect(registry).blobs == 0
    assert registry.send("HEAD", f"/v2/a/blobs/{digest}").status == 200


def test_a_store_from_before_the_collector_is_named_by_a_look_at_everything() -> None:
    """Without suspicions nothing goes. The look names what nobody needs, and a grace period later that goes."""
    registry = _registry()
    _push_blob(registry, 2)
    stray = Digest.of(b"bytes of a crashed push")
    registry.perform(CreateKeys(((layout.blob_key(stray), b"bytes of a crashed push"),)))
    for name in registry.world.store.names("v2/suspect/"):
        registry.world.store._drop(name)  # type: ignore[union-attr]
    assert _collect(registry).examined == 0
    swept = registry.run(Operation(suspect_needless(CONFIG)))
    assert (swept.examined, swept.named) == (5, 2)
    assert _collect(registry, days=0).blobs == 0
    assert _collect(registry).blobs == 2
    assert len(_blobs(registry)) == 3


def test_what_a_tag_can_be_set_back_to_is_kept_as_long_as_that_is_promised() -> None:
    """Also its layers; they are looked at again when the time is over, although nobody names them anew."""
    registry = _registry()
    config = RegistryConfig(tag_history_seconds=5 * 86_400)
    registry.send("DELETE", f"/v2/a/manifests/{image(0).digest}")
    registry.world.clock.now_ms += 2 * DAY_MS
    kept = registry.run(Operation(collect(config)))
    assert (kept.examined, kept.needed, kept.names) == (3, 3, 0)
    restored = registry.run(Operation(restore_tag(Namespace("a"), Tag("v1"), None, config)))
    assert restored.digest == image(0).digest
    assert registry.send("GET", "/v2/a/manifests/v1").status == 200
    registry.send("DELETE", f"/v2/a/manifests/{image(0).digest}")
    registry.world.clock.now_ms += 10 * DAY_MS
    assert registry.run(Operation(collect(config))).blobs == 3


LINK = Key("v2/repositories/old/_layers/sha256/" + "a" * 64 + "/link")


def test_what_a_docker_registry_has_stored_is_not_collected_before_it_is_taken_over() -> None:
    registry = _registry()
    registry.perform(CreateKeys(((LINK, b"sha256:" + b"a" * 64),)))
    registry.send("DELETE", f"/v2/a/manifests/{image(0).digest}")
    refused = _collect(registry)
    assert "angos import distribution" in refused.refused
    assert len(_blobs(registry)) == 3
    registry.perform(CreateKeys(((layout.TAKEN_OVER_KEY, b""),)))
    assert _collect(registry).blobs == 3


def test_nothing_is_collected_while_a_take_over_goes_on() -> None:
    registry = _registry()
    registry.send("DELETE", f"/v2/a/manifests/{image(0).digest}")
    registry.perform(CreateKeys(((layout.TAKING_OVER_KEY, b""),)))
    assert "run angos import distribution to its end" in _collect(registry).refused
    assert len(_blobs(registry)) == 3


@pytest.mark.parametrize("stored", [10, 3000])
def test_a_run_costs_what_has_changed_and_not_what_is_stored(stored: int) -> None:
    """The same questions, however much there is that nobody has touched."""
    registry = _registry()
    registry.send("DELETE", f"/v2/a/manifests/{image(0).digest}")
    keeper = Digest.of(b"a manifest")
    kept = [Digest.of(f"needed {number}".encode()) for number in range(stored)]
    registry.perform(CreateKeys(((layout.revision_key(Namespace("b"), keeper), b"{}"),)))
    for digest in kept:
        needed = layout.manifest_reference_key(digest, Namespace("b"), keeper)
        registry.perform(CreateKeys(((layout.blob_key(digest), b"x"), (needed, b""))))
    registry.effects.clear()
    assert _collect(registry).blobs == 3
    assert len(registry.effects) <= 60


def test_pushes_that_wait_for_a_collector_that_was_killed_are_let_pass_without_another_run() -> None:
    """Once it was certain that nothing of it would still happen; one that goes on is left alone."""
    registry = _registry()
    mark = layout.mark_key("00000000-0000-4000-8000-000000000000")
    permit = layout.permit_key("00000000-0000-4000-8000-000000000001")
    registry.run(Operation(_create((mark, mark_value((blob(0).digest,))), (permit, b"{}"))))
    assert registry.send("POST", f"/v2/b/blobs/uploads/?digest={blob(0).digest}", body=blob(0).content).status == 503
    registry.run(Operation(let_writers_pass()))
    assert not registry.world.store.names("v2/collector/")
    waited = [effect.seconds for effect in registry.effects if isinstance(effect, Sleep)]
    assert waited[-1] > REMOVAL_SECONDS
    assert registry.send("POST", f"/v2/b/blobs/uploads/?digest={blob(0).digest}", body=blob(0).content).status == 201


async def _create(*entries: tuple[Key, bytes]) -> None:
    await CreateKeys(entries)


# --- what a killed process had begun to send to a bucket --------------------------------------------------------------


def _in_bucket() -> tuple[S3World, Callable[[RegistryConfig], Collected]]:
    """A bucket, and a collector that comes two days after what is there."""
    clock = Clock(tick_ms=1)
    world = S3World(clock, {})

    def perform(effect: Effect[Any]) -> Any:
        match effect:
            case AcquireLease():
                return "token"
            case ReadClock():
                return clock.now_ms
            case DrawId():
                return "00000000-0000-4000-8000-000000000001"
            case ReleaseLease() | Tell():
                return None
            case _:
                return world.carry_out(effect, "").run()

    def run(config: RegistryConfig) -> Collected:
        operation = Operation(collect(config))
        step = operation.resume()
        while not isinstance(step, Done):
            step = operation.resume(perform(step))
        return step.value

    return world, run


def test_what_a_killed_process_had_begun_to_send_goes_after_the_expiry() -> None:
    """Of a blob, and of an upload that is no more. What belongs to an upload that is there stays, and what is young,
    and what another program sends to the same bucket."""
    world, run = _in_bucket()
    bucket, namespace = world.bucket, Namespace("a")
    live, gone = (layout.upload_prefix(namespace, f"{each}0000000-0000-4000-8000-000000000000") for each in (1, 2))
    foreign = "v2/repositories/a/_uploads/0c3b6f0e-d3f2-4b1e-9d11-6a3d52a1f2ff/data"
    blob_key = layout.blob_key(blob(0).digest)
    abandoned = [bucket.take(BeginPieces(key)) for key in (blob_key, f"{gone}part.p", f"_lost_and_found/{blob_key}")]
    kept = [bucket.take(BeginPieces(key)) for key in (f"{live}part.p", foreign, "v2/ns/somebody/else")]
    assert list(bucket.uploads) == abandoned + kept
    world._clock.now_ms += 2 * DAY_MS
    bucket.take(Put(f"{live}session", (b"{}",)))
    young = bucket.take(BeginPieces(blob_key))
    counted = run(replace(CONFIG, upload_expiry_seconds=3 * 86_400))
    assert (counted.unfinished, counted.passed_over) == (0, 0)
    done = run(CONFIG)
    assert (done.unfinished, done.uploads, done.passed_over) == (3, 0, 0)
    assert list(bucket.uploads) == [*kept, young]
