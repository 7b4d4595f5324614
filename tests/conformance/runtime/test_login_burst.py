"""Many people log in at the same moment, on a server that works on one request at a time."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import argon2
import pytest

from tests.conformance.registry_process import RegistryProcess
from tests.conformance.runtime.loops import LOOPS

LOGINS = 10
QUEUE_SECONDS = 1  # much less than all logins take together

CONFIGURATION = """
[server]
queue_timeout = {seconds}
[global]
max_concurrent_requests = 1
[global.access_policy]
default = "allow"
[auth.identity.alice]
username = "alice"
password = "{phc}"
"""


@pytest.fixture(params=LOOPS)
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RegistryProcess]:
    phc = argon2.PasswordHasher(time_cost=8, memory_cost=32 << 10, parallelism=1).hash("right")
    configuration = tmp_path / "angos.toml"
    configuration.write_text(CONFIGURATION.format(seconds=QUEUE_SECONDS, phc=phc))
    registry = RegistryProcess.start(tmp_path / "data", loop=request.param, arguments=["-c", str(configuration)])
    yield registry
    registry.stop()


def log_in(registry: RegistryProcess, password: str) -> int:
    credentials = base64.b64encode(f"alice:{password}".encode()).decode()
    with registry.client() as client:
        return client.request("GET", "/v2/", headers=[("Authorization", f"Basic {credentials}")]).status


def test_who_waits_for_a_password_to_be_checked_takes_nobodys_place(registry: RegistryProcess) -> None:
    with ThreadPoolExecutor(LOGINS) as people:
        wrong = [people.submit(log_in, registry, f"wrong {number}") for number in range(LOGINS - 1)]
        right = people.submit(log_in, registry, "right")
        with registry.client() as anonymous:
            for _ in range(20):
                assert anonymous.request("GET", "/v2/_catalog").status == 200
        assert right.result() == 200
        assert [login.result() for login in wrong] == [401] * (LOGINS - 1)
