"""A store that Angos 1.6 has written opens as it is: every answer over it, and what a scrub makes of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conformance.http_client import Client, refused
from tests.conformance.oci.repository import Repository
from tests.conformance.registry_process import RegistryProcess
from tests.conformance.scrub.test_command import files
from tests.conformance.scrub.test_command import scrub as run_scrub
from tests.conformance.takeover.angos_1_6 import INDEX, MANIFEST, UPLOAD, Angos16, described, digest_of, image

APP, NESTED = "library/app", "library/app/nested"
LAYER, OTHER, CONFIG, LONG = b"layer " * 200, b"another layer", b'{"architecture":"amd64"}', b"long digest " * 50
NOW = 1_772_000_000_000


@dataclass
class Old:
    """What lies in it."""

    root: Path
    first: bytes
    """``v1`` of the repository."""
    second: bytes
    """``v2``, which was the first one once; its record has no type."""
    index: bytes
    signature: bytes
    nested: bytes


@pytest.fixture
def old(tmp_path: Path) -> Old:
    """A used store."""
    store = Angos16(tmp_path / "data")
    for namespace in (APP, NESTED):
        for content in (LAYER, OTHER, CONFIG):
            store.own(namespace, content)
    store.own(APP, LONG, "sha512")
    first = store.manifest(APP, image(CONFIG, LAYER))
    second = store.manifest(APP, image(CONFIG, LAYER, OTHER), records_type=False)
    children = [described(first, MANIFEST), described(second, MANIFEST)]
    index = store.manifest(APP, {"schemaVersion": 2, "mediaType": INDEX, "manifests": children})
    subject = described(first, MANIFEST)
    signature = store.manifest(APP, image(CONFIG, artifactType="application/signature", subject=subject))
    nested = store.manifest(NESTED, image(CONFIG, LAYER, annotations={"of": NESTED}), tracked=False)

    store.tag(APP, "v1", first, None)
    store.tag(APP, "v2", first, NOW - 5000, family="hist")
    store.tag(APP, "v2", first, NOW - 4000)
    store.tag(APP, "v2", second, NOW - 3000)
    store.tag(APP, "gone", first, NOW - 3000)
    store.tag(APP, "gone", first, NOW - 2000, "del")
    store.tag(APP, "both", first, NOW - 2000, "del")
    store.tag(APP, "both", first, NOW - 2000)
    store.tag(APP, "multi", index, NOW - 1000)
    store.tag(APP, "lost", signature + b" ", NOW - 1000)  # a reader needs the revision too
    store.tag(NESTED, "v1", nested, NOW)
    store.housekeeping(APP, digest_of(first))
    return Old(store.root, first, second, index, signature, nested)


@pytest.fixture
def client(old: Old) -> Iterator[Client]:
    registry = RegistryProcess.start(old.root)
    try:
        yield registry.client()
    finally:
        registry.stop()
    assert "Traceback" not in registry.log


def test_everything_in_it_can_be_read(old: Old, client: Client) -> None:
    app, nested = Repository(client, APP), Repository(client, NESTED)
    assert client.get("/v2/_catalog").json == {"repositories": [APP, NESTED]}
    assert app.tags("?n=2") == ["both", "lost", "multi", "v1", "v2"]
    assert nested.tags() == ["v1"]
    for repository, reference, content, media_type in (
        (app, "v1", old.first, MANIFEST),
        (app, "both", old.first, MANIFEST),
        (app, "v2", old.second, MANIFEST),
        (app, "multi", old.index, INDEX),
        (app, digest_of(old.second), old.second, MANIFEST),
        (app, digest_of(old.signature), old.signature, MANIFEST),
        (nested, "v1", old.nested, MANIFEST),
    ):
        answer = repository.pull_manifest(reference)
        assert (answer.body, answer["content-type"]) == (content, media_type)
        head = client.head(repository.manifest(reference))
        assert (head.status, head["content-length"]) == (200, str(len(content)))
    for reference in ("gone", "lost", "never"):
        refused(client.get(app.manifest(reference)), 404, "MANIFEST_UNKNOWN")
    for content in (LAYER, OTHER, CONFIG):
        assert app.pull_blob(digest_of(content)) == content
        assert nested.has_blob(digest_of(content))
    assert app.pull_blob(digest_of(LONG, "sha512")) == LONG
    assert not nested.has_blob(digest_of(LONG, "sha512"))
    assert client.get(app.blob(digest_of(LAYER)), [("Range", "bytes=3-9")]).body == LAYER[3:10]
    found = app.referrers(digest_of(old.first))
    assert [(each["digest"], each["artifactType"]) for each in found] == [
        (digest_of(old.signature), "application/signature")
    ]
    assert app.referrers(digest_of(old.first), "?artifactType=application/other") == []
    assert nested.referrers(digest_of(old.first)) == []
    refused(client.get(app.path(f"blobs/uploads/{UPLOAD}")), 404, "BLOB_UPLOAD_UNKNOWN")


def test_it_is_written_on(old: Old, client: Client) -> None:
    app, nested = Repository(client, APP), Repository(client, NESTED)
    refused(client.delete(app.blob(digest_of(LAYER))), 405, "UNSUPPORTED")
    app.push_manifest(old.first, "v2")
    assert app.pull_manifest("v2").body == old.first
    app.push_manifest(old.first, "gone")
    assert client.delete(app.manifest("v1")).status == 202
    assert app.tags() == ["both", "gone", "lost", "multi", "v2"]
    assert client.delete(app.manifest(digest_of(old.first))).status == 202
    assert app.tags() == ["lost", "multi"]
    assert client.delete(app.manifest(digest_of(old.second))).status == 202
    assert client.delete(app.manifest(digest_of(old.signature))).status == 202
    assert app.referrers(digest_of(old.first)) == []
    mounted = client.post(f"{nested.uploads}?mount={digest_of(LONG, 'sha512')}&from={APP}")
    assert mounted.status == 201
    assert nested.pull_blob(digest_of(LONG, "sha512")) == LONG
    manifest, _ = nested.push_image("v2")
    assert nested.pull_manifest("v2").body == manifest
    assert nested.tags() == ["v1", "v2"]


def test_a_scrub_adds_which_manifest_needs_which_blob_and_changes_nothing_else(old: Old) -> None:
    """Where 1.6 only wrote down that some manifest needs a blob, a blob could be deleted under its manifest."""
    before = files(old.root)
    done = run_scrub(old.root, "--grace", "0", "--verify-bytes")
    assert {line.partition(": v2/")[0] for line in done.stdout.splitlines() if ": v2/" in line} == {
        "created: missing-reference",
        "kept: missing-revision",
    }
    after = files(old.root)
    assert {name: after[name] for name in before} == before
    added = [name for name in after if name not in before]
    assert all("!r/sha256." in name and not after[name] for name in added)
    assert len([name for name in added if f"{NESTED}!r/" in name]) == 2
    again = run_scrub(old.root, "--grace", "0")
    assert "created" not in again.stdout
    assert files(old.root) == after
    registry = RegistryProcess.start(old.root)
    try:
        nested = Repository(registry.client(), NESTED)
        refused(nested.client.delete(nested.blob(digest_of(LAYER))), 405, "UNSUPPORTED")
    finally:
        registry.stop()
