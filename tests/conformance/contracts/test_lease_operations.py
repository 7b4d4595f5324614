"""What operations of the core find when they ask for leases: of one process, of a real Redis, of the simulator."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from angos.runtime.clock import SystemClock
from angos.runtime.driver import drive
from angos.runtime.leases.local import LocalLeases
from angos.runtime.leases.redis import RedisLeases
from angos.runtime.performer import Leases
from angos.runtime.redis.address import parse_redis_url
from angos.runtime.redis.server import RedisServer
from angos.sansio.effects import AcquireLease, Effect, ReleaseLease, Sleep
from angos.sansio.operation import Operation
from angos.sansio.scopes import leased
from angos.sansio.together import together
from angos.simulator.choices import Seeded
from angos.simulator.scenario import Scenario
from angos.simulator.scheduler import Scheduler
from angos.simulator.tasks import Client, Exchange, Task
from angos.simulator.world.client import Call
from tests.conformance.redis_process import RedisProcess

Run = Callable[[Coroutine[Any, Any, None]], None]


class Performer:
    """Leases and time, and nothing else."""

    def __init__(self, leases: Leases) -> None:
        self._table = {
            AcquireLease: leases.acquire,
            ReleaseLease: leases.release,
            Sleep: SystemClock().sleep,
        }

    def perform(self, effect: Effect[Any]) -> Any:
        return self._table[type(effect)](effect)  # type: ignore[operator]


class World(Scheduler):
    """The simulator without clients, storage and faults."""

    ended = False

    def play(self, operation: Operation[None]) -> None:
        exchange = Exchange(Client("somebody", deque()), Call("GET", "/"), "replica-0")
        self._ready.append(Task("somebody", exchange, operation))
        while self.step():
            pass
        assert self.ended

    def _finished(self, exchange: Exchange, value: Any) -> None:
        self.ended = True

    def _pick_fault(self, task: Task, effect: Effect[Any]) -> str:
        return "none"

    def _strike(self, task: Task, effect: Effect[Any], fault: str) -> None:
        raise AssertionError(fault)

    def _ask(self, task: Task, effect: Effect[Any]) -> None:
        raise AssertionError(effect)

    def _end_processes(self, task: Task, fault: str) -> None:
        raise AssertionError(fault)

    def _tell(self, exchange: Exchange, answer: Any) -> None:
        raise AssertionError(answer)


async def run_on_redis(operation: Operation[None], url: str) -> None:
    server = RedisServer(parse_redis_url(url))
    try:
        with anyio.fail_after(20):
            await drive(operation, Performer(RedisLeases(server, "angos:")))
    finally:
        await server.close()


@pytest.fixture(params=["local on asyncio", "local on trio", "Redis", *(f"simulated {seed}" for seed in range(5))])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Run]:
    """Runs an operation to its end."""
    kind, _, how = request.param.partition(" ")
    if kind == "Redis":
        with RedisProcess(tmp_path) as redis:
            yield lambda operation: anyio.run(run_on_redis, Operation(operation), redis.url)
    elif kind == "simulated":
        yield lambda operation: World(Scenario(), Seeded(int(how))).play(Operation(operation))
    else:
        backend = how.removeprefix("on ")
        yield lambda operation: anyio.run(drive, Operation(operation), Performer(LocalLeases()), backend=backend)


def test_one_at_a_time_holds_a_lease(run: Run) -> None:
    async def operation() -> None:
        first = await AcquireLease("a", 60, 0)
        assert first is not None
        assert await AcquireLease("a", 60, 0) is None
        assert await AcquireLease("a", 60, 0.01) is None
        assert await AcquireLease("b", 60, 0) is not None
        await ReleaseLease("a", first)
        second = await AcquireLease("a", 60, 0)
        assert second not in (None, first)
        await ReleaseLease("a", first)  # not theirs any more
        assert await AcquireLease("a", 60, 0) is None

    run(operation())


def test_a_lease_that_nobody_has_any_more_lapses(run: Run) -> None:
    async def operation() -> None:
        await AcquireLease("a", 0.1, 0)
        held = await AcquireLease("a", 60, 10)
        assert held is not None
        assert await AcquireLease("a", 60, 0) is None

    run(operation())


def test_operations_that_wait_for_their_lease_never_overlap(run: Run) -> None:
    inside = served = late = 0

    async def work() -> None:
        nonlocal inside, served, late
        async with leased("a", seconds=3600, wait_seconds=20) as held:
            if not held:  # simulated time may pass while everybody could go on
                late += 1
                return
            inside += 1
            assert inside == 1
            await Sleep(0.001)
            inside -= 1
            served += 1

    async def operation() -> None:
        await together(work() for _ in range(12))

    run(operation())
    assert served > 0
    assert served + late == 12


def test_who_has_waited_for_long_enough_goes_on_without(run: Run) -> None:
    waited: list[bool] = []

    async def impatient() -> None:
        async with leased("a", seconds=60, wait_seconds=0.05) as held:
            waited.append(held)

    async def operation() -> None:
        async with leased("a", seconds=60, wait_seconds=0):
            await together(impatient() for _ in range(3))
        async with leased("a", seconds=60, wait_seconds=0) as held:
            assert held  # those who went on without it have not given it back for somebody else

    run(operation())
    assert waited == [False, False, False]
