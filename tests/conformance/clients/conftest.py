"""Real clients, each with configuration and storage of its own, that talk to nothing but the registry of the test."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conformance.registry_process import RegistryProcess

REQUIRED = "ANGOS_TEST_REQUIRE_CLIENTS"
COMMAND_SECONDS_MAX = 120


@dataclass(frozen=True)
class Program:
    """An installed client."""

    path: str
    arguments: tuple[str, ...]
    environment: dict[str, str]
    folder: Path

    def run(self, *arguments: str, succeeds: bool = True) -> str:
        """Run it and give its stdout; its failure is the failure of the test, unless it is meant to fail."""
        command = [self.path, *self.arguments, *arguments]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            env=self.environment,
            cwd=self.folder,
            timeout=COMMAND_SECONDS_MAX,
            stdin=subprocess.DEVNULL,
        )
        shown = f"{' '.join(command)}\n-> {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert (done.returncode == 0) == succeeds, shown
        return done.stdout if succeeds else done.stdout + done.stderr

    def json(self, *arguments: str) -> object:
        """Run it and read its stdout as JSON."""
        return json.loads(self.run(*arguments))


Install = Callable[..., Program]


@pytest.fixture
def program(registry: RegistryProcess, tmp_path: Path) -> Install:
    """Finds a client; an absent one is skipped by name, or fails where all of them are required."""
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TMPDIR": str(tmp_path / "tmp")}
    for name, folder in (("HOME", "home"), ("XDG_RUNTIME_DIR", "run"), ("TMPDIR", "tmp"), ("XDG_DATA_HOME", "share")):
        (tmp_path / folder).mkdir()
        environment[name] = str(tmp_path / folder)
    registries = tmp_path / "registries.conf"
    registries.write_text(
        f'unqualified-search-registries = []\n[[registry]]\nlocation = "{registry.address}"\ninsecure = true\n'
    )
    environment["CONTAINERS_REGISTRIES_CONF"] = str(registries)
    environment["REGISTRY_AUTH_FILE"] = str(tmp_path / "auth.json")
    (tmp_path / "auth.json").write_text("{}")

    def find(name: str, *arguments: str) -> Program:
        path = shutil.which(name)
        if path is None:
            if os.environ.get(REQUIRED):
                pytest.fail(f"{name} is not installed, and {REQUIRED} is set")
            pytest.skip(f"{name} is not installed")
        return Program(path, arguments, environment, tmp_path)

    return find


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    """Signatures are not what these tests are about."""
    path = tmp_path / "policy.json"
    path.write_text('{"default":[{"type":"insecureAcceptAnything"}]}')
    return path


@pytest.fixture
def skopeo(program: Install, registry: RegistryProcess, policy: Path, tmp_path: Path) -> Program:
    """skopeo, which copies without storage of its own."""
    registries = str(tmp_path / "registries.conf")
    return program(
        "skopeo", "--registries-conf", registries, "--policy", str(policy), "--tmpdir", str(tmp_path / "tmp")
    )


@pytest.fixture
def storage() -> Iterator[Path]:
    """A folder for images. Its name is short because podman refuses a long one."""
    folder = Path(tempfile.mkdtemp(prefix="angos-"))
    yield folder
    # The vfs driver keeps images as plain folders, some of them without write permission for their owner.
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def podman(program: Install, storage: Path) -> Program:
    """podman with storage of its own."""
    folders = ("--root", f"{storage}/p", "--runroot", f"{storage}/r", "--tmpdir", f"{storage}/t")
    return program("podman", *folders, "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs")


@pytest.fixture
def buildah(program: Install, storage: Path) -> Program:
    """buildah with storage of its own."""
    return program("buildah", "--root", f"{storage}/b", "--runroot", f"{storage}/r", "--storage-driver", "vfs")


@pytest.fixture
def curl(program: Install) -> Program:
    """curl, as people use it in scripts."""
    return program("curl", "--silent", "--show-error", "--fail-with-body", "--max-time", "60")
