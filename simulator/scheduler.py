"""Runs a scenario: operations side by side, one effect at a time, in an order and with faults that the choices decide.

A task is an operation that has issued an effect and waits for it. One step picks a task and applies its effect, which
gives it the reply and lets it issue the next one. Whatever can be told apart by a registry happens between two steps:
that a reply comes late, or never, is a task that is not picked for a while, or one that is told "unavailable" while
the effect is applied later. Tasks that wait (for time, a lease, their children) cannot be picked.
"""

from __future__ import annotations

import errno
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from angos.sansio import registry
from angos.sansio.effects import (
    AcquireLease,
    BodyHandle,
    CreateKeys,
    DeleteKeys,
    DrawId,
    Effect,
    EffectError,
    OperationCancelled,
    ReadBody,
    ReadClock,
    ReleaseLease,
    Sleep,
    StageBody,
    StorageFull,
    StorageRefused,
    StorageUnavailable,
    Together,
)
from angos.sansio.errors import RegistryError
from angos.sansio.http.message import Absent, FromKey, Headers, Inline, Request, Response, Slices
from angos.sansio.operation import Done, Operation
from angos.simulator.choices import Calm, Choices, exceeded
from angos.simulator.faults import PLAN_STEPS, SKEWS_MS, STALLS_MS, possible
from angos.simulator.oracle.history import Answer, History
from angos.simulator.oracle.invariants import Invariants, Violation
from angos.simulator.scenario import Scenario
from angos.simulator.timeline import Timeline
from angos.simulator.world.bodies import BodyReadTwice
from angos.simulator.world.client import Act, Call, Script, Shared, play
from angos.simulator.world.directory import Finished, RunningPlan
from angos.simulator.world.replica import World
from angos.simulator.world.store import KeyWorld

STEPS_MAX = 20_000
PRIVATE = (DrawId, ReadBody, Together)  # nobody else can tell when they happen: no other task need come before


@dataclass(slots=True, eq=False)
class Client:
    """Somebody who plays acts one after the other, one request at a time."""

    name: str
    acts: deque[Act]
    replica: int = 0
    script: Script | None = None


@dataclass(slots=True, eq=False)
class Exchange:
    """One request on its way."""

    client: Client
    call: Call
    replica: str
    called: int = 0
    effects: int = 0
    faulty: bool = False


@dataclass(slots=True, eq=False)
class Group:
    """The children of a task that awaits `Together`."""

    parent: Task
    waiting: deque[tuple[int, Operation[Any]]]
    running: int
    outcomes: list[tuple[Any, BaseException | None]]


@dataclass(slots=True, eq=False)
class Task:
    """An operation and the effect that it waits for."""

    name: str
    exchange: Exchange
    operation: Operation[Any]
    effect: Effect[Any] | None = None
    """None before it has started."""
    group: Group | None = None
    """The group that it is a child of."""
    place: int = 0
    wake_ms: int | None = None
    """Cannot be picked before."""
    give_up_ms: int | None = None
    """When waiting for a lease ends."""
    stalled: bool = False
    """Fault choices for the present effect have been made."""
    repeat: Any = None
    """The reply of the first of two applications, in a tuple."""
    plan: RunningPlan | None = None
    doom: tuple[str, int] | None = None
    """What happens to the plan, and after how many steps."""


class Simulation:
    """One run. `run` plays it to its end and gives the violation that was found, if any."""

    def __init__(
        self,
        scenario: Scenario,
        choices: Choices,
        *,
        timeline: Timeline | None = None,
        stop_at: int | None = None,
    ) -> None:
        self.scenario = scenario
        self.choices = choices
        self.timeline = timeline
        self.world = World(scenario)
        self.history = History()
        self.invariants = Invariants(self.world.store, self.history)
        self.steps = 0
        self.switches = 0
        self.effects = 0
        self.fired: Counter[str] = Counter()
        self.points: set[tuple[str, str]] | None = None
        """Where operations were suspended, and on which effect; collected when it is set."""
        self.cells: Counter[tuple[str, str, str]] = Counter()
        """Where an operation was suspended when a fault struck it, on which effect, and which fault."""
        self.stop_at = stop_at
        """Stop before this step, for looking around."""
        self._steps_max = stop_at or STEPS_MAX
        self._touched = self.world.store.touched
        self._faults_possible = bool(scenario.faults)
        self.on_answer: Callable[[Call, Answer | None], None] | None = None
        """Told of every answer, for whoever wants to compare it with something."""
        self._ready: list[Task] = []
        self._asleep: list[Task] = []
        self._late: list[tuple[Effect[Any], str]] = []
        self._last: Task | None = None
        self.shared = Shared()
        self._clients: list[Client] = []
        self._faults_left = 0
        self._config = scenario.registry_config
        self._options: dict[type[Effect[Any]], tuple[str, tuple[str, ...]]] = {}
        self._fine = scenario.granularity == "fine" and scenario.store == "disk"
        self._bucket = scenario.store == "bucket"
        # What a bucket applies needs nobody but the bucket.
        self._direct = self.world.store.performers if isinstance(self.world.store, KeyWorld) else {}
        self._performers: dict[type[Effect[Any]], Callable[[Task, Any], None]] = {
            AcquireLease: self._acquire_lease,
            ReleaseLease: self._release_lease,
            ReadClock: self._read_clock,
            Sleep: self._sleep,
            DrawId: self._draw_id,
            ReadBody: self._read_body,
            Together: self._together,
        }

    # --- a whole run --------------------------------------------------------------------------------------------------

    def run(self) -> Violation | None:
        """Prepare in peace, let the clients work, let everything settle, and look at what is there."""
        try:
            self._play_in_peace(self.scenario.before, "before")
            self._faults_left = self.scenario.faults_max
            for number, acts in enumerate(self.scenario.clients):
                self.begin(f"client-{number}", acts, replica=number)
            self.settle()
            if self.stop_at is None:
                self.look_around()
        except Violation as violation:
            return violation
        except _Stopped:
            return None
        finally:
            if self.stop_at is None:
                self._close()
        return None

    def begin(self, name: str, acts: tuple[Act, ...], *, replica: int = 0) -> None:
        """A client starts to work."""
        client = Client(name, deque(acts), replica % len(self.world.replicas))
        self._clients.append(client)
        self._go_on(client, None)

    def settle(self) -> None:
        """Step until nothing is left to happen."""
        while self.step():
            pass

    def calls(self, calls: list[Call], name: str = "audit") -> None:
        """Make these requests one after the other, in peace."""
        before, self.choices = self.choices, Calm()
        faults, self._faults_left = self._faults_left, 0
        client = Client(name, deque())
        client.script = _script(calls)
        self._take_answer(client, None, first=True)
        self.settle()
        self.choices, self._faults_left = before, faults

    def look_around(self) -> None:
        """The end of a run: on a disk a power cut at rest; then everything is read once more, and the oracle judges."""
        faulty = bool(self.fired)
        if self.world.disk is not None and "crash" in self.scenario.faults:
            self.cut_power(at_rest=True)
            faulty = True
        self.calls(self.invariants.audit())
        self.invariants.judge()
        temporaries = self.world.disk.disk.temporaries() if self.world.disk is not None else []
        leases = self.world.leases.held(self.world.clock.now_ms)
        self.invariants.at_rest(leases, temporaries, faulty=faulty)

    def _play_in_peace(self, acts: tuple[Act, ...], name: str) -> None:
        if acts:
            before, self.choices = self.choices, Calm()
            self.begin(name, acts)
            self.settle()
            self.choices = before

    def in_flight(self) -> int:
        """How many operations have begun and not ended, children included."""
        return len(self._ready) + len(self._asleep)

    def waiting(self) -> list[str]:
        """Where each operation in flight is suspended."""
        tasks = [*self._ready, *self._asleep, *self._parents()]
        return [f"{task.name} waits at {where}" for task in tasks if (where := task.operation.where())]

    # --- one step -----------------------------------------------------------------------------------------------------

    def step(self) -> bool:
        """Let one thing happen. False when nothing can."""
        ready, late = self._ready, self._late
        if not ready and not late:
            if not self._asleep:
                return False
            self._pass_time()
            return True
        self.steps += 1
        if self.steps >= self._steps_max:
            self._too_many_steps()
        others = len(late) + (1 if self._asleep else 0)
        count = len(ready) + others
        last = self._last
        if last is not None and type(last.effect) in PRIVATE and last in ready:
            task = last
        elif last is not None and last in ready:
            # The calm option is to go on with the same task.
            chosen = self.choices.pick("next", count) if count > 1 else 0
            if chosen == 0:
                task = last
            elif chosen < len(ready):
                position = ready.index(last)
                task = ready[chosen - 1 if chosen <= position else chosen]
                if last.effect is not None:
                    self.switches += 1
                self._last = task
            else:
                self._step_other(chosen - len(ready))
                return True
        else:
            chosen = self.choices.pick("turn", count) if count > 1 else 0
            if chosen >= len(ready):
                self._step_other(chosen - len(ready))
                return True
            self._last = task = ready[chosen]

        effect = task.effect
        if effect is None:
            if task.group is None:
                task.exchange.called = self.steps
            self._resume(task, None)
            effect = task.effect
        if effect is not None:
            if task.plan is not None:
                self._step_plan(task)
            elif task.repeat is not None:
                self._apply_again(task, effect)
            else:
                fault = self._pick_fault(task, effect) if self._faults_possible and not task.stalled else "none"
                if fault == "none":
                    task.stalled = False
                    self._apply(task, effect)
                else:
                    self._strike(task, effect, fault)
        if self._touched:
            self.invariants.touched()
        return True

    def _step_other(self, number: int) -> None:
        """Something that no task does: a late effect is applied, or time passes."""
        if number < len(self._late):
            self._apply_late(*self._late.pop(number))
            if self._touched:
                self.invariants.touched()
        else:
            self._pass_time()

    def _too_many_steps(self) -> None:
        if self.stop_at is not None:
            raise _Stopped
        where = "; ".join(f"{task.name} at {task.operation.where()}" for task in [*self._ready, *self._asleep])
        raise Violation("no end", f"after {STEPS_MAX} steps the run is still going on: {where}")

    def _apply(self, task: Task, effect: Effect[Any]) -> None:
        kind = type(effect)
        try:
            if (direct := self._direct.get(kind)) is not None:
                reply = direct(effect)
            elif (performer := self._performers.get(kind)) is not None:
                performer(task, effect)
                return
            else:
                if self._fine and self.world.disk is not None:
                    plan = self.world.disk.plan(effect, task.exchange.replica)
                    if plan is not None:
                        task.plan, task.doom = plan, None
                        self._step_plan(task)
                        return
                reply = self.world.store.apply(effect, task.exchange.replica)
        except EffectError as error:
            self._fail(task, error)
        except BodyReadTwice:
            raise self._read_twice(task) from None
        else:
            if self.timeline is not None:
                self.timeline.applied(task.name, reply)
            self._resume(task, reply)

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
        task.exchange.effects += 1
        self.effects += 1
        if self.points is not None:
            self.points.add((task.operation.where(), type(effect).__name__))
        if self.timeline is not None:
            self.timeline.issued(self.steps, self.world.clock.now_ms, task.name, effect, task.operation.where())

    # --- faults -------------------------------------------------------------------------------------------------------

    def _pick_fault(self, task: Task, effect: Effect[Any]) -> str:
        kind = type(effect)
        found = self._options.get(kind)
        if found is None:
            options = possible(kind, self.scenario.faults, bucket=self._bucket)
            found = self._options[kind] = (f"fault:{kind.__name__}", options)
        label, names = found
        if len(names) == 1:
            return "none"
        # Drawn whether or not a fault is left: a steady shape is what shrinks well.
        name = names[self.choices.pick(label, len(names))]
        if name == "none" or not self._faults_left:
            return "none"
        self._faults_left -= 1
        self.fired[name] += 1
        task.exchange.faulty = True
        self.cells[task.operation.where(), kind.__name__, name] += 1
        if self.timeline is not None:
            self.timeline.struck(task.name, name)
        return name

    def _strike(self, task: Task, effect: Effect[Any], fault: str) -> None:
        pick = self.choices.pick
        match fault:
            case "lost_request":
                self._use_up_body(effect)
                self._fail(task, StorageUnavailable("the request was lost"))
            case "lost_reply":
                self._apply_quietly(effect, task.exchange.replica)
                self._fail(task, StorageUnavailable("the reply was lost"))
            case "late":
                self._late.append((effect, task.exchange.replica))
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
                raise AssertionError(f"unknown fault {fault}")

    def _die(self, task: Task, effect: Effect[Any], fault: str) -> None:
        plan = self.world.disk.plan(effect, task.exchange.replica) if self.world.disk is not None else None
        if plan is not None:
            task.plan, task.doom = plan, (fault, self.choices.pick("at", PLAN_STEPS[type(effect)]))
            if not self._fine:
                while task.plan is not None:
                    self._step_plan(task)
            return
        # Before the effect, after it, or (several entries) in the middle of it.
        moment = (
            self.choices.pick("moment", 3) if self._bucket and not isinstance(effect, tuple(self._performers)) else 0
        )
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
        self._abandon(
            [task for task in [*self._ready, *self._asleep, *self._parents()] if task.exchange.replica == replica]
        )
        self.world.store.kill(replica)

    def cut_power(self, *, at_rest: bool = False) -> None:
        """Everybody dies, and what was not durable is kept or lost. Clients are told nothing."""
        if self.timeline is not None:
            self.timeline.note(self.steps, self.world.clock.now_ms, "the power is cut")
        doomed = [*self._ready, *self._asleep, *self._parents()]
        if not self._bucket:
            exchanges = {id(task.exchange): task.exchange for task in doomed}
            self.history.power_cut([exchange.call.intents for exchange in exchanges.values()], self.steps)
        self._abandon(doomed, then=lambda: self._lose_everything(at_rest=at_rest))

    def _lose_everything(self, *, at_rest: bool) -> None:
        for replica in self.world.replicas:
            self.world.store.kill(replica)
        self.world.store.cut_power(self.choices, at_rest=at_rest)
        self.world.leases.forget()
        self.invariants.power_cut()
        if self.world.store.touched:
            self.invariants.touched()

    def _parents(self) -> list[Task]:
        """Tasks that wait for children are in neither list."""
        found: dict[int, Task] = {}
        for task in [*self._ready, *self._asleep]:
            while task.group is not None:
                task = task.group.parent
                found[id(task)] = task
        return list(found.values())

    def _abandon(self, tasks: list[Task], then: Callable[[], None] | None = None) -> None:
        exchanges: dict[int, Exchange] = {}
        for task in tasks:
            if task.plan is not None:
                task.plan.abandon()
            try:
                _abandon_children(task.effect)
                task.operation.abandon()
            except RuntimeError as error:
                where = f"{task.exchange.call.method} {task.exchange.call.target}"
                raise Violation(
                    "cleans up in a crash", f"{where} asks for effects while its process dies: {error}"
                ) from error
            exchanges[id(task.exchange)] = task.exchange
        gone = {id(task) for task in tasks}
        self._ready = [task for task in self._ready if id(task) not in gone]
        self._asleep = [task for task in self._asleep if id(task) not in gone]
        if then is not None:
            then()
        for exchange in exchanges.values():
            self._tell(exchange, None)

    def _close(self) -> None:
        """Drop what is in flight when a run ends early."""
        for task in [*self._ready, *self._asleep, *self._parents()]:
            if task.plan is not None:
                task.plan.abandon()
            try:
                _abandon_children(task.effect)
                task.operation.abandon()
            except (RuntimeError, ValueError):
                continue  # the run has already failed for another reason

    def _use_up_body(self, effect: Effect[Any]) -> None:
        if isinstance(effect, StageBody):
            self.world.bodies[effect.body].read_once = True

    def _apply_quietly(self, effect: Effect[Any], process: str) -> None:
        """Apply an effect whose outcome nobody learns."""
        with suppress(EffectError):
            self.world.store.apply(effect, process)

    def _apply_late(self, effect: Effect[Any], process: str) -> None:
        if self.timeline is not None:
            self.timeline.note(self.steps, self.world.clock.now_ms, f"late: {type(effect).__name__} is applied")
        self._apply_quietly(effect, process)

    def _apply_again(self, task: Task, effect: Effect[Any]) -> None:
        first, task.repeat = task.repeat[0], None
        again = self.world.store.apply(effect, task.exchange.replica)
        if isinstance(first, tuple):
            # "True if this call created it": the call did, whichever of its attempts.
            again = tuple(one or two for one, two in zip(first, again, strict=True))
        elif isinstance(first, bool):
            again = first or again
        if self.timeline is not None:
            self.timeline.applied(task.name, again)
        self._resume(task, again)

    def _part_of(self, effect: Effect[Any]) -> Effect[Any]:
        match effect:
            case CreateKeys(entries):
                return CreateKeys(tuple(entry for entry in entries if self.choices.pick("entry", 2)))
            case DeleteKeys(keys):
                return DeleteKeys(tuple(key for key in keys if self.choices.pick("entry", 2)))
            case _:
                return effect

    # --- plans on a disk ----------------------------------------------------------------------------------------------

    def _run_plan(self, task: Task, effect: Effect[Any], doom: tuple[str, int]) -> None:
        assert self.world.disk is not None
        task.plan, task.doom = self.world.disk.plan(effect, task.exchange.replica), doom
        while task.plan is not None and not self._fine:
            self._step_plan(task)

    def _step_plan(self, task: Task) -> None:
        plan = task.plan
        assert plan is not None
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
        now_ms = self.world.clock.now_ms
        free_at_ms = self.world.leases.free_at_ms(effect.name)
        if free_at_ms <= now_ms:
            task.give_up_ms = None
            token = self.world.leases.acquire(effect.name, until_ms=now_ms + int(effect.seconds * 1000))
            self._resume(task, token)
            return
        if task.give_up_ms is None:
            task.give_up_ms = now_ms + int(effect.wait_seconds * 1000)
        if task.give_up_ms <= now_ms:
            task.give_up_ms = None
            self._resume(task, None)
            return
        task.stalled = True  # the choice of a fault has been made
        self._sleep_until(task, min(free_at_ms, task.give_up_ms))

    def _release_lease(self, task: Task, effect: ReleaseLease) -> None:
        self.world.leases.release(effect.name, effect.token)
        self._wake_waiters(effect.name)
        self._resume(task, None)

    def _read_clock(self, task: Task, effect: ReadClock) -> None:
        self._resume(task, self.world.clock.look(task.exchange.replica))

    def _sleep(self, task: Task, effect: Sleep) -> None:
        if task.wake_ms is None:
            self._sleep_until(task, self.world.clock.now_ms + int(effect.seconds * 1000))
        else:
            task.wake_ms = None
            self._resume(task, None)

    def _draw_id(self, task: Task, effect: DrawId) -> None:
        self._resume(task, self.world.draw_id())

    def _read_body(self, task: Task, effect: ReadBody) -> None:
        try:
            content = self.world.bodies[effect.body].read(effect.size_max)
        except EffectError as error:
            self._fail(task, error)
        except BodyReadTwice:
            raise self._read_twice(task) from None
        else:
            self._resume(task, content)

    def _sleep_until(self, task: Task, wake_ms: int) -> None:
        task.wake_ms = wake_ms
        self._ready.remove(task)
        self._asleep.append(task)

    def _pass_time(self) -> None:
        """To the moment when the next sleeper wakes."""
        wake_ms = min(task.wake_ms or 0 for task in self._asleep)
        self.world.clock.now_ms = max(self.world.clock.now_ms, wake_ms)
        self._wake([task for task in self._asleep if (task.wake_ms or 0) <= self.world.clock.now_ms])

    def _wake_waiters(self, name: str | None = None) -> None:
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

    # --- endings ------------------------------------------------------------------------------------------------------

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
        answer = self._answer_of(exchange, value)
        self.invariants.answered(exchange.call, value, answer, effects=exchange.effects, faulty=bool(self.fired))
        self._tell(exchange, answer)

    def _answer_of(self, exchange: Exchange, response: Response) -> Answer:
        headers = {name.lower(): value for name, value in response.headers}
        get = self.world.store.get
        match response.body:
            case Inline(value):
                body = value
            case Absent():
                body = b""
            case FromKey(key, start, length):
                body = (get(key) or b"")[start : start + length]
            case Slices(key, slices, closing):
                value = get(key) or b""
                body = b"".join(before + value[start : start + length] for before, start, length in slices) + closing
        return Answer(response.status, headers, body)

    def _tell(self, exchange: Exchange, answer: Answer | None) -> None:
        """The client learns how it ended; None: that the connection broke."""
        if answer is not None and self.scenario.lossy_answers and exchange.client.script is not None:
            lost = self.choices.pick("fault:answer", 2)
            if lost and self._faults_left:
                self._faults_left -= 1
                self.fired["lost_answer"] += 1
                answer = None
        if self.timeline is not None:
            self.timeline.answered(self.steps, self.world.clock.now_ms, exchange.client.name, exchange.call, answer)
        call = exchange.call
        if self.on_answer is not None:
            self.on_answer(call, answer)
        self.invariants.told(call, answer, exchange.called, self.steps, exchange.client.name)
        self.history.add(call.intents, exchange.called, self.steps, answer, exchange.client.name)
        self._take_answer(exchange.client, answer)

    def _take_answer(self, client: Client, answer: Answer | None, *, first: bool = False) -> None:
        assert client.script is not None
        try:
            call = next(client.script) if first else client.script.send(answer)
        except StopIteration:
            client.script = None
            self._go_on(client, None)
        else:
            self._send(client, call)

    def _go_on(self, client: Client, answer: Answer | None) -> None:
        while client.acts:
            client.script = play(client.acts.popleft(), self.shared)
            try:
                call = next(client.script)
            except StopIteration:
                continue
            self._send(client, call)
            return

    def _send(self, client: Client, call: Call) -> None:
        replicas = self.world.replicas
        if call.elsewhere:
            client.replica = (client.replica + 1) % len(replicas)
        exchange = Exchange(client, call, replicas[client.replica])
        handle = self.world.open_body(call.body)
        length = call.body.content_length
        request = Request(call.method, call.target, Headers(call.headers), BodyHandle(handle), length)
        self.invariants.sent(call)
        # Looked up when it is needed, so that a test can break it.
        self._ready.append(Task(client.name, exchange, registry.handle(request, self._config)))
        if self.timeline is not None:
            self.timeline.sent(self.steps, self.world.clock.now_ms, client.name, call, exchange.replica)

    def _broken(self, task: Task, error: BaseException) -> Violation:
        call = task.exchange.call
        return Violation("internal error", f"{call.method} {call.target} ended with {type(error).__name__}: {error}")

    def _read_twice(self, task: Task) -> Violation:
        call = task.exchange.call
        return Violation("body read twice", f"{call.method} {call.target} asks for its body again; it has been read")


class _Stopped(Exception):
    """The step at which somebody wanted to look around."""


def _abandon_children(effect: Effect[Any] | None) -> None:
    """Those that have not begun. Abandoning an operation that is a task of its own, too, does no harm."""
    if isinstance(effect, Together):
        for operation in effect.operations:
            operation.abandon()


def _script(calls: list[Call]) -> Script:
    for call in calls:  # noqa: UP028 - answers are sent in, which a list does not take
        yield call
