"""Debian's docker-registry (CNCF distribution 2.8) as a process, and a client that speaks to it and to ours alike."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tests.conformance.local_process import free_port

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
ACCEPT = f"{MANIFEST}, {INDEX}"
CONFIGURATION = """\
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage:
  {storage}
  delete: {{enabled: true}}
  redirect: {{disable: true}}
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
def docker_registry(root: Path, storage: str = "", auth: str = "") -> Iterator[Client]:
    """A running docker-registry on this folder; with `storage`, which is YAML, only its log is kept beside it.

    `auth` is YAML too: who may do what. Without it everybody may do everything.
    """
    port = free_port()
    file = root.with_name("registry.yml")
    configuration = CONFIGURATION.format(storage=storage or f"filesystem: {{rootdirectory: {root}}}", port=port)
    file.write_text(f"{configuration}auth: {auth}\n" if auth else configuration)
    log = root.with_name("registry.log")
    with log.open("ab") as output:
        process = subprocess.Popen(["docker-registry", "serve", str(file)], env=_own(), stdout=output, stderr=output)
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


def collect_garbage(root: Path) -> str:
    """What docker-registry says while it removes what it thinks nobody needs. It must have run on this folder before,
    and must not run now."""
    command = ["docker-registry", "garbage-collect", str(root.with_name("registry.yml"))]
    done = subprocess.run(command, env=_own(), capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


def _own() -> dict[str, str]:
    """Whatever this machine has set for clients of S3 is meant for others."""
    return {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}


def digest_of(content: bytes, algorithm: str = "sha256") -> str:
    """The digest of these bytes."""
    return f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"


def push_blob(client: Client, namespace: str, content: bytes) -> dict[str, object]:
    """Push a blob and give its descriptor."""
    digest = digest_of(content)
    begun = client.request("POST", f"/v2/{namespace}/blobs/uploads/")
    location = begun.headers["location"]
    location = location[location.index("/v2/") :]
    finish = f"{location}{'&' if '?' in location else '?'}digest={digest}"
    assert client.request("PUT", finish, {"Content-Type": "application/octet-stream"}, content).status == 201
    return {"mediaType": "application/octet-stream", "digest": digest, "size": len(content)}


def push_manifest(
    client: Client, namespace: str, reference: str, document: dict[str, object], algorithm: str = "sha256"
) -> dict[str, object]:
    """Push a manifest and give its descriptor. Without a reference, or under sha512, it is pushed by digest."""
    content = json.dumps(document).encode()
    digest = digest_of(content, algorithm)
    media_type = str(document["mediaType"])
    target = f"/v2/{namespace}/manifests/{reference or digest}"
    if reference and algorithm != "sha256":
        target = f"/v2/{namespace}/manifests/{digest}?tag={reference}"
    assert client.request("PUT", target, {"Content-Type": media_type}, content).status == 201
    return {"mediaType": media_type, "digest": digest, "size": len(content)}


def push_image(
    client: Client, namespace: str, reference: str, *layers: bytes, algorithm: str = "sha256"
) -> dict[str, object]:
    """Push an image of these layers."""
    config = push_blob(client, namespace, json.dumps({"of": reference}).encode())
    found = [push_blob(client, namespace, layer) for layer in layers]
    document = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": found}
    return push_manifest(client, namespace, reference, document, algorithm)
