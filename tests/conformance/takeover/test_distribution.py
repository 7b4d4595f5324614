"""Take-over of a folder that Debian's docker-registry has filled, by the command an operator uses."""

from __future__ import annotations

import hashlib
import http.client
import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.conformance.registry_process import RegistryProcess

pytestmark = pytest.mark.skipif(shutil.which("docker-registry") is None, reason="docker-registry is not installed")

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIGURATION = """\
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage:
  filesystem: {{rootdirectory: {root}}}
  delete: {{enabled: true}}
http: {{addr: "127.0.0.1:{port}"}}
"""


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Client:
    """Asks either registry. The client of the other tests insists on what only ours promises."""

    url: str

    def request(
        self, method: str, target: str, headers: dict[str, str] | None = None, body: bytes | None = None
    ) -> Answer:
        """One request on a connection of its own. Names of header fields are in lower case."""
        with closing(http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=30)) as connection:
            connection.request(method, target, body, headers or {})
            answer = connection.getresponse()
            return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())


@contextmanager
def docker_registry(root: Path) -> Iterator[Client]:
    """A running docker-registry on this folder."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    file = root.with_name("registry.yml")
    file.write_text(CONFIGURATION.format(root=root, port=port))
    log = root.with_name("registry.log")
    with log.open("ab") as output:
        process = subprocess.Popen(["docker-registry", "serve", str(file)], stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.02)
        yield Client(f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait(30)


def push_blob(client: Client, namespace: str, content: bytes) -> dict[str, object]:
    """Push a blob and give its descriptor."""
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    begun = client.request("POST", f"/v2/{namespace}/blobs/uploads/")
    location = begun.headers["location"]
    location = location[location.index("/v2/") :]
    finish = f"{location}{'&' if '?' in location else '?'}digest={digest}"
    assert client.request("PUT", finish, {"Content-Type": "application/octet-stream"}, content).status == 201
    return {"mediaType": "application/octet-stream", "digest": digest, "size": len(content)}


def push_manifest(client: Client, namespace: str, reference: str, document: dict[str, object]) -> dict[str, object]:
    """Push a manifest and give its descriptor. Without a reference it is pushed by digest."""
    content = json.dumps(document).encode()
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    media_type = str(document["mediaType"])
    target = f"/v2/{namespace}/manifests/{reference or digest}"
    assert client.request("PUT", target, {"Content-Type": media_type}, content).status == 201
    return {"mediaType": media_type, "digest": digest, "size": len(content)}


def push_image(client: Client, namespace: str, reference: str, *layers: bytes) -> dict[str, object]:
    """Push an image of these layers."""
    config = push_blob(client, namespace, json.dumps({"of": reference}).encode())
    found = [push_blob(client, namespace, layer) for layer in layers]
    document = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": found}
    return push_manifest(client, namespace, reference, document)


def import_distribution(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    command = [sys.executable, "-m", "angos.runtime", "import", "distribution", "--root", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_what_docker_registry_stored_is_served_in_place(tmp_path: Path) -> None:
    old_root = tmp_path / "old"
    old_root.mkdir()
    shared = b"shared layer" * 1000
    with docker_registry(old_root) as old:
        first = push_image(old, "library/app", "v1", shared, b"one")
        second = push_image(old, "library/app/nested", "v1", shared, b"two")
        children = [push_image(old, "multi", "", shared, b"amd"), push_image(old, "multi", "", shared, b"arm")]
        index = push_manifest(old, "multi", "latest", {"schemaVersion": 2, "mediaType": INDEX, "manifests": children})
        deleted = push_image(old, "library/app", "gone", b"gone")
        assert old.request("DELETE", f"/v2/library/app/manifests/{deleted['digest']}").status == 202
    root = old_root / "docker" / "registry"
    before = {path: path.stat().st_ino for path in root.glob("v2/blobs/**/data")}

    done = import_distribution(root)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usable here: 5 manifests, 3 tags,")
    assert import_distribution(root).stdout.endswith("taken by this run: 0\n")

    registry = RegistryProcess.start(root)
    try:
        client = Client(registry.url)
        for namespace, tag, descriptor in (
            ("library/app", "v1", first),
            ("library/app/nested", "v1", second),
            ("multi", "latest", index),
        ):
            answer = client.request("GET", f"/v2/{namespace}/manifests/{tag}")
            assert answer.headers["docker-content-digest"] == descriptor["digest"]
            assert answer.headers["content-type"] == descriptor["mediaType"]
            assert f"sha256:{hashlib.sha256(answer.body).hexdigest()}" == descriptor["digest"]
            listed = client.request("GET", f"/v2/{namespace}/tags/list")
            assert json.loads(listed.body)["tags"] == [tag]
        layer = client.request("GET", f"/v2/multi/blobs/sha256:{hashlib.sha256(shared).hexdigest()}")
        assert layer.body == shared
        assert client.request("GET", f"/v2/library/app/manifests/{deleted['digest']}").status == 404
        assert {path: path.stat().st_ino for path in before} == before
        push_image(client, "library/app", "v2", shared, b"three")
    finally:
        registry.terminate()

    with docker_registry(old_root) as old:
        answer = old.request("GET", "/v2/library/app/manifests/v1", {"Accept": MANIFEST})
        assert answer.headers["docker-content-digest"] == first["digest"]


def test_what_cannot_be_taken_is_reported_and_the_exit_code_says_so(tmp_path: Path) -> None:
    link = tmp_path / "v2/repositories/a/_manifests/tags/v1/current/link"
    link.parent.mkdir(parents=True)
    link.write_bytes(b"")
    done = import_distribution(tmp_path, "--json")
    assert done.returncode == 1
    assert [(untaken["problem"], untaken["key"]) for untaken in json.loads(done.stdout)["untaken"]] == [
        ("zero-bytes", "v2/repositories/a/_manifests/tags/v1/current/link")
    ]


def test_a_folder_without_repositories_is_named(tmp_path: Path) -> None:
    """The folder above is the usual mistake: distribution adds ``docker/registry`` to what it is told."""
    (tmp_path / "docker").mkdir()
    done = import_distribution(tmp_path)
    assert done.returncode == 1
    assert "docker/registry" in done.stderr
