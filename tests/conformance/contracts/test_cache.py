"""What `angos.sansio.effects` promises about the cache, of one process and of all that share a Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import CoroutineType
from typing import Protocol

import anyio
import pytest

from angos.runtime.cache.local import LocalCache
from angos.runtime.cache.redis import RedisCache
from angos.runtime.performer import Now
from angos.runtime.redis.address import parse_redis_url
from angos.runtime.redis.server import AWAY_SECONDS, REPLY_SECONDS, RedisServer
from angos.sansio.effects import ReadCache, WriteCache
from angos.sansio.secret import Secret
from tests.conformance.redis_process import RedisProcess

PATIENCE_SECONDS = 20.0
PASSWORD = "canary-password"


class Cache(Protocol):
    def read_cache(self, effect: ReadCache) -> Now[bytes | None]: ...
    def write_cache(self, effect: WriteCache) -> Now[None]: ...


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


pytestmark = pytest.mark.anyio


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisProcess]:
    with RedisProcess(tmp_path) as redis:
        yield redis


@asynccontextmanager
async def redis_cache(url: str, scope: str = "", key_prefix: str = "angos:") -> AsyncIterator[RedisCache]:
    """As one process has it, with connections of its own."""
    server = RedisServer(parse_redis_url(url))
    try:
        with anyio.fail_after(PATIENCE_SECONDS):
            yield RedisCache(server, key_prefix, scope)
    finally:
        await server.close()


@pytest.fixture(params=["local", "Redis"])
async def cache(request: pytest.FixtureRequest) -> AsyncIterator[Cache]:
    if request.param == "local":
        yield LocalCache()
        return
    redis: RedisProcess = request.getfixturevalue("redis")
    server = RedisServer(parse_redis_url(redis.url))
    yield RedisCache(server, "angos:")
    await server.close()


async def read(cache: Cache, name: str, variant: str = "") -> bytes | None:
    found = cache.read_cache(ReadCache(name, Secret(variant)))
    return await found if isinstance(found, CoroutineType) else found  # type: ignore[return-value]


async def write(cache: Cache, name: str, value: bytes, seconds: float = 60, variant: str = "") -> None:
    done = cache.write_cache(WriteCache(name, value, seconds, Secret(variant)))
    if done is not None:
        await done


# --- every cache ------------------------------------------------------------------------------------------------------


async def test_what_was_written_is_remembered_byte_for_byte(cache: Cache) -> None:
    for value in (b"", b"value", bytes(range(256)), bytes(1 << 20)):
        await write(cache, "a", value)
        assert await read(cache, "a") == value
    assert await read(cache, "b") is None


async def test_variants_of_a_name_are_apart(cache: Cache) -> None:
    await write(cache, "a", b"one", variant="x")
    await write(cache, "a", b"two", variant="y")
    assert [await read(cache, "a", variant) for variant in ("x", "y", "")] == [b"one", b"two", None]
    assert await read(cache, "ax") is None


async def test_the_last_write_counts_and_its_time(cache: Cache) -> None:
    await write(cache, "a", b"long")
    await write(cache, "a", b"short", 0.05)
    while (found := await read(cache, "a")) is not None:
        assert found == b"short"
        await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize("seconds", [0, -1])
async def test_no_time_forgets(cache: Cache, seconds: float) -> None:
    await write(cache, "a", b"value")
    await write(cache, "a", b"other", seconds)
    assert await read(cache, "a") is None


# --- Redis ------------------------------------------------------------------------------------------------------------


async def test_what_one_replica_writes_all_remember(redis: RedisProcess) -> None:
    async with redis_cache(redis.url) as one, redis_cache(redis.url) as other:
        await write(one, "a", b"value", variant="x")
        assert await read(other, "a", "x") == b"value"
        await write(other, "a", b"", 0, variant="x")
        assert await read(one, "a", "x") is None


async def test_another_scope_prefix_or_database_is_another_cache(redis: RedisProcess) -> None:
    async with (
        redis_cache(redis.url) as cache,
        redis_cache(redis.url, scope="other") as scope,
        redis_cache(redis.url, key_prefix="other:") as prefix,
        redis_cache(f"{redis.url}/1") as database,
    ):
        await write(cache, "a", b"value")
        assert [await read(other, "a") for other in (scope, prefix, database)] == [None, None, None]
        assert await read(cache, "a") == b"value"
    assert redis.command("KEYS", "*").count(b"angos:cache:a:") == 1


async def test_a_cache_that_is_away_never_fails_and_goes_by_what_the_process_wrote(redis: RedisProcess) -> None:
    async with redis_cache(redis.url) as one, redis_cache(redis.url) as other:
        await write(one, "a", b"value")
        redis.kill()
        for _ in range(20):
            await write(one, "b", b"value")
            assert [await read(one, name) for name in ("a", "b", "c")] == [b"value", b"value", None]
            assert await read(other, "a") is None
        redis.start()
        while await read(other, "a") is None:
            await write(one, "a", b"again")
            await anyio.sleep(AWAY_SECONDS / 10)
        assert await read(other, "a") == b"again"


async def test_a_redis_that_takes_nothing_is_no_worse_than_one_that_is_away(redis: RedisProcess) -> None:
    """It answers, and so it was believed that there is nothing: keys of identity providers that a process had fetched
    were fetched again for each token, under a lease that a full Redis refuses as well."""
    async with redis_cache(redis.url) as one, redis_cache(redis.url) as other:
        await write(one, "a", b"old")
        redis.command("CONFIG", "SET", "maxmemory", "1")
        await write(one, "a", b"value")
        await write(one, "b", b"value")
        assert [await read(one, name) for name in ("a", "b", "c")] == [b"value", b"value", None]
        redis.command("CONFIG", "SET", "maxmemory", "0")
        await write(one, "b", b"again")
        await write(other, "b", b"from the other one")
        assert [await read(one, name) for name in ("a", "b")] == [b"value", b"from the other one"]


async def test_a_frozen_cache_costs_a_request_now_and_then_a_second(redis: RedisProcess) -> None:
    async with redis_cache(redis.url) as cache:
        await write(cache, "a", b"value")
        redis.freeze()
        with anyio.fail_after(REPLY_SECONDS * 5):
            for _ in range(100):
                assert await read(cache, "a") == b"value"
        redis.thaw()


async def test_nothing_in_redis_shows_a_variant(tmp_path: Path) -> None:
    with RedisProcess(tmp_path, "--requirepass", PASSWORD) as redis:
        async with redis_cache(redis.url.replace("//", f"//:{PASSWORD}@")) as cache:
            await write(cache, "a", b"value", variant="Basic canary")
            assert await read(cache, "a", "Basic canary") == b"value"
            keys = str(await cache._server.ask("KEYS", "*"))
    assert "angos:cache:a:" in keys
    assert "canary" not in keys
