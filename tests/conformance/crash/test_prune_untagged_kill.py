"""``angos prune`` takes manifests without a tag beside somebody who tags some of them, and is killed."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

from tests.conformance.http_client import Client
from tests.conformance.oci.content import OCI_INDEX, OCI_MANIFEST, artifact_of, descriptor, digest_of, index_of
from tests.conformance.registry_process import RegistryProcess

IMAGES = [artifact_of(f"application/image-{number}") for number in range(160)]
INDEXES = [index_of([descriptor(OCI_MANIFEST, IMAGES[number])]) for number in range(0, 160, 2)]
QUICK = Path(__file__).parents[1] / "collection" / "quick_command_line.py"
LONG_AGO = time.time() - 30 * 86_400
CONFIGURATION = """\
[global]
gc_grace_secs = 3600

[global.retention_policy]
rules = ["image.tag != null"]
"""


def make_old(root: Path) -> None:
    """Let everything have been pushed a month ago."""
    for path in root.rglob("*"):
        if path.is_file():
            if "!rev/" in str(path):
                record = json.loads(path.read_text())
                path.write_text(json.dumps({**record, "created_at": "2026-01-01T00:00:00Z"}))
            os.utime(path, (LONG_AGO, LONG_AGO))


def push(client: Client, reference: str, body: bytes) -> tuple[int, str]:
    """The status, and what was missing."""
    kind = OCI_INDEX if b'"manifests"' in body else OCI_MANIFEST
    answer = client.request("PUT", f"/v2/a/manifests/{reference}", body, [("Content-Type", kind)])
    return answer.status, " ".join(value for name, value in answer.headers if name == "warning")


def pruning(root: Path, file: Path) -> subprocess.Popen[str]:
    command = [sys.executable, str(QUICK), "prune", "-c", str(file), "--root", str(root)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def revisions(root: Path) -> int:
    return sum(1 for _ in root.glob("v2/ns/a!rev/*/*/*"))


def test_what_is_tagged_or_named_by_an_index_stands_while_the_rest_goes_and_the_pruner_is_killed(
    tmp_path: Path,
) -> None:
    root, file = tmp_path / "data", tmp_path / "angos.toml"
    file.write_text(CONFIGURATION)
    first = RegistryProcess.start(root)
    with first.client() as client:
        assert all(push(client, digest_of(body), body)[0] == 201 for body in (*IMAGES, *INDEXES))
    first.stop()
    make_old(root)

    registry = RegistryProcess.start(root, arguments=["-c", str(file)])
    chance = random.Random(7)
    wanted = chance.sample(IMAGES[1::2], 20) + chance.sample(INDEXES, 20)
    chance.shuffle(wanted)
    tagged: dict[str, bytes] = {}
    missing: dict[str, str] = {}

    def push_some() -> None:
        with registry.client() as client:
            for number, body in enumerate(wanted):
                status, missing[f"t{number}"] = push(client, f"t{number}", body)
                if status == 201:
                    tagged[f"t{number}"] = body
                time.sleep(0.005)  # so that they come before, between and after what the pruner does

    pusher = threading.Thread(target=push_some)
    killed = pruning(root, file)
    pusher.start()
    try:
        deadline = time.monotonic() + 60
        while revisions(root) > 230 and time.monotonic() < deadline:
            time.sleep(0.001)
        killed.kill()
        killed.communicate()
        assert revisions(root) <= 230
        last = pruning(root, file)
        said, problems = last.communicate(timeout=60)
        pusher.join()
        assert (last.returncode, problems) == (0, ""), said
        stays = {digest_of(body) for body in tagged.values()}
        with registry.client() as client:
            for tag, body in tagged.items():
                answer = client.request("GET", f"/v2/a/manifests/{tag}")
                assert (answer.status, answer.body) == (200, body), f"{tag} was acknowledged and lost its manifest"
                if body in INDEXES and (child := digest_of(IMAGES[2 * INDEXES.index(body)])) not in missing[tag]:
                    assert client.request("GET", f"/v2/a/manifests/{child}").status == 200, f"{tag} lost its child"
                    stays.add(child)
        assert len(tagged) > 15
        left = {path.name for path in root.glob("v2/ns/a!rev/*/*/*")}
        assert {digest.partition(":")[2] for digest in stays} <= left
        assert not list(root.glob("v2/collector/mark/*"))
        again = pruning(root, file)
        assert again.communicate(timeout=60)[0].startswith("0 of ")
    finally:
        killed.kill()
        pusher.join()
        registry.stop()
