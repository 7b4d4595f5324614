"""Take-over of what CNCF distribution stores: what is taken, what is not, and what a crash leaves."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from angos.sansio.effects import CreateKeys, Effect, Key, ListKeys, ReadKey, StatKey, StorageUnavailable
from angos.sansio.layout import blob_key
from angos.sansio.oci.digest import Digest
from angos.simulator.world.images import blob, image
from tests.property.old_store import REFERRER, SCHEMA_1, OldStore, killed_after

Perform = Callable[[Effect[Any]], Any]


@pytest.fixture
def old() -> OldStore:
    filled = OldStore()
    filled.push(0, "a", "v1")
    filled.push(1, "a/b", "v2")
    filled.push(1, "a")
    return filled


def test_images_are_served_under_their_digests_and_no_blob_is_written(old: OldStore) -> None:
    before = {name for name in old.names() if name.startswith("v2/blobs/")}
    done = old.take()
    assert (done.namespaces, done.manifests, done.tags, done.untaken) == (2, 3, 2, ())
    assert done.created == done.layers + done.manifests + done.tags
    assert old.digest("a", "v1") == str(image(0).digest)
    assert old.digest("a/b", "v2") == str(image(1).digest)
    assert old.digest("a/b", "v1") is None
    for needed in image(1).blobs:
        assert old.registry.send("GET", f"/v2/a/b/blobs/{blob(needed).digest}").status == 200
    assert json.loads(old.registry.send("GET", "/v2/_catalog").body)["repositories"] == ["a", "a/b"]
    assert {name for name in old.names() if name.startswith("v2/blobs/")} == before


def test_running_again_changes_nothing(old: OldStore) -> None:
    old.take()
    before = old.names()
    again = old.take()
    assert (again.created, again.manifests, again.tags) == (0, 3, 2)
    assert old.names() == before


def test_what_was_deleted_or_moved_here_since_stays_so(old: OldStore) -> None:
    old.take()
    old.registry.world.clock.now_ms += 1000
    assert old.registry.send("DELETE", "/v2/a/manifests/v1").status == 202
    assert old.registry.send("DELETE", f"/v2/a/b/manifests/{image(1).digest}").status == 202
    assert old.registry.send("DELETE", f"/v2/a/b/blobs/{blob(image(1).blobs[0]).digest}").status == 202
    done = old.take()
    assert (done.created, done.deleted_here, done.newer_here) == (0, 2, 2)
    assert old.digest("a", "v1") is None
    assert old.digest("a/b", "v2") is None
    assert old.registry.send("GET", f"/v2/a/b/blobs/{blob(image(1).blobs[0]).digest}").status == 404


def test_referrers_are_found(old: OldStore) -> None:
    """Distribution has no list of them."""
    old.push_manifest(REFERRER, "a")
    old.take()
    answer = old.registry.send("GET", f"/v2/a/referrers/{image(0).digest}")
    assert [found["artifactType"] for found in json.loads(answer.body)["manifests"]] == ["a/b"]


def test_what_the_old_registry_took_since_is_added(old: OldStore) -> None:
    old.take()
    old.push(2, "a", "v3")
    assert old.take().untaken == ()
    assert old.digest("a", "v3") == str(image(2).digest)


@pytest.mark.parametrize("export_first", [False, True])
def test_what_the_old_registry_took_in_the_second_of_the_newest_link_is_added(
    old: OldStore, *, export_first: bool
) -> None:
    """A bucket dates by whole seconds. It was left out as deleted here, as it is no younger than what was seen."""
    old.write("v2/repositories/a/_manifests/tags/v9/current/link", str(image(0).digest).encode())
    old.take()
    if export_first:
        old.give_back()
    with old.in_the_second_of("v2/repositories/a/_manifests/tags/v9/current/link"):
        old.push(2, "a", "v3")
    done = old.take()
    assert (done.deleted_here, done.untaken) == (0, ())
    assert done.created == len({*image(2).blobs} - {*image(0).blobs, *image(1).blobs}) + 2
    assert old.digest("a", "v3") == str(image(2).digest)
    assert old.take().created == 0


def test_what_the_old_registry_takes_while_an_import_goes_on_is_added_by_the_next() -> None:
    """Wherever the run is when it comes, and although its tag may be seen and date it."""
    for before in range(10_000):
        old = OldStore()
        old.push(0, "a", "v1")
        perform = old.registry.perform
        left = before

        def pushing(effect: Effect[Any], old: OldStore = old, perform: Perform = perform) -> Any:
            nonlocal left
            left -= 1
            if left == -1:
                old.push(2, "a", "v3")
            if isinstance(effect, ListKeys):  # in small pages, so that it comes between them
                effect = replace(effect, limit=min(effect.limit, 2))
            return perform(effect)

        old.registry.perform = pushing  # type: ignore[method-assign]
        old.take()
        old.registry.perform = perform  # type: ignore[method-assign]
        if left >= 0:
            assert before > 20
            return
        done = old.take()
        assert (done.deleted_here, done.untaken) == (0, ())
        assert old.digest("a", "v3") == str(image(2).digest)
        for needed in image(2).blobs:
            assert old.registry.send("GET", f"/v2/a/blobs/{blob(needed).digest}").status == 200
    raise AssertionError("the import does not end")


@pytest.mark.parametrize(
    ("what", "value", "problem"),
    [
        ("_manifests/tags/bad/current", b"", "zero-bytes"),
        ("_manifests/tags/bad/current", b"sha256:12", "corrupt"),
        ("_manifests/tags/bad/current", b"\xff" * 2000, "corrupt"),
        ("_manifests/tags/-bad/current", str(image(0).digest).encode(), "invalid-name"),
        ("_manifests/tags/bad/current", b"sha256:" + b"0" * 64, "broken-link"),
        ("_layers/sha256/" + "0" * 64, b"", "broken-link"),
        ("_layers/md5/00", b"", "invalid-name"),
        ("_manifests/revisions/sha256/" + "0" * 64, b"", "broken-link"),
    ],
)
def test_what_cannot_be_taken_is_named_and_costs_nothing_but_itself(
    old: OldStore, what: str, value: bytes, problem: str
) -> None:
    """Link files that are empty after a crash stopped the garbage collection of distribution for good."""
    old.write(f"v2/repositories/a/{what}/link", value)
    done = old.take()
    assert [(untaken.key, untaken.problem) for untaken in done.untaken] == [(f"v2/repositories/a/{what}/link", problem)]
    assert (done.manifests, done.tags) == (3, 2)


@pytest.mark.parametrize(
    ("content", "problem"),
    [(SCHEMA_1, "schema-1"), (b"{", "invalid-manifest"), (b"[]", "invalid-manifest"), (b"x" * (5 << 20), "too-large")],
)
def test_manifests_that_cannot_be_served_are_named(old: OldStore, content: bytes, problem: str) -> None:
    digest = Digest.of(content, "sha256")
    old.write(blob_key(digest), content)
    old.link("a", f"_manifests/revisions/sha256/{digest.hex}", digest)
    old.link("a", "_manifests/tags/old/current", digest)
    assert [untaken.problem for untaken in old.take().untaken] == [problem, "broken-link"]
    assert old.digest("a", "old") is None


def test_a_manifest_of_no_bytes_is_named(old: OldStore) -> None:
    old.write("v2/blobs/sha256/00/" + "0" * 64 + "/data", b"")
    old.write("v2/repositories/a/_layers/sha256/" + "0" * 64 + "/link", b"")
    assert [untaken.problem for untaken in old.take().untaken] == ["zero-bytes"]


def test_repositories_with_impossible_names_are_named(old: OldStore) -> None:
    old.link("A!", "_manifests/tags/v1/current", image(0).digest)
    assert [untaken.problem for untaken in old.take().untaken] == ["invalid-name"]


def test_what_could_not_be_taken_is_tried_again(old: OldStore) -> None:
    """Bytes that a backup brings back are taken by the next run, although the link is as old as it was."""
    missing = image(2)
    old.link("a", f"_manifests/revisions/sha256/{missing.digest.hex}", missing.digest)
    assert len(old.take().untaken) == 1
    old.write(blob_key(missing.digest), missing.content)
    assert old.take().untaken == ()
    assert old.digest("a", str(missing.digest)) == str(missing.digest)


def test_an_outage_is_told_and_is_no_absence(old: OldStore) -> None:
    perform = old.registry.perform

    def failing(effect: Effect[Any]) -> Any:
        if isinstance(effect, (ReadKey, StatKey)) and effect.key == blob_key(image(0).digest):
            raise StorageUnavailable("no answer")
        return perform(effect)

    old.registry.perform = failing  # type: ignore[method-assign]
    assert [untaken.problem for untaken in old.take().untaken] == ["unreadable", "broken-link"]
    old.registry.perform = perform  # type: ignore[method-assign]
    assert old.take().untaken == ()
    assert old.digest("a", "v1") == str(image(0).digest)


def test_killed_at_any_effect_and_run_again_it_ends_in_the_same_place() -> None:
    """And at every moment, what can be found leads somewhere."""

    def filled() -> OldStore:
        store = OldStore()
        store.push(0, "a", "v1")
        store.push(1, "a/b", "v2")
        store.push_manifest(REFERRER, "a")
        return store

    whole = filled()
    whole.take()
    wanted = whole.names()
    for survived in range(10_000):
        store = filled()
        if not killed_after(store.registry, store.take, survived):
            assert survived > 50
            return
        for namespace, tag in (("a", "v1"), ("a/b", "v2")):
            listed = store.registry.send("GET", f"/v2/{namespace}/tags/list")
            if listed.status == 200 and tag in json.loads(listed.body)["tags"]:
                assert store.digest(namespace, tag) is not None
        store.take()
        assert store.names() == wanted
    raise AssertionError("the import does not end")


def test_what_a_killed_collector_leaves_does_not_keep_an_import_from_beginning(old: OldStore) -> None:
    """It waited for the mark to go, in vain, and forbade collectors, who alone took it away, to run."""
    mark, permit = "v2/collector/mark/00000000-0000-4000-8000-000000000000", "v2/collector/permit/1"
    for key in (mark, permit):
        old.registry.world.store.apply(CreateKeys(((Key(key), b'["sha256:..."]'),)), "somebody killed")
    assert old.take().tags
    assert not old.registry.world.store.names("v2/collector/")
