"""Rules and users change with the configuration; what was given out before still counts."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.conformance.http_client import Client
from tests.conformance.registry_process import RegistryProcess
from tests.conformance.runtime.reloading import (
    StartRegistry,
    children,
    replace_file,
    wait_for,
    wait_for_generation,
    wait_until,
)

TOKENS = """
[auth]
invalid_credentials = "reject"
[auth.token_service]
enabled = true
[global.access_policy]
default = "allow"
"""


def status_with(client: Client, token: str) -> int:
    return client.get("/v2/", (("Authorization", f"Bearer {token}"),)).status


@pytest.mark.parametrize("workers", [1, 2])
def test_tokens_outlive_reloads_and_workers(start: StartRegistry, workers: int, tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text("")
    registry = start(file, workers=workers)
    replace_file(file, TOKENS)
    wait_for_generation(registry, 2)
    with registry.client() as client:
        token = str(client.get("/token").json["token"])
        assert status_with(client, f"{token}x") == 401
    replace_file(file, f"{TOKENS}[server]\nidle_timeout = 60\n")
    wait_for_generation(registry, 3)
    before = children(registry.pid)
    for process in before:
        os.kill(process, signal.SIGKILL)
    wait_until(lambda: len(children(registry.pid) - before) == len(before) and _answers(registry))
    for _ in range(10):
        with registry.client() as client:
            assert status_with(client, token) == 200


def _answers(registry: RegistryProcess) -> bool:
    try:
        with registry.client() as client:
            return client.get("/v2/").status > 0
    except OSError:
        return False


def policy(rule: str) -> str:
    return f'[global.access_policy]\ndefault = "deny"\nrules = ["{rule}"]\n'


@pytest.mark.parametrize("workers", [1, 2])
def test_rules_change_on_open_connections_and_bad_ones_are_refused(
    start: StartRegistry, workers: int, tmp_path: Path
) -> None:
    file = tmp_path / "a.toml"
    file.write_text(policy("request.namespace == 'a'"))
    registry = start(file, workers=workers)
    with registry.client() as client:
        assert [client.get(f"/v2/{name}/tags/list").status for name in "ab"] == [404, 401]
        replace_file(file, policy("request.namespace == 'b'"))
        wait_for_generation(registry, 2)
        assert [client.get(f"/v2/{name}/tags/list").status for name in "ab"] == [401, 404]
        replace_file(file, policy("request.nonsense == 'a'"))
        wait_for(registry, "configuration not reloaded")
        wait_for(registry, "global.access_policy.rules[0]: line 1, column 9: request has no field nonsense")
        assert [client.get(f"/v2/{name}/tags/list").status for name in "ab"] == [401, 404]
