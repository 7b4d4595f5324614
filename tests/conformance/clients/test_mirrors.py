"""Clients that pull from a docker-registry through a mirror: cold, warm, and when that has been stopped."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.x509 import load_pem_x509_certificate

from tests.conformance.certificates import Authority
from tests.conformance.clients.conftest import Program
from tests.conformance.clients.oci_layout import content_of, image_layout, named_digest
from tests.conformance.configured.configured_registry import ConfiguredRegistry
from tests.conformance.docker_registry import docker_registry
from tests.conformance.http_client import refused
from tests.conformance.registry_process import RegistryProcess
from tests.conformance.runtime.example_configuration import file_with
from tests.conformance.scripted_server import Asked, Said, ScriptedServer, said

pytestmark = [
    pytest.mark.xdist_group("clients-mirrors"),
    pytest.mark.skipif(shutil.which("docker-registry") is None, reason="docker-registry is not installed"),
]

GUIDE = Path(__file__).parents[3] / "docs/how-to/mirror-docker-hub.md"
USER = f"Basic {base64.b64encode(b'mirror:canary').decode()}"


class TokenServer:
    """Gives whoever has the password a token for what they ask, as docker-registry wants it."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder)
        issued = self.authority.issue("token-server")
        certificate = load_pem_x509_certificate(issued.certificate.read_bytes())
        self._chain = [base64.b64encode(certificate.public_bytes(serialization.Encoding.DER)).decode()]
        self._key = issued.key.read_text()
        self.server = ScriptedServer(self._answer)

    @property
    def auth(self) -> str:
        """For the configuration of docker-registry."""
        return json.dumps(
            {
                "token": {
                    "realm": f"{self.server.origin}/token",
                    "service": "registry",
                    "issuer": "issuer",
                    "rootcertbundle": str(self.authority.bundle),
                }
            }
        )

    def _answer(self, asked: Asked) -> Said:
        if asked.values("authorization") != [USER]:
            return said(b"{}", "401 Unauthorized", 'WWW-Authenticate: Basic realm="x"')
        query = parse_qs(urlsplit(asked.target).query)
        now = int(time.time())
        claims: dict[str, Any] = {"iss": "issuer", "aud": "registry", "sub": "mirror", "jti": "1"}
        claims |= {"iat": now - 10, "nbf": now - 10, "exp": now + 300, "access": []}
        for scope in query.get("scope", []):
            kind, name, actions = scope.split(":")
            claims["access"].append({"type": kind, "name": name, "actions": actions.split(",")})
        token = jwt.encode(claims, self._key, "ES256", headers={"x5c": self._chain})
        return said(json.dumps({"token": token}).encode(), "200 OK", "Content-Type: application/json")


class Origin:
    """A docker-registry that can be stopped, and what it was filled with."""

    def __init__(self, folder: Path, auth: str = "") -> None:
        self._stack = ExitStack()
        self.url = self._stack.enter_context(docker_registry(folder / "origin", auth=auth)).url
        self.address = self.url.partition("://")[2]

    def stop(self) -> None:
        """Twice is no error."""
        self._stack.close()


@contextmanager
def token_server(folder: Path) -> Iterator[TokenServer]:
    server = TokenServer(folder)
    with server.server:
        yield server


@pytest.fixture(params=["open", "with tokens"])
def origin(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Origin, dict[str, Any]]]:
    """Where content comes from, and what a mirror has to say to it."""
    with ExitStack() as stack:
        auth, keys = "", {}
        if request.param == "with tokens":
            tokens = stack.enter_context(token_server(tmp_path))
            auth = tokens.auth
            keys = {"username": "mirror", "password": "canary", "token_realms": [tokens.server.origin]}
        origin = Origin(tmp_path, auth)
        stack.callback(origin.stop)
        yield origin, {"url": f"{origin.url}/team", **keys}


@pytest.fixture
def registry(origin: tuple[Origin, dict[str, Any]], tmp_path: Path) -> Iterator[RegistryProcess]:
    """The mirror: the registry that the clients of these tests know."""
    document = {"repository": {"hub": {"cache": {"fresh_secs": 0}, "upstream": [origin[1]]}}}
    folder = tmp_path / "mirror"
    folder.mkdir()
    mirror = ConfiguredRegistry.configured(folder, document)
    try:
        yield mirror
        mirror.stop()
    finally:
        if not mirror.ended:
            mirror.kill()


@pytest.fixture
def digest(skopeo: Program, origin: tuple[Origin, dict[str, Any]], tmp_path: Path) -> str:
    """Of an image that was pushed to the origin as ``team/shop/app:1``."""
    layout, digest = image_layout(tmp_path / "image")
    target = f"docker://{origin[0].address}/team/shop/app:1"
    skopeo.run(
        "copy", "--preserve-digests", "--dest-creds", "mirror:canary", "--dest-tls-verify=false", layout.source, target
    )
    return digest


def test_skopeo_copies_through_a_mirror(
    skopeo: Program, registry: RegistryProcess, origin: tuple[Origin, dict[str, Any]], digest: str, tmp_path: Path
) -> None:
    image = f"docker://{registry.address}/hub/shop/app:1"
    for state in ("cold", "warm", "stopped"):
        if state == "stopped":
            origin[0].stop()
        skopeo.run("copy", image, f"oci:{tmp_path}/{state}:test")
        assert named_digest(tmp_path / state) == digest
        assert content_of(tmp_path / state) == content_of(tmp_path / "image")
    assert "canary" not in registry.log


def maintain(mirror: RegistryProcess, command: str) -> str:
    """Run it on the store of this mirror, when all that is there has grown old; gives what it says."""
    then = time.time() - 10 * 3600
    for path in (mirror.root / "v2").rglob("*"):
        if path.is_file():
            os.utime(path, (then, then))
    file = next(mirror.log_path.parent.glob("*.toml"))
    words = [sys.executable, "-m", "angos.runtime", command, "-c", str(file)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60, cwd=file.parent)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("origin", ["with tokens"], indirect=True)
def test_what_was_evicted_and_collected_is_pulled_again(
    skopeo: Program, origin: tuple[Origin, dict[str, Any]], digest: str, tmp_path: Path
) -> None:
    """Nothing is left of it in between, and while the origin is stopped nobody is told that there is no such image."""
    folder = tmp_path / "small"
    folder.mkdir()
    document = {
        "repository": {"hub": {"cache": {"fresh_secs": 0, "max_size": 1}, "upstream": [origin[1]]}},
        "server": {"workers": 2},
        "global": {"gc_grace_secs": 1, "gc_interval_secs": 0, "eviction_interval_secs": 0},
    }
    mirror = ConfiguredRegistry.configured(folder, document)
    try:
        image = f"docker://{mirror.address}/hub/shop/app:1"
        for state in ("cold", "cold again"):
            skopeo.run("copy", "--src-tls-verify=false", image, f"oci:{tmp_path}/{state}:test")
            assert named_digest(tmp_path / state) == digest
            assert content_of(tmp_path / state) == content_of(tmp_path / "image")
            assert "; 0 bytes are left" in maintain(mirror, "evict")
            time.sleep(1.1)  # the name of a suspicion says when it was written
            maintain(mirror, "gc")
            assert not list((mirror.root / "v2/blobs").rglob("data"))
        origin[0].stop()
        with mirror.client() as client:  # skopeo tries for long
            refused(client.get("/v2/hub/shop/app/manifests/1"), 503, "UNAVAILABLE")
        mirror.stop()
    finally:
        if not mirror.ended:
            mirror.kill()


def test_podman_pulls_through_a_mirror_that_its_configuration_names(
    podman: Program,
    registry: RegistryProcess,
    origin: tuple[Origin, dict[str, Any]],
    digest: str,
    tmp_path: Path,
) -> None:
    """As the guide has it: images keep the names that they have at Docker Hub, which cannot be reached from here."""
    (configured,) = re.findall(r"hub.conf`:\n\n```toml\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    mirror = f"{registry.address}/hub"
    text = configured.replace('"registry.example.org/hub"', f'"{mirror}"\ninsecure = true')
    assert mirror in text
    (tmp_path / "registries.conf").write_text(text)
    for state in ("cold", "warm", "stopped"):
        if state == "stopped":
            origin[0].stop()
        podman.run("pull", "--quiet", "docker.io/shop/app:1" if state == "cold" else f"docker.io/shop/app@{digest}")
        podman.run("rmi", "--all", "--force")


def test_the_guide_is_a_configuration_that_works(skopeo: Program, tmp_path: Path, digest: str, origin: Any) -> None:
    (configured, *_) = re.findall(r"```toml\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    keys = origin[1]
    uncommented = configured.replace("# username", "username").replace("# password", "password")
    uncommented = re.sub(r"#.*", "", uncommented.replace("an access token of it", "canary"))
    uncommented = uncommented.replace("https://registry-1.docker.io", keys["url"].removesuffix("/team"))
    realms = f"token_realms = {json.dumps(keys.get('token_realms', []))}\n"
    folder = tmp_path / "guide"
    folder.mkdir()
    files = [
        file_with(folder, uncommented + realms),
        file_with(folder, '[server]\nport = 0\n[blob_store.fs]\nroot_dir = "data"\n', "more.toml"),
    ]
    mirror = ConfiguredRegistry.of_files(folder, files)
    try:
        shown: Any = skopeo.json("inspect", "--tls-verify=false", f"docker://{mirror.address}/hub/team/shop/app:1")
        assert shown["Digest"] == digest
        with mirror.client() as client:
            answer = client.head("/v2/team/shop/app/manifests/1?ns=docker.io")
        assert (answer["docker-content-digest"], answer["oci-namespace"]) == (digest, "docker.io")
    finally:
        mirror.terminate()
