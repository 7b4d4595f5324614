"""Whose turn it is: tasks that can go on, tasks that wait for time to pass, and effects that are still on their way.

What is calm is to go on with the same task for as long as it can; everything else is an option of its own, which the
choices take or leave.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

from angos.sansio.effects import (
    AcquireLease,
    DrawId,
    Effect,
    ReadBody,
    SignToken,
    SignUrl,
    Sleep,
    Tell,
    Together,
    VerifyOwnToken,
    VerifyToken,
)
from angos.sansio.steps import Step
from angos.simulator.choices import Choices
from angos.simulator.tasks import Task
from angos.simulator.world.clock import Clock

PRIVATE = frozenset({DrawId, ReadBody, SignToken, SignUrl, Tell, Together, VerifyOwnToken, VerifyToken})
"""Nobody else can tell when they happen: no other task need come before."""

Late = tuple[Effect[Any] | Step[Any], str, int | None]
"""An effect, or a request to a bucket, that is applied some time after its process was told that there is no answer,
and not after the time at the end."""


class Turns(ABC):
    """The tasks of a run, each of them ready, asleep, or the parent of others."""

    def __init__(self, choices: Choices, clock: Clock) -> None:
        self.choices = choices
        self.switches = 0
        """How often a task was interrupted by another one."""
        self._clock = clock
        self._ready: list[Task] = []
        self._asleep: list[Task] = []
        self._late: list[Late] = []
        self._last: Task | None = None

    def in_flight(self) -> int:
        """How many operations have begun and not ended, children included."""
        return len(self._ready) + len(self._asleep)

    def waiting(self) -> list[str]:
        """Where each operation in flight is suspended."""
        return [f"{task.name} waits at {where}" for task in self._everybody() if (where := task.operation.where())]

    def _everybody(self) -> list[Task]:
        """All tasks; those that wait for their children come last."""
        parents: dict[int, Task] = {}
        for task in [*self._ready, *self._asleep]:
            while task.group is not None:
                task = task.group.parent
                parents[id(task)] = task
        return [*self._ready, *self._asleep, *parents.values()]

    def _remove(self, tasks: Iterable[Task]) -> None:
        """They never go on again."""
        gone = {id(task) for task in tasks}
        self._ready = [task for task in self._ready if id(task) not in gone]
        self._asleep = [task for task in self._asleep if id(task) not in gone]

    @abstractmethod
    def _apply_late(self, effect: Effect[Any] | Step[Any], process: str, until_ms: int | None) -> None:
        """Something arrives whose process was told long ago that it is not coming."""

    def _choose(self) -> Task | None:
        """The task that goes on. None when something else has happened: a late effect, or time has passed."""
        ready = self._ready
        last = self._last
        count = len(ready)
        options = count + len(self._late) + (1 if self._asleep else 0)
        if last is None or last not in ready:
            chosen = self.choices.pick("turn", options) if options > 1 else 0
            if chosen < count:
                self._last = task = ready[chosen]
                return task
        elif options == 1 or type(last.effect) in PRIVATE:
            return last
        else:
            chosen = self.choices.pick("next", options)
            if chosen == 0:
                return last
            if chosen < count:
                # Option 0 is the same task, so those that stand before it in the list move up by one.
                task = ready[chosen - 1 if chosen <= ready.index(last) else chosen]
                if last.effect is not None:
                    self.switches += 1
                self._last = task
                return task
        if chosen - count < len(self._late):
            self._apply_late(*self._late.pop(chosen - count))
        else:
            self._pass_time()
        return None

    # --- time ---------------------------------------------------------------------------------------------------------

    def _sleep_until(self, task: Task, wake_ms: int) -> None:
        task.wake_ms = wake_ms
        self._ready.remove(task)
        self._asleep.append(task)

    def _pass_time(self) -> None:
        """To the moment when the next sleeper wakes."""
        wake_ms = min(task.wake_ms or 0 for task in self._asleep)
        self._clock.now_ms = max(self._clock.now_ms, wake_ms)
        self._wake([task for task in self._asleep if (task.wake_ms or 0) <= self._clock.now_ms])

    def _wake_waiters(self, name: str | None = None) -> None:
        """Those who wait for this lease, or for any."""
        self._wake(
            [
                task
                for task in self._asleep
                if isinstance(task.effect, AcquireLease)
                and task.give_up_ms is not None
                and name in (None, task.effect.name)
            ]
        )

    def _wake(self, tasks: list[Task]) -> None:
        for task in tasks:
            self._asleep.remove(task)
            self._ready.append(task)
            if not isinstance(task.effect, Sleep) or task.stalled:
                task.wake_ms = None
