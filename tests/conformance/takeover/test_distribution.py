"""Take-over of what Debian's docker-registry has stored, and the way back, by an operator's commands."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.configured.configured_registry import ConfiguredRegistry
from tests.conformance.docker_registry import (
    ACCEPT,
    INDEX,
    Client,
    collect_garbage,
    digest_of,
    docker_registry,
    push_image,
    push_manifest,
)
from tests.conformance.runtime.example_configuration import file_with, written
from tests.conformance.s3_process import S3Process

pytestmark = pytest.mark.skipif(shutil.which("docker-registry") is None, reason="docker-registry is not installed")


@dataclass(frozen=True)
class Place:
    """Where both registries store."""

    folder: Path
    storage: str
    """The driver of docker-registry."""
    stores: dict[str, Any]
    """The stores of our configuration."""

    def old(self) -> AbstractContextManager[Client]:
        """docker-registry, running."""
        return docker_registry(self.folder / "old", self.storage)

    @contextmanager
    def ours(self) -> Iterator[Client]:
        """Our registry, running."""
        plain = {"enable_blob_redirect": False, "enable_manifest_redirect": False}
        registry = ConfiguredRegistry.configured(self.folder, {"global": plain, **self.stores})
        try:
            yield Client(registry.url)
        finally:
            registry.terminate()

    def run(self, what: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run ``angos import`` or ``angos export``."""
        file = file_with(self.folder, written(self.stores))
        return run(what, "-c", str(file), *arguments)


def run(what: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``angos import`` or ``angos export``."""
    command = [sys.executable, "-m", "angos.runtime", what, "distribution", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture(params=["directory", "bucket", "metadata-elsewhere"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """An empty one."""
    root = tmp_path / "old"
    if request.param == "directory":
        storage = f"filesystem: {{rootdirectory: {root}}}"
        return Place(tmp_path, storage, {"blob_store": {"fs": {"root_dir": str(root / "docker/registry")}}})
    s3: S3Process = request.getfixturevalue("s3")
    bucket = s3.bucket(f"takeover-{request.param}")
    bucket.make()
    table = bucket.table()
    named = {"region": "region", "bucket": "bucket", "access_key_id": "accesskey", "secret_key": "secretkey"}
    options: dict[str, Any] = {theirs: table[ours] for ours, theirs in named.items()}
    options |= {"regionendpoint": table["endpoint"], "secure": False, "rootdirectory": "/old"}
    stores: dict[str, Any] = {"blob_store": {"s3": {**table, "key_prefix": "old/docker/registry"}}}
    if request.param == "metadata-elsewhere":
        stores["metadata_store"] = {"fs": {"root_dir": str(tmp_path / "metadata")}}
    return Place(tmp_path, f"s3: {json.dumps(options)}", stores)


def test_what_docker_registry_stored_is_served_in_place_and_it_serves_again_what_came_since(place: Place) -> None:
    shared = b"shared layer" * 1000
    with place.old() as old:
        first = push_image(old, "library/app", "v1", shared, b"one")
        second = push_image(old, "library/app/nested", "v1", shared, b"two")
        children = [push_image(old, "multi", "", shared, b"amd"), push_image(old, "multi", "", shared, b"arm")]
        index = push_manifest(old, "multi", "latest", {"schemaVersion": 2, "mediaType": INDEX, "manifests": children})
        deleted = push_image(old, "library/app", "gone", b"gone")
        assert old.request("DELETE", f"/v2/library/app/manifests/{deleted['digest']}").status == 202
    root = place.folder / "old/docker/registry"
    before = {path: path.stat().st_ino for path in root.glob("v2/blobs/**/data")}

    done = place.run("import")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usable here: 5 manifests, 3 tags,")
    assert place.run("import").stdout.endswith("taken by this run: 0\n")

    with place.ours() as client:
        for namespace, tag, descriptor in (
            ("library/app", "v1", first),
            ("library/app/nested", "v1", second),
            ("multi", "latest", index),
        ):
            answer = client.request("GET", f"/v2/{namespace}/manifests/{tag}")
            assert answer.headers["docker-content-digest"] == descriptor["digest"]
            assert answer.headers["content-type"] == descriptor["mediaType"]
            assert digest_of(answer.body) == descriptor["digest"]
            listed = client.request("GET", f"/v2/{namespace}/tags/list")
            assert json.loads(listed.body)["tags"] == [tag]
        layer = client.request("GET", f"/v2/multi/blobs/{digest_of(shared)}")
        assert layer.body == shared
        assert client.request("GET", f"/v2/library/app/manifests/{deleted['digest']}").status == 404
        assert {path: path.stat().st_ino for path in before} == before
        moved = push_image(client, "library/app", "v1", shared, b"moved")
        deleted_here = client.request("DELETE", "/v2/library/app/nested/manifests/v1")
        assert deleted_here.status == 202
        pushed = [push_image(client, "new", "", shared, b"x86"), push_image(client, "new", "", b"riscv")]
        new_index = push_manifest(client, "new", "v2", {"schemaVersion": 2, "mediaType": INDEX, "manifests": pushed})
        long = push_image(client, "new", "long", b"sha512", algorithm="sha512")

    done = place.run("export")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usable there: 10 manifests, 4 tags,")
    assert place.run("export").stdout.endswith("by this run: 0 links written, 0 removed\n")
    assert "marking manifest sha512" in collect_garbage(place.folder / "old")
    with place.old() as old:
        for namespace, tag, descriptor in (
            ("library/app", "v1", moved),
            ("multi", "latest", index),
            ("new", "v2", new_index),
            ("new", "long", long),
        ):
            answer = old.request("GET", f"/v2/{namespace}/manifests/{tag}", {"Accept": ACCEPT})
            assert answer.headers["docker-content-digest"] == descriptor["digest"]
        for child in pushed:
            answer = old.request("GET", f"/v2/new/manifests/{child['digest']}", {"Accept": ACCEPT})
            for layer in json.loads(answer.body)["layers"]:
                content = old.request("GET", f"/v2/new/blobs/{layer['digest']}").body
                assert digest_of(content) == layer["digest"]
        for namespace, tags in (("library/app", ["v1"]), ("library/app/nested", None), ("new", ["long", "v2"])):
            listed = json.loads(old.request("GET", f"/v2/{namespace}/tags/list").body).get("tags")
            assert (sorted(listed) if listed else None) == tags
        assert old.request("GET", f"/v2/library/app/manifests/{first['digest']}", {"Accept": ACCEPT}).status == 200
        since = push_image(old, "new", "since", shared, b"since")
        assert old.request("DELETE", f"/v2/multi/manifests/{index['digest']}").status == 202

    assert "taken by this run: 4\n" in place.run("import").stdout
    with place.ours() as client:
        answer = client.request("GET", "/v2/new/manifests/since")
        assert answer.headers["docker-content-digest"] == since["digest"]


def test_what_cannot_be_taken_is_reported_and_the_exit_code_says_so(tmp_path: Path) -> None:
    link = tmp_path / "v2/repositories/a/_manifests/tags/v1/current/link"
    link.parent.mkdir(parents=True)
    link.write_bytes(b"")
    done = run("import", "--root", str(tmp_path), "--json")
    assert done.returncode == 1
    assert [(untaken["problem"], untaken["key"]) for untaken in json.loads(done.stdout)["untaken"]] == [
        ("zero-bytes", "v2/repositories/a/_manifests/tags/v1/current/link")
    ]


def test_a_folder_without_repositories_is_named(tmp_path: Path) -> None:
    """The folder above is the usual mistake: distribution adds ``docker/registry`` to what it is told."""
    (tmp_path / "docker").mkdir()
    done = run("import", "--root", str(tmp_path))
    assert done.returncode == 1
    assert "docker/registry" in done.stderr
