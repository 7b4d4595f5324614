"""The canary of the collector: known ways to lose what somebody needs are planted, and the search has to find each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from angos.sansio import blobs, layout, manifests, uploads
from angos.sansio.collection import collector, examination, presence
from angos.sansio.effects import CreateKeys, PromoteParts, Stat, StatKey, StorageUnavailable
from angos.simulator.exhaust import Exhausted, enumerate_runs, interleavings
from angos.simulator.scenario import Scenario
from angos.simulator.search import Drawer, search
from angos.simulator.workload import Seed, draw_collected
from angos.simulator.world.client import Act

Patch = pytest.MonkeyPatch


def anything(number: int) -> Seed:
    """The workload of collectors."""
    return draw_collected(number)


def again(number: int) -> Seed:
    """What was deleted days ago is pushed again in several ways, while collectors look at it."""
    before = (Act("push_image", item=0), Act("push_blob", namespace=1), Act("delete_manifest", item=0))
    pushes = (
        (Act("push_image", item=0),),
        (Act("push_image", item=1, form="post"),),
        (Act("mount_blob", namespace=1, other=0, item=1), Act("put_manifest", namespace=1, item=0)),
        (Act("push_blob", item=0, form="post"), Act("put_manifest", item=0)),
    )
    collectors = ((Act("collect"), Act("collect")),) * (1 + number // 4 % 2)
    faults = ("stall", "kill", "lapse", "lost_reply") if number % 3 == 0 else ()
    scenario = Scenario(
        clients=(*collectors, pushes[number % 4]),
        before=before,
        aged=True,
        faults=faults,
        faults_max=2 if faults else 0,
        leases_granted=number % 2 == 0,
        replicas=2,
    )
    return Seed(number, scenario, 0.03, 3 if number % 5 else None)


def slowly(number: int) -> Seed:
    """What was deleted days ago is needed again, by somebody who stands still for longer than that protects it."""
    before = (Act("push_image", item=0), Act("push_blob", namespace=1), Act("delete_manifest", item=0))
    pushes = (Act("put_manifest", item=0), Act("mount_blob", namespace=1, other=0, item=1), Act("push_image", item=0))
    scenario = Scenario(
        clients=((Act("collect"),), (pushes[number % 3],)),
        before=before,
        aged=True,
        faults=("stall",),
        faults_max=2,
        grace_seconds=1800.0,
        replicas=2,
    )
    return Seed(number, scenario, 0.1, 3 if number % 2 else None)


async def _true(*_: Any, **__: Any) -> bool:
    return True


def writers_do_not_look_at_marks(patch: Patch) -> None:
    """A writer makes its suspicion and goes on."""
    for module in (presence, blobs, manifests):
        patch.setattr(module, "until_unmarked", _true)


def writers_do_not_look_again(patch: Patch) -> None:
    """What was there before the marks were read is taken to be there after."""

    async def make_blob(namespace: Any, digest: Any, upload: Any, parts: Any) -> bool:
        if not await PromoteParts(upload, parts, layout.blob_key(digest)):
            return False
        owner = (layout.owner_key(digest, namespace), b"")
        await CreateKeys((owner, *await presence.suspicions((digest,))))
        await presence.until_unmarked((digest,))
        return True

    patch.setattr(uploads, "make_blob", make_blob)


def pushes_keep_nothing(patch: Patch) -> None:
    """A push of a manifest trusts that what it names stays."""

    async def keep(*_: Any) -> None:
        return None

    patch.setattr(manifests, "keep", keep)


def heads_keep_nothing(patch: Patch) -> None:
    """Whoever asks by HEAD is told what is there at this moment, and no more."""

    async def keep_suspected(*_: Any) -> None:
        return None

    patch.setattr(blobs, "keep_suspected", keep_suspected)


def mounts_keep_nothing(patch: Patch) -> None:
    """A mount trusts that the bytes stay."""

    async def keep(*_: Any) -> None:
        return None

    patch.setattr(blobs, "keep", keep)


def no_grace(patch: Patch) -> None:
    """What nobody needs at this moment goes at once."""
    look = examination.examine

    async def examine(digests: Any, suspicions: Any, now_ms: int, _: Any, revisions: Any) -> Any:
        return await look(digests, suspicions, now_ms, None, revisions)

    patch.setattr(collector, "examine", examine)
    patch.setattr(collector._Run, "_is_due", lambda *_: True)


def no_mark(patch: Patch) -> None:
    """The collector looks and removes without telling anybody."""
    patch.setattr(collector, "mark_value", lambda _: b"[]")


def revision_before_references(patch: Patch) -> None:
    """A push names its manifest first, and why its blobs must not be collected after that."""
    store = manifests._name_manifest

    async def reordered(namespace: Any, digest: Any, body: bytes, manifest: Any, *rest: Any) -> None:
        bytes_ = (layout.blob_key(digest), body)
        await CreateKeys((bytes_, *await presence.suspicions((digest,))))
        record = manifests.revision_record(manifest, 0)
        await CreateKeys(((layout.revision_key(namespace, digest), record),))
        await store(namespace, digest, body, manifest, *rest)

    patch.setattr(manifests, "_name_manifest", reordered)


def permits_are_not_looked_at(patch: Patch) -> None:
    """A collector that stood still goes on where it was."""

    async def stat(key: Any) -> Stat | None:
        return Stat(0, 0) if key.startswith(layout.PERMITS_PREFIX) else await StatKey(key)

    patch.setattr(collector, "StatKey", stat)


def references_are_forgotten(patch: Patch) -> None:
    """A push writes its revision, and the references before it get lost."""

    def reordered(entries: Any) -> Any:
        return CreateKeys(tuple(entry for entry in entries if "!r/" not in entry[0]))

    patch.setattr(manifests, "CreateKeys", reordered)


def late_names_count(patch: Patch) -> None:
    """A writer that stood still goes on where it was."""

    async def in_time(name: Any, *_: Any, **__: Any) -> Any:
        return await name()

    for module in (blobs, manifests):
        patch.setattr(module, "in_time", in_time)


def names_prove_bytes(patch: Patch) -> None:
    """A push of a manifest takes what has a name for what is there."""

    async def stat_blob(_: Any) -> Stat:
        return Stat(1, 0)

    patch.setattr(manifests, "stat_blob", stat_blob)


def what_cannot_be_read_is_absent(patch: Patch) -> None:
    """A manifest that the store does not tell about is taken for deleted."""

    async def look(_: Any, wanted: Any) -> Any:
        found = {}
        for revision in wanted:
            try:
                found[revision] = "gone" if await StatKey(layout.revision_key(*revision)) is None else "there"
            except StorageUnavailable:
                found[revision] = "gone"
        return found

    patch.setattr(examination.Revisions, "look", look)


BUGS: dict[Callable[[Patch], None], tuple[Drawer, int]] = {
    writers_do_not_look_at_marks: (again, 500),
    pushes_keep_nothing: (again, 500),
    heads_keep_nothing: (again, 500),
    no_grace: (anything, 100),
    no_mark: (again, 500),
    permits_are_not_looked_at: (again, 500),
    revision_before_references: (anything, 500),
    references_are_forgotten: (anything, 100),
    what_cannot_be_read_is_absent: (anything, 2000),
    late_names_count: (slowly, 1000),
    names_prove_bytes: (slowly, 1000),
}


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_a_planted_bug_of_the_collector_is_found_within_its_budget(
    bug: Callable[[Patch], None], monkeypatch: Patch
) -> None:
    """Found by the oracle, which knows nothing of marks and suspicions."""
    drawer, seeds_max = BUGS[bug]
    bug(monkeypatch)
    tally = search(0, seeds_max, draw_seed=drawer, found_max=1)
    assert tally.found, f"not found in {seeds_max} seeds: {bug.__doc__}"


def test_the_collector_without_bugs_keeps_every_promise() -> None:
    """The floor: faults fired and tasks overlapped, so that finding nothing means something."""
    for drawer, seeds in ((anything, 300), (again, 200), (slowly, 600)):
        tally = search(0, seeds, draw_seed=drawer)
        assert not tally.found, tally.found[0].sentence
        assert not tally.shortcomings()
        assert tally.switches > seeds


POST = Act("push_blob", form="post")
RARE: dict[Callable[[Patch], None], tuple[Act, Act]] = {
    writers_do_not_look_again: (Act("push_blob"), POST),
    mounts_keep_nothing: (Act("push_blob", namespace=1), Act("mount_blob", other=1)),
}


@pytest.mark.parametrize("bug", RARE, ids=lambda bug: bug.__name__)
def test_a_rare_bug_of_a_writer_is_found_among_all_schedules(bug: Callable[[Patch], None], monkeypatch: Patch) -> None:
    """It takes a collector that begins and ends between two effects, so it is enumerated and not searched for."""
    before, act = RARE[bug]
    bug(monkeypatch)
    seen = interleavings((before,), Act("collect"), act, interruptions=2, aged=True)
    assert seen.violations, f"not found in {seen.runs} runs"


def _a_collector_that_stands_still(successor: str) -> Exhausted:
    """One stops at any of its effects for as long as it takes; another one takes over, or a server clears up behind it,
    and what was removed is pushed again."""
    scenario = Scenario(
        clients=((Act("collect"),), (Act(successor), Act("push_blob"))),
        before=(Act("push_blob"),),
        aged=True,
        leases_granted=True,
        faults=("stall",),
        faults_max=1,
    )
    return enumerate_runs(scenario, {"fault": 1, "next": 0, "turn": 0})


@pytest.mark.parametrize(
    ("successor", "name", "value"),
    [
        ("collect", "REMOVAL_SECONDS", 1e9),
        ("collect", "SETTLED_SECONDS", 0.0),
        ("collect", "REMOVAL_SECONDS", None),
        ("clear_up", "REMOVAL_SECONDS", 1e9),
        ("clear_up", "REMOVAL_SECONDS", None),
    ],
)
def test_a_collector_that_is_taken_for_dead_removes_nothing_more(
    successor: str, name: str, value: float | None, monkeypatch: Patch
) -> None:
    """Removals that may come late, and marks that are not waited for, are found; with neither nothing is."""
    if value is not None:
        monkeypatch.setattr(collector, name, value)
    seen = _a_collector_that_stands_still(successor)
    assert seen.fired["stall"] > 50
    if value is not None:
        assert seen.violations, f"not found in {seen.runs} runs"
    else:
        assert not seen.violations, seen.violations[0][0]
