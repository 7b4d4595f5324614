"""A private registry as its users meet it: TLS, logins, anonymous pulls, certificates, tokens of a CI provider."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.certificates import Authority
from tests.conformance.clients.conftest import Program
from tests.conformance.clients.oci_layout import image_layout
from tests.conformance.identity_provider import IdentityProvider
from tests.conformance.registry_process import RegistryProcess

CONFIGURATION = """
[server.tls]
server_certificate_bundle = "{certificate}"
server_private_key = "{key}"
client_ca_bundle = "{authority}"

[global.access_policy]
default = "deny"
rules = [
    'request.action in ["get-manifest", "get-blob", "list-tags"] && request.namespace.startsWith("public/")',
    'identity.username == "alice"',
    '"Robots" in identity.certificate.organizations',
    'identity.oidc != null && identity.oidc.claims["repository"] == "acme/app" && request.namespace == "public/app"',
]

[auth.identity.alice]
username = "alice"
password = "{hash}"

[auth.oidc.ci]
issuer = "{issuer}"
required_audience = "registry"
server_ca_bundle = "{authority}"
"""


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Everybody trusts it."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def provider(authority: Authority) -> Iterator[IdentityProvider]:
    """Signs tokens for jobs."""
    with IdentityProvider(authority) as provider:
        yield provider


@pytest.fixture(scope="session", params=["asyncio"])
def registry(
    request: pytest.FixtureRequest,
    authority: Authority,
    provider: IdentityProvider,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[RegistryProcess]:
    """Anybody pulls what is public, Alice does everything, robots by certificate, a job pushes one repository."""
    folder = tmp_path_factory.mktemp("private")
    issued = authority.issue("localhost", "127.0.0.1")
    command = [sys.executable, "-m", "angos.runtime", "argon"]
    hashed = subprocess.run(command, input="open sesame\n", capture_output=True, text=True, check=True).stdout.strip()
    (folder / "angos.toml").write_text(
        CONFIGURATION.format(
            certificate=issued.certificate,
            key=issued.key,
            authority=authority.bundle,
            hash=hashed,
            issuer=provider.issuer,
        )
    )
    registry = RegistryProcess.start(folder / "data", loop=request.param, arguments=["-c", str(folder / "angos.toml")])
    yield registry
    registry.stop()
    assert "open sesame" not in registry.log


@pytest.fixture
def trust(authority: Authority, tmp_path: Path) -> Path:
    """What ``--cert-dir`` wants: the authority's certificate, and perhaps a client's."""
    folder = tmp_path / "certificates"
    folder.mkdir()
    (folder / "ca.crt").write_bytes(authority.bundle.read_bytes())
    return folder


@pytest.fixture(autouse=True)
def no_insecure_registry(program: object, tmp_path: Path) -> None:
    """These tests speak TLS."""
    (tmp_path / "registries.conf").write_text("unqualified-search-registries = []\n")


def source(tmp_path: Path) -> str:
    layout, _ = image_layout(tmp_path / "image")
    return layout.source


def test_a_login_is_told_the_truth(skopeo: Program, trust: Path, registry: RegistryProcess) -> None:
    certs = ("--cert-dir", str(trust))
    said = skopeo.run("login", *certs, "-u", "alice", "-p", "wrong", registry.address, succeeds=False)
    assert "unauthorized" in said.lower() or "invalid username/password" in said.lower()
    skopeo.run("login", *certs, "-u", "alice", "-p", "open sesame", registry.address)
    skopeo.run("logout", registry.address)


def test_skopeo_pushes_with_a_login_and_anybody_pulls(
    skopeo: Program, trust: Path, registry: RegistryProcess, name: str, tmp_path: Path
) -> None:
    image = f"docker://{registry.address}/public/{name}:1"
    certs = ("--dest-cert-dir", str(trust))
    refused = skopeo.run("copy", *certs, source(tmp_path), image, succeeds=False)
    assert "unauthorized" in refused or "authentication required" in refused
    skopeo.run("login", "--cert-dir", str(trust), "-u", "alice", "-p", "open sesame", registry.address)
    skopeo.run("copy", *certs, f"oci:{tmp_path}/image:test", image)
    skopeo.run("logout", registry.address)
    skopeo.run("copy", "--src-cert-dir", str(trust), image, f"oci:{tmp_path}/back:test")
    listed = skopeo.json("list-tags", "--cert-dir", str(trust), image.rpartition(":")[0])
    assert isinstance(listed, dict)
    assert listed["Tags"] == ["1"]


def test_podman_pushes_with_a_login_and_anybody_pulls(
    podman: Program, skopeo: Program, trust: Path, registry: RegistryProcess, name: str, tmp_path: Path
) -> None:
    image = f"{registry.address}/public/{name}:1"
    podman.run("pull", source(tmp_path))
    (local,) = podman.run("images", "-q").split()
    certs = ("--cert-dir", str(trust))
    assert "unauthorized" in podman.run("push", *certs, local, image, succeeds=False)
    podman.run("login", *certs, "-u", "alice", "-p", "wrong", registry.address, succeeds=False)
    podman.run("login", *certs, "-u", "alice", "-p", "open sesame", registry.address)
    podman.run("push", *certs, local, image)
    podman.run("logout", registry.address)
    podman.run("rmi", "--all", "--force")
    podman.run("pull", *certs, image)


def test_what_is_private_stays_so(
    skopeo: Program, trust: Path, registry: RegistryProcess, name: str, tmp_path: Path
) -> None:
    image = f"docker://{registry.address}/private/{name}:1"
    login = ("--creds", "alice:open sesame")
    skopeo.run("copy", "--dest-cert-dir", str(trust), "--dest-creds", login[1], source(tmp_path), image)
    skopeo.run("inspect", "--cert-dir", str(trust), image, succeeds=False)
    skopeo.run("inspect", "--cert-dir", str(trust), *login, image)


def test_a_client_certificate_is_a_login(
    skopeo: Program, authority: Authority, trust: Path, registry: RegistryProcess, name: str, tmp_path: Path
) -> None:
    issued = authority.issue(common_names=("robot-1",), organizations=("Robots",))
    (trust / "client.cert").write_bytes(issued.certificate.read_bytes())
    (trust / "client.key").write_bytes(issued.key.read_bytes())
    image = f"docker://{registry.address}/private/{name}:1"
    skopeo.run("copy", "--dest-cert-dir", str(trust), source(tmp_path), image)
    skopeo.run("inspect", "--cert-dir", str(trust), image)


def test_a_job_pushes_with_the_token_of_its_provider_also_after_its_keys_changed(
    skopeo: Program, provider: IdentityProvider, trust: Path, registry: RegistryProcess, tmp_path: Path
) -> None:
    image = f"docker://{registry.address}/public/app:1"
    certs = ("--dest-cert-dir", str(trust))
    good = {"aud": "registry", "repository": "acme/app"}
    skopeo.run("copy", *certs, "--dest-creds", f"ci:{provider.token(**good)}", source(tmp_path), image)
    provider.rotate()
    again = (*certs, "--dest-creds", f"ci:{provider.token(**good)}", f"oci:{tmp_path}/image:test")
    skopeo.run("copy", *again, image.replace(":1", ":2"))
    for bad in ({"repository": "acme/app"}, {"aud": "registry", "repository": "evil/app"}):
        token = provider.token(**bad)
        skopeo.run("copy", *certs, "--dest-creds", f"ci:{token}", f"oci:{tmp_path}/image:test", image, succeeds=False)
    skopeo.run("copy", *again, image.replace("/app:", "/other:"), succeeds=False)
    assert provider.asked.count("/k") == 2, "keys are fetched once, and once more when they have changed"


def test_podman_logs_in_with_a_token_of_the_provider(
    podman: Program, provider: IdentityProvider, trust: Path, registry: RegistryProcess
) -> None:
    token = provider.token(aud="registry", repository="acme/app")
    podman.run("login", "--cert-dir", str(trust), "-u", "ci", "-p", token, registry.address)
    stored = json.loads((podman.folder / "auth.json").read_text())
    assert registry.address in stored["auths"]
