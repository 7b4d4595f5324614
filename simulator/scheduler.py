"""Runs a scenario: operations side by side, one effect at a time, in an order and with faults that the choices decide.

A task is an operation that has issued an effect and waits for it. One step picks a task and applies its effect, which
gives it the reply and lets it issue the next one. Whatever can be told apart by a registry happens between two steps:
that a reply comes late, or never, is a task that is not picked for a while, or one that is told "unavailable" while
the effect is applied later. Tasks that wait (for time, a lease, their children) cannot be picked.
"""

from __future__ import annotations

import errno
from abc import abstractmethod
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from angos.sansio.bucket.requests import Delete, DeleteMany
from angos.sansio.effects import (
    AcquireLease,
    DeleteKeysWithin,
    DrawId,
    Effect,
    EffectError,
    Key,
    NotePull,
    OperationCancelled,
    ReadBody,
    ReadClock,
    ReleaseLease,
    SignUrl,
    Sleep,
    StorageUnavailable,
    Tell,
    Together,
)
from angos.sansio.errors import RegistryError
from angos.sansio.operation import Done
from angos.sansio.steps import Step
from angos.simulator.choices import Choices, exceeded
from angos.simulator.faults import SERVICES
from angos.simulator.oracle.history import History
from angos.simulator.oracle.invariants import Invariants
from angos.simulator.oracle.pulls import PullOracle
from angos.simulator.oracle.violation import Violation
from angos.simulator.scenario import PULLS_MS, Scenario
from angos.simulator.tasks import Exchange, Group, Task
from angos.simulator.timeline import Timeline
from angos.simulator.turns import Turns
from angos.simulator.world.bodies import BodyReadTwice
from angos.simulator.world.directory import Finished, RunningPlan
from angos.simulator.world.leases import Wait
from angos.simulator.world.replica import World

STEPS_MAX = 20_000


class Stopped(Exception):
    """The step at which somebody wanted to look around."""


class Scheduler(Turns):
    """The tasks of one run. What faults do and what becomes of answers is for those who build on it."""

    def __init__(
        self,
        scenario: Scenario,
        choices: Choices,
        *,
        timeline: Timeline | None = None,
        stop_at: int | None = None,
    ) -> None:
        self.world = World(scenario)
        super().__init__(choices, self.world.clock)
        self.scenario = scenario
        self.timeline = timeline
        self.history = History(immutable_tags=scenario.immutable_tags)
        self.invariants = Invariants(self.world.store, self.history)
        self.pulls = PullOracle(self.world.store, PULLS_MS)
        self.steps = 0
        self.effects = 0
        self.points: set[tuple[str, str]] | None = None
        """Where operations were suspended, and on which effect; collected when it is set."""
        self.stop_at = stop_at
        """Stop before this step, for looking around."""
        self._steps_max = stop_at or STEPS_MAX
        self._store = self.world.store
        self._touched = self._store.touched
        self._faults_possible = bool(scenario.faults)
        self._fine = scenario.granularity == "fine" and scenario.store != "bucket"
        self._bucket = scenario.store != "disk"
        self._in_requests = self.world.s3 is not None
        self._aged_ms = self.world.clock.now_ms
        self._promise_ms = scenario.grace_seconds * 250

    @abstractmethod
    def _pick_fault(self, task: Task, effect: Effect[Any]) -> str:
        """The name of the fault that strikes, or ``none``."""

    @abstractmethod
    def _strike(self, task: Task, effect: Effect[Any], fault: str) -> None:
        """Let it happen."""

    @abstractmethod
    def _ask(self, task: Task, effect: Effect[Any]) -> None:
        """Go on with an effect that is carried out in requests to a bucket."""

    def _pass_time(self) -> None:
        super()._pass_time()
        if self.world.clock.now_ms - self._aged_ms >= self._promise_ms:
            self._aged_ms = self.world.clock.now_ms
            self.invariants.aged(self.steps)

    @abstractmethod
    def _end_processes(self, task: Task, fault: str) -> None:
        """The process of a task ends, or all of them do."""

    @abstractmethod
    def _finished(self, exchange: Exchange, value: Any) -> None:
        """An operation has ended with this value."""

    @abstractmethod
    def _tell(self, exchange: Exchange, answer: Any) -> None:
        """The client of an operation is told how it ended."""

    # --- one step -----------------------------------------------------------------------------------------------------

    def step(self) -> bool:
        """Let one thing happen. False when nothing can."""
        if not self._ready and not self._late:
            if not self._asleep:
                return False
            self._pass_time()
            return True
        self.steps += 1
        if self.steps >= self._steps_max:
            self._too_many_steps()
        task = self._choose()
        if task is not None:
            self._go_on_with(task)
        if self._touched:
            self.invariants.touched()
        return True

    def _go_on_with(self, task: Task) -> None:
        effect = task.effect
        if effect is None:
            if task.group is None:
                task.exchange.called = self.steps
            self._resume(task, None)
            effect = task.effect
            if effect is None:
                return
        if task.plan is not None:
            self._step_plan(task)
        elif self._in_requests and type(effect) not in PERFORMERS:
            self._ask(task, effect)
        elif task.repeat is not None:
            self._apply_again(task, effect)
        elif not self._faults_possible or task.stalled or (fault := self._pick_fault(task, effect)) == "none":
            task.stalled = False
            self._apply(task, effect)
        else:
            self._strike(task, effect, fault)

    def _too_many_steps(self) -> None:
        if self.stop_at is not None:
            raise Stopped
        where = "; ".join(f"{task.name} at {task.operation.where()}" for task in [*self._ready, *self._asleep])
        raise Violation("no end", f"after {STEPS_MAX} steps the run is still going on: {where}")

    def _apply(self, task: Task, effect: Effect[Any]) -> None:
        performer = PERFORMERS.get(type(effect))
        if performer is not None:
            performer(self, task, effect)
            return
        if type(effect) is DeleteKeysWithin:
            if self._is_too_late(task, effect):
                return
            self.invariants.removing(effect.keys, self.steps)
        if self._fine and (plan := self._plan_of(task, effect)) is not None:
            task.plan, task.doom = plan, None
            self._step_plan(task)
            return
        try:
            reply = self._store.apply(effect, task.exchange.replica)
        except EffectError as error:
            self._fail(task, error)
        except BodyReadTwice:
            raise self._read_twice(task) from None
        else:
            if self.timeline is not None:
                self.timeline.applied(task.name, reply)
            self._resume(task, reply)

    def _is_too_late(self, task: Task, effect: DeleteKeysWithin) -> bool:
        """Then it fails here."""
        if self._clock.now_ms <= task.issued_ms + int(effect.within_seconds * 1000):
            return False
        self._fail(task, StorageUnavailable("it is too late to remove anything"))
        return True

    def _resume(self, task: Task, reply: object) -> None:
        try:
            step = task.operation.resume(reply)
        except (EffectError, RegistryError, OperationCancelled) as error:
            self._ended(task, None, error)
        except Exception as error:
            raise self._broken(task, error) from error
        else:
            if type(step) is Done:
                self._ended(task, step.value, None)
            else:
                self._issued(task, step)  # type: ignore[arg-type]

    def _fail(self, task: Task, error: BaseException) -> None:
        if self.timeline is not None:
            self.timeline.failed(task.name, error)
        try:
            step = task.operation.fail(error)
        except (EffectError, RegistryError, OperationCancelled) as escaped:
            self._ended(task, None, escaped)
        except Exception as broken:
            raise self._broken(task, broken) from broken
        else:
            if isinstance(step, Done):
                self._ended(task, step.value, None)
            else:
                self._issued(task, step)

    def _issued(self, task: Task, effect: Effect[Any]) -> None:
        task.effect = effect
        task.issued_ms = self._clock.now_ms
        task.exchange.effects += 1
        self.effects += 1
        if self.points is not None or self.timeline is not None:
            self._note_issue(task, effect)

    def _note_issue(self, task: Task, effect: Effect[Any]) -> None:
        where = task.operation.where()
        if self.points is not None:
            self.points.add((where, type(effect).__name__))
        if self.timeline is not None:
            self.timeline.issued(self.steps, self._clock.now_ms, task.name, effect, where)

    def _apply_quietly(self, effect: Effect[Any], process: str) -> None:
        """Apply an effect whose outcome nobody learns."""
        with suppress(EffectError):
            self._store.apply(effect, process)

    def _apply_late(self, effect: Effect[Any] | Step[Any], process: str, until_ms: int | None) -> None:
        if until_ms is not None and self._clock.now_ms > until_ms:
            return
        if isinstance(effect, DeleteKeysWithin):
            self.invariants.removing(effect.keys, self.steps)
        elif isinstance(effect, (Delete, DeleteMany)) and until_ms is not None:
            keys = (effect.key,) if isinstance(effect, Delete) else effect.keys
            self.invariants.removing(tuple(map(Key, keys)), self.steps)
        if self.timeline is not None:
            self.timeline.note(self.steps, self._clock.now_ms, f"late: {type(effect).__name__} is applied")
        if isinstance(effect, Effect):
            self._apply_quietly(effect, process)
        elif self.world.s3 is not None:
            self.world.s3.take_quietly(effect)

    def _apply_again(self, task: Task, effect: Effect[Any]) -> None:
        first, task.repeat = task.repeat[0], None
        if type(effect) in PERFORMERS:  # not twice, but answered late
            if self.timeline is not None:
                self.timeline.applied(task.name, first)
            self._resume(task, first)
            return
        if type(effect) is DeleteKeysWithin and self._clock.now_ms > task.issued_ms + int(effect.within_seconds * 1000):
            again = first
        else:
            again = self._store.apply(effect, task.exchange.replica)
        if isinstance(first, tuple):
            # "True if this call created it": the call did, whichever of its attempts.
            again = tuple(one or two for one, two in zip(first, again, strict=True))
        elif isinstance(first, bool):
            again = first or again
        if self.timeline is not None:
            self.timeline.applied(task.name, again)
        self._resume(task, again)

    def _ended(self, task: Task, value: Any, error: BaseException | None) -> None:
        self._ready.remove(task)
        group = task.group
        if group is not None:
            group.outcomes[task.place] = (value, error)
            group.running -= 1
            if error is not None:  # as the runtime does: what has not begun does not begin any more
                for _, operation in group.waiting:
                    operation.abandon()
                group.waiting.clear()
            if group.waiting:
                self._start_child(group)
            elif not group.running:
                self._ready.append(group.parent)
                first = next((failure for _, failure in group.outcomes if failure is not None), None)
                if first is not None:
                    self._fail(group.parent, first)
                else:
                    self._resume(group.parent, tuple(outcome for outcome, _ in group.outcomes))
            return
        exchange = task.exchange
        if isinstance(error, OperationCancelled):
            self._tell(exchange, None)
            return
        if error is not None:
            raise self._broken(task, error) from error
        self._finished(exchange, value)

    # --- plans on a disk ----------------------------------------------------------------------------------------------

    def _plan_of(self, task: Task, effect: Effect[Any]) -> RunningPlan | None:
        """The plan of an effect that changes the disk. None: it only reads, or there is no disk."""
        return None if self.world.disk is None else self.world.disk.plan(effect, task.exchange.replica)

    def _step_plan(self, task: Task) -> None:
        plan = task.plan
        assert plan is not None
        if type(task.effect) is DeleteKeysWithin and not task.doom and self._is_too_late(task, task.effect):
            plan.abandon()
            task.plan = None
            return
        fault, at = task.doom or ("", -1)
        if plan.steps >= at and fault in ("crash", "kill"):
            task.doom = None
            self._end_processes(task, fault)
            task.plan = None
            return
        fail_with = None
        if plan.steps >= at and fault:
            fail_with = errno.EIO if fault == "failed" else (errno.ENOSPC, errno.EACCES)[at % 2]
        try:
            finished = plan.step(fail_with=fail_with)
        except EffectError as error:
            task.plan = None
            self._fail(task, error)
            return
        except BodyReadTwice:
            raise self._read_twice(task) from None
        if isinstance(finished, Finished):
            task.plan = None
            if fault:
                exceeded(self.choices, "at")
            if fault in ("crash", "kill"):  # its moment is after the last step
                self._end_processes(task, fault)
                return
            if self.timeline is not None:
                self.timeline.applied(task.name, finished.reply)
            self._resume(task, finished.reply)

    # --- effects that are not storage ---------------------------------------------------------------------------------

    def _acquire_lease(self, task: Task, effect: AcquireLease) -> None:
        now_ms = self._clock.now_ms
        if task.give_up_ms is None:
            task.give_up_ms = now_ms + int(effect.wait_seconds * 1000)
        answer = self.world.leases.ask(effect, give_up_ms=task.give_up_ms, now_ms=now_ms)
        if isinstance(answer, Wait):
            task.stalled = True  # the choice of a fault has been made
            self._sleep_until(task, answer.until_ms)
        else:
            task.give_up_ms = None
            self._resume(task, answer)

    def _release_lease(self, task: Task, effect: ReleaseLease) -> None:
        self.world.leases.release(effect.name, effect.token)
        self._wake_waiters(effect.name)
        self._resume(task, None)

    def _read_clock(self, task: Task, effect: ReadClock) -> None:
        self._resume(task, self._clock.look(task.exchange.replica))

    def _sleep(self, task: Task, effect: Sleep) -> None:
        if task.wake_ms is None:
            self._sleep_until(task, self._clock.now_ms + int(effect.seconds * 1000))
        else:
            task.wake_ms = None
            self._resume(task, None)

    def _draw_id(self, task: Task, effect: DrawId) -> None:
        self._resume(task, self.world.draw_id())

    def _sign_url(self, task: Task, effect: SignUrl) -> None:
        self._resume(task, self.world.sign_url(effect))

    def _note_pull(self, task: Task, effect: NotePull) -> None:
        replica = task.exchange.replica
        now_ms = self._clock.look(replica)
        self.world.books[replica].note(effect.pulls, now_ms)
        self.pulls.noted(replica, effect.pulls, now_ms)
        self._resume(task, None)

    def _read_body(self, task: Task, effect: ReadBody) -> None:
        try:
            content = self.world.bodies[effect.body].read(effect.size_max)
        except EffectError as error:
            self._fail(task, error)
        except BodyReadTwice:
            raise self._read_twice(task) from None
        else:
            self._resume(task, content)

    def _together(self, task: Task, effect: Together[Any]) -> None:
        operations = effect.operations
        group = Group(task, deque(enumerate(operations)), 0, [(None, None)] * len(operations))
        self._ready.remove(task)
        for _ in range(min(effect.limit, len(operations))):
            self._start_child(group)

    def _start_child(self, group: Group) -> None:
        place, operation = group.waiting.popleft()
        parent = group.parent
        child = Task(f"{parent.name}/{place}", parent.exchange, operation, group=group, place=place)
        group.running += 1
        self._ready.append(child)

    def _ask_services(self, task: Task, effect: Effect[Any]) -> None:
        private = self.world.private
        if private is None and type(effect) is Tell:
            self._resume(task, None)
            return
        assert private is not None, "an open registry asks nobody"
        try:
            reply = private.perform(effect, task.exchange.replica)
        except EffectError as error:
            self._fail(task, error)
        else:
            if self.timeline is not None:
                self.timeline.applied(task.name, reply)
            self._resume(task, reply)

    def _broken(self, task: Task, error: BaseException) -> Violation:
        call = task.exchange.call
        return Violation("internal error", f"{call.method} {call.target} ended with {type(error).__name__}: {error}")

    def _read_twice(self, task: Task) -> Violation:
        call = task.exchange.call
        return Violation("body read twice", f"{call.method} {call.target} asks for its body again; it has been read")


PERFORMERS: dict[type[Effect[Any]], Callable[[Scheduler, Task, Any], None]] = {
    AcquireLease: Scheduler._acquire_lease,
    ReleaseLease: Scheduler._release_lease,
    ReadClock: Scheduler._read_clock,
    Sleep: Scheduler._sleep,
    DrawId: Scheduler._draw_id,
    SignUrl: Scheduler._sign_url,
    NotePull: Scheduler._note_pull,
    ReadBody: Scheduler._read_body,
    Together: Scheduler._together,
    **dict.fromkeys(SERVICES, Scheduler._ask_services),
}
"""The effects that are not storage."""
