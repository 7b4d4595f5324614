"""``angos scrub`` as an operator runs it, on folders and beside a running server."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from angos.runtime.maintenance.scrub import NAMES
from angos.sansio.scrub.keys import Kind
from tests.conformance.oci.repository import Repository
from tests.conformance.registry_process import RegistryProcess
from tests.conformance.unreadable import make_unreadable


def scrub(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    command = [sys.executable, "-m", "angos.runtime", "scrub", "--root", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def files(root: Path) -> dict[str, bytes]:
    """All that is stored."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and ".tmp" not in path.parts
    }


def blob_path(root: Path, digest: str) -> Path:
    """Where the bytes of a digest lie."""
    algorithm, _, encoded = digest.partition(":")
    return root / "v2" / "blobs" / algorithm / encoded[:2] / encoded / "data"


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[Repository, Path]]:
    """A server and its folder."""
    registry = RegistryProcess.start(tmp_path / "data")
    try:
        yield Repository(registry.client(), "library/app"), registry.root
    finally:
        registry.stop()


def test_a_sound_store_stays_as_it_is_while_its_server_runs(running: tuple[Repository, Path]) -> None:
    repository, root = running
    manifest, _ = repository.push_image("latest")
    before = files(root)
    for arguments in (["--verify-bytes"], ["--dry-run"], ["--grace", "0"]):
        done = scrub(root, *arguments)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.endswith("the store is sound\n")
    assert files(root) == before
    assert repository.pull_manifest("latest").body == manifest


def test_what_is_damaged_is_reported_mended_and_can_be_pushed_again(running: tuple[Repository, Path]) -> None:
    repository, root = running
    content = repository.fresh_bytes(100_000)
    digest = repository.push_blob(content)
    repository.push_image("latest")
    (root / "v2" / "stray").write_bytes(b"stray")
    data = blob_path(root, digest)
    data.write_bytes(content[:-1])
    (root / "v2/cat/library/app!").unlink()
    before = files(root)

    only_told = scrub(root, "--dry-run", "--verify-bytes", "--grace", "0", "--json")
    assert only_told.returncode == 1
    assert files(root) == before
    report = json.loads(only_told.stdout)
    assert report["dry_run"]
    assert report["problems"] == {"corrupt": 1, "missing-catalogue": 1, "unknown-key": 1}

    assert "postponed" in scrub(root).stdout  # all of it is younger than an hour
    done = scrub(root, "--verify-bytes", "--grace", "0s", "--rate", "500")
    assert done.returncode == 1
    assert "missing-bytes" in done.stdout
    assert "to put something back" in done.stdout
    assert not data.exists()
    assert (root / "_lost_and_found" / data.relative_to(root)).read_bytes() == content[:-1]
    assert (root / "_lost_and_found/v2/stray").read_bytes() == b"stray"
    assert (root / "v2/cat/library/app!").exists()

    assert repository.client.get(repository.blob(digest)).status == 404
    repository.push_blob(content)
    assert repository.pull_blob(digest) == content
    assert scrub(root, "--verify-bytes", "--grace", "0").returncode == 0


def test_there_is_a_word_for_every_kind_of_key() -> None:
    assert set(NAMES) == {*get_args(Kind), "unknown"} - {"scrub"}


@pytest.mark.parametrize("arguments", [["--rate", "0"], ["--rate", "x"], ["--grace", "soon"]])
def test_what_is_no_number_is_refused(tmp_path: Path, arguments: list[str]) -> None:
    done = scrub(tmp_path, *arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_there_has_to_be_a_store(tmp_path: Path) -> None:
    done = scrub(tmp_path / "nowhere")
    assert done.returncode == 1
    assert "there is no store" in done.stderr


def test_an_interrupted_scrub_says_so_and_the_next_one_does_the_rest(running: tuple[Repository, Path]) -> None:
    repository, root = running
    digest = repository.push_blob(repository.fresh_bytes(3_000_000))
    command = [sys.executable, "-m", "angos.runtime", "scrub", "--root", str(root), "--verify-bytes", "--rate", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    data = str(blob_path(root, digest))
    while data not in _open_files(process.pid):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    told, complaint = process.communicate(timeout=60)
    assert (process.returncode, told) == (130, "")
    assert "interrupted" in complaint
    assert "Traceback" not in complaint
    assert scrub(root, "--verify-bytes").stdout.endswith("the store is sound\n")


def _open_files(pid: int) -> set[str]:
    found = set()
    with contextlib.suppress(FileNotFoundError):
        for descriptor in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(FileNotFoundError):
                found.add(os.readlink(f"/proc/{pid}/fd/{descriptor}"))
    return found


def test_a_folder_that_cannot_be_read_is_told_and_does_not_end_the_look_at_everything_else(tmp_path: Path) -> None:
    """A disk that has lost one folder is when a scrub is needed. It ended there, and so did the collector's."""
    root = tmp_path / "data"
    for folder in ("v2/blobs", "v2/ns"):
        make_unreadable(root / folder / "a")
        (root / folder / "zzz").touch()
    done = scrub(root, "--dry-run", "--json")
    assert (done.returncode, done.stderr) == (1, "")
    found = {finding["key"]: finding["problem"] for finding in json.loads(done.stdout)["findings"]}
    assert {found.pop("v2/blobs/zzz"), found.pop("v2/ns/zzz")} == {"unknown-key"}
    assert [key[: len("v2/blobs/a/x")] for key in sorted(found)] == ["v2/blobs/a/x", "v2/ns/a/xxxx"]
    assert set(found.values()) == {"unreadable"}
    swept = subprocess.run(
        [sys.executable, "-m", "angos.runtime", "gc", "--full", "--root", str(root)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert swept.returncode == 1
    assert swept.stdout.startswith("named: 0 blobs")
    assert "passed over v2/blobs/a/xxx" in swept.stderr


def test_who_reads_may_stop_reading(tmp_path: Path) -> None:
    """`angos scrub | head` ended in a traceback."""
    folder = tmp_path / "data" / "v2" / "ns"
    folder.mkdir(parents=True)
    for number in range(3000):
        (folder / f"stray-{number:0200}").touch()
    command = [sys.executable, "-m", "angos.runtime", "scrub", "--dry-run", "--json", "--root", str(tmp_path / "data")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 1


def test_who_only_looks_writes_nothing_at_all(tmp_path: Path) -> None:
    """A snapshot that is mounted read-only was refused: each command made its folder for temporary files first."""
    root = tmp_path / "data"
    (root / "v2" / "ns").mkdir(parents=True)
    for command in ("scrub --dry-run", "gc --dry-run", "gc --full --dry-run", "prune --dry-run", "tags history a"):
        words = [sys.executable, "-m", "angos.runtime", *command.split(), "--root", str(root)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
        assert "Traceback" not in done.stderr
        assert done.returncode == (1 if command.startswith("tags") else 0), done.stderr
    assert list(root.iterdir()) == [root / "v2"]
