"""Tag history and the way back, through a running server and by the command beside it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.conformance.configured.configured_registry import ConfiguredRegistry, Start
from tests.conformance.configured.coverage import changes_with
from tests.conformance.configured.test_identities import basic, user
from tests.conformance.configured.test_repositories import tag
from tests.conformance.oci.content import EMPTY, artifact_of, digest_of

pytestmark = pytest.mark.xdist_group("configured-repositories")

FIRST, SECOND = (digest_of(artifact_of(kind)) for kind in ("a/b", "c/d"))


def ask(registry: ConfiguredRegistry, method: str, target: str, *fields: str) -> tuple[int, Any]:
    """The status and the JSON of the answer."""
    with registry.connect() as wire:
        wire.ask(target, *fields, method=method)
        answer = wire.answer()
        return answer.status, json.loads(answer.body or b"null")


def tags(registry: ConfiguredRegistry, *arguments: str) -> subprocess.CompletedProcess[str]:
    """``angos tags``, on the configuration of this server."""
    file = next(registry.log_path.parent.glob("*.toml"))
    command = [sys.executable, "-m", "angos.runtime", "tags", *arguments, "-c", str(file)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd=file.parent)


@changes_with("global.tag_history_secs")
def test_a_manifest_that_was_deleted_can_be_restored_for_a_while(start: Start, plain: ConfiguredRegistry) -> None:
    for registry, status in ((start({"global": {"tag_history_secs": 3600}}), 201), (plain, 404)):
        with registry.connect() as wire:
            target = f"/v2/history/blobs/uploads/?digest={digest_of(EMPTY)}"
            wire.ask(target, f"Content-Length: {len(EMPTY)}", method="POST", body=EMPTY)
            assert wire.answer().status == 201
        assert tag(registry, "history", "1") == 201
        assert ask(registry, "DELETE", f"/v2/history/manifests/{FIRST}")[0] == 202
        assert ask(registry, "POST", "/v2/_ext/history/_restore?tag=1")[0] == status
        assert registry.status("/v2/history/manifests/1") == (200 if status == 201 else 404)


def test_the_command_shows_what_a_tag_named_and_sets_it_back(start: Start) -> None:
    registry = start({})
    for kind in ("a/b", "c/d"):
        assert tag(registry, "team/app", "1.0", kind) == 201
    assert ask(registry, "DELETE", "/v2/team/app/manifests/1.0")[0] == 202
    shown = tags(registry, "history", "team/app", "1.0")
    assert (shown.returncode, shown.stderr) == (0, "")
    lines = [line.split("  ", 1)[1] for line in shown.stdout.splitlines()]
    assert lines == [f"deleted {SECOND}", f"set to {SECOND}", f"set to {FIRST}"]

    done = tags(registry, "restore", "team/app", "1.0", "--to", FIRST)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"team/app:1.0 names {FIRST} again; before: no such tag\n"
    assert ask(registry, "GET", "/v2/team/app/tags/list")[1]["tags"] == ["1.0"]
    (line,) = tags(registry, "history", "team/app").stdout.splitlines()
    assert line.startswith("1.0  ")
    assert line.endswith(f"set to {FIRST}  by angos tags restore")
    found = json.loads(tags(registry, "history", "team/app", "1.0", "--json", "-n", "1").stdout)
    assert [(event["kind"], event["restorable"]) for event in found["events"]] == [("set", True)]

    for arguments, message in (
        (("restore", "team/app", "1.0", "--to", digest_of(b"")), "never named"),
        (("restore", "team/app", "2.0"), "never had a tag 2.0"),
        (("history", "team/app", "2.0"), "never had a tag 2.0"),
    ):
        refused = tags(registry, *arguments)
        assert refused.returncode == 1
        assert message in refused.stderr
    assert tags(registry, "restore", "team/app", "1.0", "--to", "soon").returncode == 2


def test_who_did_it_is_recorded_and_who_may_not_push_may_not_restore(start: Start) -> None:
    document: dict[str, Any] = dict(user("alice", "open sesame"))
    registry = start(document)
    alice = basic("alice", "open sesame")
    content = artifact_of("a/b")
    with registry.connect() as wire:
        fields = (alice, "Content-Type: application/vnd.oci.image.manifest.v1+json", f"Content-Length: {len(content)}")
        wire.ask("/v2/a/manifests/1", *fields, method="PUT", body=content)
        assert wire.answer().status == 201
    assert ask(registry, "DELETE", "/v2/a/manifests/1", alice)[0] == 202
    assert ask(registry, "POST", "/v2/_ext/a/_restore?tag=1")[0] == 401
    assert ask(registry, "GET", "/v2/_ext/a/_history?tag=1")[0] == 401
    assert ask(registry, "POST", "/v2/_ext/a/_restore?tag=1", alice)[0] == 201
    events = ask(registry, "GET", "/v2/_ext/a/_history?tag=1", alice)[1]["events"]
    assert [(event["kind"], event["by"]) for event in events] == [
        ("set", "somebody"),
        ("delete", "somebody"),
        ("set", "somebody"),
    ]
