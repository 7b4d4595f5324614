"""Pulls as a server's process writes them down: in the background, again after a failure, and when it ends."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import pytest

from angos.runtime.config.schema import Configuration, DirectoryConfig
from angos.runtime.opening import Opened
from angos.runtime.pulls import PullRecorder
from angos.sansio import layout
from angos.sansio.config import RegistryConfig
from angos.sansio.effects import NotePull
from angos.sansio.oci.reference import Namespace, Tag
from tests.conformance.runtime.loops import LOOPS, runner

FOLDER = layout.tag_pulls_prefix(Namespace("a"), Tag("v1"))
CONFIG = RegistryConfig(update_pull_time=True)


def recorder(root: Path, seconds: float) -> PullRecorder:
    return PullRecorder(Opened(Configuration(blob_store=DirectoryConfig(root, sync_to_disk=False))), CONFIG, seconds)


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(10_000):
        if condition():
            return
        await anyio.sleep(0.002)
    raise AssertionError("it never came")


def running(recorder: PullRecorder, work: Callable[[], Awaitable[None]], loop: str) -> None:
    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            recorder.start(tasks)
            recorder.start(tasks)
            await work()
            tasks.cancel_scope.cancel()

    runner(loop)(main)


@pytest.mark.parametrize("loop", LOOPS)
def test_what_is_noted_is_written_a_little_later_and_again_when_it_could_not_be(
    loop: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pulls = recorder(tmp_path, 0.001)
    in_the_way = tmp_path / "v2/ns/a!atime"

    async def work() -> None:
        await anyio.sleep(0.005)
        in_the_way.parent.mkdir(parents=True)
        in_the_way.touch()
        pulls.note(NotePull((FOLDER,)))
        await until(lambda: "not recorded" in caplog.text)
        await anyio.sleep(0.01)
        in_the_way.unlink()
        await until(lambda: (tmp_path / FOLDER).is_dir() and "recorded again" in caplog.text)

    with caplog.at_level(logging.WARNING):
        running(pulls, work, loop)
    assert caplog.text.count("not recorded") == 1
    assert len(list((tmp_path / FOLDER).iterdir())) == 1


@pytest.mark.parametrize("loop", LOOPS)
def test_the_end_of_a_process_writes_what_is_left(loop: str, tmp_path: Path) -> None:
    pulls = recorder(tmp_path, 3600)

    async def work() -> None:
        pulls.note(NotePull((FOLDER,)))
        await pulls.end()

    running(pulls, work, loop)
    assert len(list((tmp_path / FOLDER).iterdir())) == 1


def test_a_process_that_never_served_ends_without_more(tmp_path: Path) -> None:
    runner("asyncio")(recorder(tmp_path, 0.001).end)
    assert not list(tmp_path.rglob("*atime*"))
