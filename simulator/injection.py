"""Faults, as they happen to a run: which one strikes which effect, and what that means for the world and the tasks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from angos.sansio.effects import (
    CreateKeys,
    DeleteKeys,
    DeleteKeysWithin,
    DiscardUpload,
    Effect,
    FetchDocument,
    Key,
    OperationCancelled,
    PeerUnavailable,
    StageBody,
    StorageFull,
    StorageRefused,
    StorageUnavailable,
)
from angos.simulator.choices import Choices
from angos.simulator.faults import PLAN_STEPS, SKEWS_MS, SLOW_MS, STALLS_MS, possible
from angos.simulator.oracle.violation import Violation
from angos.simulator.scenario import Scenario
from angos.simulator.scheduler import PERFORMERS, Scheduler
from angos.simulator.tasks import Exchange, Task, abandon_children
from angos.simulator.timeline import Timeline
from angos.simulator.world.private import GARBAGE, GARBAGE_STATUSES


class Injection(Scheduler):
    """A scheduler whose world fails, as far as the scenario allows."""

    def __init__(
        self,
        scenario: Scenario,
        choices: Choices,
        *,
        timeline: Timeline | None = None,
        stop_at: int | None = None,
    ) -> None:
        super().__init__(scenario, choices, timeline=timeline, stop_at=stop_at)
        self.fired: Counter[str] = Counter()
        self.cells: Counter[tuple[str, str, str]] = Counter()
        """Where an operation was suspended when a fault struck it, on which effect, and which fault."""
        self.troubled = False
        """Something failed that clients may notice."""
        self.littered = False
        """Something may have been left that nobody removes."""
        self._faults_left = 0
        self._options: dict[type[Any], tuple[str, tuple[str, ...]]] = {}

    def _pick_fault(self, task: Task, effect: Effect[Any]) -> str:
        kind = type(effect)
        found = self._options.get(kind)
        if found is None:
            options = possible(kind, self.scenario.faults, bucket=self._bucket)
            found = self._options[kind] = (f"fault:{kind.__name__}", options)
        name = self._pick_of(task, *found)
        if name != "none":
            self.troubled = self.littered = True
            self._note_fault(task, name, task.operation.where(), kind.__name__)
        return name

    def _pick_of(self, task: Task, label: str, names: tuple[str, ...]) -> str:
        if len(names) == 1:
            return "none"
        # Drawn whether or not a fault is left: a steady shape is what shrinks well.
        name = names[self.choices.pick(label, len(names))]
        if name == "none" or not self._faults_left:
            return "none"
        self._faults_left -= 1
        task.exchange.faulty = True
        return name

    def _note_fault(self, task: Task, name: str, where: str, kind: str) -> None:
        self.fired[name] += 1
        self.cells[where, kind, name] += 1
        if self.timeline is not None:
            self.timeline.struck(task.name, name)

    def _strike(self, task: Task, effect: Effect[Any], fault: str) -> None:
        pick = self.choices.pick
        if type(effect) is DeleteKeysWithin and fault not in ("lost_request", "stall", "late", "cancel"):
            self.invariants.removing(effect.keys, self.steps)  # some of it, perhaps
        match fault:
            case "lost_request":
                self._use_up_body(effect)
                self._fail(task, StorageUnavailable("the request was lost"))
            case "lost_reply":
                self._apply_quietly(effect, task.exchange.replica)
                self._fail(task, StorageUnavailable("the reply was lost"))
            case "late":
                until_ms = None
                if isinstance(effect, DeleteKeysWithin):
                    until_ms = task.issued_ms + int(effect.within_seconds * 1000)
                self._late.append((effect, task.exchange.replica, until_ms))
                self._fail(task, StorageUnavailable("no answer yet"))
            case "twice":
                task.repeat = (self.world.store.apply(effect, task.exchange.replica),)
            case "partial":
                self._apply_quietly(self._part_of(effect), task.exchange.replica)
                self._fail(task, StorageUnavailable("the connection broke in the middle"))
            case "refused" if self._bucket:
                self._use_up_body(effect)
                kind = (StorageFull, StorageRefused)[pick("refusal", 2)]
                self._fail(task, kind("the store refuses to write"))
            case "refused" | "failed":
                self._run_plan(task, effect, (fault, pick("at", PLAN_STEPS[type(effect)])))
            case "stall":
                task.stalled = True
                self._sleep_until(task, self.world.clock.now_ms + STALLS_MS[pick("stall", len(STALLS_MS))])
            case "lapse":
                self.world.leases.forget()
                self._wake_waiters()
                self._apply(task, effect)
            case "skew":
                self.world.clock.skew(task.exchange.replica, SKEWS_MS[pick("skew", len(SKEWS_MS))])
                self._apply(task, effect)
            case "cancel":
                self._use_up_body(effect)
                self._fail(task, OperationCancelled())
            case "crash" | "kill":
                self._die(task, effect, fault)
            case _:
                self._strike_service(task, effect, fault)

    def _strike_service(self, task: Task, effect: Effect[Any], fault: str) -> None:
        private, replica = self.world.private, task.exchange.replica
        assert private is not None
        match fault:
            case "unanswered":
                if isinstance(effect, FetchDocument):
                    private.perform(effect, replica)
                self._fail(task, PeerUnavailable("no answer"))
            case "garbage" if isinstance(effect, FetchDocument):
                private.perform(effect, replica)
                self._resume(task, GARBAGE[self.choices.pick("garbage", len(GARBAGE))])
            case "garbage":
                self._resume(task, GARBAGE_STATUSES[self.choices.pick("garbage", len(GARBAGE_STATUSES))])
            case "slow":
                task.repeat = (private.perform(effect, replica),)
                self._sleep_until(task, self.world.clock.now_ms + SLOW_MS[self.choices.pick("slow", len(SLOW_MS))])
            case "rotated":
                private.rotate()
                self._apply(task, effect)
            case "forgotten":
                private.forget(replica)
                self._apply(task, effect)
            case _:
                raise AssertionError(f"unknown fault {fault}")

    def _run_plan(self, task: Task, effect: Effect[Any], doom: tuple[str, int]) -> None:
        task.plan, task.doom = self._plan_of(task, effect), doom
        while task.plan is not None and not self._fine:
            self._step_plan(task)

    def _use_up_body(self, effect: Effect[Any]) -> None:
        if isinstance(effect, StageBody):
            self.world.bodies[effect.body].read_once = True

    def _part_of(self, effect: Effect[Any]) -> Effect[Any]:
        match effect:
            case CreateKeys(entries):
                return replace(effect, entries=tuple(entry for entry in entries if self.choices.pick("entry", 2)))
            case DeleteKeys(keys) | DeleteKeysWithin(keys):
                return DeleteKeys(tuple(key for key in keys if self.choices.pick("entry", 2)))
            case DiscardUpload(upload):
                names = self._store.names(upload)
                kept = self.choices.pick("kept", len(names) + 1)
                return DeleteKeys(tuple(Key(name) for name in names[kept:]))
            case _:
                return effect

    # --- processes that die -------------------------------------------------------------------------------------------

    def _die(self, task: Task, effect: Effect[Any], fault: str) -> None:
        plan = self._plan_of(task, effect)
        if plan is not None:
            task.plan, task.doom = plan, (fault, self.choices.pick("at", PLAN_STEPS[type(effect)]))
            if not self._fine:
                while task.plan is not None:
                    self._step_plan(task)
            return
        # Before the effect, after it, or (several entries) in the middle of it.
        moment = self.choices.pick("moment", 3) if self._bucket and type(effect) not in PERFORMERS else 0
        if moment:
            self._apply_quietly(effect if moment == 1 else self._part_of(effect), task.exchange.replica)
        self._end_processes(task, fault)

    def _end_processes(self, task: Task, fault: str) -> None:
        if fault == "kill":
            self.kill(task.exchange.replica)
        else:
            self.cut_power()

    def kill(self, replica: str) -> None:
        """One process dies: its operations end, its clients are told nothing."""
        self.troubled = self.littered = True
        self._abandon([task for task in self._everybody() if task.exchange.replica == replica])
        self.world.kill(replica)
        self.pulls.died(replica)

    def cut_power(self, *, at_rest: bool = False) -> None:
        """Everybody dies, and what was not durable is kept or lost. Clients are told nothing."""
        if not at_rest:
            self.troubled = self.littered = True
        if self.timeline is not None:
            self.timeline.note(self.steps, self.world.clock.now_ms, "the power is cut")
        doomed = self._everybody()
        if not self._bucket:
            exchanges = {id(task.exchange): task.exchange for task in doomed}
            self.history.power_cut([exchange.call.intents for exchange in exchanges.values()], self.steps)
        self._abandon(doomed, then=lambda: self._lose_everything(at_rest=at_rest))

    def _lose_everything(self, *, at_rest: bool) -> None:
        for replica in self.world.replicas:
            self.world.kill(replica)
            self.pulls.died(replica)
        self.world.store.cut_power(self.choices, at_rest=at_rest)
        self.world.leases.forget()
        self.invariants.power_cut()
        self.pulls.look()
        if self.world.store.touched:
            self.invariants.touched()

    def _abandon(self, tasks: list[Task], then: Callable[[], None] | None = None) -> None:
        exchanges: dict[int, Exchange] = {}
        for task in tasks:
            if task.plan is not None:
                task.plan.abandon()
            if task.carrying is not None:
                task.carrying.abandon()
            try:
                abandon_children(task.effect)
                task.operation.abandon()
            except RuntimeError as error:
                where = f"{task.exchange.call.method} {task.exchange.call.target}"
                raise Violation(
                    "cleans up in a crash", f"{where} asks for effects while its process dies: {error}"
                ) from error
            exchanges[id(task.exchange)] = task.exchange
        self._remove(tasks)
        if then is not None:
            then()
        for exchange in exchanges.values():
            self._tell(exchange, None)

    def _close(self) -> None:
        """Drop what is in flight when a run ends early."""
        for task in self._everybody():
            if task.plan is not None:
                task.plan.abandon()
            if task.carrying is not None:
                task.carrying.abandon()
            try:
                abandon_children(task.effect)
                task.operation.abandon()
            except (RuntimeError, ValueError):
                continue  # the run has already failed for another reason
