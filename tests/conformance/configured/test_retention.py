"""``retention_policy``: what ``angos prune`` would delete, beside a running server."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time

import pytest

from tests.conformance.configured.configured_registry import ConfiguredRegistry, Start
from tests.conformance.configured.coverage import changes_with
from tests.conformance.configured.test_repositories import tag
from tests.conformance.server.wire import PATIENCE_SECONDS

pytestmark = pytest.mark.xdist_group("configured-repositories")


def prune(registry: ConfiguredRegistry, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command, on the configuration of this server."""
    file = next(registry.log_path.parent.glob("*.toml"))
    command = [sys.executable, "-m", "angos.runtime", "prune", "-c", str(file), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd=file.parent)


@changes_with("global.retention_policy.rules", "global.retention_policy.min_age", "repository.*.retention_policy.rules")
def test_a_dry_run_shows_what_would_go_and_which_rule_keeps_the_rest(start: Start) -> None:
    registry = start(
        {
            "global": {"retention_policy": {"rules": ['image.tag == "latest"'], "min_age": 0}},
            "repository": {"team": {"retention_policy": {"rules": ['image.tag.startsWith("v")']}}},
        }
    )
    for namespace in ("other", "team/app"):
        for name in ("latest", "v1"):
            assert tag(registry, namespace, name) == 201
    shown = prune(registry, "--dry-run")
    assert (shown.returncode, shown.stderr) == (0, "")
    rows = [line.split(maxsplit=5) for line in shown.stdout.splitlines()[1:-1]]
    assert [(row[0], row[1], row[2], row[5]) for row in rows] == [
        ("keep", "other", "latest", 'global[0]: image.tag == "latest"'),
        ("delete", "other", "v1", "no rule keeps it"),
        ("keep", "team/app", "latest", 'global[0]: image.tag == "latest"'),
        ("keep", "team/app", "v1", 'repository.team[0]: image.tag.startsWith("v")'),
    ]
    assert shown.stdout.splitlines()[-1] == "1 of 4 tags in 2 repositories would be deleted"
    found = json.loads(prune(registry, "--dry-run", "--json", "other").stdout)
    assert (found["dry_run"], found["repositories"], found["deleted"], found["kept"]) == (True, 1, 1, 1)
    assert [(one["tag"], one["outcome"], one["why"]) for one in found["tags"]] == [
        ("latest", "kept", "rule"),
        ("v1", "deleted", "no rule"),
    ]
    assert registry.status("/v2/other/manifests/v1") == 200
    done = prune(registry)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[:3] for line in done.stdout.splitlines()[1:-1]] == [["deleted", "other", "v1"]]
    assert done.stdout.splitlines()[-1] == "1 of 4 tags in 2 repositories were deleted"
    assert registry.status("/v2/other/manifests/v1") == 404
    assert registry.status("/v2/team/app/manifests/v1") == 200
    missing = prune(registry, "--dry-run", "othr")
    assert (missing.returncode, missing.stderr) == (1, "angos: there is no tag in othr\n")


@changes_with("global.retention_policy.interval")
def test_a_server_does_it_by_itself_tells_and_counts(start: Start) -> None:
    policy = {"rules": ['image.tag == "latest"'], "min_age": 0, "interval": 0.2}
    registry = start({"global": {"retention_policy": policy}, "observability": {"metrics": {"enabled": True}}})
    assert tag(registry, "a", "latest") == 201
    assert tag(registry, "a", "v1") == 201
    deadline = time.monotonic() + PATIENCE_SECONDS
    while registry.status("/v2/a/manifests/v1") == 200 or "1 deleted" not in registry.log:
        assert time.monotonic() < deadline, registry.log
        time.sleep(0.02)
    assert registry.status("/v2/a/manifests/latest") == 200
    assert re.search(r"retention: removed a:v1: named sha256:\w{64}, and no rule keeps it", registry.log)
    with registry.connect() as wire:
        lines = wire.get("/metrics").body.decode().splitlines()
    assert 'angos_maintained_total{what="deleted",work="retention"} 1.0' in lines
    assert any(line.startswith('angos_maintenance_runs_total{outcome="done",work="retention"} ') for line in lines)


def test_what_is_young_stays(start: Start) -> None:
    registry = start({"global": {"retention_policy": {"rules": ["false"]}}})
    assert tag(registry, "a", "v1") == 201
    (row,) = prune(registry, "--dry-run").stdout.splitlines()[1:-1]
    assert row.startswith("keep")
    assert row.endswith("younger than min_age")
