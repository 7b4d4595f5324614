"""What `angos.sansio.effects` promises about leases."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import anyio
import pytest

from angos.runtime.leases.local import SWEEP_ABOVE, LocalLeases
from angos.runtime.leases.redis import RedisLeases
from angos.runtime.leases.workers import WorkerLeases
from angos.runtime.performer import Leases
from angos.runtime.redis.address import parse_redis_url
from angos.runtime.redis.server import RedisServer
from angos.sansio.effects import AcquireLease, ReleaseLease
from angos.simulator.world import leases as simulated
from tests.conformance.redis_process import RedisProcess

Scenario = Callable[[Leases], Awaitable[None]]
NOT_ON_TRIO = {("Redis", "trio"), ("simulated", "trio")}


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    with RedisProcess(tmp_path_factory.mktemp("redis")) as redis:
        yield redis


@pytest.fixture(params=["asyncio", "trio"])
def backend(request: pytest.FixtureRequest) -> str:
    backend: str = request.param
    return backend


class SimulatedLeases:
    """Those of the simulator, which know nothing of waiting but for how long."""

    def __init__(self) -> None:
        self._leases = simulated.Leases()
        self._released = anyio.Event()

    async def acquire(self, effect: AcquireLease) -> str | None:
        give_up_ms = _now_ms() + int(effect.wait_seconds * 1000)
        while isinstance(answer := self._leases.ask(effect, give_up_ms=give_up_ms, now_ms=_now_ms()), simulated.Wait):
            with anyio.move_on_after(max(answer.until_ms - _now_ms(), 1) / 1000):
                await self._released.wait()
        return answer

    def release(self, effect: ReleaseLease) -> None:
        self._leases.release(effect.name, effect.token)
        self._released.set()
        self._released = anyio.Event()


def _now_ms() -> int:
    return time.monotonic_ns() // 1_000_000


@asynccontextmanager
async def simulated_leases(_request: pytest.FixtureRequest) -> AsyncIterator[Leases]:
    yield SimulatedLeases()


@asynccontextmanager
async def local_leases(_request: pytest.FixtureRequest) -> AsyncIterator[Leases]:
    yield LocalLeases()


@asynccontextmanager
async def worker_leases(_request: pytest.FixtureRequest) -> AsyncIterator[Leases]:
    yield WorkerLeases()


@asynccontextmanager
async def redis_leases(request: pytest.FixtureRequest) -> AsyncIterator[Leases]:
    redis: RedisProcess = request.getfixturevalue("redis")
    server = RedisServer(parse_redis_url(redis.url))
    try:
        yield RedisLeases(server, f"{request.node.name}:")
    finally:
        await server.close()


KINDS = {"local": local_leases, "workers": worker_leases, "Redis": redis_leases, "simulated": simulated_leases}


@pytest.fixture(
    params=[f"{kind} on {loop}" for kind in KINDS for loop in ("asyncio", "trio") if (kind, loop) not in NOT_ON_TRIO]
)
def run(request: pytest.FixtureRequest) -> Callable[[Scenario], None]:
    """Runs a scenario on leases of every kind, on the loops that they work on."""
    kind, _, backend = request.param.split()
    make = KINDS[kind]
    if kind == "Redis":
        request.getfixturevalue("redis")

    def run(scenario: Scenario) -> None:
        async def main() -> None:
            async with make(request) as leases:
                with anyio.fail_after(20):
                    await scenario(leases)

        anyio.run(main, backend=backend)

    return run


async def acquire(leases: Leases, name: str, seconds: float = 60.0, wait_seconds: float = 0.0) -> str | None:
    reply = leases.acquire(AcquireLease(name, seconds, wait_seconds))
    return reply if reply is None or isinstance(reply, str) else await reply


async def release(leases: Leases, name: str, token: str | None) -> None:
    assert token is not None
    reply = leases.release(ReleaseLease(name, token))
    if reply is not None:
        await reply


def test_one_at_a_time_holds_a_lease(run: Callable[[Scenario], None]) -> None:
    async def scenario(leases: Leases) -> None:
        token = await acquire(leases, "a")
        assert token is not None
        assert await acquire(leases, "a") is None
        assert await acquire(leases, "a", wait_seconds=0.01) is None
        assert await acquire(leases, "b") is not None
        await release(leases, "a", token)
        assert await acquire(leases, "a") not in (None, token)

    run(scenario)


def test_a_lease_lapses_by_itself(run: Callable[[Scenario], None]) -> None:
    async def scenario(leases: Leases) -> None:
        # Nobody keeps the token itself: a lease may last for longer than it was asked for as long as somebody does.
        first = "".join(await acquire(leases, "a", seconds=0.02) or ())
        second = await acquire(leases, "a", wait_seconds=10.0)
        assert second not in (None, first)
        await release(leases, "a", first)  # too late, and no error
        assert await acquire(leases, "a") is None
        await release(leases, "a", second)
        assert await acquire(leases, "a", seconds=0.0) is not None
        assert await acquire(leases, "a", wait_seconds=10.0) is not None

    run(scenario)


def test_who_waits_is_served_in_turn(run: Callable[[Scenario], None]) -> None:
    async def scenario(leases: Leases) -> None:
        served: list[int] = []
        held = 0

        async def wait(number: int) -> None:
            nonlocal held
            token = await acquire(leases, "a", wait_seconds=10.0)
            held += 1
            assert held == 1
            served.append(number)
            await anyio.sleep(0.001)
            held -= 1
            await release(leases, "a", token)

        first = await acquire(leases, "a")
        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(wait, number)
                await anyio.wait_all_tasks_blocked()
            await release(leases, "a", first)
        assert served == list(range(20))

    run(scenario)


def test_who_stops_waiting_leaves_the_queue(run: Callable[[Scenario], None]) -> None:
    async def scenario(leases: Leases) -> None:
        first = await acquire(leases, "a")
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(acquire, leases, "a", 60.0, 10.0)
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        await release(leases, "a", first)
        assert await acquire(leases, "a") is not None

    run(scenario)


def test_a_lease_granted_to_somebody_who_is_just_cancelled_is_not_lost(run: Callable[[Scenario], None]) -> None:
    async def scenario(leases: Leases) -> None:
        first = await acquire(leases, "a")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(acquire, leases, "a", 60.0, 10.0)
            await anyio.wait_all_tasks_blocked()
            await release(leases, "a", first)
            tasks.cancel_scope.cancel()
        # Either the waiter still got it (and holds it), or it is free again: never a queue without an end.
        if (second := await acquire(leases, "a", wait_seconds=0.01)) is not None:
            await release(leases, "a", second)

    run(scenario)


def test_waiting_ends_when_it_has_to(run: Callable[[Scenario], None]) -> None:
    async def scenario(leases: Leases) -> None:
        held = await acquire(leases, "a")
        began = time.monotonic()
        assert await acquire(leases, "a", wait_seconds=0.05) is None
        assert time.monotonic() - began >= 0.045
        assert held is not None  # until here somebody has it

    run(scenario)


def test_lapsed_leases_do_not_pile_up(backend: str) -> None:
    async def scenario() -> None:
        leases = LocalLeases()
        for number in range(SWEEP_ABOVE * 3):
            await acquire(leases, f"forgotten {number}", seconds=0.0)
        assert len(leases._leases) <= SWEEP_ABOVE + 1

    anyio.run(scenario, backend=backend)


def test_workers_wait_for_each_other_and_not_for_the_dead() -> None:
    """Forked, as a server forks them; the second one is killed while it has the lease."""
    leases = WorkerLeases()
    told, tell = os.pipe()

    def be_the_other(then: Callable[[], Awaitable[None]]) -> int:
        process = os.fork()
        if process == 0:
            try:
                anyio.run(then)
            finally:
                os._exit(1)
        return process

    async def hold() -> None:
        token = await acquire(leases, "a")
        os.write(tell, b"." if token is not None else b"?")
        await anyio.sleep(60)

    async def scenario() -> None:
        assert await acquire(leases, "a") is None
        token = await acquire(leases, "b")
        os.kill(other, signal.SIGKILL)
        await release(leases, "a", await acquire(leases, "a", wait_seconds=10.0))
        await release(leases, "b", token)

    other = be_the_other(hold)
    try:
        assert os.read(told, 1) == b"."
        anyio.run(scenario)
    finally:
        os.kill(other, signal.SIGKILL)
        os.waitpid(other, 0)
        os.close(told)
        os.close(tell)
