"""``[cache.redis]`` and ``[leases.redis]``: replicas that share a real Redis, a folder and nothing else."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.configured.configured_registry import ConfiguredRegistry, Start, merged
from tests.conformance.configured.coverage import changes_with
from tests.conformance.redis_process import RedisProcess
from tests.conformance.runtime.example_configuration import file_with
from tests.conformance.runtime.reloading import replace_file, wait_for, wait_until
from tests.conformance.scripted_server import ScriptedServer, said
from tests.conformance.server.wire import Wire

pytestmark = pytest.mark.xdist_group("configured-redis")

UPLOADS = "/v2/team/app/blobs/uploads/"


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisProcess]:
    with RedisProcess(tmp_path) as redis:
        yield redis


def sharing(root: Path, **tables: Any) -> dict[str, Any]:
    return {"blob_store": {"fs": {"root_dir": str(root)}}, **tables}


# --- cache ------------------------------------------------------------------------------------------------------------


@changes_with("cache.redis.url", "cache.redis.key_prefix")
def test_replicas_share_what_a_webhook_answered(start: Start, redis: RedisProcess) -> None:
    with ScriptedServer(lambda _: said()) as webhook:
        alone: dict[str, Any] = {
            "global": {"authorization_webhook": "gate", "access_policy": {"default": "allow"}},
            "auth": {"webhook": {"gate": {"url": f"http://127.0.0.1:{webhook.port}/gate", "timeout_ms": 20_000}}},
        }
        shared = merged(alone, {"cache": {"redis": {"url": redis.url}}})
        other = merged(shared, {"cache": {"redis": {"key_prefix": "other:"}}})
        one, two, three, four = map(start, (shared, merged(shared, {"server": {"workers": 2}}), other, alone))
        for registry, asked in ((one, 1), (one, 1), (two, 1), (two, 1), (three, 2), (three, 2), (two, 2), (four, 3)):
            assert registry.status("/v2/") == 200
            assert len(webhook.asked) == asked
        assert b"angos:cache:webhook:gate:" in redis.command("KEYS", "*")
        assert b"other:cache:webhook:gate:" in redis.command("KEYS", "*")
        redis.kill()
        for registry in (one, three):
            assert registry.status("/v2/") == 200
            assert registry.status("/v2/") == 200
        assert len(webhook.asked) == 3  # both had asked themselves, and remember it
        assert two.status("/v2/") == 200
        assert len(webhook.asked) == 4


# --- leases -----------------------------------------------------------------------------------------------------------


def start_upload(registry: ConfiguredRegistry) -> str:
    with registry.connect() as wire:
        wire.ask(UPLOADS, "Content-Length: 0", method="POST")
        answer = wire.answer()
    assert answer.status == 202
    return re.sub(r"^https?://[^/]+", "", answer.fields["location"])


def begin_patch(wire: Wire, location: str, body: bytes = b"") -> None:
    wire.ask(location, "Content-Range: 0-9", "Content-Length: 10", method="PATCH", body=body)


def lease_of(location: str, prefix: str = "angos:") -> str:
    found = re.search(r"[0-9a-f-]{36}", location)
    assert found is not None
    return f"{prefix}lease:upload/{found[0]}"


@changes_with("leases.redis.url", "leases.redis.key_prefix")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_replica_waits_for_another_one_that_appends_to_an_upload(
    start: Start, redis: RedisProcess, tmp_path: Path, workers: int
) -> None:
    leases = {"redis": {"url": redis.url, "key_prefix": "mine:"}}
    document = sharing(tmp_path / "shared", leases=leases, server={"workers": workers})
    one, other = start(document), start(document)
    location = start_upload(one)
    with one.connect() as first, other.connect() as second:
        begin_patch(first, location, b"01234")
        wait_until(lambda: redis.holds(lease_of(location, "mine:")))
        begin_patch(second, location, b"abcdefghij")
        first.send(b"56789")
        assert first.answer().status == 202
        late = second.answer()
        assert (late.status, late.fields["range"]) == (416, "0-9")
    wait_until(lambda: not redis.holds(lease_of(location, "mine:")))


def test_without_redis_replicas_do_not_wait(start: Start, tmp_path: Path) -> None:
    document = sharing(tmp_path / "shared")
    one, other = start(document), start(document)
    location = start_upload(one)
    with one.connect() as first, other.connect() as second:
        begin_patch(first, location, b"01234")
        begin_patch(second, location, b"abcdefghij")
        assert second.answer().status == 202
        first.send(b"56789")
        assert first.answer().status == 416


def test_uploads_are_refused_for_as_long_as_redis_is_away_and_nothing_is_lost(
    start: Start, redis: RedisProcess, tmp_path: Path
) -> None:
    registry = start(sharing(tmp_path / "shared", leases={"redis": {"url": redis.url}}))
    location = start_upload(registry)
    with registry.connect() as wire:
        begin_patch(wire, location, b"01234")
        wait_until(lambda: redis.holds(lease_of(location)))
        redis.kill()
        wire.send(b"56789")
        assert wire.answer().status == 202  # it was let in before, and giving the lease back cannot fail
        for target in ("/v2/", "/readyz", "/v2/_catalog"):
            assert wire.get(target).status == 200
        wire.ask(location, "Content-Length: 1", method="PATCH", body=b"x")
        refused = wire.answer()
        assert (refused.status, refused.error_code()) == (503, "UNAVAILABLE")
        assert refused.fields["retry-after"] == "5"
        assert "storage" not in refused.json()["errors"][0]["message"]
    wait_for(registry, f"{redis.url}/0 is away: it cannot be reached (Connection refused)")
    redis.start()

    def is_appended() -> bool:
        with registry.connect() as wire:
            wire.ask(location, "Content-Range: 10-10", "Content-Length: 1", method="PATCH", body=b"x")
            return wire.answer().status == 202

    wait_until(is_appended)
    wait_for(registry, f"{redis.url}/0 is back")
    assert "Traceback" not in registry.log


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", ["cache", "leases"])
def test_on_trio_redis_is_refused_at_the_start(tmp_path: Path, table: str) -> None:
    file = file_with(tmp_path, f'[{table}.redis]\nurl = "redis://:canary@127.0.0.1"')
    command = [sys.executable, "-m", "angos.runtime", "server", "-c", str(file), "--loop", "trio", "--port", "0"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, cwd=tmp_path)
    assert (found.returncode, found.stdout) == (1, "")
    assert found.stderr.startswith("angos: --loop trio: Redis can be used on asyncio only")
    assert "canary" not in found.stderr


def test_another_redis_takes_a_restart(start: Start, redis: RedisProcess) -> None:
    registry = start({"leases": {"redis": {"url": f"redis://:canary@127.0.0.1:{redis.port}"}}})
    file = registry.log_path.with_name("angos.toml")
    replace_file(file, file.read_text().replace("canary@127.0.0.1", "canary@localhost"))
    wait_for(registry, "leases.redis.url: still redis://127.0.0.1:")
    assert "canary" not in registry.log
