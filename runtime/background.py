"""Work that is done now and then, by one of the processes that serve."""

from __future__ import annotations

import fcntl
import logging
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

import anyio

from angos.runtime.driver import drive
from angos.runtime.performer import RequestPerformer
from angos.sansio.effects import EffectError, Tell
from angos.sansio.errors import RegistryError
from angos.sansio.operation import Operation

if TYPE_CHECKING:
    from angos.runtime.observability.observation import Observation
    from angos.runtime.opening import Opened

T = TypeVar("T")

LOOK_SECONDS: Final = 1.0  # how late a changed interval is noticed
FIRST_SECONDS: Final = 600.0  # a server that is started anew every half hour must come to its chores, too

_log: Final = logging.getLogger("angos.maintenance")


@dataclass(frozen=True, slots=True)
class Chore:
    """Something to do every so often."""

    work: Callable[[], Awaitable[None]]
    """Handles its errors, as `do_once` does."""
    seconds: Callable[[], float]
    """Between the end of one run and the beginning of the next; may change meanwhile. 0: not at all."""
    soon: bool = False
    """The first run begins `FIRST_SECONDS` after the start at the latest, not at the same moment in all replicas.
    Otherwise it takes as long as between two runs."""


class OnlyOne:
    """Lets one process at a time do the chores; when it ends, another one does. Made before workers are forked."""

    def __init__(self, workers: int) -> None:
        self._descriptor = -1
        if workers > 1:
            import tempfile

            # Locked by one process, and by no other one until that has ended: the system sees to it.
            with tempfile.TemporaryFile() as file:
                self._descriptor = os.dup(file.fileno())

    def _is_ours(self) -> bool:
        if self._descriptor < 0:
            return True
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    @asynccontextmanager
    async def running(self, *chores: Chore) -> AsyncIterator[None]:
        """Do them beside each other, for as long as the block goes on."""
        async with anyio.create_task_group() as tasks:
            for chore in chores:
                tasks.start_soon(self._repeat, chore)
            try:
                yield
            finally:
                tasks.cancel_scope.cancel()

    async def _repeat(self, chore: Chore) -> None:
        first = random.uniform(FIRST_SECONDS / 2, FIRST_SECONDS)
        began = anyio.current_time()
        last: float | None = None
        while True:
            wait = chore.seconds()
            due = began + (min(first, wait) if chore.soon else wait) if last is None else last + wait
            left = due - anyio.current_time() if wait else LOOK_SECONDS
            if left > 0:
                await anyio.sleep(min(left, LOOK_SECONDS))
                continue
            if self._is_ours():
                await chore.work()
            last = anyio.current_time()


async def do_once(work: str, operation: Operation[T], opened: Opened, observation: Observation) -> T | None:
    """One run of a chore, and its result. What goes wrong is logged and counted: the next run comes by itself."""
    services = opened.services({Tell: observation.events.tell})
    outcome, done = "failed", None
    try:
        done = await drive(operation, RequestPerformer(services, {}))
        outcome = "done"
    except (EffectError, RegistryError) as error:
        _log.error("%s: given up, to be tried again: %s", work, error)
    except Exception:  # a bug must not end the server
        _log.exception("%s: failed", work)
    if observation.metrics is not None:
        observation.metrics.count("angos_maintenance_runs_total", work, outcome)
    return done
