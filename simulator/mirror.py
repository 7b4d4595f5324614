"""A registry whose repository is a cache of simulated upstreams: clients pull side by side, one effect at a time.

The properties: bytes under a digest hash to it, in the store and in every answer that is complete; one transfer of a
blob for all who want it at once; nothing but the word of all upstreams becomes a 404; no credential reaches anybody but
its owner; at rest there is no lease, no upload and no fill, but for what a replica had that crashed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from angos.sansio import layout, registry
from angos.sansio.config import RegistryConfig, RepositoryConfig
from angos.sansio.effects import (
    AcquireLease,
    BodyHandle,
    BodyTooLarge,
    DrawId,
    Effect,
    EffectError,
    NotePull,
    Part,
    ReadCache,
    ReadClock,
    ReleaseLease,
    Sleep,
    Staged,
    Tell,
    Together,
    WriteCache,
)
from angos.sansio.http.message import FromFill, FromKey, FromUpstream, Headers, Inline, Request, Response
from angos.sansio.oci.digest import Digest
from angos.sansio.operation import Done, Operation
from angos.sansio.pulls import PullBook
from angos.sansio.secret import Secret
from angos.sansio.upstream.config import CacheConfig
from angos.sansio.upstream.effects import (
    AskForToken,
    AskUpstream,
    CloseUpstream,
    FillEnd,
    FillHandle,
    Filling,
    FollowFill,
    OpenUpstream,
    ReadSecret,
    ReleaseFill,
    StageFill,
    TakeFillPlace,
    WriteSecret,
)
from angos.simulator.choices import Choices
from angos.simulator.mirror_tasks import Fill, Pull, Task
from angos.simulator.world.bodies import continued
from angos.simulator.world.clock import Clock
from angos.simulator.world.leases import Leases
from angos.simulator.world.services import Memory
from angos.simulator.world.store import KeyWorld
from angos.simulator.world.upstreams import SimulatedUpstreams

STEPS_MAX = 20_000
LAPSE_MS = 10_000  # after which the lease of a dead replica is free


class Mirror:
    """One run."""

    def __init__(
        self,
        upstreams: SimulatedUpstreams,
        choices: Choices,
        *,
        cache: CacheConfig | None = None,
        fills_max: int = 4,
        replicas: int = 1,
        leases_granted: bool = False,
    ) -> None:
        self.upstreams = upstreams
        self.choices = choices
        self.clock = Clock(tick_ms=1)
        self.store = KeyWorld(self.clock, {})
        self.leases = Leases(always_granted=leases_granted)
        self.books = {f"replica-{number}": PullBook(1) for number in range(replicas)}
        self.memories = [Memory() for _ in range(replicas)]
        self.secrets: dict[tuple[str, str], tuple[int, Secret]] = {}
        self.fills: dict[tuple[str, str], Fill] = {}
        self.handles: list[Fill] = []
        self.told: list[Any] = []
        self.places: set[tuple[str, str]] = set()
        """Replicas and names of the fills that run there."""
        self.stage_ms = 0
        """How long a transfer takes."""
        self.crashed: set[str] = set()
        """Replicas that are gone for good."""
        self.done: dict[Operation[Any], Any] = {}
        """What has become of what a server does by itself."""
        self._holders: dict[str, Task] = {}
        self._tasks: list[Task] = []
        self._answers: dict[int, Pull] = {}
        self._sent: list[Task] = []  # so that their ids stay theirs
        self._ids = 0
        configured = tuple(each.upstream for each in upstreams.registries.values())
        repository = RepositoryConfig(
            "hub", upstreams=configured, cache=cache or CacheConfig(), mirror_of="hub.example"
        )
        self.config = RegistryConfig(repositories=(repository,), fills_max=fills_max)

    # --- running ------------------------------------------------------------------------------------------------------

    def run(
        self, pulls: Sequence[Pull], crash: str = "", crash_at_ms: int = 0, beside: Sequence[Operation[Any]] = ()
    ) -> None:
        """Let clients pull at once, until all have their answers and everything is at rest. The replica that `crash`
        names is gone from that time on. `beside`: what a server does meanwhile. Raises `AssertionError` for a property
        that does not hold."""
        self._answers = {}
        later = sorted(pulls, key=lambda pull: pull.begins)
        self._tasks += [Task("replica-0", operation) for operation in beside]
        for step in range(STEPS_MAX):
            while later and (later[0].begins <= step or not self._tasks):
                self._send(later.pop(0))
            if not self._tasks:
                break
            if crash and self.clock.now_ms >= crash_at_ms:
                self._crash(crash)
                crash = ""
                continue
            self._step()
        assert not self._tasks, "the run does not end"
        self._check(pulls)

    def _send(self, pull: Pull) -> None:
        request = Request(pull.method, pull.target, Headers(pull.fields), BodyHandle(0), 0)
        task = Task(f"replica-{pull.replica}", registry.handle(request, self.config))
        self._answers[id(task)] = pull
        self._tasks.append(task)
        self._sent.append(task)

    def body(self, pull: Pull) -> bytes | None:
        """The body that the client got; None when the connection was cut before its end."""
        assert pull.response is not None
        match pull.response.body:
            case Inline(value):
                return value
            case FromKey(_, start, length):
                return None if pull.content is None else pull.content[start : start + length]
            case FromFill(handle, start, length):
                fill = self.handles[handle]
                return fill.content[start : start + length] if fill.released else None
            case FromUpstream(stream, length, algorithm, hexadecimal):
                content, _ = self.upstreams.streams[stream]
                right = Digest.of(content, algorithm).hex == hexadecimal and len(content) == length
                return content if right else None
            case _:
                return b""

    def _step(self) -> None:
        now = self.clock.now_ms
        ready = [task for task in self._tasks if task.wake_ms <= now and not self._is_blocked(task)]
        if not ready:
            later = [task.wake_ms for task in self._tasks if task.wake_ms > now and not self._is_blocked(task)]
            assert later, "everybody waits for somebody else"
            self.clock.now_ms = min(later)
            return
        task = ready[self.choices.pick("next", len(ready))]
        if task.effect is None:
            self._advance(task, task.operation.resume)
            return
        try:
            reply = self._perform(task, task.effect)
        except EffectError as error:
            failure = error
            self._advance(task, lambda: task.operation.fail(failure))
        else:
            if reply is not _LATER:
                self._advance(task, lambda: task.operation.resume(reply))

    def _advance(self, task: Task, go: Any) -> None:
        try:
            step = go()
        except EffectError as error:
            self._ended(task, error)
            return
        if isinstance(step, Done):
            self._ended(task, step.value)
        else:
            task.effect, task.give_up_ms, task.wake_ms = step, None, 0

    def _ended(self, task: Task, value: Any) -> None:
        self._tasks.remove(task)
        if task.fill is not None:
            assert isinstance(value, FillEnd), f"a fill ended with {value!r}"
            task.fill.end = value
            del self.fills[task.replica, task.fill.name]
            self.places.discard((task.replica, task.fill.name))
        elif task.parent is not None:
            task.parent.children[task.place] = value
        elif (pull := self._answers.get(id(task))) is not None:
            assert isinstance(value, Response), f"a request ended with {value!r}"
            pull.response = value
            if isinstance(value.body, FromKey):
                pull.content = self.store.get(value.body.key)
        else:
            assert not isinstance(value, EffectError), f"what a server does by itself failed: {value}"
            self.done[task.operation] = value

    def _crash(self, replica: str) -> None:
        self.crashed.add(replica)
        for task in [task for task in self._tasks if task.replica == replica]:
            task.operation.abandon()
            self._tasks.remove(task)
        self.fills = {key: fill for key, fill in self.fills.items() if key[0] != replica}

    def _is_blocked(self, task: Task) -> bool:
        match task.effect:
            case FollowFill(name):
                fill = task.children[0] if task.children else None
                return fill is not None and not fill.shown and fill.end is None and name == fill.name
            case Together():
                return bool(task.children) and any(child is _LATER for child in task.children)
            case _:
                return False

    # --- effects ------------------------------------------------------------------------------------------------------

    def _perform(self, task: Task, effect: Effect[Any]) -> Any:
        now, memory = self.clock.now_ms, self.memories[int(task.replica.rpartition("-")[2])]
        match effect:
            case ReadClock():
                return self.clock.look(task.replica)
            case DrawId():
                self._ids += 1
                return f"00000000-0000-4000-8000-{self._ids:012x}"
            case Sleep(seconds):
                return self._wait_until(task, now + int(seconds * 1000)) if not task.wake_ms else None
            case AcquireLease(name, seconds, wait_seconds):
                holder = self._holders.get(name)
                if holder in self._tasks and self.leases.free_at_ms(name):
                    self.leases.prolong(name, until_ms=now + LAPSE_MS)
                free_at = self.leases.free_at_ms(name)
                if free_at <= now:
                    self._holders[name] = task
                    return self.leases.acquire(name, until_ms=now + min(int(seconds * 1000), LAPSE_MS))
                if task.give_up_ms is None:
                    task.give_up_ms = now + int(wait_seconds * 1000)
                if task.give_up_ms <= now:
                    return None
                return self._wait_until(task, min(free_at, task.give_up_ms))
            case ReleaseLease(name, token):
                self.leases.release(name, token)
                for other in self._tasks:
                    if isinstance(other.effect, AcquireLease) and other.effect.name == name:
                        other.wake_ms = 0
                return None
            case ReadCache(name, variant):
                return memory.read(name, variant, now)
            case WriteCache(name, value, seconds, variant):
                return memory.write(name, variant, value, now + int(seconds * 1000))
            case ReadSecret(name):
                until_ms, secret = self.secrets.get((task.replica, name), (0, Secret("")))
                return secret if now < until_ms else None
            case WriteSecret(name, secret, seconds):
                self.secrets[task.replica, name] = (now + int(seconds * 1000), secret)
                return None
            case NotePull(pulls):
                self.books[task.replica].note(pulls, now)
                return None
            case Tell(event):
                self.told.append(event)
                return None
            case AskUpstream():
                return self.upstreams.ask(effect, self.choices)
            case AskForToken():
                return self.upstreams.token(effect)
            case OpenUpstream():
                return self.upstreams.open(effect, self.choices, task.replica)
            case CloseUpstream():
                return None
            case FollowFill():
                return self._follow(task, effect)
            case TakeFillPlace():
                return self._take_place(task, effect)
            case StageFill():
                return self._stage(task, effect)
            case ReleaseFill(name):
                assert task.fill is not None
                assert task.fill.name == name
                task.fill.released = True
                return None
            case Together(operations):
                return self._together(task, operations)
            case _:
                return self.store.apply(effect, task.replica)

    def _wait_until(self, task: Task, at_ms: int) -> Any:
        task.wake_ms = max(at_ms, self.clock.now_ms + 1)
        return _LATER

    def _together(self, task: Task, operations: tuple[Operation[Any], ...]) -> Any:
        if not task.children:
            task.children = [_LATER] * len(operations)
            for place, operation in enumerate(operations):
                self._tasks.append(Task(task.replica, operation, parent=task, place=place))
            return _LATER
        outcomes, task.children = tuple(task.children), []
        for outcome in outcomes:
            if isinstance(outcome, EffectError):
                raise outcome
        return outcomes

    def _follow(self, task: Task, effect: FollowFill) -> Any:
        if task.children:
            (fill,), task.children = task.children, []
            if fill.task.operation is not effect.operation:
                effect.operation.abandon()
            if not fill.shown:
                return fill.end
            self.handles.append(fill)
            return Filling(FillHandle(len(self.handles) - 1), fill.size)
        known = self.fills.get((task.replica, effect.name))
        if known is None:
            known = Fill(effect.name, Task(task.replica, effect.operation))
            known.task.fill = known
            self.fills[task.replica, effect.name] = known
            self._tasks.append(known.task)
        task.children = [known]
        return _LATER

    def _take_place(self, task: Task, effect: TakeFillPlace) -> Any:
        if sum(replica == task.replica for replica, _ in self.places) < effect.running_max:
            self.places.add((task.replica, effect.fill))
            return True
        if task.give_up_ms is None:
            task.give_up_ms = self.clock.now_ms + int(effect.wait_seconds * 1000)
        if task.give_up_ms <= self.clock.now_ms:
            return False
        return self._wait_until(task, min(task.give_up_ms, self.clock.now_ms + 100))

    def _stage(self, task: Task, effect: StageFill) -> Any:
        fill = task.fill
        assert fill is not None
        assert fill.name == effect.fill
        assert effect.start == len(fill.content)
        if effect.size is not None and not fill.shown:
            fill.shown, fill.size = True, effect.size
            return _LATER  # those who follow get their turn before the bytes come
        if self.stage_ms and not task.wake_ms:
            return self._wait_until(task, self.clock.now_ms + self.stage_ms)
        sent, whole = self.upstreams.streams[effect.stream]
        fill.content += sent[: effect.size_max]
        if len(sent) > effect.size_max:
            raise BodyTooLarge(effect.size_max)
        self.store._put(f"{effect.upload}part.{effect.part}", sent)
        return Staged(
            Part(effect.part, len(sent)), tuple(continued(state, sent, exported=True) for state in effect.hashes), whole
        )

    # --- what must hold -----------------------------------------------------------------------------------------------

    def _check(self, pulls: Sequence[Pull]) -> None:
        assert not self.upstreams.leaks, self.upstreams.leaks
        for name in self.store.names("v2/blobs/"):
            digest = layout.parse_blob_key(name)
            assert digest is not None
            assert Digest.of(self.store.get(name) or b"", digest.algorithm) == digest, f"{name} holds other bytes"
        assert not self.fills, "a fill is left"
        assert not self.store.names("v2/repositories/") or self.crashed, "an upload is left"
        dead = [name for name, task in self._holders.items() if task.replica in self.crashed]
        held = [] if self.leases.always_granted else self.leases.held(self.clock.now_ms)
        held = [name for name in held if name not in dead]
        assert not held, f"leases are left: {held}"
        for pull in pulls:
            if pull.response is not None or f"replica-{pull.replica}" not in self.crashed:
                self._check_answer(pull)

    def _check_answer(self, pull: Pull) -> None:
        response = pull.response
        assert response is not None
        if response.status == 404:
            exists = any(registry.tagged is not None for registry in self.upstreams.registries.values())
            assert not exists or "missing" in pull.target, f"{pull.target} is a 404, and exists"
        body = self.body(pull)
        if response.status == 200 and pull.method == "GET" and body is not None:
            said = dict(response.headers).get("Docker-Content-Digest")
            if said is not None:
                digest = Digest.parse(said)
                assert Digest.of(body, digest.algorithm) == digest, f"{pull.target} was answered with other bytes"
        elif response.status not in (200, 206, 304, 404):
            assert response.status in (502, 503, 504), f"{pull.target} was answered with {response.status}"


class _Later:
    """The reply comes later."""


_LATER: Any = _Later()
