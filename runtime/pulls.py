"""Pulls as a process that serves remembers them, and writes them down in the background.

A request costs a look into a dictionary. What is new is written together, `WRITE_SECONDS` after the first of it and
when the process ends; what cannot be written waits for the next time.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import anyio

from angos.runtime.driver import drive
from angos.runtime.performer import RequestPerformer
from angos.sansio.effects import EffectError, NotePull
from angos.sansio.operation import Operation
from angos.sansio.pulls import PullBook, begin_recording, end_recording, write_pulls

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from angos.runtime.opening import Opened
    from angos.sansio.config import RegistryConfig

WRITE_SECONDS: Final = 30.0
END_SECONDS: Final = 5.0
"""How long the end of a process waits for what it has not written."""
AT_ONCE: Final = 100

_log: Final = logging.getLogger("angos.storage")


class PullRecorder:
    """Of one process. Everything happens on its loop."""

    def __init__(self, opened: Opened, config: RegistryConfig, write_seconds: float = WRITE_SECONDS) -> None:
        self._opened = opened
        self._book = PullBook(_granularity_ms(config))
        self._write_seconds = write_seconds
        self._something: anyio.Event | None = None
        self._writing: anyio.Lock | None = None
        self._failing = False
        self._forgotten = 0

    def note(self, effect: NotePull) -> None:
        """`NotePull`."""
        if self._book.note(effect.pulls, time.time_ns() // 1_000_000) and self._something is not None:
            self._something.set()

    def follow(self, config: RegistryConfig) -> None:
        """Another configuration is in force."""
        self._book.granularity_ms = _granularity_ms(config)

    def start(self, tasks: TaskGroup) -> None:
        """Write now and then, for as long as these tasks go on. Called again, it does nothing."""
        if self._writing is None:
            self._writing = anyio.Lock()
            tasks.start_soon(self._run, self._writing)

    async def _run(self, writing: anyio.Lock) -> None:
        while True:
            self._something = anyio.Event()
            if not self._book.waiting:
                await self._something.wait()
            await anyio.sleep(self._write_seconds)
            await self._write(writing)

    async def end(self) -> None:
        """Write what is left, if it goes quickly."""
        if self._writing is None:
            return
        with anyio.move_on_after(END_SECONDS):
            await self._write(self._writing)
        if left := self._book.waiting:
            _log.warning("pulls: when %d tags and manifests were pulled last could not be recorded", left)

    async def _write(self, writing: anyio.Lock) -> None:
        async with writing:
            services = self._opened.services()
            while pulls := self._book.take(AT_ONCE):
                try:
                    written = await drive(
                        Operation(write_pulls(pulls)), RequestPerformer(services, {}), services.in_thread
                    )
                except Exception:  # a bug must not end the server
                    _log.exception("pulls: failed")
                    return
                self._book.give_back(written.failed)
                if written.failed:
                    self._tell_failure(written.problem)
                    return
            if self._failing:
                self._failing = False
                _log.warning("pulls: recorded again")

    def _tell_failure(self, problem: str) -> None:
        if not self._failing:
            self._failing = True
            _log.error("pulls: not recorded, to be tried again without another line: %s", problem)
        if (forgotten := self._book.forgotten - self._forgotten) and not self._forgotten:
            _log.error("pulls: %d or more will not be recorded, too many wait", forgotten)
        self._forgotten = self._book.forgotten


def _granularity_ms(config: RegistryConfig) -> int:
    return max(1, int(config.pull_time_granularity_seconds * 1000))


async def declare(opened: Opened, wanted: Callable[[], bool]) -> None:
    """Say in the store whether pulls are recorded from now on, as is wanted; again until it can be said."""
    told = False
    while True:
        recording = wanted()
        services = opened.services()
        operation = Operation(begin_recording() if recording else end_recording())
        try:
            await drive(operation, RequestPerformer(services, {}), services.in_thread)
        except EffectError as error:
            if recording and not told:
                told = True
                _log.error("pulls: cannot write down that they are recorded, to be tried again: %s", error)
        else:
            if wanted() == recording:
                return
            continue
        await anyio.sleep(WRITE_SECONDS)
