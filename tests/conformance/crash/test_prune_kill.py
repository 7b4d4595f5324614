"""``angos prune`` beside a server and somebody who pushes, and killed: what was acknowledged stays."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from pathlib import Path

from angos.sansio.layout import ORDER_MAX
from tests.conformance.http_client import Client
from tests.conformance.oci.content import OCI_MANIFEST, artifact_of, digest_of
from tests.conformance.registry_process import RegistryProcess

TAGS = [f"t{number:03}" for number in range(300)]
OLD, NEW = artifact_of("application/old"), artifact_of("application/new")
MONTH_MS = 30 * 86_400_000
CONFIGURATION = """\
[global.retention_policy]
rules = ["now() - image.pushed_at < days(20)"]
"""


def make_old(root: Path) -> None:
    """Let all tags have been pushed a month ago."""
    for event in root.glob("v2/ns/a!tag/*/*.set.*"):
        order, rest = event.name.split(".", 1)
        event.rename(event.with_name(f"{ORDER_MAX - (ORDER_MAX - int(order, 16) - MONTH_MS):016x}.{rest}"))


def push(client: Client, tag: str, body: bytes) -> bool:
    return client.request("PUT", f"/v2/a/manifests/{tag}", body, [("Content-Type", OCI_MANIFEST)]).status == 201


def pruning(root: Path, file: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "angos.runtime", "prune", "-c", str(file), "--root", str(root)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def deletions(root: Path) -> int:
    return sum(1 for _ in root.glob("v2/ns/a!tag/*/*.del.*"))


def test_acknowledged_pushes_stand_while_the_tags_are_pruned_and_the_pruner_is_killed(tmp_path: Path) -> None:
    root, file = tmp_path / "data", tmp_path / "angos.toml"
    file.write_text(CONFIGURATION)
    first = RegistryProcess.start(root)
    with first.client() as client:
        assert all(push(client, tag, OLD) for tag in TAGS)
    first.stop()
    make_old(root)

    registry = RegistryProcess.start(root)
    acknowledged: dict[str, bytes] = {}
    chance = random.Random(7)
    pushed = chance.sample(TAGS, 100)

    def push_some() -> None:
        with registry.client() as client:
            for tag in pushed:
                body = chance.choice((OLD, NEW))
                if push(client, tag, body):
                    acknowledged[tag] = body
                time.sleep(0.005)  # so that they come before, between and after what the pruner does

    pusher = threading.Thread(target=push_some)
    killed = pruning(root, file)
    pusher.start()
    try:
        deadline = time.monotonic() + 60
        while not deletions(root) and time.monotonic() < deadline:
            time.sleep(0.001)
        killed.kill()
        killed.communicate()
        assert deletions(root)
        last = pruning(root, file)
        said, problems = last.communicate(timeout=60)
        pusher.join()
        assert (last.returncode, problems) == (0, "")
        assert "tags in 1 repository were deleted" in said
        with registry.client() as client:
            for tag in TAGS:
                answer = client.request("GET", f"/v2/a/manifests/{tag}")
                if tag in acknowledged:
                    assert (answer.status, answer.body) == (200, acknowledged[tag]), f"the push of {tag} was lost"
                else:
                    assert answer.status == 404, f"nobody has pushed {tag}"
            assert client.request("GET", f"/v2/a/manifests/{digest_of(OLD)}").status == 200
        assert set(acknowledged) == set(pushed)
        again = pruning(root, file)
        assert again.communicate(timeout=60)[0] == "0 of 100 tags in 1 repository were deleted\n"
    finally:
        killed.kill()
        pusher.join()
        registry.stop()
