"""Manifests without a tag: which of them retention deletes, and that nothing goes which somebody relies on."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from angos.sansio import history, layout, manifests, untagged, untagged_removal
from angos.sansio.collection import collector, presence
from angos.sansio.collection.collector import collect
from angos.sansio.config import RegistryConfig
from angos.sansio.effects import (
    AcquireLease,
    CreateKeys,
    DeleteKeys,
    DeleteKeysWithin,
    Effect,
    Key,
    ListKeys,
    ListStats,
    ReadKey,
    Sleep,
    StorageUnavailable,
)
from angos.sansio.oci.digest import Digest
from angos.sansio.oci.reference import Namespace
from angos.sansio.operation import Operation
from angos.sansio.prune import Pruned, prune
from angos.sansio.retention import RetentionConfig, RetentionRule
from angos.sansio.untagged import Named
from angos.sansio.untagged_removal import groups, levels
from angos.simulator.exhaust import IMAGE, interleavings
from angos.simulator.registry import SimulatedRegistry
from angos.simulator.search import search
from angos.simulator.workload import draw_pruned
from angos.simulator.world.client import Act
from tests.property.crossing import Crossing, requested
from tests.property.test_prune_crossings import MONTH as AGED
from tests.property.test_prune_crossings import PUSHES, old_world
from tests.property.test_retention import ALWAYS, FAILING, NEVER, rule

Patch = pytest.MonkeyPatch
DAY_MS = 86_400_000
IMAGE_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
TAGGED = rule(lambda variables: variables["image"]["tag"] is not None)
MONTH = rule(lambda variables: variables["image"]["pushed_at"] > variables["now()"] - 30 * 86_400)


@dataclass
class Repository:
    """One registry in memory, and what tests push to it."""

    config: RegistryConfig = field(default_factory=RegistryConfig)
    registry: SimulatedRegistry = field(init=False)

    def __post_init__(self) -> None:
        self.registry = SimulatedRegistry(self.config)

    def push(self, document: dict[str, Any], tag: str = "", namespace: str = "a") -> Digest:
        body = json.dumps({"schemaVersion": 2, **document}).encode()
        digest = Digest.of(body)
        headers = {"Content-Type": document["mediaType"]}
        assert self.registry.send("PUT", f"/v2/{namespace}/manifests/{tag or digest}", headers, body).status == 201
        return digest

    def index(self, *children: Digest, tag: str = "", note: str = "") -> Digest:
        entries = [{"mediaType": IMAGE_TYPE, "digest": str(child), "size": 1} for child in children]
        return self.push({"mediaType": INDEX_TYPE, "manifests": entries, "annotations": {"n": note}}, tag)

    def image(self, note: str, tag: str = "", subject: Digest | None = None, namespace: str = "a") -> Digest:
        more = {} if subject is None else {"subject": {"mediaType": IMAGE_TYPE, "digest": str(subject), "size": 1}}
        return self.push(
            {"mediaType": INDEX_TYPE, "manifests": [], "annotations": {"image": note}, **more}, tag, namespace
        )

    def untag(self, tag: str) -> None:
        assert self.registry.send("DELETE", f"/v2/a/manifests/{tag}").status == 202

    def let_pass(self, days: float) -> None:
        self.registry.world.clock.now_ms += int(days * DAY_MS)

    def prune(self, *rules: RetentionRule, dry_run: bool = False, days: float = 2) -> Pruned:
        self.let_pass(days)
        config = RetentionConfig(rules or (TAGGED,), min_age_seconds=3600)
        return self.registry.run(Operation(prune(config, registry=self.config, dry_run=dry_run)))

    def has(self, digest: Digest) -> bool:
        return self.registry.send("GET", f"/v2/a/manifests/{digest}").status == 200


def whys(done: Pruned) -> dict[Digest, str]:
    return {judged.fate.digest: judged.fate.why for judged in done.manifests}


def gone(done: Pruned) -> set[Digest]:
    return {judged.fate.digest for judged in done.manifests if judged.outcome == "deleted"}


# --- what goes and what stays -----------------------------------------------------------------------------------------


def test_what_no_tag_and_no_rule_keeps_goes_and_its_bytes_after_a_grace_period() -> None:
    repository = Repository()
    old, kept = repository.image("old"), repository.image("kept", "v1")
    shown = repository.prune(dry_run=True)
    assert repository.has(old), "a dry run changes nothing"
    done = repository.prune(days=0)
    assert gone(shown) == gone(done) == {old}
    assert (done.passed, repository.has(old), repository.has(kept)) == (0, False, True)
    assert not repository.registry.world.store.names("v2/collector/"), "marks and permits are given back"
    repository.let_pass(2)
    assert repository.registry.run(Operation(collect(repository.config))).blobs == 1


def test_the_whole_tree_goes_in_one_run_with_signatures_and_lists_of_referrers() -> None:
    """Bug class 65: one level per run."""
    repository = Repository()
    image = repository.image("image")
    signature = repository.image("signature", subject=image)
    index = repository.index(repository.index(image, note="inner"))
    about_signature = repository.image("about the signature", subject=signature)
    done = repository.prune()
    assert len(gone(done)) == 5
    assert {image, signature, index, about_signature} <= gone(done)
    assert not repository.registry.world.store.names("v2/ns/a!rev/")
    assert not repository.registry.world.store.names("v2/ns/a!sub/")


def test_children_and_referrers_of_what_stays_stay_and_what_is_referred_to() -> None:
    repository = Repository()
    image, shared, subject = repository.image("image"), repository.image("shared"), repository.image("subject")
    repository.index(image, shared, tag="v1")
    other = repository.index(shared, note="without a tag")
    signature = repository.image("signature", subject=image)
    repository.image("a tagged bill of materials", "sbom", subject=subject)
    done = repository.prune()
    assert whys(done) == {
        image: "part",
        shared: "part",
        signature: "refers",
        subject: "referred",
        other: "no rule",
    }
    assert gone(done) == {other}
    assert repository.has(shared)


def test_a_signature_under_a_tag_of_its_image_goes_one_run_later() -> None:
    """The tag belongs to the image, and would keep it for ever otherwise."""
    repository = Repository()
    image = repository.image("image")
    listed = repository.image("listed", subject=image)
    companion = repository.index(listed, tag=f"sha256-{image.hex}")
    first = repository.prune(NEVER)
    assert gone(first) == {image}
    assert whys(first)[listed] == "part"
    second = repository.prune(NEVER, days=0)
    assert gone(second) == {companion, listed}


def test_rules_see_no_tag_and_the_time_of_the_first_push() -> None:
    repository = Repository()
    seen: list[Any] = []
    old = repository.image("old")
    pushed_at = repository.registry.world.clock.now_ms // 1000

    def look(variables: Any) -> bool:
        seen.append(variables["image"])
        return False

    repository.prune(rule(look))
    image = {"tag": None, "pushed_at": pushed_at, "last_pulled_at": 0}
    assert seen == [image] * 2, "asked when it is decided, and again under the mark"
    assert not repository.has(old)


@pytest.mark.parametrize(("keeping", "why"), [(ALWAYS, "rule"), (MONTH, "rule"), (FAILING, "rule failed")])
def test_what_a_rule_keeps_stays_and_so_does_what_it_fails_for(keeping: RetentionRule, why: str) -> None:
    repository = Repository()
    old = repository.image("old")
    assert whys(repository.prune(NEVER, keeping, NEVER)) == {old: why}
    assert repository.has(old)


def test_without_rules_and_for_a_library_that_does_not_ask_manifests_stay() -> None:
    repository = Repository()
    old = repository.image("old")
    repository.let_pass(40)
    for config, registry in ((RetentionConfig(), repository.config), (RetentionConfig((NEVER,)), None)):
        assert repository.registry.run(Operation(prune(config, registry=registry))).manifests == ()
    assert repository.has(old)


def test_what_was_pushed_again_stays_for_a_grace_period_although_its_first_push_is_old() -> None:
    repository = Repository()
    old = repository.image("old")
    repository.let_pass(40)
    repository.image("old")
    assert whys(repository.prune(days=0.5)) == {old: "used"}
    assert gone(repository.prune()) == {old}


def test_what_is_young_or_has_no_known_time_stays() -> None:
    """Bug class 65: an unknown time of a push was read as 1970."""
    repository = Repository()
    young = repository.image("young")
    assert whys(repository.prune(days=0)) == {young: "young"}
    for record in (b"{}", b"no JSON", b'{"created_at": 5}', b'{"created_at": "yesterday"}'):
        repository.registry.world.store._drop(layout.revision_key(Namespace("a"), young))  # type: ignore[union-attr]
        repository.registry.perform(CreateKeys(((layout.revision_key(Namespace("a"), young), record),)))
        assert whys(repository.prune()) == {young: "undated"}


def test_what_a_tag_can_be_set_back_to_stays_with_all_that_it_needs() -> None:
    """Also children of an index that was deleted itself: it is brought back with them."""
    repository = Repository(RegistryConfig(tag_history_seconds=10 * 86_400))
    child, moved = repository.image("child"), repository.image("moved", "v1")
    inner = repository.index(child, note="inner")
    index = repository.index(inner, tag="v2")
    repository.image("new", "v1")
    repository.untag("v2")
    for digest in (index, inner):
        assert repository.registry.send("DELETE", f"/v2/a/manifests/{digest}").status == 202
    assert whys(repository.prune()) == {child: "part", moved: "restorable"}
    answer = repository.registry.send("POST", "/v2/_ext/a/_restore?tag=v2")
    assert answer.status in (200, 201)
    assert repository.has(child)
    repository.untag("v2")
    assert gone(repository.prune(days=20)) == {child, inner, index, moved}


def test_a_tag_and_its_manifest_go_in_one_run_unless_the_tag_can_be_set_back() -> None:
    for window, goes in ((0.0, True), (86_400.0, False)):
        repository = Repository(RegistryConfig(tag_history_seconds=window))
        image = repository.image("image", "v1")
        shown, done = repository.prune(NEVER, dry_run=True), repository.prune(NEVER, days=0)
        assert [judged.outcome for judged in done.tags] == ["deleted"]
        assert gone(shown) == gone(done) == ({image} if goes else set())
        assert repository.has(image) is not goes


def test_a_manifest_of_several_repositories_goes_from_all_of_them_in_one_run() -> None:
    """What the run itself has noted about it in the first of them keeps it in none."""
    repository = Repository()
    image = repository.image("image")
    for namespace in ("b", "c"):
        repository.index(image)
        assert repository.image("image", namespace=namespace) == image
    done = repository.prune()
    assert [judged.outcome for judged in done.manifests] == ["deleted"] * 4


# --- what cannot be read, and who is in the way -----------------------------------------------------------------------


QUESTIONS: dict[str, Callable[[Effect[Any], Digest], bool]] = {
    "its parents": lambda effect, digest: isinstance(effect, ListKeys) and f"{digest.hex}/a!r/" in effect.prefix,
    "its record": lambda effect, digest: isinstance(effect, ReadKey) and f"!rev/sha256/{digest.hex[:2]}" in effect.key,
    "who uses it": lambda effect, digest: isinstance(effect, ListStats) and digest.hex in effect.prefix,
    "its bytes": lambda effect, digest: isinstance(effect, ReadKey) and effect.key == layout.blob_key(digest),
    "all manifests": lambda effect, _: isinstance(effect, ListKeys) and effect.prefix == "v2/ns/a!rev/",
    "all referrers": lambda effect, _: isinstance(effect, ListKeys) and effect.prefix == "v2/ns/a!sub/",
    "all tags": lambda effect, _: isinstance(effect, ListKeys) and effect.prefix == "v2/ns/a!tag/",
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_an_error_never_deletes(question: str) -> None:
    """Bug classes 49 and 58."""
    repository = Repository()
    image = repository.image("image")
    other = repository.image("other")
    perform = repository.registry.perform

    def failing(effect: Effect[Any]) -> Any:
        if QUESTIONS[question](effect, image):
            raise StorageUnavailable("the disk is away")
        return perform(effect)

    repository.registry.perform = failing  # type: ignore[method-assign]
    done = repository.prune()
    assert done.passed
    repository.registry.perform = perform  # type: ignore[method-assign]
    assert repository.has(image)
    assert repository.has(other) is question.startswith("all"), "the rest goes on"


def test_a_name_of_an_unknown_kind_and_bytes_that_are_lost_keep() -> None:
    repository = Repository()
    named, lost = repository.image("named"), repository.image("lost")
    unknown = Key(f"{layout.references_prefix(named, Namespace('a'))}layer")
    repository.registry.perform(CreateKeys(((unknown, b""),)))
    repository.registry.perform(DeleteKeys((layout.blob_key(lost),)))
    assert whys(repository.prune()) == {named: "unknown", lost: "unknown"}


def test_a_removal_that_cannot_be_made_is_told_and_its_mark_goes_when_it_is_settled() -> None:
    repository = Repository()
    repository.image("image")
    perform = repository.registry.perform

    def failing(effect: Effect[Any]) -> Any:
        if isinstance(effect, DeleteKeysWithin):
            raise StorageUnavailable("the disk is away")
        return perform(effect)

    repository.registry.perform = failing  # type: ignore[method-assign]
    done = repository.prune()
    assert ([judged.outcome for judged in done.manifests], done.passed) == (["failed"], 1)
    assert Sleep(collector.SETTLED_SECONDS) in repository.registry.effects, "it may happen yet"
    assert not repository.registry.world.store.names("v2/collector/")


@pytest.mark.parametrize("key", [layout.TAKING_OVER_KEY, "v2/repositories/old/_layers/sha256/" + "a" * 64 + "/link"])
def test_while_another_registry_is_taken_over_manifests_stay(key: str) -> None:
    """Its tags come last."""
    repository = Repository()
    image = repository.image("image")
    repository.registry.perform(CreateKeys(((Key(key), b"x"),)))
    done = repository.prune()
    assert (done.manifests, done.passed, repository.has(image)) == ((), 1, True)


def test_while_a_collector_is_at_work_manifests_wait_for_the_next_run() -> None:
    repository = Repository()
    image = repository.image("image")
    perform = repository.registry.perform

    def busy(effect: Effect[Any]) -> Any:
        return None if isinstance(effect, AcquireLease) and effect.name == collector.WORK else perform(effect)

    repository.registry.perform = busy  # type: ignore[method-assign]
    done = repository.prune()
    assert ([judged.outcome for judged in done.manifests], done.passed) == (["failed"], 1)
    assert repository.has(image)


@pytest.mark.parametrize("step", range(0, 60, 3))
def test_what_a_killed_pruner_left_the_next_one_does(step: int) -> None:
    """Also the mark, which others would wait for."""
    repository = Repository()
    child = repository.image("child")
    repository.index(child)
    repository.let_pass(2)
    config = RetentionConfig((TAGGED,))
    killed = Crossing(repository.registry, [Operation(prune(config, registry=repository.config))])
    killed.advance(0, step)
    killed.kill(0)
    left = repository.registry.world.store.names("v2/ns/a!rev/")
    assert len(left) != 1 or str(left[0]).endswith(child.hex), "an index was left without its child"
    repository.prune()
    assert not repository.registry.world.store.names("v2/ns/a!rev/")
    assert not repository.registry.world.store.names("v2/collector/mark/")


def tags_lost_by_a_push_that_stood_still() -> int:
    """A push stands still for days before it sets its tag, and goes on between two steps of a pruner that has seen its
    manifest without one: how often it is acknowledged and the manifest gone."""

    def crossing_of() -> tuple[Repository, Crossing]:
        repository = Repository()
        body = json.dumps({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": []}).encode()
        push = requested(repository.registry, "PUT", "/v2/a/manifests/v1", body, INDEX_TYPE)
        config = RetentionConfig((TAGGED,), min_age_seconds=0)
        return repository, Crossing(repository.registry, [push, Operation(prune(config, registry=repository.config))])

    lost = 0
    for first in range(crossing_of()[1].advance(0)):
        second, more = 0, True
        while more:
            repository, crossing = crossing_of()
            crossing.advance(0, first)
            if not repository.registry.world.store.names("v2/ns/a!rev/"):
                break  # it has named nothing yet
            repository.let_pass(2)
            more = crossing.advance(1, second) == second
            crossing.advance(0)
            crossing.advance(1)
            acknowledged = crossing.results[0].status == 201
            lost += acknowledged and repository.registry.send("GET", "/v2/a/manifests/v1").status != 200
            second += 1
    return lost


def test_a_push_that_stood_still_keeps_its_tag_or_is_not_acknowledged() -> None:
    assert tags_lost_by_a_push_that_stood_still() == 0


def test_a_push_that_sets_its_tag_in_its_own_time_is_found(monkeypatch: Patch) -> None:
    async def in_time(name: Callable[[], Any], *_: Any) -> Any:
        return await name()

    monkeypatch.setattr(manifests, "in_time", in_time)
    assert tags_lost_by_a_push_that_stood_still()


def restored_beside_a_pruner(stands_still_days: float) -> int:
    """A tag is set back to an index that was untagged long ago, with a pruner between any two steps, after a while; how
    often it was refused."""
    refused = effects = 0
    more = True
    while more:
        repository = Repository()
        child = repository.image("child")
        index = repository.index(child, tag="v1")
        repository.image("another", "v1")
        repository.let_pass(2)
        target = f"/v2/_ext/a/_restore?tag=v1&to={index}"
        restoring = requested(repository.registry, "POST", target, b"", "")
        crossing = Crossing(repository.registry, [restoring])
        more = crossing.advance(0, effects) == effects and bool(crossing.waiting)
        effects += 1
        assert not repository.prune(days=stands_still_days).passed
        crossing.advance(0)
        if crossing.results[0].status in (400, 404):
            refused += 1
        else:
            assert crossing.results[0].status in (200, 201)
            assert repository.has(index), "an index was restored and is gone"
            assert repository.has(child), "an index was restored without its child"
    return refused


@pytest.mark.parametrize("what", ["the same manifest", "a restore"])
def test_a_push_stands_while_its_tag_and_its_manifest_are_pruned_and_the_pruner_is_killed(what: str) -> None:
    """Both go in one run; the push comes at any moment of it, in one piece or in two."""
    push = PUSHES[what]
    met = stood = 0

    def crossing_of() -> tuple[SimulatedRegistry, Crossing]:
        world = old_world(push)
        body = push.body if push.method == "PUT" else b""
        pushing = requested(world, push.method, push.target, body, "application/vnd.oci.image.index.v1+json")
        return world, Crossing(world, [pushing, Operation(prune(AGED, registry=push.config))])

    pushing, pruning = (crossing_of()[1].advance(number) for number in (0, 1))
    for first in range(pushing + 1):
        for second in range(0, pruning + 1, 2):
            for killed in (False, True) if second % 3 == 0 else (False,):
                world, crossing = crossing_of()
                crossing.advance(0, first)
                crossing.advance(1, second)
                met += not world.world.store.names("v2/ns/a!rev/")
                if killed:
                    crossing.kill(1)
                crossing.advance(0)
                crossing.advance(1)
                status = crossing.results[0].status
                stood += status in (200, 201)
                # A pruner that stands still, or is dead, is waited for, and not for ever; what is gone is not restored.
                assert status in (200, 201, 503) or (status == 404 and what == "a restore")
                if status in (200, 201):
                    assert world.send("GET", "/v2/a/manifests/v1").body == push.body, "an acknowledged push was lost"
    assert met > 20, "the manifest was never away"
    assert stood > 200


def test_an_index_is_restored_whole_or_not_at_all() -> None:
    assert restored_beside_a_pruner(0) > 1
    assert restored_beside_a_pruner(2) > 1


def test_a_restore_that_trusts_that_what_is_there_stays_is_found(monkeypatch: Patch) -> None:
    async def find_references(*_: Any) -> Any:
        return ["whatever was missing before"], ()

    monkeypatch.setattr(history, "find_references", find_references)
    with pytest.raises(AssertionError, match="was restored"):
        restored_beside_a_pruner(0)


# --- in what order ----------------------------------------------------------------------------------------------------

D = [Digest.of(bytes([number])) for number in range(8)]


def test_those_that_keep_each_other_go_together_and_indexes_before_their_children() -> None:
    named = {
        D[0]: Named((D[1], D[2]), None),
        D[1]: Named((D[2],), None),
        D[2]: Named((), D[3]),
        D[3]: Named((), None),
        D[4]: Named((D[7],), D[6]),
        D[5]: Named((), None),
    }
    assert [set(group) for group in groups(list(named), named)] == [{D[0], D[1], D[2], D[3]}, {D[4]}, {D[5]}]
    order = [digest for level in levels(list(named), named) for digest in level]
    assert sorted(order) == sorted(named)
    assert order.index(D[0]) < order.index(D[1]) < order.index(D[2])


# --- beside everybody else --------------------------------------------------------------------------------------------

UNTAGGED, OTHER = Act("push_image", tag=-1), Act("push_image", tag=-1, item=1)
INDEX = Act("push_image", tag=-1, item=3)
MOVED = Act("put_manifest", item=1)

BESIDE: dict[str, tuple[tuple[Act, ...], Act]] = {
    "push of an index": ((UNTAGGED, OTHER), Act("put_manifest", item=3)),
    "push of the same by digest": ((UNTAGGED,), Act("put_manifest", tag=-1)),
    "push of a tag": ((UNTAGGED,), Act("put_manifest")),
    "restore of a tag": ((IMAGE, MOVED), Act("restore_tag")),
    "push of a referrer": ((UNTAGGED,), Act("put_manifest", tag=-1, item=2)),
    "deletion": ((UNTAGGED,), Act("delete_manifest")),
    "another pruner": ((UNTAGGED,), Act("prune")),
    "a collector": ((UNTAGGED,), Act("collect")),
}


@pytest.mark.parametrize("beside", BESIDE)
def test_a_pruner_and_one_request_in_every_order_keep_every_promise(beside: str) -> None:
    before, act = BESIDE[beside]
    seen = interleavings(before, Act("prune"), act, interruptions=1, aged=True)
    assert not seen.violations, seen.violations[0][0]
    assert seen.switches, "they never met"


def test_pruners_keep_every_promise_whatever_happens() -> None:
    """With faults, crashes, several pruners and collectors, and leases that fail."""
    tally = search(0, 300, draw_seed=draw_pruned)
    assert not tally.found, tally.found[0].sentence
    assert not tally.shortcomings()
    assert tally.switches > 300


# --- planted bugs -----------------------------------------------------------------------------------------------------


def no_mark(patch: Patch) -> None:
    """It looks and removes without telling anybody."""
    patch.setattr(untagged_removal, "mark_value", lambda _: b"[]")


def no_second_look(patch: Patch) -> None:
    """What was decided before the mark is done."""
    look = untagged.Look.fates

    async def fates(self: Any, tags: Any, only: Any = None) -> Any:
        return await look(self, tags) if only is None else tuple(untagged.Fate(each, 0, "no rule") for each in only)

    patch.setattr(untagged.Look, "fates", fates)


def no_grace(patch: Patch) -> None:
    """What nobody has named yet goes, although somebody is about to."""

    async def used(*_: Any) -> bool:
        return False

    patch.setattr(untagged.Look, "_is_used", used)


def indexes_do_not_keep(patch: Patch) -> None:
    """Who names a manifest is not asked."""

    async def parents(*_: Any) -> list[Digest]:
        return []

    patch.setattr(untagged.Look, "_parents", parents)


def children_first(patch: Patch) -> None:
    """An index is left without its children for a moment, and after a crash for longer."""
    patch.setattr(untagged_removal, "levels", lambda *given: reversed(list(levels(*given))))


def writers_do_not_look_at_marks(patch: Patch) -> None:
    """A push makes its suspicion and goes on."""

    async def until_unmarked(*_: Any) -> bool:
        return True

    for module in (presence, manifests):
        patch.setattr(module, "until_unmarked", until_unmarked)


@pytest.mark.parametrize(
    ("bug", "seeds_max"),
    [
        (no_second_look, 300),
        (indexes_do_not_keep, 100),
        (children_first, 100),
    ],
)
def test_a_planted_bug_is_found_within_its_budget(
    bug: Callable[[Patch], None], seeds_max: int, monkeypatch: Patch
) -> None:
    bug(monkeypatch)
    assert search(0, seeds_max, draw_seed=draw_pruned, found_max=1).found, bug.__doc__


def pushes_keep_nothing(patch: Patch) -> None:
    """An index trusts that its children stay."""

    async def keep(*_: Any) -> None:
        return None

    patch.setattr(manifests, "keep", keep)


def suspicions_of_pruners_look_fresh(patch: Patch) -> None:
    """A push relies on a suspicion that the pruner has made, and disregards."""

    async def suspicions(digests: Any, _: float) -> Any:
        return await presence.suspicions(digests)

    patch.setattr(untagged_removal, "stale_suspicions", suspicions)


def children_lost() -> int:
    """An index is pushed whose child has lost its tag long ago, in one piece, between any two steps of a pruner: how
    often the child went although the push did not warn of it. And after any step of the push the pruner comes.

    The child is in another repository too, which is pruned before; or, at last, before the push begins."""
    lost = 0
    for first, pruned_before in ((0, False), (1, False), (1, True)):
        steps, more = 0, True
        while more:
            repository = Repository()
            child = repository.image("child", namespace="0")
            assert child == repository.image("child")
            repository.let_pass(2)
            entry = {"mediaType": IMAGE_TYPE, "digest": str(child), "size": 1}
            body = json.dumps({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [entry]}).encode()
            pushing = requested(repository.registry, "PUT", "/v2/a/manifests/v1", body, INDEX_TYPE)
            pruning = Operation(prune(RetentionConfig((TAGGED,)), registry=repository.config))
            crossing = Crossing(repository.registry, [pruning, pushing])
            names = repository.registry.world.store.names
            while pruned_before and (names("v2/ns/0!rev/") or names(layout.MARKS_PREFIX)):
                crossing.step(0)
            more = crossing.advance(first, steps) == steps
            crossing.advance(1 - first)
            crossing.advance(first)
            answer = crossing.results[1]
            warned = any(name == "Warning" for name, _ in answer.headers)
            lost += answer.status == 201 and not warned and not repository.has(child)
            steps += 1
    return lost


def test_an_index_keeps_its_child_or_is_told_that_it_is_gone() -> None:
    assert children_lost() == 0


@pytest.mark.parametrize(
    "bug",
    [
        pushes_keep_nothing,
        no_grace,
        no_mark,
        no_second_look,
        writers_do_not_look_at_marks,
        suspicions_of_pruners_look_fresh,
    ],
)
def test_a_way_to_lose_a_child_is_found(bug: Callable[[Patch], None], monkeypatch: Patch) -> None:
    bug(monkeypatch)
    assert children_lost(), bug.__doc__
