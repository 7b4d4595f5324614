"""Tag history: what is told of the changes of a tag, and the way back to one of them."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from angos.sansio import layout
from angos.sansio.collection.collector import Collected, collect
from angos.sansio.config import RegistryConfig, RepositoryConfig
from angos.sansio.effects import CreateKeys, DeleteKeys, Effect, Key, StorageUnavailable
from angos.sansio.errors import RegistryError
from angos.sansio.history import Change, is_kept, read_changes, restore_tag, still_restorable
from angos.sansio.layout import TagEvent
from angos.sansio.oci.digest import Digest
from angos.sansio.oci.reference import Namespace, Tag
from angos.sansio.operation import Operation
from angos.sansio.tags import set_tag
from angos.sansio.upstream.config import Upstream
from angos.simulator.choices import Seeded
from angos.simulator.exhaust import IMAGE, interleavings
from angos.simulator.registry import Answer, SimulatedRegistry
from angos.simulator.scenario import Scenario
from angos.simulator.simulation import Simulation
from angos.simulator.world.client import Act, Call
from angos.simulator.world.images import blob, image
from tests.property.old_store import killed_after

HOUR_MS = 3_600_000
WEEK = RegistryConfig(tag_history_seconds=7 * 86400)
NAMESPACE, V1 = Namespace("a"), Tag("v1")


class Pushed:
    """A registry in memory whose clock the test moves."""

    def __init__(self, config: RegistryConfig = WEEK) -> None:
        self.registry = SimulatedRegistry(config)

    def ask(self, status: int, method: str, target: str, body: bytes = b"", **fields: str) -> Answer:
        self.registry.world.clock.now_ms += 1000
        headers = {name.replace("_", "-"): value for name, value in fields.items()}
        answer = self.registry.send(method, target, headers, body)
        assert answer.status == status, answer.body
        return answer

    def push(self, index: int, reference: str = "v1") -> str:
        wanted = image(index)
        for child in wanted.children:
            self.push(child, str(image(child).digest))
        for needed in wanted.blobs:
            layer = blob(needed)
            self.ask(201, "POST", f"/v2/a/blobs/uploads/?digest={layer.digest}", layer.content)
        self.ask(201, "PUT", f"/v2/a/manifests/{reference}", wanted.content, content_type=wanted.media_type)
        return str(wanted.digest)

    def plant(self, key: str, value: bytes) -> None:
        """Somebody else has written this."""
        self.registry.world.store.apply(CreateKeys(((Key(key), value),)), "somebody else")

    def delete(self, reference: str) -> None:
        self.ask(202, "DELETE", f"/v2/a/manifests/{reference}")

    def restore(self, status: int = 201, **parameters: str) -> Answer:
        query = "&".join(f"{name}={value}" for name, value in {"tag": "v1", **parameters}.items())
        return self.ask(status, "POST", f"/v2/_ext/a/_restore?{query}")

    def named(self, reference: str = "v1") -> str | None:
        answer = self.registry.send("GET", f"/v2/a/manifests/{reference}")
        return answer.header("docker-content-digest") if answer.status == 200 else None

    def history(self, query: str = "?tag=v1") -> Any:
        return json.loads(self.ask(200, "GET", f"/v2/_ext/a/_history{query}").body)

    def wait(self, hours: float) -> None:
        self.registry.world.clock.now_ms += int(hours * HOUR_MS)

    def collect(self) -> Collected:
        return self.registry.run(Operation(collect(self.registry.config)))

    def bytes_of(self, index: int) -> list[bool]:
        """Whether the bytes of an image and of its blobs are there."""
        digests = [image(index).digest, *(blob(needed).digest for needed in image(index).blobs)]
        return [self.registry.world.store.get(layout.blob_key(digest)) is not None for digest in digests]


def test_a_restore_does_not_bring_manifests_of_others() -> None:
    """A digest is not a capability: whoever pushed an index that names a manifest of another repository, deleted it
    and had it restored, could then read that manifest."""
    world = Pushed()
    media_type = image(3).media_type
    secret = json.dumps(
        {"schemaVersion": 2, "mediaType": media_type, "manifests": [], "annotations": {"a": "b"}}
    ).encode()
    digest = str(Digest.of(secret))
    world.ask(201, "PUT", "/v2/b/manifests/v1", secret, content_type=media_type)
    named = [{"mediaType": media_type, "digest": digest, "size": len(secret)}]
    index = json.dumps({"schemaVersion": 2, "mediaType": media_type, "manifests": named}).encode()
    world.ask(201, "PUT", "/v2/a/manifests/v1", index, content_type=media_type)
    world.delete(str(Digest.of(index)))
    told = world.restore(400)
    assert world.named(digest) is None
    world.ask(202, "DELETE", f"/v2/b/manifests/{digest}")
    world.wait(48)
    world.collect()
    assert world.restore(400).body == told.body, "nor does the answer say whether others have it"


def test_what_was_brought_back_once_can_be_brought_back_after_a_collection() -> None:
    """The collector leaves the note that the repository has had a child as long as an index needs its bytes."""
    world = Pushed()
    world.push(3)
    child = str(image(0).digest)
    world.push(1)
    world.delete(child)
    world.wait(24 * 30)
    world.collect()
    index = str(image(3).digest)
    world.ask(201, "PUT", "/v2/a/manifests/v1", image(3).content, content_type=image(3).media_type)
    world.delete(index)
    world.restore()
    assert world.named(child) == child


# --- what is told -----------------------------------------------------------------------------------------------------


def test_changes_are_told_newest_first_with_their_times() -> None:
    world = Pushed()
    first, second = world.push(0), world.push(1)
    world.delete("v1")
    found = world.history()
    assert (found["name"], found["tag"]) == ("a", "v1")
    changes = [(event["kind"], event["digest"], event["restorable"]) for event in found["events"]]
    assert changes == [("delete", second, False), ("set", second, True), ("set", first, True)]
    newest, middle, oldest = found["events"]
    assert "until" not in newest
    assert (middle["until"], oldest["until"]) == (newest["at"], middle["at"])
    assert newest["at"] > middle["at"] > oldest["at"]


def test_without_a_tag_every_tag_is_told_the_deleted_ones_too() -> None:
    world = Pushed()
    first, second = world.push(0), world.push(1, "v2")
    world.delete("v1")
    found = world.history("")["tags"]
    assert [(tag["tag"], tag["kind"], tag["digest"]) for tag in found] == [
        ("v1", "delete", first),
        ("v2", "set", second),
    ]
    assert world.history("?n=1")["tags"] == found[:1]
    assert world.history("?n=1&last=v1")["tags"] == found[1:]


def test_what_is_not_there_has_no_history() -> None:
    world = Pushed()
    assert world.history("") == {"name": "a", "tags": []}
    assert world.history() == {"name": "a", "tag": "v1", "events": []}
    world.ask(400, "GET", "/v2/_ext/a/_history?tag=-")
    world.ask(400, "GET", "/v2/_ext/a/_history?tag=v1&last=x")
    world.ask(405, "DELETE", "/v2/_ext/a/_history")
    world.ask(404, "GET", "/v2/_ext/_history")


DEEP = b"[" * 100_000
STRAY = "0000000000000000.set.sha256." + "a" * 64


@pytest.mark.parametrize(
    "said", [DEEP, b'{"deleted_at_ms": %d}' % 10**30, b'{"deleted_at_ms": Infinity}', b'{"by": {}}', b"\xff", b"[]"]
)
def test_an_event_that_says_nonsense_inside_is_told_by_its_name(said: bytes) -> None:
    """One of them made every look at the history of its repository end in 500, and the command in a traceback."""
    world = Pushed()
    digest = world.push(0)
    at_ms = world.registry.world.clock.now_ms + HOUR_MS
    event = TagEvent(at_ms, "del", Digest.parse(digest))
    world.plant(f"{layout.tag_events_prefix(NAMESPACE, V1)}{event}", said)
    assert [change["kind"] for change in world.history()["events"]] == ["delete", "set"]
    assert [tag["kind"] for tag in world.history("")["tags"]] == ["delete"]


def test_an_event_behind_the_end_of_time_is_none() -> None:
    """It won over every push and every deletion after it, which were acknowledged all the same, and its time, which no
    text can say, made the history of the whole repository end in 500."""
    world = Pushed()
    first = world.push(0)
    world.plant(f"{layout.tag_events_prefix(NAMESPACE, V1)}{STRAY}", b"")
    world.plant(f"{layout.tag_events_prefix(NAMESPACE, V1)}{STRAY.replace('set', 'del')}", b"")
    assert world.named() == first
    assert [tag["digest"] for tag in world.history("")["tags"]] == [first], "keys that are no events hide none"
    assert world.named() == first
    second = world.push(1)
    assert world.named() == second
    world.delete("v1")
    assert world.named() is None


def test_a_tag_whose_last_event_is_dated_at_the_end_of_time_is_not_said_to_be_pushed() -> None:
    world = Pushed()
    digest = Digest.parse(world.push(0))
    event = TagEvent(layout.EVENT_MS_MAX, "set", digest)
    world.plant(f"{layout.tag_events_prefix(NAMESPACE, V1)}{event}", b"")
    assert world.history()["events"][0]["at"] == "9999-12-31T23:59:59.999Z"
    world.ask(500, "PUT", "/v2/a/manifests/v1", image(0).content, content_type=image(0).media_type)
    world.ask(500, "DELETE", "/v2/a/manifests/v1")


def test_an_event_without_a_time_is_told_without_one() -> None:
    """Angos 1.6 writes such events; they were told as of 1969."""
    world = Pushed()
    digest = world.push(0)
    world.plant(f"{layout.tag_events_prefix(NAMESPACE, Tag('old'))}{TagEvent(-1, 'set', Digest.parse(digest))}", b"")
    assert world.history("?tag=old")["events"] == [{"kind": "set", "digest": digest, "restorable": True}]


@given(st.lists(st.integers(0, 2), min_size=1, max_size=40), st.integers(1, 7))
@settings(max_examples=25, deadline=None)
def test_pages_join_to_the_whole(pushed: list[int], size: int) -> None:
    """Also when superseded changes have been moved away (`SUPERSEDED_MAX`)."""
    world = Pushed()
    for index in pushed:
        if index == 2 and world.named() is not None:
            world.delete("v1")
        else:
            world.push(index % 2)
    whole = world.history()["events"]
    joined: list[Any] = []
    target: str | None = f"/v2/_ext/a/_history?tag=v1&n={size}"
    while target is not None:
        answer = world.ask(200, "GET", target)
        joined += json.loads(answer.body)["events"]
        link = answer.header("link")
        target = None if link is None else link[1 : link.index(">")]
    assert joined == whole
    assert [event["at"] for event in whole] == sorted((event["at"] for event in whole), reverse=True)


def test_damaged_and_foreign_events_do_no_harm() -> None:
    """What Angos 1.6 writes into an event, and what a power cut may leave."""
    world = Pushed()
    digest = image(0).digest
    prefix = layout.tag_events_prefix(NAMESPACE, V1)
    bodies = (b'{"media_type":"a/b","size":7,"annotations":{}}', b"\x00\x00", b"[]", b'{"by":7,"deleted_at_ms":"x"}')
    entries = [(Key(f"{prefix}{TagEvent(1000 + i, 'set', digest)}"), body) for i, body in enumerate(bodies)]
    entries += [(Key(f"{prefix}{TagEvent(2000, 'del', digest)}"), b'{"deleted_at_ms":"x"}'), (Key(f"{prefix}x"), b"")]
    world.registry.run(Operation(_create(*entries)))
    events = world.history()["events"]
    assert [event["kind"] for event in events] == ["delete", "set", "set", "set", "set"]
    assert not any("by" in event for event in events)


async def _create(*entries: tuple[Key, bytes]) -> None:
    await CreateKeys(entries)


# --- the way back -----------------------------------------------------------------------------------------------------


def test_a_tag_goes_back_to_what_it_named_before_its_last_change() -> None:
    world = Pushed()
    first, second = world.push(0), world.push(1)
    answer = world.restore()
    assert json.loads(answer.body) == {"name": "a", "tag": "v1", "digest": first, "before": second}
    assert answer.header("location") == "/v2/a/manifests/v1"
    assert world.named() == first
    world.delete("v1")
    world.restore()
    assert world.named() == first
    assert [event["kind"] for event in world.history()["events"]] == ["set", "delete", "set", "set", "set"]


def test_a_tag_goes_back_to_a_manifest_or_a_time() -> None:
    world = Pushed()
    first, second, third = world.push(0), world.push(1), world.push(2)
    world.restore(to=first)
    assert world.named() == first
    at = world.history()["events"][2]["at"]
    world.restore(to=at)
    assert world.named() == second
    world.restore(404, to=str(Digest.of(b"other")))
    world.restore(404, to="1999-01-01T00:00:00Z")
    world.restore(400, to="yesterday")
    world.restore(400, to="2026-01-01T00:00:00")
    assert world.named() == second
    assert third != second


def test_there_is_nothing_to_go_back_to() -> None:
    world = Pushed()
    world.restore(404)
    world.push(0)
    world.restore(404)
    world.ask(400, "POST", "/v2/_ext/a/_restore")
    world.ask(400, "POST", "/v2/_ext/a/_restore?tag=v1&tag=v2")
    world.ask(400, "POST", "/v2/_ext/a/_restore?tag=v1&to=2026-01-01T00:00:00Z&to=2026-01-02T00:00:00Z")


def test_a_manifest_that_was_deleted_comes_back_within_the_window() -> None:
    world = Pushed()
    first = world.push(3)
    for reference in (first, str(image(0).digest)):
        world.delete(reference)
    assert world.named() is None
    world.wait(24)
    answer = json.loads(world.restore().body)
    assert answer["manifests"] == [str(image(0).digest), first]
    assert "before" not in answer
    assert world.named() == first
    assert world.named(str(image(0).digest)) == str(image(0).digest)


def test_a_manifest_comes_back_under_the_type_it_was_pushed_with() -> None:
    """Also when only the header of its push had said it."""
    world = Pushed()
    body, media_type = b'{"schemaVersion":2,"layers":[]}', "application/vnd.docker.distribution.manifest.v2+json"
    world.ask(201, "PUT", "/v2/a/manifests/v1", body, content_type=media_type)
    world.delete(str(Digest.of(body)))
    world.restore()
    answer = world.registry.send("GET", "/v2/a/manifests/v1")
    assert answer.header("content-type") == media_type


def test_a_manifest_that_was_deleted_before_the_window_does_not_come_back() -> None:
    world = Pushed()
    first = world.push(0)
    world.delete(first)
    world.wait(7 * 24 + 1)
    assert b"tag_history_secs" in world.restore(404).body
    assert [event["restorable"] for event in world.history()["events"]] == [False, False]


def test_the_window_does_not_matter_as_long_as_the_manifest_is_there() -> None:
    world = Pushed(RegistryConfig())
    first = world.push(0)
    world.delete("v1")
    world.wait(10_000)
    world.restore()
    assert world.named() == first


def test_what_is_not_whole_any_more_does_not_come_back_and_names_nothing() -> None:
    world = Pushed()
    first = world.push(0)
    world.delete(first)
    world.ask(202, "DELETE", f"/v2/a/blobs/{blob(image(0).blobs[1]).digest}")
    before = world.registry.world.store.names("v2/ns/")
    assert b"MANIFEST_BLOB_UNKNOWN" in world.restore(400).body
    world.registry.run(Operation(_delete(layout.blob_key(image(0).digest))))
    world.restore(404)
    assert world.registry.world.store.names("v2/ns/") == before


async def _delete(key: Key) -> None:
    await DeleteKeys((key,))


def test_immutable_tags_stay_and_come_back_only_after_their_deletion() -> None:
    world = Pushed()
    first, second = world.push(0), world.push(1)
    world.registry.config = RegistryConfig(immutable_tags=True, tag_history_seconds=WEEK.tag_history_seconds)
    assert b"immutable" in world.restore(409).body
    assert world.named() == second
    world.delete("v1")
    world.restore(to=first)
    assert world.named() == first


def test_a_cache_of_another_registry_says_what_its_tags_name() -> None:
    """By the command, too, which has no endpoint that refuses."""
    world = Pushed()
    world.push(0)
    world.push(1)
    upstream = Upstream("other", "https://registry.example.com")
    world.registry.config = RegistryConfig(repositories=(RepositoryConfig("a", upstreams=(upstream,)),))
    restoring = restore_tag(NAMESPACE, V1, None, world.registry.config)
    with pytest.raises(RegistryError, match="cache of another registry"):
        world.registry.run(Operation(restoring))


def test_killed_at_any_effect_and_run_again_the_tag_is_back() -> None:
    """And before that, the tag names something whole or nothing."""
    for survived in range(1000):
        world = Pushed()
        wanted = world.push(3)
        for reference in (wanted, *(str(image(child).digest) for child in image(3).children)):
            world.delete(reference)

        def restore(world: Pushed = world) -> None:
            world.restore()

        if not killed_after(world.registry, restore, survived):
            assert survived > 20
            return
        if world.named() is not None:
            assert world.named() == wanted
            assert all(world.named(str(image(child).digest)) for child in image(3).children)
        world.restore(to=wanted)
        assert world.named() == wanted
    raise AssertionError("the restore does not end")


def test_an_outage_names_nothing() -> None:
    world = Pushed()
    wanted = world.push(0)
    world.delete(wanted)
    perform = world.registry.perform

    def failing(effect: Effect[Any]) -> Any:
        if isinstance(effect, CreateKeys) and effect.entries[0][0] == layout.revision_key(NAMESPACE, image(0).digest):
            raise StorageUnavailable("no answer")
        return perform(effect)

    world.registry.perform = failing  # type: ignore[method-assign]
    world.restore(503)
    world.registry.perform = perform  # type: ignore[method-assign]
    assert world.named() is None


def test_a_restore_that_only_sets_the_tag_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would leave a tag of a manifest that somebody deletes at the same time."""

    async def set_only(namespace: Namespace, digest: Digest, *_: Any, **__: Any) -> None:
        await set_tag(namespace, V1, digest)

    monkeypatch.setattr("angos.sansio.history.push_manifest", set_only)
    before = (IMAGE, Act("push_image", item=1))
    seen = interleavings(before, Act("restore_tag"), Act("delete_manifest"), interruptions=1)
    assert seen.violations


# --- what the collector has to leave ----------------------------------------------------------------------------------


def change(kind: Any, at_ms: int, until_ms: int | None) -> Change:
    return Change(TagEvent(at_ms, kind, image(0).digest), at_ms, until_ms)


@pytest.mark.parametrize(
    ("what", "now_ms", "restorable"),
    [
        (change("set", 0, None), 10**12, True),
        (change("set", 0, 5_000), 15_000, True),
        (change("set", 0, 5_000), 15_001, False),
        (change("set", 9_000, 5_000), 6_000, True),
        (change("del", 0, None), 1, False),
    ],
)
def test_the_window_begins_when_the_next_change_happens(what: Change, now_ms: int, restorable: bool) -> None:
    assert still_restorable(what, now_ms, 10.0) is restorable


def kept(world: Pushed, index: int, window_seconds: float = 7 * 86400) -> bool:
    now_ms = world.registry.world.clock.now_ms
    return world.registry.run(Operation(is_kept(NAMESPACE, image(index).digest, now_ms, window_seconds)))


def test_what_a_tag_could_go_back_to_is_kept_with_what_it_names() -> None:
    world = Pushed()
    world.push(3)
    world.push(2, "v2")
    for index in (3, 0, 1):
        world.delete(str(image(index).digest))
    assert [kept(world, index) for index in range(4)] == [True, True, True, True]
    assert not kept(world, 0, 0.0)
    world.wait(7 * 24 + 1)
    assert [kept(world, index) for index in range(4)] == [False, False, True, False]


def test_how_long_a_manifest_is_kept_does_not_depend_on_how_often_its_tag_was_pushed() -> None:
    world = Pushed()
    first = world.push(0)
    for _ in range(30):
        world.push(1)
        world.push(2)
    assert kept(world, 0)
    events = world.registry.run(Operation(read_changes(NAMESPACE, V1, "", 100)))[0]
    assert str(events[-1].event.digest) == first
    assert len(events) == 61
    world.wait(7 * 24)
    world.push(1)
    assert not kept(world, 0)


def test_the_collector_leaves_what_a_tag_can_be_set_back_to_and_takes_it_afterwards() -> None:
    world = Pushed()
    digest = world.push(0)
    world.delete(digest)
    for _ in range(6):
        world.wait(25)
        done = world.collect()
        assert (done.blobs, done.names) == (0, 0)
    world.restore()
    assert world.named() == digest
    world.delete(digest)
    world.wait(7 * 24 + 1)
    assert world.collect().blobs == 3
    assert not any(world.bytes_of(0))


def test_the_collector_leaves_the_images_of_an_index_as_long_as_the_index() -> None:
    world = Pushed()
    index = world.push(3)
    for reference in (str(image(0).digest), str(image(1).digest), index):
        world.delete(reference)
    world.wait(100)
    assert world.collect().blobs == 0
    assert len(json.loads(world.restore().body)["manifests"]) == 3
    assert all(world.bytes_of(0) + world.bytes_of(1) + world.bytes_of(3))


def test_without_a_window_the_collector_takes_what_was_deleted() -> None:
    world = Pushed(RegistryConfig())
    world.delete(world.push(0))
    world.wait(25)
    assert world.collect().blobs == 3


ACTS = st.one_of(
    st.tuples(st.just("push"), st.integers(0, 3)),
    st.tuples(st.just("delete manifest"), st.integers(0, 3)),
    st.tuples(st.just("delete tag"), st.just(0)),
    st.tuples(st.just("restore"), st.integers(0, 3)),
    st.tuples(st.just("collect"), st.just(0)),
    st.tuples(st.just("wait"), st.sampled_from([1, 13, 50])),
)


@given(st.lists(ACTS, max_size=25))
@settings(deadline=None)
def test_a_restore_within_the_window_succeeds_whatever_was_deleted_and_collected(acts: list[tuple[str, int]]) -> None:
    """The window is two days here, the grace period one."""
    window_ms = 48 * HOUR_MS
    world = Pushed(RegistryConfig(tag_history_seconds=window_ms / 1000))
    clock = world.registry.world.clock
    current: int | None = None
    left_ms: dict[int, int] = {}
    """When the tag last stopped naming an image."""
    for verb, item in acts:
        there = world.named(str(image(item).digest)) is not None
        if verb == "push":
            world.push(item)
        elif verb == "delete manifest" and there:
            world.delete(str(image(item).digest))
        elif verb == "delete tag" and current is not None:
            world.delete("v1")
        elif verb == "restore":
            recent = item in left_ms and clock.now_ms - left_ms[item] < window_ms - 5_000
            if item == current or recent or (there and item in left_ms):
                world.restore(to=str(image(item).digest))
        elif verb == "collect":
            world.collect()
        elif verb == "wait":
            world.wait(item)
        named = world.named()
        now = next((index for index in range(4) if named == str(image(index).digest)), None)
        if current is not None and now != current:
            left_ms[current] = clock.now_ms
        current = now


def test_a_restore_that_meets_a_collector_is_refused_or_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the clock of one the window goes on, by that of the other it has ended."""

    async def no(*_: object) -> bool:
        return False

    monkeypatch.setattr("angos.sansio.history.still_restorable", lambda *_: True)
    monkeypatch.setattr("angos.sansio.collection.examination.is_kept", no)
    clients = ((Act("restore_tag"),), (Act("collect"),))
    scenario = Scenario(clients=clients, before=(IMAGE, Act("delete_manifest")), replicas=2, aged=True)
    statuses: Counter[int] = Counter()
    for seed in range(200):
        simulation = Simulation(scenario, Seeded(seed, fault_rate=0))

        def note(call: Call, answer: Any) -> None:
            if "_restore" in call.target and answer is not None:
                statuses[answer.status] += 1

        simulation.on_answer = note
        violation = simulation.run()
        assert violation is None, f"seed {seed}: {violation}"
    assert statuses[201] > 10, statuses
    assert statuses.total() > statuses[201] + 10, statuses
