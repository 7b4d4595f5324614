"""Scrub: what it finds, mends and moves aside, and that nothing else changes, whatever fails or is killed."""

from __future__ import annotations

import contextlib
import gc
import inspect
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from angos.sansio import layout, upload_session
from angos.sansio.effects import (
    AcquireLease,
    CreateKeys,
    DeleteKeys,
    Effect,
    Key,
    Prefix,
    ReadClock,
    ReadKey,
    StatKey,
    StorageRefused,
    StorageUnavailable,
    Tell,
    Together,
)
from angos.sansio.oci.digest import Digest
from angos.sansio.oci.reference import Namespace, Tag
from angos.sansio.operation import Operation
from angos.sansio.scrub.hands import Settings
from angos.sansio.scrub.keys import recognise
from angos.sansio.scrub.report import Scrubbed
from angos.sansio.scrub.run import scrub
from angos.simulator.choices import Seeded
from angos.simulator.registry import SimulatedRegistry
from angos.simulator.scenario import Scenario
from angos.simulator.world.images import blob, image
from angos.simulator.world.replica import World

SETTINGS_OF_SERVERS = Settings()
SETTINGS = Settings(page=5, record_ms=0, verify_bytes=True)
HOUR_MS = 3_600_000
A, B = Namespace("a"), Namespace("a/b")
IMAGE, LAYER = image(0), blob(image(0).blobs[0])
EMPTY_DIGEST = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
REFERRER = (
    b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"a/b",'
    b'"config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"sha256:%s","size":2},"layers":[],'
    b'"subject":{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"%s","size":1}}'
    % (EMPTY_DIGEST.encode(), str(IMAGE.digest).encode())
)
REFERRER_DIGEST = Digest.of(REFERRER, "sha256")
UPLOAD_ID = "5f0c3b1e-0000-4000-8000-000000000000"
UNKNOWN = Digest("sha256", "0" * 64)
CANNOT_FAIL = (Together, Tell, ReadClock)


class Scrubbable:
    """A registry that people have used, and that may be damaged."""

    def __init__(self, scenario: Scenario | None = None) -> None:
        self.registry = SimulatedRegistry(world=World(scenario or Scenario()))
        for namespace, index, tag in (("a", 0, "v1"), ("a/b", 1, "v2"), ("a", 1, "v2"), ("a", 0, "v2")):
            self.push(index, namespace, tag)
        self.put_manifest("a", str(REFERRER_DIGEST), REFERRER)
        assert self.registry.send("DELETE", "/v2/a/manifests/v2").status == 202
        started = self.registry.send("POST", "/v2/a/blobs/uploads/")
        location = started.header("Location") or ""
        assert self.registry.send("PATCH", location, body=b"some bytes", chunked=True).status == 202
        self.grow_old()

    def push(self, index: int, namespace: str, tag: str) -> None:
        wanted = image(index)
        for child in wanted.children:
            self.put_manifest(namespace, str(image(child).digest), image(child).content)
        for needed in wanted.blobs:
            layer = blob(needed)
            pushed = self.registry.send(
                "POST", f"/v2/{namespace}/blobs/uploads/?digest={layer.digest}", body=layer.content
            )
            assert pushed.status == 201
        self.put_manifest(namespace, tag, wanted.content)

    def put_manifest(self, namespace: str, reference: str, content: bytes) -> None:
        media_type = json.loads(content)["mediaType"]
        target = f"/v2/{namespace}/manifests/{reference}"
        assert self.registry.send("PUT", target, {"content-type": media_type}, content).status == 201

    def grow_old(self) -> None:
        self.registry.world.clock.now_ms += 2 * HOUR_MS

    def plant(self, key: str, value: bytes) -> None:
        """Whatever was there is gone."""
        self.registry.run(Operation(_replace(Key(key), value)))

    def lose(self, key: str) -> None:
        self.registry.run(Operation(_delete(Key(key))))

    def scrub(self, settings: Settings = SETTINGS) -> Scrubbed:
        return self.registry.run(Operation(scrub(settings)))

    def content(self) -> dict[str, bytes | None]:
        """Without what a killed scrub leaves to the next collector."""
        names = self.registry.world.store.names("")
        return {name: self.registry.world.store.get(name) for name in names if not name.startswith("v2/collector/")}

    def status(self, target: str) -> int:
        return self.registry.send("GET", target).status


async def _replace(key: Key, value: bytes) -> None:
    await DeleteKeys((key,))
    await CreateKeys(((key, value),))


async def _delete(key: Key) -> None:
    await DeleteKeys((key,))


@pytest.fixture
def used() -> Scrubbable:
    return Scrubbable()


# --- every key is known -----------------------------------------------------------------------------------------------

PREFIX = layout.upload_prefix(A, UPLOAD_ID)
EVENT = layout.TagEvent(1, "set", UNKNOWN)
SAMPLES: dict[str, list[str]] = {
    "blob_key": [layout.blob_key(UNKNOWN)],
    "blob_references_prefix": [layout.owner_key(UNKNOWN, A)],
    "owner_key": [layout.owner_key(UNKNOWN, B)],
    "references_prefix": [f"{layout.references_prefix(UNKNOWN, B)}rev"],
    "revision_reference_key": [layout.revision_reference_key(UNKNOWN, B)],
    "tag_reference_key": [layout.tag_reference_key(UNKNOWN, B, Tag("v1.0"))],
    "manifest_reference_key": [layout.manifest_reference_key(UNKNOWN, B, Digest("sha512", "0" * 128))],
    "revisions_prefix": [layout.revision_key(A, UNKNOWN)],
    "revision_key": [layout.revision_key(B, UNKNOWN)],
    "tags_prefix": [f"{layout.tags_prefix(B)}v1!/{EVENT}"],
    "tag_events_prefix": [f"{layout.tag_events_prefix(B, Tag('v1'))}{EVENT}"],
    "tag_history_prefix": [f"{layout.tag_history_prefix(B, Tag('v1'))}{EVENT}"],
    "tag_claim_key": [layout.tag_claim_key(B, Tag("v1"), 0)],
    "referrers_prefix": [layout.referrer_key(A, UNKNOWN, UNKNOWN)],
    "referrer_key": [layout.referrer_key(B, UNKNOWN, UNKNOWN)],
    "catalog_key": [layout.catalog_key(B)],
    "upload_prefix": [
        upload_session.session_key(PREFIX, 1, None),
        upload_session.session_key(PREFIX, 1, "sha512"),
        upload_session.chunk_key(PREFIX, 17),
        f"{PREFIX}part.{UPLOAD_ID}",
    ],
    "probe_prefix": [f"{layout.probe_prefix(1, 'abc')}created"],
    "imports_prefix": [layout.import_key(A, 1)],
    "import_key": [layout.import_key(B, 1)],
    "distribution_layer_key": [layout.distribution_layer_key(B, UNKNOWN)],
    "distribution_revision_key": [layout.distribution_revision_key(B, UNKNOWN)],
    "distribution_prefix": [layout.distribution_layer_key(A, UNKNOWN)],
    "distribution_tag_prefix": [layout.distribution_tag_key(B, Tag("v1"))],
    "distribution_tag_key": [layout.distribution_tag_key(A, Tag("v1"))],
    "distribution_tag_index_key": [layout.distribution_tag_index_key(B, Tag("v1"), UNKNOWN)],
    "histories_prefix": [],
    "subjects_prefix": [],
    "pulls_prefix": [],
    "tag_pulls_prefix": [layout.pull_key(layout.tag_pulls_prefix(A, Tag("v1")), 1)],
    "manifest_pulls_prefix": [layout.pull_key(layout.manifest_pulls_prefix(B, UNKNOWN), 1)],
    "blob_pulls_prefix": [layout.pull_key(layout.blob_pulls_prefix(A, UNKNOWN), 1)],
    "pull_key": [layout.pull_key(layout.tag_pulls_prefix(B, Tag("v1")), 1)],
    "recording_key": [layout.recording_key(1)],
    "scrub_key": [layout.scrub_key(1)],
    "suspects_prefix": [layout.suspect_key(UNKNOWN, 1, "0123abcd")],
    "suspect_key": [layout.suspect_key(UNKNOWN, 1, "0123abcd")],
    "permit_key": [layout.permit_key(UPLOAD_ID)],
    "mark_key": [layout.mark_key(UPLOAD_ID)],
    "uploads_prefix": [f"{layout.uploads_prefix('a/b')}{UPLOAD_ID[0]}/{UPLOAD_ID}.session.1.any"],
}
OUTSIDE = {"lost_and_found_key"}
"""Spelled by the layout, and not below what the registry looks at."""


def test_the_scrub_knows_every_key_of_the_layout() -> None:
    """A key that it did not know would be moved out of the way of those who need it. So whoever adds a key to the
    layout gives an example of it here, and teaches `angos.sansio.scrub.keys`."""
    spelling = {
        name
        for name, function in inspect.getmembers(layout, inspect.isfunction)
        if not name.startswith("_") and inspect.signature(function).return_annotation in ("Key", "Prefix")
    }
    assert spelling - OUTSIDE == set(SAMPLES)
    for name, keys in SAMPLES.items():
        for key in keys:
            assert recognise(key) is not None, f"{name}: {key}"
    for key in (layout.TAKING_OVER_KEY, layout.TAKEN_OVER_KEY):
        assert recognise(key) is not None, key


OF_OTHERS = [
    "v2/repositories/a/b/_layers/sha256/" + "0" * 64 + "/link",
    "v2/repositories/a/_manifests/revisions/sha256/" + "0" * 64 + "/link",
    "v2/repositories/a/_manifests/tags/v1/current/link",
    "v2/repositories/a/_manifests/tags/v1/index/sha256/" + "0" * 64 + "/link",
    f"v2/repositories/a/_uploads/{UPLOAD_ID}/data",
    f"v2/repositories/a/_uploads/{UPLOAD_ID}/startedat",
    f"v2/repositories/a/_uploads/{UPLOAD_ID}/hashstates/sha256/0",
    f"v2/repositories/a/_uploads/{UPLOAD_ID}/session.json",
    f"v2/repositories/a/_uploads/{UPLOAD_ID}/staged/0",
    f"v2/blobs/sha256/00/{'0' * 64}/index.json",
    f"v2/gc/{UPLOAD_ID}",
    "v2/ns/a!atime/tag/v1!/fffffe5df62f20f9.01234567",
    f"v2/ns/a!atime/rev/sha256/{'0' * 64}!/fffffe5df62f20f9.01234567",
]
REASONS_OF_1_6 = ["layer", "config", f"sub.sha256.{'0' * 64}", f"idx.sha256.{'0' * 64}"]


def test_what_other_registries_keep_in_the_same_place_stays(used: Scrubbable) -> None:
    """A store that was taken over in place can be given back."""
    for key in (*OF_OTHERS, *(f"{layout.references_prefix(UNKNOWN, A)}{reason}" for reason in REASONS_OF_1_6)):
        used.plant(key, b"")
    used.grow_old()
    before = used.content()
    assert used.scrub().problems == ()
    assert used.content() == before


# --- a sound store ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_sound_store_stays_as_it_is(used: Scrubbable, dry_run: bool) -> None:
    before = used.content()
    done = used.scrub(replace(SETTINGS, dry_run=dry_run))
    assert done.is_sound
    assert done.findings == ()
    assert used.content() == before
    looked_at = dict(done.objects)
    assert sum(looked_at.values()) == len(before)
    assert looked_at["blob"] == sum(name.startswith("v2/blobs/") for name in before)
    assert done.bytes_verified == sum(len(value or b"") for name, value in before.items() if "v2/blobs/" in name)


# --- what can be derived ----------------------------------------------------------------------------------------------

DERIVED: dict[str, tuple[str, str]] = {
    "layer reference": (layout.manifest_reference_key(LAYER.digest, A, IMAGE.digest), "missing-reference"),
    "revision reference": (layout.revision_reference_key(IMAGE.digest, A), "missing-reference"),
    "tag reference": (layout.tag_reference_key(IMAGE.digest, A, Tag("v1")), "missing-reference"),
    "catalogue": (layout.catalog_key(B), "missing-catalogue"),
    "referrer": (layout.referrer_key(A, IMAGE.digest, REFERRER_DIGEST), "missing-referrer"),
    "tagged revision": (layout.revision_key(A, IMAGE.digest), "missing-revision"),
}


@pytest.mark.parametrize("what", sorted(DERIVED))
def test_what_can_be_derived_is_written_again(used: Scrubbable, what: str) -> None:
    key, problem = DERIVED[what]
    before = used.content()
    used.lose(key)
    damaged = used.content()
    assert used.scrub(replace(SETTINGS, dry_run=True)).problems == ((problem, 1),)
    assert used.content() == damaged
    done = used.scrub()
    assert [(finding.key, finding.problem, finding.action) for finding in done.findings] == [(key, problem, "created")]
    assert done.is_sound
    after = used.content()
    assert after.keys() == before.keys()
    # The time of its push is lost with a revision; that of its tag is as good.
    assert {name for name in after if after[name] != before[name]} <= {key if what == "tagged revision" else ""}
    assert used.scrub().problems == ()
    assert used.status("/v2/a/manifests/v1") == 200


def test_who_owns_a_blob_is_not_derived(used: Scrubbable) -> None:
    """Otherwise a manifest that names the layer of a stranger would be a way to read it."""
    stranger = b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[%s]}' % (
        b'{"mediaType":"application/octet-stream","digest":"%s","size":%d}'
        % (str(LAYER.digest).encode(), len(LAYER.content))
    )
    used.put_manifest("stranger", "v1", stranger)
    used.grow_old()
    assert used.scrub().problems == ()
    assert used.status(f"/v2/stranger/blobs/{LAYER.digest}") == 404


def test_a_revision_that_the_namespace_never_had_is_not_derived(used: Scrubbable) -> None:
    """Likewise a forged tag is no way to read the manifest of a stranger."""
    used.plant(f"{layout.tag_events_prefix(Namespace('stranger'), Tag('v1'))}{replace_digest(IMAGE.digest)}", b"")
    used.grow_old()
    done = used.scrub()
    assert ("missing-revision", "kept") in [(finding.problem, finding.action) for finding in done.findings]
    assert used.status(f"/v2/stranger/manifests/{IMAGE.digest}") == 404


def replace_digest(digest: Digest) -> str:
    return str(layout.TagEvent(1000, "set", digest))


# --- what is wrong ----------------------------------------------------------------------------------------------------

STRAYS = [
    "v2/stray",
    "v2/strays/deep/inside",
    "v2/blobs/sha256/ab/" + "0" * 64 + "/data",
    "v2/blobs/md5/00/00/data",
    "v2/blobs/stray",
    "v2/ref/sha256/00/" + "0" * 64 + "/UPPER!own",
    "v2/ref/sha256/00/" + "0" * 64 + "/a!r/stray",
    "v2/ns/stray",
    "v2/ns/a!rev/stray",
    "v2/ns/a!tag/v1!/stray",
    "v2/ns/a!tag/-bad!/" + replace_digest(UNKNOWN),
    "v2/ns/a!hist/v1/stray",
    "v2/ns/a!claim/v1!/stray",
    "v2/ns/a!sub/sha256/stray",
    "v2/ns/a!stray/x",
    "v2/cat/UPPER!",
    "v2/cat/a",
    "v2/import/a!/stray",
    "v2/probe/stray",
    "v2/scrub/stray",
    "v2/gc/stray",
    "v2/repositories/a/stray",
    f"v2/repositories/a/_uploads/5/{UPLOAD_ID}.stray",
]


@pytest.mark.parametrize("key", STRAYS)
@pytest.mark.parametrize("value", [b"", b"\xff stray"], ids=["empty", "full"])
def test_unknown_keys_are_moved_aside(used: Scrubbable, key: str, value: bytes) -> None:
    before = used.content()
    used.plant(key, value)
    young = used.scrub()
    assert [(finding.key, finding.action) for finding in young.findings] == [(key, "postponed")]
    assert not young.is_sound
    used.grow_old()
    done = used.scrub()
    assert [(finding.key, finding.problem, finding.action) for finding in done.findings] == [
        (key, "unknown-key", "quarantined")
    ]
    assert done.is_sound
    assert used.content() == {**before, f"_lost_and_found/{key}": value}


WRONG_BYTES = [b"", b"{}", b"\0" * 500, LAYER.content[:-1], LAYER.content + b"x"]


@pytest.mark.parametrize("wrong", WRONG_BYTES, ids=len)
def test_wrong_bytes_of_a_layer_are_moved_aside_and_can_be_pushed_again(used: Scrubbable, wrong: bytes) -> None:
    before = used.content()
    key = layout.blob_key(LAYER.digest)
    used.plant(key, wrong)
    used.grow_old()
    done = used.scrub()
    assert [(finding.problem, finding.action) for finding in done.findings if finding.key == key] == [
        ("corrupt", "quarantined"),
        ("missing-bytes", "kept"),
    ]
    assert not done.is_sound
    assert used.content() == {name: value for name, value in before.items() if name != key} | {
        f"_lost_and_found/{key}": wrong
    }
    assert used.status(f"/v2/a/blobs/{LAYER.digest}") == 404
    used.push(0, "a", "v1")
    assert used.scrub().is_sound
    assert used.registry.send("GET", f"/v2/a/blobs/{LAYER.digest}").body == LAYER.content


@pytest.mark.parametrize("wrong", [b"", b"{}", IMAGE.content[:-1]], ids=len)
def test_wrong_bytes_of_a_manifest_are_noticed_without_reading_layers(used: Scrubbable, wrong: bytes) -> None:
    key = layout.blob_key(IMAGE.digest)
    used.plant(key, wrong)
    used.grow_old()
    done = used.scrub(replace(SETTINGS, verify_bytes=False))
    assert done.bytes_verified == 0
    assert ("corrupt", "quarantined") in [(finding.problem, finding.action) for finding in done.findings]
    assert used.content()[f"_lost_and_found/{key}"] == wrong
    assert used.status("/v2/a/manifests/v1") == 404
    used.push(0, "a", "v1")
    assert used.status("/v2/a/manifests/v1") == 200
    assert used.scrub().is_sound


def test_a_second_one_of_a_kind_gets_a_place_of_its_own(used: Scrubbable) -> None:
    key = layout.blob_key(LAYER.digest)
    for wrong in (b"one", b"two", b"one"):
        used.plant(key, wrong)
        used.grow_old()
        used.scrub()
    lost = {name: value for name, value in used.content().items() if name.startswith("_lost_and_found/")}
    assert lost == {f"_lost_and_found/{key}": b"one", f"_lost_and_found/{key}~2": b"two"}


def test_a_damaged_referrer_is_written_anew(used: Scrubbable) -> None:
    key = layout.referrer_key(A, IMAGE.digest, REFERRER_DIGEST)
    before = used.content()
    used.plant(key, b"{")
    used.grow_old()
    done = used.scrub()
    assert [(finding.problem, finding.action) for finding in done.findings] == [
        ("corrupt", "quarantined"),
        ("missing-referrer", "created"),
    ]
    assert used.content() == {**before, f"_lost_and_found/{key}": b"{"}


def test_a_referrer_whose_manifest_is_gone_is_moved_aside(used: Scrubbable) -> None:
    key = layout.referrer_key(A, IMAGE.digest, UNKNOWN)
    used.plant(key, b'{"mediaType":"a/b","digest":"%s","size":1}' % str(UNKNOWN).encode())
    used.grow_old()
    assert [(finding.key, finding.problem) for finding in used.scrub().findings] == [(key, "orphan-referrer")]


KEPT = {
    layout.revision_key(A, IMAGE.digest): b"",
    f"{layout.tag_events_prefix(A, Tag('v9'))}{layout.TagEvent(5, 'del', IMAGE.digest)}": b"\xff",
    layout.import_key(A, 1): b"[",
}


@pytest.mark.parametrize("key", sorted(KEPT))
def test_damaged_records_whose_presence_counts_stay_and_are_told(used: Scrubbable, key: str) -> None:
    used.plant(key, KEPT[key])
    used.grow_old()
    before = used.content()
    done = used.scrub()
    assert [(finding.key, finding.problem, finding.action) for finding in done.findings] == [
        (key, "damaged-record", "kept")
    ]
    assert used.content() == before


@pytest.mark.parametrize("value", [b"", b"\xff", b"{}", b'{"part":"p"}'])
def test_a_chunk_that_says_nothing_is_moved_aside(used: Scrubbable, value: bytes) -> None:
    key = upload_session.chunk_key(PREFIX, 0)
    used.plant(upload_session.session_key(PREFIX, 1, None), b"")
    used.plant(key, value)
    used.grow_old()
    assert [(finding.key, finding.action) for finding in used.scrub().findings] == [(key, "quarantined")]
    assert used.status(f"/v2/a/blobs/uploads/{UPLOAD_ID}") == 204


def test_a_claim_that_names_no_event_is_moved_aside(used: Scrubbable) -> None:
    key = layout.tag_claim_key(A, Tag("fixed"), 0)
    used.plant(key, b"\xff")
    used.grow_old()
    assert [(finding.key, finding.action) for finding in used.scrub().findings] == [(key, "quarantined")]


# --- failures, interruptions, company ---------------------------------------------------------------------------------


def damaged(scenario: Scenario | None = None) -> Scrubbable:
    """Something of everything."""
    store = Scrubbable(scenario)
    for key, _ in DERIVED.values():
        store.lose(key)
    store.plant(layout.blob_key(LAYER.digest), b"wrong")
    store.plant(layout.referrer_key(A, IMAGE.digest, UNKNOWN), b"")
    for key in STRAYS[1::4]:
        store.plant(key, b"stray")
    for key, value in list(KEPT.items())[1:]:
        store.plant(key, value)
    store.grow_old()
    return store


@pytest.mark.filterwarnings("ignore:coroutine")  # what is killed had begun several, and waits for none of them
def test_killed_at_any_effect_and_run_again_it_ends_in_the_same_place() -> None:
    whole = damaged()
    whole.scrub()
    wanted = whole.content()
    findings = {finding.key for finding in whole.scrub().findings}
    resumed = 0
    for survived in range(10_000):
        store = damaged()
        before = store.content()
        if not _killed_after(store, survived):
            assert survived > 200
            assert resumed > 100
            gc.collect()
            return
        _check_nothing_is_lost(before, store.content())
        done = store.scrub()
        resumed += done.resumed
        assert store.content() == wanted
        assert {finding.key for finding in store.scrub().findings} == findings
    raise AssertionError("the scrub does not end")


def _check_nothing_is_lost(before: dict[str, bytes | None], after: dict[str, bytes | None]) -> None:
    for name, value in before.items():
        assert value in (after.get(name), after.get(f"_lost_and_found/{name}")), name


@pytest.mark.filterwarnings("ignore:coroutine")
def test_the_power_is_cut_in_the_middle_and_nothing_is_lost() -> None:
    """On a disk that forgets what was not synced: a copy is there for good before its original goes."""
    disk = Scenario(store="disk")
    whole = damaged(disk)
    whole.scrub()
    wanted = whole.content()
    at = 0
    while True:
        store = damaged(disk)
        before = store.content()
        if not _killed_after(store, at):
            assert at > 200
            gc.collect()
            return
        store.registry.world.store.cut_power(Seeded(at))
        _check_nothing_is_lost(before, store.content())
        store.scrub()
        store.scrub()  # wrong bytes that came back lie where the first of them had been already
        assert store.content() == wanted
        at += 7


class _Killed(BaseException):
    pass


def _killed_after(store: Scrubbable, count: int) -> bool:
    """Perform `count` effects of a scrub and drop it. False when it was done before."""
    left = count

    def counting(effect: Effect[Any]) -> None:
        nonlocal left
        if left == 0:
            raise _Killed
        left -= 1

    try:
        _scrub_watched(store, counting)
    except _Killed:
        return True
    return False


def _scrub_watched(store: Scrubbable, watch: Callable[[Effect[Any]], None], settings: Settings = SETTINGS) -> Scrubbed:
    perform = store.registry.perform

    def watched(effect: Effect[Any]) -> Any:
        watch(effect)
        return perform(effect)

    store.registry.perform = watched  # type: ignore[method-assign]
    try:
        return store.scrub(settings)
    finally:
        store.registry.perform = perform  # type: ignore[method-assign]


@pytest.mark.filterwarnings("ignore:coroutine")  # of several side by side, the simulator begins none after a failure
def test_what_could_not_be_read_is_neither_absent_nor_corrupt() -> None:
    """Fail each effect in turn: a sound store stays as it is, and a damaged one ends where it does without failures."""
    whole = damaged()
    whole.scrub()
    wanted = whole.content()
    at = 0
    while True:
        sound, store = Scrubbable(), damaged()
        before, before_damaged = sound.content(), store.content()
        kind = (StorageUnavailable, StorageRefused)[at % 2]
        if not _failing_at(sound, at, kind) + _failing_at(store, at, kind):
            assert at > 200
            gc.collect()
            return
        left = {name: value for name, value in sound.content().items() if not name.startswith("v2/scrub/")}
        assert left == before
        _check_nothing_is_lost(before_damaged, store.content())
        store.scrub()
        assert store.content() == wanted
        at += 1


def _failing_at(store: Scrubbable, at: int, kind: type[Exception]) -> bool:
    """Scrub with one effect that fails. False when there are not so many."""
    count = 0

    def failing(effect: Effect[Any]) -> None:
        nonlocal count
        count += 1
        if count == at + 1 and not isinstance(effect, CANNOT_FAIL):
            raise kind("no answer")

    with contextlib.suppress(kind):
        _scrub_watched(store, failing)
    return count > at


def test_what_stays_unreadable_is_told_and_left_alone(used: Scrubbable) -> None:
    bad = layout.blob_key(IMAGE.digest)

    def failing(effect: Effect[Any]) -> None:
        if isinstance(effect, (ReadKey, StatKey)) and effect.key == bad:
            raise StorageUnavailable("no answer")

    before = used.content()
    done = _scrub_watched(used, failing)
    assert {finding.problem for finding in done.findings} == {"unreadable"}
    assert not done.is_sound
    assert used.content() == before


def _requests(used: Scrubbable) -> list[Callable[[], Any]]:
    send = used.registry.send
    return [
        lambda: used.push(0, "a", "v1"),
        lambda: used.push(2, "new", "v3"),
        lambda: send("DELETE", f"/v2/a/manifests/{IMAGE.digest}"),
        lambda: send("DELETE", f"/v2/a/manifests/{REFERRER_DIGEST}"),
        lambda: send("DELETE", "/v2/a/b/manifests/v2"),
    ]


@pytest.mark.parametrize("index", range(5))
def test_requests_between_any_two_effects_of_a_scrub_keep_what_they_were_promised(index: int) -> None:
    at = 0
    while True:
        used = Scrubbable()
        for name in ("layer reference", "referrer", "catalogue"):
            used.lose(DERIVED[name][0])
        if not _scrub_with(used, _requests(used)[index], at):
            assert at > 50
            return
        gone = index == 2
        assert used.status("/v2/a/manifests/v1") == (404 if gone else 200)
        assert used.status(f"/v2/a/manifests/{IMAGE.digest}") == (404 if gone else 200)
        assert used.status("/v2/a/b/manifests/v2") == (404 if index == 4 else 200)
        listed = json.loads(used.registry.send("GET", f"/v2/a/referrers/{IMAGE.digest}").body)["manifests"]
        assert len(listed) == (0 if index == 3 else 1)
        if index == 1:
            assert used.status("/v2/new/manifests/v3") == 200
        used.grow_old()
        used.scrub()
        assert used.scrub().problems == ()
        at += 1


def _scrub_with(
    store: Scrubbable, request: Callable[[], Any], at: int, settings: Settings = SETTINGS_OF_SERVERS
) -> bool:
    """Scrub, and have something else happen before one of its effects. False when there are not so many."""
    count = 0
    perform = store.registry.perform

    def interfering(effect: Effect[Any]) -> None:
        nonlocal count
        count += 1
        if count == at + 1:
            watched, store.registry.perform = store.registry.perform, perform  # type: ignore[method-assign]
            request()
            store.registry.perform = watched  # type: ignore[method-assign]

    _scrub_watched(store, interfering, settings)
    return count > at


def _with_wrong_bytes() -> Scrubbable:
    store = Scrubbable()
    store.plant(layout.blob_key(LAYER.digest), b"wrong")
    store.grow_old()
    return store


def _push_layer(store: Scrubbable) -> int:
    return store.registry.send("POST", f"/v2/a/blobs/uploads/?digest={LAYER.digest}", body=LAYER.content).status


def test_right_bytes_that_are_pushed_while_wrong_ones_are_moved_aside_stay() -> None:
    """Between any two effects of the scrub. Who would have to wait for it is told so, and has been promised nothing."""
    at, told = 0, list[int]()
    while True:
        store = _with_wrong_bytes()
        if not _scrub_with(store, partial(_note_push, store, told), at, Settings(verify_bytes=True)):
            assert set(told) == {201, 503}
            return
        if told[-1] == 503:
            assert _push_layer(store) == 201
        assert store.registry.send("GET", f"/v2/a/blobs/{LAYER.digest}").body == LAYER.content
        at += 1


def _note_push(store: Scrubbable, told: list[int]) -> None:
    told.append(_push_layer(store))


def test_a_scrub_between_any_two_effects_of_a_push_takes_nothing_of_it() -> None:
    at = 0
    while True:
        store = _with_wrong_bytes()
        perform, count = store.registry.perform, 0

        def scrubbing(effect: Effect[Any], store: Scrubbable = store, at: int = at, perform: Any = perform) -> Any:
            nonlocal count
            count += 1
            if count == at + 1:
                store.registry.perform = perform  # type: ignore[method-assign]
                store.scrub(Settings(verify_bytes=True))
            return perform(effect)

        store.registry.perform = scrubbing  # type: ignore[method-assign]
        assert _push_layer(store) == 201
        store.registry.perform = perform  # type: ignore[method-assign]
        if count <= at:
            assert at > 5
            return
        assert store.registry.send("GET", f"/v2/a/blobs/{LAYER.digest}").body == LAYER.content
        at += 1


def test_a_second_scrub_is_refused_while_one_is_at_work_and_may_look() -> None:
    store = damaged()
    before = store.content()
    perform = store.registry.perform

    def refusing(effect: Effect[Any]) -> Any:
        return None if isinstance(effect, AcquireLease) else perform(effect)

    store.registry.perform = refusing  # type: ignore[method-assign]
    done = store.scrub()
    assert done.refused
    assert not done.is_sound
    assert store.scrub(replace(SETTINGS, dry_run=True)).problems
    assert store.content() == before


@pytest.mark.parametrize("first", [0, 1])
def test_two_scrubs_at_once_end_where_one_ends(first: int) -> None:
    """A lease may be lost, and processes without a Redis have none together: one runs between two effects of the other,
    wherever that is."""
    alone = damaged()
    alone.scrub()
    wanted = alone.content()
    at = first
    while True:
        store = damaged()
        before = store.content()
        if not _scrub_with(store, store.scrub, at, SETTINGS):
            assert at > 200
            return
        _check_nothing_is_lost(before, store.content())
        store.scrub()
        assert store.content() == wanted
        at += 14


@pytest.mark.filterwarnings("ignore:coroutine")
def test_records_of_how_far_it_has_come_are_no_use_for_another_kind_of_run() -> None:
    store = damaged()
    assert _killed_after(store, 200)
    gc.collect()
    assert any(name.startswith("v2/scrub/") for name in store.content())
    assert not store.scrub(replace(SETTINGS, verify_bytes=False)).resumed
    assert not any(name.startswith("v2/scrub/") for name in store.content())


@pytest.mark.parametrize("value", [b"", b"{", b"[]", b'{"format":1}', b'{"format":2}'])
def test_a_damaged_record_of_how_far_it_has_come_means_to_begin_anew(used: Scrubbable, value: bytes) -> None:
    before = used.content()
    used.plant(layout.scrub_key(used.registry.world.clock.now_ms), value)
    done = used.scrub()
    assert not done.resumed
    assert done.is_sound
    assert used.content() == before


def test_prefixes_are_only_listed_below_what_belongs_to_the_registry(used: Scrubbable) -> None:
    used.plant("somebody/elses", b"")
    used.grow_old()
    assert used.scrub().is_sound
    assert "somebody/elses" in used.content()
    assert Prefix("v2/") == layout.ROOT_PREFIX


@pytest.mark.parametrize(
    "key",
    [
        layout.revision_key(A, IMAGE.digest),
        layout.referrer_key(A, IMAGE.digest, REFERRER_DIGEST),
        Key(f"{layout.tag_history_prefix(A, Tag('v1'))}{layout.TagEvent(5, 'set', IMAGE.digest)}"),
        layout.import_key(A, 5),
        layout.scrub_key(5),
        layout.tag_claim_key(A, Tag("v1"), 5),
    ],
)
def test_a_value_that_is_nested_too_deeply_is_damaged_and_ends_no_run(key: Key) -> None:
    """A thousand brackets in one record ended each scrub with a traceback, and nothing else was looked at."""
    world = Scrubbable()
    world.plant(key, b"[" * 100_000)
    world.plant("v2/unknown", b"")
    world.grow_old()
    done = world.scrub(replace(SETTINGS, dry_run=True))
    assert "v2/unknown" in [finding.key for finding in done.findings]
    assert world.status("/v2/a/manifests/v1") == 200
    assert world.status(f"/v2/a/referrers/{IMAGE.digest}") == 200


@pytest.mark.parametrize(
    "wrong", [{"stage": -1}, {"findings": [{"key": 1}]}, {"findings": [1]}, {"objects": {"blob": "x"}}]
)
def test_a_record_of_an_interrupted_run_that_is_damaged_is_not_believed(wrong: dict[str, Any]) -> None:
    """One with a number where a key belongs ended each further run, for a week."""
    world = Scrubbable()
    record = {"format": 1, "verify_bytes": True, "stage": 0, "after": "", "objects": {}, "bytes_verified": 0}
    record |= {"findings": [], "problems": {}, "actions": {}}
    now_ms = world.registry.world.clock.now_ms
    world.plant(layout.scrub_key(now_ms), json.dumps(record | wrong).encode())
    assert not world.scrub().resumed


def test_a_head_of_a_blob_looks_afresh() -> None:
    """It comes before a push that relies on it. A replica that remembered for a minute what a scrub had moved away let
    clients push images without that layer."""
    registry = Scrubbable().registry
    for method, lately in (("GET", True), ("HEAD", False)):
        registry.effects.clear()
        assert registry.send(method, f"/v2/a/blobs/{LAYER.digest}").status == 200
        looks = [effect for effect in registry.effects if effect == StatKey(layout.blob_key(LAYER.digest))]
        assert [look.lately for look in looks if isinstance(look, StatKey)] == [lately]
