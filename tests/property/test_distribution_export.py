"""The way back to CNCF distribution: what it serves afterwards, what stays as it is, and what a crash leaves."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Literal

import pytest

from angos.sansio import layout
from angos.sansio.collection.collector import collect
from angos.sansio.config import RegistryConfig
from angos.sansio.effects import CreateKeys, DeleteKeys, Effect, Key, StatKey, StatKeys, StorageUnavailable
from angos.sansio.layout import blob_key
from angos.sansio.oci.digest import Digest
from angos.sansio.oci.reference import Namespace, Tag
from angos.sansio.operation import Operation
from angos.simulator.choices import Exhaustive
from angos.simulator.world.directory import DirectoryWorld
from angos.simulator.world.images import blob, image
from tests.property.old_store import SCHEMA_1, OldStore, killed_after


@pytest.fixture
def old() -> OldStore:
    filled = OldStore()
    filled.push(0, "a", "v1")
    filled.push(1, "a", "v2")
    filled.push(1, "a/b", "v1")
    filled.take()
    return filled


TAGS = "v2/repositories/a/_manifests/tags"


def tag_link(tag: str) -> str:
    return f"v2/repositories/a/_manifests/tags/{tag}/current/link"


def test_distribution_serves_what_was_pushed_here(old: OldStore) -> None:
    old.push_here(3, "a", "multi")
    old.push_here(0, "new/name", "latest")
    done = old.give_back()
    assert (done.namespaces, done.tags, done.removed, done.unexported) == (3, 5, 0, ())
    assert old.old_tags() == {
        "a:v1": str(image(0).digest),
        "a:v2": str(image(1).digest),
        "a:multi": str(image(3).digest),
        "a/b:v1": str(image(1).digest),
        "new/name:latest": str(image(0).digest),
    }
    for needed in image(0).blobs:
        digest = blob(needed).digest
        assert old.links()[f"v2/repositories/new/name/_layers/sha256/{digest.hex}/link"] == str(digest)


def test_a_repository_that_the_catalogue_has_lost_is_exported_all_the_same(old: OldStore) -> None:
    """Of such a one only the layers were linked, and the export said that all was well: the garbage collection of the
    old registry would have removed its images."""
    old.push_here(0, "new/name", "latest")
    old.registry.world.store.apply(DeleteKeys((layout.catalog_key(Namespace("new/name")),)), "somebody")
    done = old.give_back()
    assert (done.namespaces, done.tags, done.unexported) == (3, 4, ())
    assert old.old_tags()["new/name:latest"] == str(image(0).digest)


def test_a_link_that_cannot_be_written_costs_only_itself(old: OldStore) -> None:
    """Links are written many at a time."""
    old.push_here(0, "new/name", "latest")
    wrong = layout.distribution_layer_key(Namespace("new/name"), blob(image(0).blobs[0]).digest)
    perform = old.registry.perform

    def refuse(effect: Effect[Any]) -> Any:
        if isinstance(effect, CreateKeys) and wrong in dict(effect.entries):
            raise StorageUnavailable("a folder is in the way")
        return perform(effect)

    old.registry.perform = refuse  # type: ignore[method-assign]
    done = old.give_back()
    assert [each.problem for each in done.unexported] == ["unreadable"]
    assert old.old_tags()["new/name:latest"] == str(image(0).digest)
    assert wrong not in old.links()
    assert sum("new/name/_layers" in name for name in old.links()) == len(image(0).blobs) - 1


def test_links_of_what_was_deleted_here_go(old: OldStore) -> None:
    old.ask(202, "DELETE", "/v2/a/manifests/v1")
    old.ask(202, "DELETE", f"/v2/a/manifests/{image(1).digest}")
    gone = blob(image(1).blobs[1]).digest
    old.ask(202, "DELETE", f"/v2/a/blobs/{gone}")
    assert old.give_back().removed == 4
    assert old.old_tags() == {"a/b:v1": str(image(1).digest)}
    left = [name for name in old.links() if name.startswith("v2/repositories/a/_")]
    assert not any(image(1).digest.hex in name or gone.hex in name or "/tags/" in name for name in left)
    assert any(image(0).digest.hex in name for name in left)  # only its tag was deleted


def test_a_tag_that_was_moved_here_moves_there(old: OldStore) -> None:
    old.push_here(1, "a", "v1")
    assert old.give_back().unexported == ()
    assert old.old_tags()["a:v1"] == str(image(1).digest)


def test_running_again_changes_nothing(old: OldStore) -> None:
    old.push_here(2, "a", "v3")
    old.ask(202, "DELETE", "/v2/a/manifests/v2")
    old.give_back()
    before = old.names()
    again = old.give_back()
    assert (again.written, again.removed) == (0, 0)
    assert old.names() == before


def test_what_the_old_registry_took_since_stays_there_and_is_named(old: OldStore) -> None:
    """Neither is deleted there what is unknown here, nor does an older push here win over a newer one there."""
    old.push_here(2, "a", "v1")
    old.push(4, "a", "v4")
    old.write(tag_link("v9"), str(image(0).digest).encode())
    old.registry.run(Operation(_delete(Key(tag_link("v1")))))
    old.write(tag_link("v1"), str(image(1).digest).encode())
    links = old.links()
    done = old.give_back()
    assert {left.problem for left in done.unexported} == {"not-imported", "newer-there"}
    assert {name: value for name, value in old.links().items() if name in links} == links
    assert old.take().untaken == ()
    assert old.digest("a", "v4") == str(image(4).digest)
    assert old.digest("a", "v1") == str(image(1).digest)
    assert old.give_back().unexported == ()


async def _delete(key: Key) -> None:
    await DeleteKeys((key,))


def test_an_import_after_an_export_brings_nothing_back_that_was_deleted(old: OldStore) -> None:
    old.push_here(2, "a", "v3")
    old.give_back()
    old.ask(202, "DELETE", "/v2/a/manifests/v3")
    old.ask(202, "DELETE", f"/v2/a/manifests/{image(2).digest}")
    done = old.take()
    assert (done.created, done.deleted_here, done.newer_here) == (0, 1, 1)
    assert old.digest("a", "v3") is None
    assert old.give_back().removed == 2
    assert "a:v3" not in old.old_tags()


def test_what_an_export_removed_and_the_old_registry_took_again_at_once_is_added(old: OldStore) -> None:
    """In the same second: it is not what was deleted here."""
    link = f"v2/repositories/a/b/_manifests/revisions/sha256/{image(1).digest.hex}/link"
    old.ask(202, "DELETE", f"/v2/a/b/manifests/{image(1).digest}")
    with old.in_the_second_of(link):
        assert old.give_back().removed == 2
        assert link not in old.links()
        old.push_manifest(image(1).content, "a/b")
    assert old.take().deleted_here == 0
    assert old.digest("a/b", str(image(1).digest)) == str(image(1).digest)


def test_nothing_is_collected_between_an_export_and_the_next_import(old: OldStore) -> None:
    """What the old registry stores meanwhile has no name here."""

    def refusal() -> str:
        return old.registry.run(Operation(collect(RegistryConfig()))).refused

    assert refusal() == ""
    old.give_back()
    assert "angos import" in refusal()
    old.push(4, "a", "v4")
    old.take()
    assert refusal() == ""


def test_what_an_import_could_not_take_stays_there(old: OldStore) -> None:
    digest = Digest.of(SCHEMA_1, "sha256")
    old.push_manifest(SCHEMA_1, "a")
    old.link("a", "_manifests/tags/ancient/current", digest)
    old.take()
    assert [left.problem for left in old.give_back().unexported] == ["not-imported", "not-imported"]
    assert old.old_tags()["a:ancient"] == str(digest)


@pytest.mark.parametrize(
    ("media_type", "content"),
    [
        ("application/vnd.oci.artifact.manifest.v1+json", {"blobs": []}),
        ("application/vnd.example.thing+json", {"schemaVersion": 2}),
    ],
)
def test_manifests_that_distribution_cannot_read_are_named(
    old: OldStore, media_type: str, content: dict[str, Any]
) -> None:
    body = json.dumps({"mediaType": media_type, **content}).encode()
    old.ask(201, "PUT", "/v2/a/manifests/odd", body, {"Content-Type": media_type})
    done = old.give_back()
    digest = Digest.of(body, "sha256")
    assert [(left.what, left.problem) for left in done.unexported] == [
        ("a:odd", "no-manifest"),
        (f"a@{digest}", "unknown-type"),
    ]
    assert "a:odd" not in old.old_tags()


def test_links_that_a_power_cut_has_emptied_are_written_again(old: OldStore) -> None:
    """Distribution refuses to serve what such a link names."""
    for name in old.links():
        old.registry.run(Operation(_delete(Key(name))))
        old.write(name, b"")
    assert old.give_back().unexported == ()
    assert len(old.old_tags()) == 3


def test_layers_without_bytes_are_named(old: OldStore) -> None:
    lost = blob(image(1).blobs[1]).digest
    old.registry.run(Operation(_delete(blob_key(lost))))
    wanted = [f"{namespace}@{lost}" for namespace in ("a/b", "a")]
    assert [(left.what, left.problem) for left in old.give_back().unexported] == [(what, "no-bytes") for what in wanted]


def test_an_outage_removes_nothing_and_the_next_run_does_the_rest(old: OldStore) -> None:
    old.ask(202, "DELETE", "/v2/a/manifests/v2")
    revision = layout.revision_key(Namespace("a"), image(1).digest)
    perform = old.registry.perform

    def failing(effect: Effect[Any]) -> Any:
        asked = effect.keys if isinstance(effect, StatKeys) else (effect.key,) if isinstance(effect, StatKey) else ()
        if revision in asked:
            raise StorageUnavailable("no answer")
        return perform(effect)

    old.registry.perform = failing  # type: ignore[method-assign]
    assert [left.problem for left in old.give_back().unexported] == ["unreadable"]
    old.registry.perform = perform  # type: ignore[method-assign]
    assert f"v2/repositories/a/_manifests/revisions/sha256/{image(1).digest.hex}/link" in old.links()
    assert old.give_back().unexported == ()
    old.ask(202, "DELETE", f"/v2/a/manifests/{image(1).digest}")
    assert old.give_back().removed == 1


def changed(kind: Literal["bucket", "disk"]) -> OldStore:
    """A store that was taken over and in which a bit of everything has happened since."""
    store = OldStore(kind)
    store.push(0, "a", "v1")
    store.push(1, "a", "v2")
    store.push(1, "b", "v1")
    store.take()
    store.push_here(2, "a", "v3")
    store.push_here(1, "a", "v1")
    store.ask(202, "DELETE", "/v2/a/manifests/v2")
    store.ask(202, "DELETE", f"/v2/b/manifests/{image(1).digest}")
    store.ask(202, "DELETE", f"/v2/b/blobs/{blob(image(1).blobs[0]).digest}")
    return store


@pytest.mark.parametrize(("kind", "stride"), [("bucket", 1), ("disk", 5)])
def test_killed_at_any_effect_and_run_again_it_ends_in_the_same_place(
    kind: Literal["bucket", "disk"], stride: int
) -> None:
    """And at every moment, what distribution would serve leads somewhere."""
    whole = changed(kind)
    whole.give_back()
    wanted = whole.names()
    wanted_tags = whole.old_tags()
    for survived in range(0, 10_000, stride):
        store = changed(kind)
        if not killed_after(store.registry, store.give_back, survived):
            assert survived > 50
            return
        store.old_tags()
        store.give_back()
        assert store.names() == wanted
        assert store.old_tags() == wanted_tags
    raise AssertionError("the export does not end")


def test_a_deleted_tag_leaves_no_folder_on_a_disk() -> None:
    """Distribution lists every folder as a tag. Also when the first attempt was killed before the folders went."""
    for give_up_after in (None, *range(8)):
        store, world = on_disk()
        if give_up_after is not None:
            _kill_in_deletion(store, world, give_up_after)
        store.give_back()
        assert world.disk.folders(TAGS) == ["v1", "v3"]


def test_power_cuts_while_a_tag_is_removed_leave_nothing_that_the_next_run_does_not_remove() -> None:
    """Whatever of it the disk had kept: all, nothing, or single things."""
    cuts = 0
    for give_up_after in range(8):
        for choices in Exhaustive({"power-cut": 1, "entry": 1, "content": 1}):
            store, world = on_disk()
            _kill_in_deletion(store, world, give_up_after)
            world.cut_power(choices)
            store.give_back()
            assert world.disk.folders(TAGS) == ["v1", "v3"]
            store.old_tags()
            cuts += 1
    assert cuts > 20


def on_disk() -> tuple[OldStore, DirectoryWorld]:
    store = changed("disk")
    world = store.registry.world.store
    assert isinstance(world, DirectoryWorld)
    return store, world


def _kill_in_deletion(store: OldStore, world: DirectoryWorld, steps: int) -> None:
    """Run an export that dies so many steps into the removal of tag v2."""
    apply: Callable[..., Any] = world.apply
    key = layout.distribution_tag_key(Namespace("a"), Tag("v2"))

    class Killed(BaseException):
        pass

    def dying(effect: Effect[Any], process: str) -> Any:
        if isinstance(effect, DeleteKeys) and key in effect.keys:
            running = world.plan(effect, process)
            assert running is not None
            for _ in range(steps):
                if running.step() is not None:
                    break
            running.abandon()
            raise Killed
        return apply(effect, process)

    world.apply = dying  # type: ignore[method-assign]
    with pytest.raises(Killed):
        store.give_back()
    world.apply = apply  # type: ignore[method-assign]
