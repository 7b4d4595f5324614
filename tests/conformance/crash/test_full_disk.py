"""A full disk is a normal state: writes are refused with a reason, reads go on, and freed space is enough to go on."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.http_client import Answer, ProtocolViolation, refused
from tests.conformance.oci.content import OCI_MANIFEST, artifact_of, descriptor, digest_of
from tests.conformance.oci.repository import WAYS, Repository
from tests.conformance.registry_process import RegistryProcess, stored_files
from tests.conformance.runtime.example_configuration import file_with, written
from tests.conformance.upstream.scripted_upstream import Case, Upstream, mirrors

MIB = 1 << 20


class Disk:
    """A small file system in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def mount(self, options: str) -> None:
        """Skips the test when this machine does not let us mount."""
        self.folder.mkdir()
        mount = shutil.which("mount")
        if mount is None:
            pytest.skip("mount is not installed")
        command = [mount, "-t", "tmpfs", "-o", options, "tmpfs", str(self.folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"not permitted to mount a small file system: {done.stderr.strip()}")

    def unmount(self) -> None:
        """Remove the file system with all its content."""
        subprocess.run(["umount", str(self.folder)], check=True)

    def fill(self) -> None:
        """Take the space that is left."""
        with self._ballast.open("ab", buffering=0) as ballast:
            try:
                while True:
                    ballast.write(b"\0" * (1 << 16))
            except OSError:
                pass

    def free(self) -> None:
        """Give it back."""
        self._ballast.unlink()

    def take_names(self) -> None:
        """Take the inodes that are left."""
        (self.folder / "names").mkdir()
        number = 0
        try:
            while True:
                (self.folder / "names" / str(number)).touch(exist_ok=False)
                number += 1
        except OSError:
            pass

    def free_names(self) -> None:
        """Give them back."""
        shutil.rmtree(self.folder / "names")

    def remount(self, options: str) -> None:
        """Change the options."""
        subprocess.run(["mount", "-o", f"remount,{options}", str(self.folder)], check=True)

    @property
    def free_bytes(self) -> int:
        """What df says."""
        found = os.statvfs(self.folder)
        return found.f_bavail * found.f_frsize


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A disk of 24 MiB and 4000 names."""
    disk = Disk(tmp_path / "disk")
    disk.mount("size=24m,nr_inodes=4000")
    yield disk
    disk.unmount()


def _start(disk: Disk, loop: str) -> RegistryProcess:
    # A log on the same disk would be a file that is open for writing, and full as well.
    return RegistryProcess.start(disk.folder / "data", loop=loop, log_path=disk.folder.parent / "registry.log")


@pytest.fixture(params=["asyncio", "trio"])
def registry(request: pytest.FixtureRequest, disk: Disk) -> Iterator[RegistryProcess]:
    """A registry whose data is on that disk."""
    registry = _start(disk, request.param)
    yield registry
    registry.stop()


@pytest.fixture
def repository(registry: RegistryProcess) -> Iterator[Repository]:
    """A repository with an image in it."""
    with registry.client() as client:
        repository = Repository(client, "full/disk")
        repository.push_image("latest")
        yield repository


def _refused_for_space(answer: Answer) -> None:
    refused(answer, (503, 507), {"INSUFFICIENT_STORAGE", "UNAVAILABLE"})
    assert answer.status == 507 or answer.get("retry-after")


def _readable(repository: Repository, blobs: dict[str, bytes]) -> None:
    assert repository.pull_manifest("latest").status == 200
    assert repository.tags() == ["latest"]
    assert "full/disk" in repository.client.get("/v2/_catalog").json["repositories"]
    assert repository.referrers(repository.pull_manifest("latest")["docker-content-digest"]) == []
    for digest, content in blobs.items():
        assert repository.pull_blob(digest) == content
    for layer in repository.pull_manifest("latest").json["layers"]:
        assert repository.has_blob(layer["digest"])


def test_pushing_until_the_disk_is_full_loses_nothing_acknowledged(repository: Repository, disk: Disk) -> None:
    blobs: dict[str, bytes] = {}
    for number in range(60):
        content = repository.fresh_bytes(MIB + number)
        answer = repository.upload(content, ("single post", "post and put")[number % 2])
        if answer.status != 201:
            _refused_for_space(answer)
            break
        blobs[digest_of(content)] = content
    assert 10 < len(blobs) < 24
    assert not repository.has_blob(digest_of(content))
    _readable(repository, blobs)
    assert repository.client.get("/v2/").status == 200
    # What was refused left nothing behind, so smaller things still fit.
    assert disk.free_bytes > MIB // 2
    small = repository.fresh_bytes(1000)
    assert repository.upload(small).status == 201
    _readable(repository, blobs)


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_upload_is_refused_and_works_again_when_space_is_freed(
    repository: Repository, disk: Disk, way: str
) -> None:
    kept = repository.fresh_bytes(MIB)
    repository.push_blob(kept)
    locations = [repository.start_upload() for _ in range(2)]
    disk.fill()
    content = repository.fresh_bytes(3 * MIB)
    answer = repository.client.post(repository.uploads)
    if answer.status != 202:  # even an empty file may need space
        _refused_for_space(answer)
    if way == "single post":
        _refused_for_space(repository.upload(content))
    elif way in ("post and put", "last chunk in put"):
        _refused_for_space(repository.complete(locations[0], digest_of(content), content))
    else:
        start = None if way == "stream" else 0
        _refused_for_space(repository.append(locations[0], content, start))
    assert not repository.has_blob(digest_of(content))
    _readable(repository, {digest_of(kept): kept})
    disk.free()
    # The very sessions that were open before go on, by themselves.
    for location in locations:
        status = repository.client.get(location)
        assert (status.status, status["range"]) == (204, "0-0")
    assert repository.complete(locations[0], digest_of(content), content).status == 201
    assert repository.pull_blob(digest_of(content)) == content
    _readable(repository, {digest_of(kept): kept})


def test_an_upload_keeps_what_was_acknowledged_before_the_disk_was_full(repository: Repository, disk: Disk) -> None:
    content = repository.fresh_bytes(4 * MIB)
    location = repository.start_upload()
    assert repository.append(location, content[:MIB], 0).status == 202
    disk.fill()
    _refused_for_space(repository.append(location, content[MIB:], MIB))
    assert repository.client.get(location)["range"] == f"0-{MIB - 1}"
    disk.free()
    assert repository.append(location, content[MIB:], MIB).status == 202
    assert repository.complete(location, digest_of(content)).status == 201
    assert repository.pull_blob(digest_of(content)) == content


def test_manifests_and_deletions_on_a_full_disk(repository: Repository, disk: Disk) -> None:
    _, subject = repository.push_image("latest")
    manifest = artifact_of("application/x", subject, annotations={"filler": "x" * 100_000})
    disk.fill()
    answer = repository.put_manifest(manifest, "full")
    _refused_for_space(answer)
    refused(repository.client.get(repository.manifest("full")), 404, "MANIFEST_UNKNOWN")
    refused(repository.client.get(repository.manifest(digest_of(manifest))), 404, "MANIFEST_UNKNOWN")
    _readable(repository, {})
    disk.free()
    repository.push_manifest(manifest, "full")
    listed = repository.referrers(subject["digest"])
    assert [each["digest"] for each in listed] == [digest_of(manifest)]
    disk.fill()
    answer = repository.client.delete(repository.manifest("full"))
    if answer.status != 202:  # a deletion may have to write
        _refused_for_space(answer)
        assert repository.pull_manifest("full").body == manifest
    else:
        refused(repository.client.get(repository.manifest("full")), 404)
    disk.free()


def test_without_names_left_writes_are_refused_and_reads_go_on(repository: Repository, disk: Disk) -> None:
    content = repository.fresh_bytes()
    disk.take_names()
    _refused_for_space(repository.upload(content))
    _refused_for_space(repository.client.post(repository.uploads))
    _refused_for_space(repository.put_manifest(artifact_of("application/x"), "full"))
    _readable(repository, {})
    disk.free_names()
    repository.push_blob(content)
    repository.push_manifest(artifact_of("application/x"), "later")
    assert repository.tags() == ["later", "latest"] or repository.tags() == ["latest", "later"]


def test_a_disk_that_became_read_only_serves_on(repository: Repository, disk: Disk) -> None:
    before = stored_files(disk.folder)
    disk.remount("ro")
    try:
        for answer in (
            repository.upload(b"content"),
            repository.client.post(repository.uploads),
            repository.put_manifest(artifact_of("application/x"), "later"),
            repository.client.delete(repository.manifest("latest")),
        ):
            refused(answer, (500, 503, 507), {"UNAVAILABLE", "INTERNAL_ERROR", "INSUFFICIENT_STORAGE"})
        _readable(repository, {})
    finally:
        disk.remount("rw")
    assert stored_files(disk.folder) == before
    repository.push_manifest(artifact_of("application/x"), "later")


def test_a_registry_starts_and_serves_on_a_full_disk(repository: Repository, disk: Disk) -> None:
    content = repository.fresh_bytes(MIB)
    digest = repository.push_blob(content)
    disk.fill()
    registry = _start(disk, "asyncio")
    try:
        with registry.client() as client:
            again = Repository(client, repository.name)
            _readable(again, {digest: content})
            _refused_for_space(again.upload(again.fresh_bytes(MIB)))
            assert again.pull_manifest("latest")["content-type"] == OCI_MANIFEST
            assert descriptor(OCI_MANIFEST, again.pull_manifest("latest").body)["size"] > 0
    finally:
        registry.stop()
        disk.free()


def test_a_mirror_with_a_full_disk_passes_on_what_it_cannot_store(disk: Disk, tmp_path: Path) -> None:
    """Every pull of a blob that was not here yet was cut off, or answered 502, for as long as the disk was full: each
    tried to store it first."""
    upstream = Upstream.made()
    with upstream.server:
        file = file_with(tmp_path, written(mirrors(upstream.server.origin, ["hub"])))
        log = tmp_path / "mirror.log"
        registry = RegistryProcess.start(disk.folder / "data", arguments=("-c", str(file)), log_path=log)
        try:
            case = upstream.cases["hub"] = Case("hub", registry)
            disk.fill()
            content, path = case.blob(2 * MIB)
            other, elsewhere = case.blob(3 * MIB)
            with contextlib.suppress(ProtocolViolation):
                assert case.get(path).body != content, "the disk is not full"
            for _ in range(2):
                assert case.get(path).body == content
                assert case.get(elsewhere).body == other
        finally:
            registry.stop()
