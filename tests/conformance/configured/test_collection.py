"""Space comes back: through a running server by itself, and by the command beside it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conformance.configured.configured_registry import ConfiguredRegistry, Start
from tests.conformance.configured.coverage import changes_with
from tests.conformance.oci.content import digest_of
from tests.conformance.runtime.reloading import wait_for

pytestmark = pytest.mark.xdist_group("configured-repositories")

BLOB = b"pushed, and never named by a manifest"
PATIENCE_SECONDS = 30.0


def push(registry: ConfiguredRegistry) -> Path:
    """A blob that nobody needs; where its bytes lie."""
    with registry.connect() as wire:
        target = f"/v2/space/blobs/uploads/?digest={digest_of(BLOB)}"
        wire.ask(target, f"Content-Length: {len(BLOB)}", method="POST", body=BLOB)
        assert wire.answer().status == 201
    return next(folder_of(registry).glob("v2/blobs/sha256/*/*/data"))


def folder_of(registry: ConfiguredRegistry) -> Path:
    """Where the store of a server lies."""
    return next(path.parent for path in registry.log_path.parent.rglob("v2") if path.is_dir())


def age(registry: ConfiguredRegistry, seconds: float) -> None:
    """Let so much time pass for everything that is stored, nobody being at work."""
    then = time.time() - seconds
    for path in folder_of(registry).joinpath("v2").rglob("*"):
        if path.is_file():
            os.utime(path, (then, then))


def gc(registry: ConfiguredRegistry, *arguments: str) -> subprocess.CompletedProcess[str]:
    """``angos gc``, on the configuration of this server."""
    file = next(registry.log_path.parent.glob("*.toml"))
    command = [sys.executable, "-m", "angos.runtime", "gc", *arguments, "-c", str(file)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd=file.parent)


def is_gone(path: Path) -> bool:
    """Soon."""
    until = time.monotonic() + PATIENCE_SECONDS
    while path.exists() and time.monotonic() < until:
        time.sleep(0.05)
    return not path.exists()


@changes_with("global.gc_interval_secs", "global.gc_grace_secs")
def test_a_server_collects_by_itself_what_nobody_has_needed_for_a_grace_period(start: Start) -> None:
    """And one whose grace period goes on, or that was told not to, leaves it alone."""
    metrics = {"metrics": {"enabled": True}}
    quick = start({"global": {"gc_grace_secs": 1, "gc_interval_secs": 1}, "observability": metrics})
    patient = start({"global": {"gc_grace_secs": 86400, "gc_interval_secs": 1}})
    told_not_to = start({"global": {"gc_grace_secs": 1, "gc_interval_secs": 0}})
    paths = {registry: push(registry) for registry in (patient, told_not_to, quick)}
    for registry in paths:
        age(registry, 7200)
    assert is_gone(paths[quick])
    wait_for(quick, "collection: 1 looked at, 1 blobs, ")
    with quick.connect() as wire:
        lines = wire.get("/metrics").body.decode().splitlines()
    for what, number in (("blobs", 1), ("bytes", len(BLOB)), ("names", 1)):
        assert f'angos_maintained_total{{what="{what}",work="collection"}} {number}.0' in lines
    assert any(line.startswith('angos_maintenance_runs_total{outcome="done",work="collection"} ') for line in lines)
    assert paths[patient].exists()
    assert paths[told_not_to].exists()
    assert gc(told_not_to).returncode == 0
    assert not paths[told_not_to].exists()


@changes_with("global.upload_expiry_secs")
def test_uploads_that_nobody_continues_go_after_a_while(start: Start) -> None:
    for seconds, left in ((3600, 0), (86400, 1)):
        registry = start({"global": {"upload_expiry_secs": seconds, "gc_interval_secs": 0}})
        with registry.connect() as wire:
            wire.ask("/v2/space/blobs/uploads/", "Content-Length: 0", method="POST")
            assert wire.answer().status == 202
        age(registry, 7200)
        done = gc(registry, "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["uploads"] == 1 - left
        assert len(list(folder_of(registry).glob("v2/repositories/space/_uploads/*/*"))) == left


def test_the_command_counts_first_and_then_removes(start: Start) -> None:
    """A dry run says what would go; a look at everything names what nobody has named."""
    registry = start({"global": {"gc_grace_secs": 1, "gc_interval_secs": 0}})
    path = push(registry)
    young = gc(registry)
    assert young.stdout.startswith("removed: 0 blobs")
    for suspicion in folder_of(registry).glob("v2/suspect/*/*/*"):
        suspicion.unlink()
    age(registry, 7200)
    swept = gc(registry, "--full")
    assert swept.stdout.startswith("named: 1 blobs; looked at: 1 "), swept.stdout + swept.stderr
    age(registry, 7200)
    time.sleep(1.1)  # the name of a suspicion says when it was written
    counted = json.loads(gc(registry, "--dry-run", "--json").stdout)
    assert (counted["blobs"], counted["size"], counted["dry_run"]) == (1, len(BLOB), True)
    assert path.exists()
    done = gc(registry)
    assert done.stdout.startswith(f"removed: 1 blobs of {len(BLOB)} bytes, 1 names, 0 uploads\n"), done.stdout
    assert not path.exists()
    assert registry.status(f"/v2/space/blobs/{digest_of(BLOB)}") == 404
