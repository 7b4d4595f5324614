"""What a plain start loads. Every module costs every start, and memory for as long as the server runs."""

from __future__ import annotations

import re
import signal
import subprocess
import sys

import pytest

from tests.conformance.http_client import Client

UNWANTED = (
    "aioboto3",
    "aiobotocore",
    "angos.runtime.config.watch",
    "angos.runtime.reload",
    "angos.runtime.server.parent",
    "angos.runtime.server.reloading",
    "angos.simulator",
    "argon2",
    "boto3",
    "botocore",
    "celpy",
    "hypothesis",
    "jwt",
    "opentelemetry",
    "pytest",
    "redis",
    "trio",
)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The modules that a server on asyncio has imported after its first answers."""
    root = tmp_path_factory.mktemp("start") / "data"
    command = [sys.executable, "-X", "importtime", "-m", "angos.runtime", "server", "--port", "0", "--root", str(root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"http://\S+", process.stdout.readline())
            assert found is not None
            with Client.of(found[0]) as client:
                assert client.request("GET", "/v2/").status == 200
            process.send_signal(signal.SIGTERM)
            _, listed = process.communicate(timeout=30)
        finally:
            process.kill()
    return {line.rpartition("|")[2].strip() for line in listed.splitlines() if line.startswith("import time:")}


def test_start_loads_the_server_and_the_core(loaded: set[str]) -> None:
    assert {"angos.sansio.registry", "anyio", "asyncio", "h11"} <= loaded


@pytest.mark.parametrize("module", UNWANTED)
def test_start_does_not_load(module: str, loaded: set[str]) -> None:
    assert [name for name in loaded if name == module or name.startswith(f"{module}.")] == []
