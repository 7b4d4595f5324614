"""Stored bytes that were damaged behind the registry's back: never served as if they were right, never a crash."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.http_client import Answer, refused
from tests.conformance.oci.content import artifact_of
from tests.conformance.oci.repository import Repository
from tests.conformance.registry_process import RegistryProcess


class Damaged:
    """A registry whose data is changed while it is stopped."""

    def __init__(self, root: Path, loop: str) -> None:
        self._root, self._loop = root, loop
        self._registry: RegistryProcess | None = None

    def open(self) -> Repository:
        """Start it; a repository in it."""
        self._registry = RegistryProcess.start(self._root, loop=self._loop)
        return Repository(self._registry.client(), "damaged/data")

    def close(self) -> None:
        """Stop it."""
        if self._registry is not None:
            registry, self._registry = self._registry, None
            registry.stop()

    def path(self, digest: str) -> Path:
        """Where the bytes of a digest lie."""
        algorithm, _, encoded = digest.partition(":")
        return self._root / "v2" / "blobs" / algorithm / encoded[:2] / encoded / "data"


@pytest.fixture(params=["asyncio", "trio"])
def damaged(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Damaged]:
    """A registry that is stopped at the end, which fails if it logged a traceback."""
    damaged = Damaged(tmp_path / "data", request.param)
    yield damaged
    damaged.close()


def _not_the_content(answer: Answer, wrong: bytes) -> None:
    assert answer.body != wrong
    refused(answer, (404, 500, 503), {"MANIFEST_UNKNOWN", "BLOB_UNKNOWN", "INTERNAL_ERROR", "UNAVAILABLE"})


@pytest.mark.parametrize("wrong", [b"", b"{}", b"\0" * 500, b'{"schemaVersion":2'])
def test_a_damaged_manifest_is_not_given_out_and_can_be_pushed_again(damaged: Damaged, wrong: bytes) -> None:
    repository = damaged.open()
    manifest = artifact_of("application/x")
    digest = repository.push_manifest(manifest, "latest")
    repository.push_manifest(artifact_of("application/y"), "other")
    damaged.close()
    damaged.path(digest).write_bytes(wrong)
    repository = damaged.open()
    for reference in ("latest", digest):
        _not_the_content(repository.client.get(repository.manifest(reference)), wrong)
    assert repository.pull_manifest("other").status == 200
    assert repository.tags() == ["latest", "other"]
    damaged.close()


def test_a_blob_whose_bytes_are_gone_is_not_there(damaged: Damaged) -> None:
    repository = damaged.open()
    content = repository.fresh_bytes(10_000)
    digest = repository.push_blob(content)
    damaged.close()
    damaged.path(digest).unlink()
    repository = damaged.open()
    _not_the_content(repository.client.get(repository.blob(digest)), content)
    assert repository.client.head(repository.blob(digest)).status in (404, 500)
    repository.push_blob(content)
    assert repository.pull_blob(digest) == content


def test_strange_files_among_the_data_disturb_nothing(damaged: Damaged) -> None:
    repository = damaged.open()
    manifest, pushed = repository.push_image("latest")
    damaged.close()
    root = damaged.path(pushed["digest"]).parents[5]
    for folder in [path for path in root.rglob("*") if path.is_dir()]:
        (folder / ".DS_Store").write_bytes(b"x")
        (folder / "lost+found").mkdir(exist_ok=True)
    repository = damaged.open()
    assert repository.pull_manifest("latest").body == manifest
    assert repository.tags() == ["latest"]
    assert repository.referrers(pushed["digest"]) == []
    assert repository.client.get("/v2/_catalog").json == {"repositories": ["damaged/data"]}
    second = repository.push_manifest(artifact_of("application/second", pushed), "second")
    assert [each["digest"] for each in repository.referrers(pushed["digest"])] == [second]
    assert repository.client.delete(repository.manifest(second)).status == 202
    assert repository.tags() == ["latest"]
