"""Calls in worker threads: results, failures, cancellation, many at once, on both loops."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import anyio
import pytest

from angos.runtime.driver import InThread, drive
from angos.runtime.threads import THREADS_MAX, check_cancelled, run_in_thread
from angos.sansio.effects import DeleteKeys, Key
from angos.sansio.operation import Operation

Run = Callable[[Callable[[], Awaitable[Any]]], Any]

_name: ContextVar[str] = ContextVar("name")


@pytest.fixture(params=["asyncio", "trio"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs an async function on either loop."""

    def run(main: Callable[[], Awaitable[Any]]) -> Any:
        async def bounded() -> Any:
            with anyio.fail_after(20):
                return await main()

        return anyio.run(bounded, backend=request.param)

    return run


def test_a_call_runs_in_another_thread_with_its_arguments_and_its_context(run: Run) -> None:
    async def scenario() -> tuple[int, str]:
        _name.set("of the request")
        return await run_in_thread(lambda number: (threading.get_ident() * number, _name.get()), 1)

    thread, name = run(scenario)
    assert thread != threading.get_ident()
    assert name == "of the request"


def test_what_a_call_raises_is_raised_and_leaves_nothing_behind(run: Run) -> None:
    class Large:
        pass

    def fail() -> None:
        raise ValueError("in the thread")

    async def scenario() -> weakref.ref[Large]:
        held = Large()
        with pytest.raises(ValueError, match="in the thread"):
            await run_in_thread(lambda _: fail(), held)
        return weakref.ref(held)

    kept = run(scenario)
    gc.collect()
    assert kept() is None


def test_calls_wait_side_by_side_and_more_than_there_are_threads_get_their_turn(run: Run) -> None:
    together = threading.Barrier(8, timeout=15)

    async def scenario() -> list[int]:
        done: list[int] = []

        async def one(number: int) -> None:
            if number < 8:
                await run_in_thread(together.wait)
            done.append(await run_in_thread(lambda: number))

        async with anyio.create_task_group() as tasks:
            for number in range(THREADS_MAX * 5):
                tasks.start_soon(one, number)
        return done

    assert sorted(run(scenario)) == list(range(THREADS_MAX * 5))


def test_a_cancelled_call_is_told_and_waited_for(run: Run) -> None:
    began, ended = threading.Event(), threading.Event()

    def work() -> None:
        began.set()
        try:
            while True:
                check_cancelled()
        finally:
            ended.set()

    async def scenario() -> bool:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run_in_thread, work)
            await anyio.to_thread.run_sync(began.wait)
            tasks.cancel_scope.cancel()
        return ended.is_set()

    assert run(scenario)


def test_nobody_is_cancelled_outside_of_a_worker_thread() -> None:
    check_cancelled()


def test_a_cancellation_that_meets_the_end_of_an_operation_is_only_a_cancellation(run: Run) -> None:
    """The operation ends in its thread while its request is cancelled: there is nothing left to clean up."""
    began, go_on = threading.Event(), threading.Event()

    def wait(effect: DeleteKeys) -> None:
        began.set()
        go_on.wait()

    async def operation() -> str:
        await DeleteKeys((Key("a"),))
        return "done"

    async def scenario() -> bool:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(drive, Operation(operation()), None, InThread({DeleteKeys: wait}, {}))  # type: ignore[arg-type]
            await anyio.to_thread.run_sync(began.wait)
            tasks.cancel_scope.cancel()
            go_on.set()
        return True

    assert run(scenario)


def test_a_loop_that_is_gone_when_the_call_ends_harms_no_other() -> None:
    """A loop may be closed with visits on their way, and the thread serves the next loop."""
    go_on = threading.Event()
    visiting = run_in_thread(go_on.wait)

    async def begin() -> None:
        visiting.send(None)

    asyncio.run(begin())
    visiting.close()
    go_on.set()
    assert asyncio.run(run_in_thread(str, "still there")) == "still there"
