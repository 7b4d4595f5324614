"""Times of pulls: recorded in the background by several processes, not invented, and lost with their process only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from angos.sansio import layout, pulls
from angos.sansio.access.expression_nodes import Constant, Select, Variable
from angos.sansio.config import RegistryConfig, RepositoryConfig
from angos.sansio.effects import CreateKeys, DeleteKeys, Effect, Key, ListKeys, NotePull, Prefix, StorageUnavailable
from angos.sansio.oci.digest import Digest
from angos.sansio.oci.reference import Namespace, Tag
from angos.sansio.operation import Operation
from angos.sansio.prune import prune
from angos.sansio.pulls import (
    LastPulls,
    Pull,
    PullBook,
    Written,
    begin_recording,
    end_recording,
    last_pulls,
    write_pulls,
)
from angos.sansio.retention import RetentionConfig, RetentionRule
from angos.sansio.upstream.config import Upstream
from angos.simulator import simulation
from angos.simulator.choices import Calm
from angos.simulator.mirror import Mirror
from angos.simulator.mirror_tasks import Pull as Request
from angos.simulator.registry import SimulatedRegistry
from angos.simulator.scenario import Scenario
from angos.simulator.search import search
from angos.simulator.workload import draw_pulled
from angos.simulator.world.images import image
from angos.simulator.world.upstreams import SimulatedUpstream, SimulatedUpstreams, layer
from tests.property.strategies import drawn, play, scenarios

A = Namespace("a")
V1 = Tag("v1")
DIGEST = image(0).digest
HOUR = 3_600_000
FOLDER = layout.tag_pulls_prefix(A, V1)
Patch = pytest.MonkeyPatch

WORK = ("push_image", "pull", "get_manifest", "write_pulls", "delete_manifest", "delete_tag")


# --- many processes, faults, crashes ----------------------------------------------------------------------------------


@given(scenario=scenarios(WORK), data=st.data())
def test_recorded_pulls_keep_every_promise_whatever_happens(scenario: Scenario, data: st.DataObject) -> None:
    play(Scenario.from_json({**scenario.to_json(), "records_pulls": True}), drawn(data))


def test_seeds_find_no_pull_lost_or_invented() -> None:
    tally = search(0, 400, draw_seed=draw_pulled)
    assert not tally.found, tally.found[0]
    assert not tally.shortcomings()


def older_first(patch: Patch) -> None:
    """What is older goes before the new record is there."""

    async def write(those: tuple[Pull, ...]) -> Written:
        for pull in those:
            page = await ListKeys(pull.folder)
            await DeleteKeys(tuple(Key(pull.folder + name) for name in page.names))
        return await write_pulls(those)

    patch.setattr(simulation, "write_pulls", write)


def not_durable(patch: Patch) -> None:
    """Nobody waits for the disk."""
    patch.setattr(pulls, "CreateKeys", lambda entries: CreateKeys(entries, durable=False))


def rounded_up(patch: Patch) -> None:
    """A pull is dated to the end of its interval."""
    note = PullBook.note
    patch.setattr(PullBook, "note", lambda book, folders, now_ms: note(book, folders, now_ms + book.granularity_ms))


def failures_forgotten(patch: Patch) -> None:
    """What could not be written is not tried again."""
    patch.setattr(PullBook, "give_back", lambda book, those: None)


@pytest.mark.parametrize(
    ("plant", "kinds"),
    [
        (older_first, {"pull lost", "pull not recorded"}),
        (not_durable, {"pull lost"}),
        (rounded_up, {"pull invented"}),
        (failures_forgotten, {"pull not recorded"}),
    ],
)
def test_planted_bugs_are_found(plant: Callable[[Patch], None], kinds: set[str], monkeypatch: Patch) -> None:
    plant(monkeypatch)
    tally = search(0, 3000, draw_seed=draw_pulled, found_max=1)
    assert {found.kind for found in tally.found} <= kinds
    assert tally.found, "the search has not found it"


# --- one process ------------------------------------------------------------------------------------------------------


@given(
    times=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 30)), max_size=40),
    granularity=st.integers(1, 12),
    remembered=st.integers(1, 4),
    takes=st.sets(st.integers(0, 40)),
)
def test_what_a_process_remembers_is_bounded_and_dates_no_pull_too_late_or_too_early(
    times: list[tuple[int, int]], granularity: int, remembered: int, takes: set[int]
) -> None:
    book = PullBook(granularity, remembered_max=remembered, waiting_max=2)
    written: dict[Prefix, int] = {}
    last: dict[Prefix, int] = {}
    now_ms = forgotten = 0
    for number, (thing, passed) in enumerate(times):
        now_ms += passed
        folder = Prefix(f"{thing}/")
        book.note((folder,), now_ms)
        if book.forgotten == forgotten:
            last[folder] = now_ms
        forgotten = book.forgotten
        assert book.waiting <= 2
        assert len(book._noted) <= remembered
        if number in takes:
            written |= {pull.folder: pull.at_ms for pull in book.take(1)}
    while taken := book.take(10):
        written |= {pull.folder: pull.at_ms for pull in taken}
    for folder, at_ms in last.items():
        assert at_ms - granularity < written[folder] <= now_ms


def test_a_pull_within_the_granularity_of_one_that_is_written_is_nothing_new() -> None:
    book = PullBook(HOUR)
    assert book.note((FOLDER,), 5 * HOUR + 1)
    assert book.take(10) == (Pull(FOLDER, 5 * HOUR),)
    assert not book.note((FOLDER,), 6 * HOUR - 1)
    assert book.note((FOLDER,), 6 * HOUR)


# --- requests ---------------------------------------------------------------------------------------------------------


def _registry(config: RegistryConfig) -> SimulatedRegistry:
    registry = SimulatedRegistry(config)
    content, media_type = image(0).content, image(0).media_type
    pushed = registry.send("PUT", "/v2/a/manifests/v1", {"Content-Type": media_type}, content)
    assert pushed.status == 201
    return registry


def _write(registry: SimulatedRegistry) -> Written:
    book = registry.world.books[registry.world.replicas[0]]
    return registry.run(Operation(write_pulls(book.take(100))))


def _write_at(registry: SimulatedRegistry, at_ms: int) -> Written:
    return registry.run(Operation(write_pulls((Pull(FOLDER, at_ms),))))


def _recorded(registry: SimulatedRegistry) -> LastPulls:
    return registry.run(Operation(last_pulls(A)))


RECORDING = RegistryConfig(update_pull_time=True)


@pytest.mark.parametrize(
    ("method", "reference", "headers", "tags", "digests"),
    [
        ("GET", "v1", {}, {V1}, {DIGEST}),
        ("HEAD", "v1", {}, {V1}, {DIGEST}),
        ("GET", "v1", {"If-None-Match": f'"{DIGEST}"'}, {V1}, {DIGEST}),
        ("GET", str(DIGEST), {}, set(), {DIGEST}),
        ("GET", "v2", {}, set(), set()),
        ("GET", f"sha256:{'0' * 64}", {}, set(), set()),
    ],
)
def test_which_requests_are_pulls(
    method: str, reference: str, headers: dict[str, str], tags: set[Tag], digests: set[Digest]
) -> None:
    registry = _registry(RECORDING)
    registry.send(method, f"/v2/a/manifests/{reference}", headers)
    _write(registry)
    found = _recorded(registry)
    assert set(found.tags) == tags
    assert set(found.digests) == digests


def test_a_pull_costs_no_effect_but_the_note_and_none_when_it_is_off() -> None:
    asked: list[list[type[Effect[Any]]]] = []
    for config in (RegistryConfig(), RECORDING):
        registry = _registry(config)
        registry.effects.clear()
        registry.send("GET", "/v2/a/manifests/v1")
        asked.append([type(effect) for effect in registry.effects])
    off, on = asked
    assert on == [*off, NotePull]


def test_recording_a_thing_again_is_one_listing_and_a_later_time_replaces_the_earlier_one() -> None:
    registry = _registry(RECORDING)
    registry.send("GET", "/v2/a/manifests/v1")
    _write(registry)
    first = registry.world.store.names(FOLDER)
    registry.effects.clear()
    _write_at(registry, _recorded(registry).tags[V1])  # as another process does, a moment later
    assert [type(effect) for effect in registry.effects] == [ListKeys, ListKeys]  # the first one is the test's own
    assert registry.world.store.names(FOLDER) == first
    later_ms = registry.world.clock.now_ms + HOUR
    assert _write_at(registry, later_ms).recorded == (Pull(FOLDER, later_ms),)
    assert registry.world.store.names(FOLDER) == [layout.pull_key(FOLDER, later_ms)]


def test_keys_of_angos_1_6_count_and_all_but_the_newest_go_with_the_next_pull() -> None:
    registry = _registry(RECORDING)
    hour = registry.world.clock.now_ms // HOUR * HOUR
    old = [f"{FOLDER}{layout.ORDER_MAX - at_ms:016x}.01234567" for at_ms in (hour - 2 * HOUR, hour - 3 * HOUR)]
    registry.world.store.apply(CreateKeys(tuple((Key(key), b'{"client":"bob"}') for key in old)), "replica-0")
    assert _recorded(registry).tags == {V1: hour - 2 * HOUR}
    _write_at(registry, hour)
    assert _recorded(registry).tags == {V1: hour}
    assert len(registry.world.store.names(FOLDER)) == 1


def test_what_cannot_be_listed_or_written_is_told_and_the_rest_is_written() -> None:
    registry = _registry(RECORDING)
    other = layout.tag_pulls_prefix(A, Tag("v2"))
    apply = registry.world.store.apply

    def fail(effect: Effect[Any], replica: str) -> Any:
        if isinstance(effect, ListKeys) and effect.prefix == other:
            raise StorageUnavailable("no answer")
        return apply(effect, replica)

    registry.world.store.apply = fail  # type: ignore[method-assign,assignment]
    those = (Pull(FOLDER, HOUR), Pull(other, HOUR))
    written = registry.run(Operation(write_pulls(those)))
    assert written == Written(those[:1], those[1:], "no answer")


def test_a_repository_may_record_its_own_pulls_and_those_of_its_blobs() -> None:
    upstream = Upstream("hub@one", "https://one.example")
    mirror = Mirror(SimulatedUpstreams({upstream.name: SimulatedUpstream(upstream, (layer(0), layer(1)), 0)}), Calm())
    (repository,) = mirror.config.repositories
    recording = RepositoryConfig("hub", upstreams=repository.upstreams, cache=repository.cache, records_pulls=True)
    mirror.config = RegistryConfig(repositories=(recording,))
    wanted = Digest.of(layer(0))
    mirror.run([Request("/v2/hub/x/manifests/latest"), Request(f"/v2/hub/x/blobs/{wanted}")])
    folders = {pull.folder for pull in mirror.books["replica-0"].take(10)}
    namespace = Namespace("hub/x")
    assert layout.blob_pulls_prefix(namespace, wanted) in folders
    assert layout.tag_pulls_prefix(namespace, Tag("latest")) in folders
    assert len(folders) == 3
    assert RegistryConfig(repositories=(recording,)).records_any_pulls
    assert not RegistryConfig(repositories=(recording,)).records_pulls(Namespace("other"))


@given(
    what=st.sampled_from([V1, Tag("v1.0_x"), DIGEST, Digest.of(b"", "sha512")]),
    at_ms=st.integers(0, 2**63),
    blob=st.booleans(),
)
def test_a_key_says_what_was_pulled_and_when(what: Tag | Digest, at_ms: int, blob: bool) -> None:
    if isinstance(what, Tag):
        folder = layout.tag_pulls_prefix(A, what)
    else:
        folder = (layout.blob_pulls_prefix if blob else layout.manifest_pulls_prefix)(A, what)
    key = layout.pull_key(folder, at_ms)
    assert layout.parse_pull_name(key.removeprefix(layout.pulls_prefix(A))) == layout.Pulled(what, at_ms)
    assert layout.parse_pull_time(key.removeprefix(folder)) == at_ms


@pytest.mark.parametrize(
    "name",
    [
        "tag/v1!/ffffffffffffffff.01234567",
        "tag/v1!/fffffe5df62f20f9",
        "tag/-!/fffffe5df62f20f9.01234567",
        "rev/sha256/00!/fffffe5df62f20f9.01234567",
        "layer/v1!/fffffe5df62f20f9.01234567",
        "tag/v1/fffffe5df62f20f9.01234567",
    ],
)
def test_stray_names_are_no_pulls(name: str) -> None:
    assert layout.parse_pull_name(name) is None


# --- rules ------------------------------------------------------------------------------------------------------------

UNUSED = RetentionRule(
    "image.last_pulled_at > 0",
    "rules[0]",
    Select(Variable("image"), "last_pulled_at"),
    lambda variables: variables["image"]["last_pulled_at"] > variables["now()"] - 3 * HOUR // 1000,
)
"""Keeps what was pulled within three hours."""


def _going(registry: SimulatedRegistry) -> list[str]:
    done = registry.run(Operation(prune(RetentionConfig((UNUSED,), min_age_seconds=0), dry_run=True)))
    assert not done.passed
    return [str(one.verdict.facts.tag) for one in done.tags if one.verdict.goes]


def _push(registry: SimulatedRegistry, tag: str, number: int = 0) -> Digest:
    pushed = image(number)
    headers = {"Content-Type": pushed.media_type}
    assert registry.send("PUT", f"/v2/a/manifests/{tag}", headers, pushed.content).status == 201
    return pushed.digest


def test_what_was_pushed_before_pulls_were_recorded_counts_as_pulled_until_then() -> None:
    """Otherwise whoever switches the recording on together with such a rule loses what is in use."""
    registry = _registry(RECORDING)
    clock = registry.world.clock
    clock.now_ms += 100 * HOUR
    assert _going(registry) == [], "nobody says since when pulls are recorded"
    registry.run(Operation(begin_recording()))
    began_ms = clock.now_ms
    clock.now_ms += HOUR
    _push(registry, "later")
    registry.run(Operation(begin_recording()))  # a restart
    assert _going(registry) == ["later"], "that one was never pulled for certain"
    clock.now_ms = began_ms + 4 * HOUR
    assert _going(registry) == ["later", "v1"]
    registry.send("GET", "/v2/a/manifests/v1")
    _write(registry)
    assert _going(registry) == ["later"]


def test_a_manifest_without_a_tag_is_judged_by_its_own_pulls_those_by_a_tag_that_it_had_included() -> None:
    registry = _registry(RECORDING)
    registry.run(Operation(begin_recording()))
    registry.world.clock.now_ms += HOUR
    used, unused = (_push(registry, tag, number) for number, tag in ((1, "v1"), (3, "v2")))
    registry.world.clock.now_ms += 100 * HOUR
    registry.send("GET", "/v2/a/manifests/v1")
    _write(registry)
    for tag in ("v1", "v2"):
        assert registry.send("DELETE", f"/v2/a/manifests/{tag}").status == 202
    registry.world.clock.now_ms += HOUR
    config = RetentionConfig((UNUSED,), min_age_seconds=0)
    done = registry.run(Operation(prune(config, registry=RegistryConfig(collection_grace_seconds=60), dry_run=True)))
    assert {one.fate.digest: one.outcome for one in done.manifests} == {
        DIGEST: "deleted",
        used: "kept",
        unused: "deleted",
    }


def test_pulls_of_what_has_been_gone_for_a_month_are_forgotten_and_others_are_not() -> None:
    registry = _registry(RECORDING)
    registry.run(Operation(begin_recording()))
    gone = _push(registry, "gone", 1)
    for reference in ("v1", "gone"):
        registry.send("GET", f"/v2/a/manifests/{reference}")
    _write(registry)
    assert registry.send("DELETE", f"/v2/a/manifests/{gone}").status == 202
    everything = RetentionRule(
        "image.last_pulled_at >= 0", "rules[0]", Select(Variable("image"), "last_pulled_at"), lambda _: True
    )

    def pruned(config: RegistryConfig, *, dry_run: bool = False) -> LastPulls:
        done = registry.run(Operation(prune(RetentionConfig((everything,)), registry=config, dry_run=dry_run)))
        assert not done.passed
        return _recorded(registry)

    before = _recorded(registry)
    assert set(before.tags) == {V1, Tag("gone")}
    registry.world.clock.now_ms += 29 * 24 * HOUR
    assert pruned(RECORDING) == before
    registry.world.clock.now_ms += 2 * 24 * HOUR
    assert pruned(RECORDING, dry_run=True) == before
    assert pruned(RegistryConfig(update_pull_time=True, pull_time_granularity_seconds=20 * 86_400)) == before
    after = pruned(RECORDING)
    assert (set(after.tags), set(after.digests)) == ({V1}, {DIGEST})


def test_a_gap_in_the_recording_is_a_new_beginning() -> None:
    registry = _registry(RECORDING)
    registry.run(Operation(begin_recording()))
    registry.world.clock.now_ms += 4 * HOUR
    assert _going(registry) == ["v1"]
    registry.run(Operation(end_recording()))
    assert _going(registry) == []
    registry.run(Operation(begin_recording()))
    assert _going(registry) == []
    registry.world.clock.now_ms += 4 * HOUR
    assert _going(registry) == ["v1"]


def test_when_pulls_cannot_be_listed_nothing_of_the_repository_is_deleted() -> None:
    registry = _registry(RECORDING)
    registry.run(Operation(begin_recording()))
    registry.world.clock.now_ms += 4 * HOUR
    apply = registry.world.store.apply

    def fail(effect: Effect[Any], replica: str) -> Any:
        if isinstance(effect, ListKeys) and "!atime/" in effect.prefix:
            raise StorageUnavailable("no answer")
        return apply(effect, replica)

    registry.world.store.apply = fail  # type: ignore[method-assign,assignment]
    done = registry.run(Operation(prune(RetentionConfig((UNUSED,), min_age_seconds=0))))
    assert (done.tags, done.passed) == ((), 1)


def test_without_a_rule_about_pulls_they_are_not_listed() -> None:
    registry = _registry(RECORDING)
    registry.effects.clear()
    rule = RetentionRule("false", "rules[0]", Constant("bool", False))
    registry.run(Operation(prune(RetentionConfig((rule,)), dry_run=True)))
    asked = [effect.prefix for effect in registry.effects if isinstance(effect, ListKeys)]
    assert asked
    assert not any("atime" in prefix or "pulls" in prefix for prefix in asked)
