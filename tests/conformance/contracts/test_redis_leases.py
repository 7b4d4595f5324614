"""Leases among several processes by way of a real Redis that is killed, frozen, refuses, and forgets."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import anyio
import pytest

from angos.runtime.cache.redis import RedisCache
from angos.runtime.leases.redis import _PROLONG, LAPSE_SECONDS, RedisLeases
from angos.runtime.redis.address import parse_redis_url
from angos.runtime.redis.server import AWAY_SECONDS, REPLY_SECONDS, RedisServer
from angos.sansio.effects import AcquireLease, PeerUnavailable, ReadCache, ReleaseLease, WriteCache
from angos.sansio.secret import Secret
from tests.conformance.balancer import Balancer
from tests.conformance.certificates import Authority
from tests.conformance.redis_process import RedisProcess

PATIENCE_SECONDS = 20.0


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisProcess]:
    with RedisProcess(tmp_path) as redis:
        yield redis


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


pytestmark = pytest.mark.anyio


@asynccontextmanager
async def replica(url: str) -> AsyncIterator[RedisLeases]:
    """Leases as one process has them, with connections of its own."""
    server = RedisServer(parse_redis_url(url))
    try:
        with anyio.fail_after(PATIENCE_SECONDS):
            yield RedisLeases(server, "angos:")
    finally:
        await server.close()


async def acquire_when_back(leases: RedisLeases, name: str) -> str:
    """Once Redis is at hand again: it is tried again by itself, and nobody has to do anything for it."""
    while True:
        try:
            token = await leases.acquire(AcquireLease(name, 60, 10))
        except PeerUnavailable:
            await anyio.sleep(AWAY_SECONDS / 10)
        else:
            assert token is not None
            return token


async def test_a_lease_excludes_other_replicas_until_it_is_released(redis: RedisProcess) -> None:
    async with replica(redis.url) as one, replica(redis.url) as other:
        token = await one.acquire(AcquireLease("a", 60, 0))
        assert token is not None
        assert await other.acquire(AcquireLease("a", 60, 0)) is None
        assert await other.acquire(AcquireLease("a", 60, 0.05)) is None
        assert await other.acquire(AcquireLease("b", 60, 0)) is not None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(one.release, ReleaseLease("a", token))
            assert await other.acquire(AcquireLease("a", 60, 10)) is not None
        assert await one.acquire(AcquireLease("a", 60, 0)) is None


async def test_two_of_many_in_three_replicas_never_hold_it_at_once(redis: RedisProcess) -> None:
    holders = most = served = 0

    async def work(leases: RedisLeases) -> None:
        nonlocal holders, most, served
        token = await leases.acquire(AcquireLease("a", 60, PATIENCE_SECONDS))
        assert token is not None
        holders, served = holders + 1, served + 1
        most = max(most, holders)
        await anyio.sleep(0.001)
        holders -= 1
        await leases.release(ReleaseLease("a", token))

    async with AsyncExitStack() as stack:
        replicas = [await stack.enter_async_context(replica(redis.url)) for _ in range(3)]
        async with anyio.create_task_group() as tasks:
            for leases in replicas * 10:
                tasks.start_soon(work, leases)
    assert (most, served) == (1, 30)


async def test_nobody_releases_what_somebody_else_holds(redis: RedisProcess) -> None:
    async with replica(redis.url) as one, replica(redis.url) as other:
        stale = await one.acquire(AcquireLease("a", 60, 0))
        assert stale is not None
        redis.command("FLUSHALL")
        assert await other.acquire(AcquireLease("a", 60, 0)) is not None
        await one.release(ReleaseLease("a", stale))
        await one.release(ReleaseLease("a", stale))
        await one.release(ReleaseLease("a", "made up"))
        assert await one.acquire(AcquireLease("a", 60, 0)) is None


async def test_a_lease_is_kept_for_as_long_as_somebody_has_its_token(redis: RedisProcess) -> None:
    async with replica(redis.url) as one, replica(redis.url) as other:
        token = await one.acquire(AcquireLease("a", 1, 0))
        assert token is not None
        assert await other.acquire(AcquireLease("a", 1, 1.5)) is None
        del token
        assert await other.acquire(AcquireLease("a", 1, 10)) is not None


async def test_the_lease_of_a_process_that_died_lapses(redis: RedisProcess) -> None:
    async with replica(redis.url) as other:
        async with replica(redis.url) as one:
            token = await one.acquire(AcquireLease("a", 0.3, 0))
        assert token is not None  # kept beyond the end of what prolongs it
        assert await other.acquire(AcquireLease("a", 1, 10)) is not None


async def test_a_lease_that_was_asked_for_an_hour_lapses_soon_after_its_process_died(redis: RedisProcess) -> None:
    async with replica(redis.url) as leases:
        token = await leases.acquire(AcquireLease("a", 3600, 0))
        left = redis.command("PTTL", "angos:lease:a")
        assert token is not None
    assert 0 < int(left[1:]) <= 1000 * LAPSE_SECONDS


async def test_a_lease_that_is_lost_is_told_and_free_for_others(
    redis: RedisProcess, caplog: pytest.LogCaptureFixture
) -> None:
    async with replica(redis.url) as one, replica(redis.url) as other:
        told = anyio.Event()

        def tell(_record: logging.LogRecord) -> bool:
            told.set()
            return True

        caplog.handler.addFilter(tell)
        token = await one.acquire(AcquireLease("upload/a", 0.3, 0))
        assert token is not None
        redis.command("FLUSHALL")
        taken = await other.acquire(AcquireLease("upload/a", 60, 0))
        assert taken is not None
        await told.wait()
        assert "the lease upload/a was lost" in caplog.text
        await one.release(ReleaseLease("upload/a", token))
        assert await one.acquire(AcquireLease("upload/a", 60, 0)) is None
        await other.release(ReleaseLease("upload/a", taken))
        assert await one.acquire(AcquireLease("upload/a", 60, 10)) is not None


async def test_a_redis_that_is_killed_fails_whoever_asks_and_nobody_who_gives_back(
    redis: RedisProcess, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with replica(redis.url) as leases:
        token = await leases.acquire(AcquireLease("a", 60, 0))
        assert token is not None
        redis.kill()
        with pytest.raises(PeerUnavailable, match=f"{redis.url}/0 cannot be reached"):
            await leases.acquire(AcquireLease("b", 60, 10))
        for _ in range(20):
            with pytest.raises(PeerUnavailable):
                await leases.acquire(AcquireLease("b", 60, 10))
        await leases.release(ReleaseLease("a", token))
        redis.start()
        for name in ("a", "b"):
            await acquire_when_back(leases, name)
        told = [record.getMessage() for record in caplog.records if record.name == "angos.redis"]
        # Once each, however many asked.
        assert [told[0].partition(" (")[0], told[-1]] == [
            f"{redis.url}/0 is away: it cannot be reached",
            f"{redis.url}/0 is back",
        ]
        assert len(told) == 2


async def test_a_redis_that_is_restarted_between_two_questions_is_not_even_noticed(redis: RedisProcess) -> None:
    async with replica(redis.url) as leases:
        assert await leases.acquire(AcquireLease("a", 60, 0)) is not None
        redis.kill()
        redis.start()
        assert await leases.acquire(AcquireLease("b", 60, 0)) is not None


async def test_a_frozen_redis_costs_a_second_and_keeps_nothing_held(redis: RedisProcess) -> None:
    async with replica(redis.url) as leases, replica(redis.url) as other:
        assert await leases.acquire(AcquireLease("before", 60, 0)) is not None
        redis.freeze()
        with anyio.fail_after(REPLY_SECONDS * 5), pytest.raises(PeerUnavailable, match="no answer within 1 s"):
            await leases.acquire(AcquireLease("a", 60, 10))
        with anyio.fail_after(REPLY_SECONDS * 5):
            for number in range(100):  # one of them at most tries
                with pytest.raises(PeerUnavailable):
                    await leases.acquire(AcquireLease(f"a{number}", 60, 10))
        redis.thaw()
        # It carries out what it was asked while it was frozen. That has to be undone, or nobody had it for a minute.
        await acquire_when_back(other, "a")
        await acquire_when_back(leases, "b")


async def test_who_is_cancelled_while_it_asks_holds_nothing(redis: RedisProcess) -> None:
    async with replica(redis.url) as leases, replica(redis.url) as other:
        assert await leases.acquire(AcquireLease("before", 60, 0)) is not None
        redis.freeze()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(leases.acquire, AcquireLease("a", 60, 10))
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        redis.thaw()
        await acquire_when_back(other, "a")
        await other.acquire(AcquireLease("before", 60, 0))


async def test_a_wrong_password_is_told_without_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with RedisProcess(tmp_path, "--requirepass", "canary-right") as redis:
        wrong = redis.url.replace("//", "//:canary-wrong@")
        async with replica(wrong) as leases:
            with pytest.raises(PeerUnavailable, match="refuses the user name or password") as raised:
                await leases.acquire(AcquireLease("a", 60, 0))
        async with replica(redis.url) as leases:
            with pytest.raises(PeerUnavailable, match="refuses the user name or password"):
                await leases.acquire(AcquireLease("a", 60, 0))
        async with replica(wrong.replace("wrong", "right")) as leases:
            assert await leases.acquire(AcquireLease("a", 60, 0)) is not None
    assert "canary" not in f"{caplog.text} {raised.value} {raised.value!r}"


async def test_over_tls_the_certificate_must_be_trusted(
    redis: RedisProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while received := await reader.read(65536):
            writer.write(received)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", redis.port)
        await asyncio.gather(copy(reader, inner_writer), copy(inner_reader, writer))

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=authority.server_context("localhost")) as proxy:
        url = f"rediss://localhost:{proxy.sockets[0].getsockname()[1]}"
        async with replica(url) as leases:
            with pytest.raises(PeerUnavailable, match="certificate verify failed"):
                await leases.acquire(AcquireLease("a", 60, 0))
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.bundle))
        async with replica(url) as leases:
            assert await leases.acquire(AcquireLease("a", 60, 0)) is not None
    assert redis.holds("angos:lease:a")


async def test_a_redis_without_memory_refuses_and_is_not_away(
    redis: RedisProcess, caplog: pytest.LogCaptureFixture
) -> None:
    async with replica(redis.url) as leases:
        redis.command("CONFIG", "SET", "maxmemory", "1")
        for _ in range(3):
            with pytest.raises(PeerUnavailable, match=r"refuses a command \(OutOfMemoryError\): its memory is full"):
                await leases.acquire(AcquireLease("a", 60, 0))
        redis.command("CONFIG", "SET", "maxmemory", "0")
        assert await leases.acquire(AcquireLease("a", 60, 0)) is not None
    assert caplog.text.count("OutOfMemoryError") == 1


async def test_a_refusal_is_told_again_when_it_goes_on(
    redis: RedisProcess, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("angos.runtime.redis.server.TOLD_SECONDS", 0.0)
    async with replica(redis.url) as leases:
        redis.command("CONFIG", "SET", "maxmemory", "1")
        for _ in range(2):
            with pytest.raises(PeerUnavailable):
                await leases.acquire(AcquireLease("a", 60, 0))
    assert caplog.text.count("OutOfMemoryError") >= 2


async def test_after_a_failover_new_connections_lead_to_the_one_in_charge(redis: RedisProcess, tmp_path: Path) -> None:
    """A Redis that is made the replica of another one keeps its connections, and refuses what is written over them,
    however long the address has been leading to the other one."""
    (tmp_path / "other").mkdir()
    with RedisProcess(tmp_path / "other") as other, Balancer([("127.0.0.1", redis.port)]) as balancer:
        async with replica(f"redis://127.0.0.1:{balancer.port}") as leases:
            assert await leases.acquire(AcquireLease("a", 60, 0)) is not None
            redis.command("REPLICAOF", "127.0.0.1", str(other.port))
            balancer.servers = [("127.0.0.1", other.port)]
            with pytest.raises(PeerUnavailable, match="it is the replica of another one"):
                await leases.acquire(AcquireLease("b", 60, 0))
            assert await leases.acquire(AcquireLease("b", 60, 0)) is not None
        assert other.holds("angos:lease:b")


async def test_a_user_needs_no_more_than_the_documentation_says(redis: RedisProcess) -> None:
    page = Path(__file__).parents[3] / "docs" / "how-to" / "run-several-replicas.md"
    (line,) = (line for line in page.read_text().splitlines() if line.startswith("ACL SETUSER "))
    assert redis.command(*line.split()) == b"+OK\r\n"
    url = redis.url.replace("//", "//angos:change-me@")
    async with replica(url) as leases:
        token = await leases.acquire(AcquireLease("a", 60, 0))
        assert token is not None
        assert await leases._run(_PROLONG, AcquireLease("a", 60, 0), token)
        await leases.release(ReleaseLease("a", token))
        assert not redis.holds("angos:lease:a")
        cache = RedisCache(leases._server, "angos:")
        await cache.write_cache(WriteCache("n", b"value", 60, Secret("")))
        assert redis.command("DBSIZE") == b":1\r\n"
        assert await cache.read_cache(ReadCache("n", Secret(""))) == b"value"
        await cache.write_cache(WriteCache("n", b"", 0, Secret("")))
        assert redis.command("DBSIZE") == b":0\r\n"
