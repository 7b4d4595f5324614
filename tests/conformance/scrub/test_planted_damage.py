"""Every kind of damage at every kind of key: what the registry answers, and what a scrub and a push make of it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest

from angos.runtime.driver import drive
from angos.runtime.performer import RequestPerformer
from angos.sansio.effects import Tell
from angos.sansio.operation import Operation
from angos.sansio.scrub.hands import Settings
from angos.sansio.scrub.report import Scrubbed
from angos.sansio.scrub.run import scrub
from tests.conformance.contracts.store import services_on
from tests.conformance.http_client import Answer, Client, refused
from tests.conformance.oci.content import (
    EMPTY,
    OCI_CONFIG,
    OCI_LAYER_GZIP,
    OCI_MANIFEST,
    artifact_of,
    bytes_of,
    config_of,
    descriptor,
    digest_of,
    manifest_of,
)
from tests.conformance.oci.repository import Repository
from tests.conformance.registry_process import RegistryProcess

DAMAGED, SOUND = "library/app", "library/app/sound"


@dataclass
class Store:
    """A registry whose data can be damaged and made good again."""

    registry: RegistryProcess
    client: Client
    targets: dict[str, list[str]]
    """What can be read of each repository."""
    answers: dict[str, Answer]
    """What it was before anything was damaged."""
    files: dict[str, bytes]

    @property
    def root(self) -> Path:
        return self.registry.root

    def damage(self, name: str, kind: str) -> None:
        """Replace a file. Never in place: empty ones share their content."""
        path, value = self.root / name, self.files[name]
        path.unlink()
        match kind:
            case "empty":
                path.write_bytes(b"")
            case "cut and overwritten":
                path.write_bytes(value[: len(value) // 2] + b"\xff\x00{")
            case "link to nowhere":
                path.symlink_to("nowhere")
            case "folder":
                path.mkdir()
                (path / "stray").write_bytes(b"")
            case "stray beside it":
                path.write_bytes(value)
                path.with_name(f"{path.name}.orig").write_bytes(b"stray")
            case _:
                assert kind == "gone"

    def restore(self) -> None:
        """As it was before anything was damaged."""
        shutil.rmtree(self.root / "_lost_and_found", ignore_errors=True)
        for path in sorted(self.root.rglob("*"), reverse=True):
            name = str(path.relative_to(self.root))
            if name.startswith(".tmp"):
                continue
            if path.is_dir() and not path.is_symlink():
                if name in self.files:
                    shutil.rmtree(path)
            elif name not in self.files or path.is_symlink() or path.read_bytes() != self.files[name]:
                path.unlink()
        for name, value in self.files.items():
            if not (self.root / name).exists():
                (self.root / name).write_bytes(value)

    def scrub(self) -> Scrubbed:
        """By the stores of the runtime, beside the server."""
        services = services_on(self.root)
        services.table[Tell] = lambda effect: None
        operation = Operation(scrub(Settings(verify_bytes=True, grace_ms=-60_000)))
        return anyio.run(drive, operation, RequestPerformer(services, {}))


def push(client: Client, name: str) -> list[str]:
    """An image, a layer of nobody, and a signature of the image; the targets at which all of it can be read."""
    repository = Repository(client, name)
    layer, alone = bytes_of(name, 600), bytes_of(f"{name} alone", 300)
    config = config_of([layer])
    manifest = manifest_of(descriptor(OCI_CONFIG, config), [descriptor(OCI_LAYER_GZIP, layer)])
    signature = artifact_of(f"application/{name.rpartition('/')[2]}", descriptor(OCI_MANIFEST, manifest))
    for content in (EMPTY, config, layer, alone):
        repository.push_blob(content)
    repository.push_manifest(manifest, "latest")
    repository.push_manifest(signature, "signature")
    digest = digest_of(manifest)
    references = ["latest", "signature", "deleted", digest, digest_of(signature)]
    return [
        repository.path("tags/list"),
        *(repository.manifest(reference) for reference in references),
        *(repository.blob(digest_of(content)) for content in (config, layer, alone)),
        repository.path(f"referrers/{digest}"),
        "/v2/_catalog",
    ]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    folder = tmp_path_factory.mktemp("planted")
    (folder / "angos.toml").write_text('[blob_store.fs]\nroot_dir = "data"\nsync_to_disk = false\n')
    registry = RegistryProcess.start(folder / "data", arguments=["-c", str(folder / "angos.toml")])
    try:
        client = registry.client()
        targets = {name: push(client, name) for name in (DAMAGED, SOUND)}
        for name in targets:
            repository = Repository(client, name)
            repository.push_manifest(artifact_of("application/deleted"), "deleted")
            assert client.delete(repository.manifest("deleted")).status == 202
        files = {
            str(path.relative_to(registry.root)): path.read_bytes()
            for path in registry.root.rglob("*")
            if path.is_file() and ".tmp" not in path.parts
        }
        answers = {target: client.get(target) for several in targets.values() for target in several}
        yield Store(registry, client, targets, answers, files)
        registry.stop()
        assert "Traceback" not in registry.log
    finally:
        registry.kill()


KINDS = ["empty", "cut and overwritten", "gone", "stray beside it", "folder", "link to nowhere"]


@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_told_or_ignored_and_costs_nothing_but_itself(store: Store, kind: str) -> None:
    names = [name for name in store.files if SOUND not in name and _is_of(store, name)]
    assert len(names) > 20
    for name in names if kind in ("empty", "cut and overwritten", "gone") else names[::3]:
        store.damage(name, kind)
        try:
            _check_answers(store, name, kind)
            _check_scrub(store, name, kind)
        finally:
            store.restore()
    for target, before in store.answers.items():
        assert same(store.client.get(target), before)


def test_a_manifest_whose_bytes_are_wrong_can_be_deleted(store: Store) -> None:
    """Its place among referrers cannot be known then; a scrub finds it."""
    repository = Repository(store.client, "wrong")
    _, pushed = repository.push_image("latest")
    signature = repository.push_manifest(artifact_of("application/wrong", pushed), "signature")
    encoded = signature.partition(":")[2]
    data = store.root / "v2/blobs/sha256" / encoded[:2] / encoded / "data"
    data.unlink()
    data.write_bytes(b"wrong")
    try:
        assert store.client.delete(repository.manifest(signature)).status == 202
        assert repository.tags() == ["latest"]
        store.scrub()
        assert repository.referrers(pushed["digest"]) == []
    finally:
        store.restore()


def test_a_layer_cut_to_nothing_counts_as_absent_and_is_replaced_by_a_push(store: Store) -> None:
    repository = Repository(store.client, "nothing")
    content = repository.fresh_bytes()
    digest = repository.push_blob(content)
    encoded = digest.partition(":")[2]
    data = store.root / "v2/blobs/sha256" / encoded[:2] / encoded / "data"
    data.unlink()
    data.write_bytes(b"")
    try:
        assert not repository.has_blob(digest)
        repository.push_blob(content)
        assert repository.pull_blob(digest) == content
    finally:
        store.restore()


def _is_of(store: Store, name: str) -> bool:
    """Not bytes that belong to the other repository, or to both."""
    _, kind, *rest = name.split("/")
    if kind != "blobs":
        return True
    return (
        not (store.root / "v2/ref" / "/".join(rest[:3]) / f"{SOUND}!r").exists()
        and not (store.root / "v2/ref" / "/".join(rest[:3]) / f"{SOUND}!own").exists()
    )


def _check_answers(store: Store, name: str, kind: str) -> None:
    for target in store.targets[SOUND]:
        if target != "/v2/_catalog":
            assert same(store.client.get(target), store.answers[target]), (name, target)
    for target in store.targets[DAMAGED]:
        before = store.answers[target]
        for answer in (store.client.get(target), store.client.head(target)):
            if answer.status in (404, 500):
                refused(answer, (404, 500))
            elif answer.method == "HEAD":
                assert answer.status == 200
            elif "/manifests/" in target or "/blobs/" in target:
                # Bytes of layers are not looked at when they are sent. A scrub does.
                assert same(answer, before) or f"{target[-64:]}/data" in name or ".del." in name, (name, answer)
            else:
                assert answer.json.keys() == before.json.keys(), (name, answer)
        if kind == "stray beside it":
            assert same(store.client.get(target), before), (name, target)


def _check_scrub(store: Store, name: str, kind: str) -> None:
    done = store.scrub()
    in_the_way = kind in ("folder", "link to nowhere")  # nothing that a listing shows
    assert in_the_way or "unreadable" not in dict(done.problems), (name, done.findings)
    again = store.scrub()
    assert {finding.action for finding in again.findings} <= {"kept"}, (name, again.findings)
    if in_the_way:
        try:
            push(store.client, DAMAGED)
        except AssertionError:
            return
    elif kind != "stray beside it":
        push(store.client, DAMAGED)
    problems = {finding.problem for finding in store.scrub().findings}
    assert problems <= {"damaged-record", *(["unreadable"] if in_the_way else [])}
    if ".del." in name and kind in ("gone", "folder", "link to nowhere"):
        return  # that a tag was deleted is known by nothing else
    for target in store.targets[DAMAGED]:
        assert same(store.client.get(target), store.answers[target]), (name, target)


def same(one: Answer, other: Answer) -> bool:
    """But for its time."""
    names = ("content-type", "docker-content-digest", "link")
    return (one.status, one.body) == (other.status, other.body) and all(
        one.get(field) == other.get(field) for field in names
    )
