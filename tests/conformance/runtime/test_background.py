"""What a server does now and then: when, by which process, and what becomes of errors."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import anyio
import pytest

from angos.runtime import background
from angos.runtime.background import Chore, OnlyOne, do_once
from angos.runtime.config.schema import Configuration, DirectoryConfig
from angos.runtime.observability.observation import Observation
from angos.runtime.observability.settings import MetricsOptions
from angos.runtime.opening import Opened
from angos.sansio.effects import StorageUnavailable, Tell
from angos.sansio.operation import Operation
from angos.sansio.progress import Progress
from tests.conformance.runtime.loops import LOOPS, runner


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "LOOK_SECONDS", 0.001)


@pytest.mark.parametrize("loop", LOOPS)
def test_chores_are_repeated_until_the_server_ends(loop: str) -> None:
    async def main() -> tuple[int, int]:
        counts = [0, 0]
        both = anyio.Event()

        def chore(index: int) -> Chore:
            async def work() -> None:
                counts[index] += 1
                if min(counts) >= 3:
                    both.set()

            return Chore(work, lambda: 0.001)

        async with OnlyOne(1).running(chore(0), chore(1)):
            await both.wait()
        ended = tuple(counts)
        await anyio.sleep(0.01)
        assert ended == tuple(counts)
        return counts[0], counts[1]

    assert min(runner(loop)(main)) >= 3


def test_a_server_that_does_not_live_as_long_as_an_interval_comes_to_its_chores_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(background, "FIRST_SECONDS", 0.01)

    async def main() -> None:
        done = anyio.Event()

        async def work() -> None:
            done.set()

        async with OnlyOne(1).running(Chore(work, lambda: 86_400.0, soon=True)):
            await done.wait()

    runner("asyncio")(main)


def test_an_interval_may_change_and_be_none() -> None:
    async def main() -> None:
        seconds, looked, done = 0.0, anyio.Event(), anyio.Event()
        looks = runs = 0

        def interval() -> float:
            nonlocal looks
            looks += 1
            if looks > 5:
                looked.set()
            return seconds

        async def work() -> None:
            nonlocal runs
            runs += 1
            done.set()

        async with OnlyOne(1).running(Chore(work, interval)):
            await looked.wait()
            assert runs == 0
            seconds = 0.001
            await done.wait()

    runner("asyncio")(main)


def test_another_worker_takes_over_when_the_one_that_did_it_ends() -> None:
    only = OnlyOne(2)
    to_parent, from_child = os.pipe()[::-1]
    ended, end = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(to_parent, b"1" if only._is_ours() else b"0")
        os.close(end)
        os.read(ended, 1)
        os._exit(0)
    try:
        assert os.read(from_child, 1) == b"1"
        assert not only._is_ours()
    finally:
        os.write(end, b"!")
        os.waitpid(child, 0)
    assert only._is_ours()


async def _fails(error: Exception) -> None:
    await Tell(Progress("work", "", 0, None))
    raise error


@pytest.mark.parametrize("error", [StorageUnavailable("the disk is away"), ZeroDivisionError("a bug")])
def test_what_goes_wrong_is_logged_and_counted_and_ends_nothing(
    error: Exception, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    observation = Observation(MetricsOptions(enabled=True), 1)
    opened = Opened(Configuration(blob_store=DirectoryConfig(tmp_path)))

    async def main() -> None:
        await do_once("work", Operation(_fails(error)), opened, observation)

    with caplog.at_level(logging.ERROR, "angos.maintenance"):
        runner("asyncio")(main)
    (record,) = caplog.records
    assert record.getMessage().startswith("work: ")
    assert str(error) in caplog.text
    metrics = observation.metrics
    assert metrics is not None
    assert metrics.values[metrics.offset(("angos_maintenance_runs_total", "work", "failed"))] == 1
