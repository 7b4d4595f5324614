"""``update_pull_time``: what a running server writes down of pulls, and what becomes of it when it cannot."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from angos.sansio import layout
from angos.sansio.oci.reference import Namespace
from tests.conformance.configured.configured_registry import ConfiguredRegistry, Start
from tests.conformance.configured.coverage import changes_with
from tests.conformance.configured.test_repositories import tag
from tests.conformance.configured.test_retention import prune
from tests.conformance.oci.content import artifact_of, digest_of

pytestmark = pytest.mark.xdist_group("configured-repositories")

DIGEST = digest_of(artifact_of("a/b")).replace(":", "/")


def recorded(registry: ConfiguredRegistry) -> dict[str, int]:
    """What was pulled, and when; in the order of keys."""
    folder = registry.log_path.parent / "data" / layout.pulls_prefix(Namespace("a"))
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    found = {}
    for name in names:
        pulled = layout.parse_pull_name(name)
        assert pulled is not None, name
        found[name.partition("!")[0]] = pulled.at_ms
    assert len(found) == len(names), "an older time was left"
    return found


@changes_with("global.update_pull_time", "global.pull_time_granularity_secs")
def test_pulls_are_recorded_when_the_server_ends_if_not_before(start: Start) -> None:
    began_ms = int(time.time() * 1000)
    for settings, granularity_ms in (
        ({"update_pull_time": True, "pull_time_granularity_secs": 7}, 7_000),
        ({"update_pull_time": True}, 3_600_000),
        ({}, 0),
    ):
        registry = start({"global": settings})
        assert tag(registry, "a", "v1") == 201
        assert tag(registry, "a", "never") == 201
        for _ in range(3):
            assert registry.status("/v2/a/manifests/v1") == 200
        assert registry.status("/v2/a/manifests/v2") == 404
        registry.stop()
        found = recorded(registry)
        assert list(found) == ([f"rev/{DIGEST}", "tag/v1"] if granularity_ms else [])
        for at_ms in found.values():
            assert at_ms % granularity_ms == 0
            assert began_ms - granularity_ms < at_ms <= int(time.time() * 1000)


def test_switching_the_recording_on_with_a_rule_about_pulls_deletes_nothing_that_was_there(start: Start) -> None:
    registry = start({})
    assert tag(registry, "a", "v1") == 201
    registry.stop()
    policy = {"rules": ["now() - image.last_pulled_at < days(1)"], "min_age": 0}
    data = {"fs": {"root_dir": str(registry.log_path.parent / "data"), "sync_to_disk": False}}
    recording = start({"global": {"update_pull_time": True, "retention_policy": policy}, "blob_store": data})
    assert tag(recording, "a", "v2") == 201
    done = prune(recording, "--dry-run", "--json")
    assert done.stderr == ""
    assert {one["tag"]: one["outcome"] for one in json.loads(done.stdout)["tags"]} == {"v1": "kept", "v2": "deleted"}


def test_pulls_that_cannot_be_recorded_are_told_once_and_disturb_nobody(start: Start) -> None:
    registry = start({"global": {"update_pull_time": True}})
    assert tag(registry, "a", "v1") == 201
    in_the_way = Path(registry.log_path.parent / "data" / "v2/ns/a!atime")
    in_the_way.write_bytes(b"")
    assert registry.status("/v2/a/manifests/v1") == 200
    registry.stop()
    (line,) = [line for line in registry.log.splitlines() if "not recorded" in line]
    assert "ERROR" in line
    assert "could not be recorded" in registry.log
    assert "Traceback" not in registry.log
