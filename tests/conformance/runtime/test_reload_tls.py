"""Certificates are renewed while the server runs; TLS itself comes and goes with a restart only."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from tests.conformance.certificates import Authority, Issued
from tests.conformance.registry_process import RegistryProcess
from tests.conformance.runtime.reloading import StartRegistry, replace_file, wait_for, wait_for_generation

CONFIGURATION = """
[server.tls]
server_certificate_bundle = "server.pem"
server_private_key = "server.key"
"""


class Files:
    """A configuration file with the files that it names beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority(folder)
        self.configuration = folder / "a.toml"
        self.configuration.write_text(CONFIGURATION)
        self.serial = self.install(self.issue())

    def issue(self) -> Issued:
        return self.authority.issue("127.0.0.1", common_names=("registry",))

    def install(self, issued: Issued) -> int:
        """Its serial number."""
        shutil.copy(issued.certificate, self.folder / "server.pem")
        shutil.copy(issued.key, self.folder / "server.key")
        return serial_of(issued)


def serial_of(issued: Issued) -> int:
    return x509.load_pem_x509_certificate(issued.certificate.read_bytes()).serial_number


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@contextlib.contextmanager
def connected(registry: RegistryProcess, files: Files, client: Issued | None = None) -> Iterator[ssl.SSLSocket]:
    context = ssl.create_default_context(cafile=str(files.authority.bundle))
    if client is not None:
        context.load_cert_chain(client.certificate, client.key)
    host, _, port = registry.address.rpartition(":")
    with (
        socket.create_connection((host, int(port)), timeout=20) as plain,
        context.wrap_socket(plain, server_hostname=host) as encrypted,
    ):
        yield encrypted


def ask(encrypted: ssl.SSLSocket) -> bytes:
    """The status line of an answer; it fits into one record."""
    encrypted.sendall(b"GET /v2/ HTTP/1.1\r\nHost: registry\r\n\r\n")
    return encrypted.recv(65536).split(b"\r\n")[0]


def serials(registry: RegistryProcess, files: Files, count: int = 12) -> set[int]:
    """The certificates that new connections are shown."""
    found = set()
    for _ in range(count):
        with connected(registry, files) as encrypted:
            certificate = encrypted.getpeercert()
            assert certificate is not None
            found.add(int(str(certificate["serialNumber"]), 16))
            assert ask(encrypted) == b"HTTP/1.1 200 OK"
    return found


@pytest.mark.parametrize(("loop", "workers"), [("asyncio", 1), ("trio", 1), ("asyncio", 3)])
def test_a_new_certificate_is_shown_to_new_connections(
    start: StartRegistry, files: Files, loop: str, workers: int
) -> None:
    registry = start(files.configuration, loop=loop, workers=workers)
    assert registry.url.startswith("https://")
    assert serials(registry, files) == {files.serial}
    with connected(registry, files) as kept:
        assert ask(kept) == b"HTTP/1.1 200 OK"
        renewed = files.install(files.issue())
        wait_for_generation(registry, 2)
        assert serials(registry, files) == {renewed}
        assert ask(kept) == b"HTTP/1.1 200 OK", "a connection outlives the certificate that it began with"


@pytest.mark.parametrize("workers", [1, 2])
def test_a_broken_certificate_leaves_the_old_one(start: StartRegistry, files: Files, workers: int) -> None:
    registry = start(files.configuration, workers=workers)
    renewed = files.issue()
    shutil.copy(renewed.certificate, files.folder / "server.pem")
    wait_for(registry, "configuration not reloaded")
    assert "server.key" in registry.log
    assert serials(registry, files) == {files.serial}
    shutil.copy(renewed.key, files.folder / "server.key")
    wait_for_generation(registry, 2)
    assert serials(registry, files) == {serial_of(renewed)}
    (files.folder / "server.key").write_text("-----BEGIN PRIVATE KEY-----\nQ0FOQVJZ\n-----END PRIVATE KEY-----\n")
    wait_for(registry, "configuration not reloaded", 2)
    assert serials(registry, files) == {serial_of(renewed)}
    assert "Q0FOQVJZ" not in registry.log


def test_a_new_bundle_of_authorities_decides_about_clients(start: StartRegistry, files: Files, tmp_path: Path) -> None:
    before, after = Authority(tmp_path, "Before"), Authority(tmp_path, "After")
    shutil.copy(before.bundle, files.folder / "clients.pem")
    files.configuration.write_text(f'{CONFIGURATION}client_ca_bundle = "clients.pem"\nclient_auth = "required"\n')
    registry = start(files.configuration)
    known, unknown = before.issue(common_names=("old",)), after.issue(common_names=("new",))
    for generation in (2, 3):
        with connected(registry, files, known) as encrypted:
            assert ask(encrypted) == b"HTTP/1.1 200 OK"
        with pytest.raises(ssl.SSLError), connected(registry, files, unknown) as encrypted:
            ask(encrypted)
        known, unknown = unknown, known
        if generation == 2:
            shutil.copy(after.bundle, files.folder / "clients.pem")
            wait_for_generation(registry, generation)


@pytest.mark.parametrize("workers", [1, 2])
def test_tls_stays_on_until_a_restart(start: StartRegistry, files: Files, workers: int) -> None:
    registry = start(files.configuration, workers=workers)
    (files.folder / "server.pem").unlink()
    (files.folder / "server.key").unlink()
    replace_file(files.configuration, "[global]\nmax_manifest_size = 1000\n")
    wait_for(registry, "server.tls: still on, since turning TLS off needs a restart")
    assert serials(registry, files) == {files.serial}
    replace_file(files.configuration, CONFIGURATION)
    renewed = files.install(files.issue())
    wait_for(registry, "configuration reloaded", 2)
    assert serials(registry, files) == {renewed}


def test_tls_stays_off_until_a_restart(start: StartRegistry, files: Files) -> None:
    files.configuration.write_text("")
    registry = start(files.configuration)
    replace_file(files.configuration, CONFIGURATION)
    wait_for(registry, "server.tls: still off, since turning TLS on needs a restart")
    with registry.client() as client:
        assert client.get("/v2/").status == 200


def test_broken_tls_refuses_to_start(files: Files) -> None:
    (files.folder / "server.key").write_text("nothing")
    command = [sys.executable, "-m", "angos.runtime", "server", "--port", "0", "-c", str(files.configuration)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=files.folder)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "server.key" in ended.stderr
    assert "Traceback" not in ended.stderr
