"""``retention_policy`` and manifests without a tag, by the command and by a server."""

from __future__ import annotations

import json
import time

import pytest

from tests.conformance.configured.configured_registry import ConfiguredRegistry, Document, Start
from tests.conformance.configured.test_collection import age
from tests.conformance.configured.test_repositories import tag
from tests.conformance.configured.test_retention import prune
from tests.conformance.oci.content import OCI_INDEX, OCI_MANIFEST, artifact_of, descriptor, digest_of, index_of
from tests.conformance.server.wire import PATIENCE_SECONDS

pytestmark = pytest.mark.xdist_group("configured-repositories")

OLD, CHILD = artifact_of("application/old"), artifact_of("application/child")
INDEX = index_of([descriptor(OCI_MANIFEST, CHILD)])
TAGS_ONLY: Document = {
    "global": {"retention_policy": {"rules": ["image.tag != null"], "min_age": 0}, "gc_grace_secs": 3600}
}


def push(registry: ConfiguredRegistry, namespace: str, content: bytes, media_type: str, name: str = "") -> None:
    with registry.connect() as wire:
        fields = (f"Content-Type: {media_type}", f"Content-Length: {len(content)}")
        target = f"/v2/{namespace}/manifests/{name or digest_of(content)}"
        wire.ask(target, *fields, method="PUT", body=content)
        assert wire.answer().status == 201


def here(registry: ConfiguredRegistry, namespace: str, *contents: bytes) -> list[bool]:
    return [registry.status(f"/v2/{namespace}/manifests/{digest_of(content)}") == 200 for content in contents]


def test_what_no_tag_needs_is_shown_and_deleted(start: Start) -> None:
    registry = start(TAGS_ONLY)
    for namespace in ("team/app", "team/old"):
        push(registry, namespace, CHILD, OCI_MANIFEST)
        push(registry, namespace, INDEX, OCI_INDEX, "v1")
        push(registry, namespace, OLD, OCI_MANIFEST)
    with registry.connect() as wire:
        wire.ask("/v2/team/old/manifests/v1", method="DELETE")
        assert wire.answer().status == 202
    rows = {tuple(line.split()[:3]): line for line in prune(registry, "--dry-run").stdout.splitlines()}
    young = next(line for name, line in rows.items() if name[:2] == ("keep", "team/old"))
    assert young.endswith("was pushed or needed less than gc_grace_secs ago")

    age(registry, 7200)
    shown = prune(registry, "--dry-run", "team/app")
    assert (shown.returncode, shown.stderr) == (0, "")
    found = {line.split()[2]: line for line in shown.stdout.splitlines()[1:-1]}
    short = {content: f"{digest_of(content)[:27]}...{digest_of(content)[-10:]}" for content in (OLD, CHILD, INDEX)}
    assert found[short[OLD]].startswith("delete")
    assert found[short[OLD]].endswith("no rule keeps it")
    assert found[short[CHILD]].startswith("keep")
    assert found[short[CHILD]].endswith(f"is part of {short[INDEX]}")
    assert shown.stdout.splitlines()[-1] == (
        "0 of 1 tag and 1 of 2 manifests without a tag in 1 repository would be deleted"
    )
    told = json.loads(prune(registry, "--dry-run", "--json", "team/app").stdout)
    assert {(each["digest"], each["outcome"], each["why"], each.get("by")) for each in told["manifests"]} == {
        (digest_of(OLD), "deleted", "no rule", None),
        (digest_of(CHILD), "kept", "part", digest_of(INDEX)),
    }

    assert here(registry, "team/old", OLD, CHILD, INDEX) == [True, True, True]
    done = prune(registry)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == (
        "0 of 1 tag and 4 of 5 manifests without a tag in 2 repositories were deleted"
    )
    assert here(registry, "team/old", OLD, CHILD, INDEX) == [False, False, False]
    assert here(registry, "team/app", OLD, CHILD, INDEX) == [False, True, True]
    push(registry, "team/old", CHILD, OCI_MANIFEST, "v1")  # nobody waits for anything
    assert here(registry, "team/old", CHILD) == [True]


def test_a_rule_that_does_not_expect_a_manifest_without_a_tag_fails_and_keeps_it(start: Start) -> None:
    policy = {"rules": ['image.tag.startsWith("v")'], "min_age": 0}
    registry = start({"global": {"retention_policy": policy}})
    push(registry, "a", OLD, OCI_MANIFEST)
    (row,) = prune(registry, "--dry-run").stdout.splitlines()[1:-1]
    assert row.startswith("keep")
    assert "which failed: " in row


def test_a_server_does_it_by_itself_tells_and_counts(start: Start) -> None:
    policy = {"rules": ["image.tag != null"], "min_age": 0, "interval": 0.2}
    registry = start(
        {"global": {"retention_policy": policy, "gc_grace_secs": 1800}, "observability": {"metrics": {"enabled": True}}}
    )
    assert tag(registry, "a", "latest") == 201
    push(registry, "a", OLD, OCI_MANIFEST)
    age(registry, 7200)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while here(registry, "a", OLD) == [True] or "1 manifests deleted" not in registry.log:
        assert time.monotonic() < deadline, registry.log
        time.sleep(0.02)
    assert registry.status("/v2/a/manifests/latest") == 200
    assert f"retention: removed a@{digest_of(OLD)}: no tag names it, and no rule keeps it" in registry.log
    with registry.connect() as wire:
        lines = wire.get("/metrics").body.decode().splitlines()
    assert 'angos_maintained_total{what="manifests_deleted",work="retention"} 1.0' in lines
