"""Plans of `angos.sansio.bucket`, carried out one attempt of one request at a time.

As the runtime does it: requests are sent in attempts, plans run side by side, and pieces that a plan began and did not
put together are thrown away in the end. Which request comes next, and what becomes of each attempt, is for whoever
carries the plan out: `waiting` are those that can be answered now.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from angos.sansio.bucket.attempts import Attempt, AttemptFailed, in_attempts
from angos.sansio.bucket.requests import (
    AbortPieces,
    BackOff,
    BeginPieces,
    CompletePieces,
    Delete,
    DeleteMany,
    DrawWriter,
    Fetch,
    HashObjects,
    Outcome,
    Put,
    SideBySide,
)
from angos.sansio.effects import EffectError, StorageUnavailable
from angos.sansio.steps import Step
from angos.simulator.world.bodies import hexdigest
from angos.simulator.world.bucket import Bucket

Plan = Coroutine[Any, Any, Any]


@dataclass(slots=True, eq=False)
class Branch:
    """One of the plans that run side by side."""

    plan: Plan
    siblings: Siblings | None = None
    place: int = 0
    request: Step[Any] | None = None
    """What it waits for; None while it waits for the plans that it has begun."""
    attempts: Plan | None = None
    again: bool = False
    """An earlier attempt had no answer."""

    def close(self) -> None:
        """It is given up."""
        self.plan.close()
        if self.attempts is not None:
            self.attempts.close()

    def where(self) -> str:
        """The suspended call chain: ``create_keys > create:105``."""
        frames: list[str] = []
        inner: Any = self.plan
        while (frame := getattr(inner, "cr_frame", None)) is not None:
            frames.append(f"{frame.f_code.co_name}:{frame.f_lineno}")
            inner = inner.cr_await
        return " > ".join(frames)


@dataclass(slots=True, eq=False)
class Siblings:
    """Plans that run side by side, and who waits for them."""

    parent: Branch
    unbegun: deque[tuple[int, Callable[[], Plan]]]
    results: list[Any]
    running: list[Branch] = field(default_factory=list)


class Carrying:
    """One plan in the middle of its requests."""

    def __init__(self, bucket: Bucket, plan: Plan, *, attempts: int, draw_writer: Callable[[], str]) -> None:
        self.waiting: list[Branch] = []
        """Branches whose request can be answered, in the order in which they came to it."""
        self.given_up: list[Step[Any]] = []
        """Requests that were on their way when their plan was given up. Whoever looks at them empties it."""
        self.ended = False
        self.value: Any = None
        self.error: EffectError | None = None
        self._bucket = bucket
        self._attempts = attempts
        self._draw_writer = draw_writer
        self._begun: dict[str, str] = {}
        self._clearing = False
        self._root = Branch(plan)
        self._go_on(self._root, plan.send, None)

    def apply(self, branch: Branch) -> Any:
        """The bucket takes the request of a branch, which does not learn it yet."""
        assert branch.request is not None, "it waits for a request"
        return self._bucket.take(branch.request)

    def answer(self, branch: Branch, reply: Any) -> None:
        """The present attempt of a branch was told this."""
        request = branch.request
        if branch.again and isinstance(request, (Delete, DeleteMany)) and request.definite:
            self.fail(branch, StorageUnavailable("a request that had no answer may be carried out yet"))
            return
        if isinstance(request, (Put, CompletePieces)):
            reply = Outcome(reply, branch.again)
        if isinstance(request, BeginPieces):
            self._begun[reply] = request.key
        elif isinstance(request, CompletePieces) and reply.done:
            self._begun.pop(request.upload_id, None)
        self._told(branch, branch.attempts.send, reply)  # type: ignore[union-attr]

    def fail(self, branch: Branch, error: AttemptFailed | EffectError) -> None:
        """The present attempt of a branch has failed."""
        self._told(branch, branch.attempts.throw, error)  # type: ignore[union-attr]

    def take_next(self) -> None:
        """Everything goes well: apply the first request that waits, and answer it."""
        branch = self.waiting[0]
        try:
            reply = self.apply(branch)
        except EffectError as error:
            self.fail(branch, error)
        else:
            self.answer(branch, reply)

    def run(self) -> Any:
        """All of it, in peace."""
        while not self.ended:
            self.take_next()
        if self.error is not None:
            raise self.error
        return self.value

    def abandon(self) -> None:
        """The process is gone: what it has begun stays."""
        for branch in self._everything():
            branch.close()
        self.given_up += [branch.request for branch in self.waiting if branch.request is not None]
        self.waiting.clear()
        self.ended = True

    def cancel(self) -> None:
        """The process gives it up, and throws away what it has begun."""
        self.abandon()
        for upload_id, key in self._begun.items():
            self._bucket.take(AbortPieces(key, upload_id))

    # --- attempts -----------------------------------------------------------------------------------------------------

    def _ask(self, branch: Branch, request: Step[Any]) -> None:
        branch.request, branch.again = request, False
        branch.attempts = in_attempts(self._attempts)
        branch.attempts.send(None)
        self.waiting.append(branch)

    def _told(self, branch: Branch, advance: Callable[[Any], Any], outcome: Any) -> None:
        try:
            step = advance(outcome)
            if isinstance(step, BackOff):
                step = branch.attempts.send(None)  # type: ignore[union-attr]
        except StopIteration as stop:
            self._settled(branch, branch.plan.send, stop.value)
        except EffectError as error:
            self._settled(branch, branch.plan.throw, error)
        else:
            assert isinstance(step, Attempt), "attempts are made, with pauses between them"
            branch.again = step.again

    def _settled(self, branch: Branch, advance: Callable[[Any], Any], outcome: Any) -> None:
        branch.request = branch.attempts = None
        self.waiting.remove(branch)
        self._go_on(branch, advance, outcome)

    # --- plans --------------------------------------------------------------------------------------------------------

    def _go_on(self, branch: Branch, advance: Callable[[Any], Any], outcome: Any) -> None:
        """Until it waits for something, or has ended."""
        while True:
            try:
                step = advance(outcome)
            except StopIteration as stop:
                self._has_ended(branch, stop.value, None)
                return
            except EffectError as error:
                self._has_ended(branch, None, error)
                return
            advance, outcome = branch.plan.send, None
            if isinstance(step, SideBySide):
                if step.plans:
                    self._split(branch, step)
                    return
                outcome = ()
            elif isinstance(step, DrawWriter):
                outcome = self._draw_writer()
            elif isinstance(step, HashObjects):
                self._begin(Branch(_hash(step), Siblings(branch, deque(), [])))
                return
            elif not isinstance(step, BackOff):
                self._ask(branch, step)
                return

    def _split(self, branch: Branch, step: SideBySide) -> None:
        siblings = Siblings(branch, deque(enumerate(step.plans)), [None] * len(step.plans))
        for _ in range(min(step.limit, len(step.plans))):
            if siblings.unbegun:  # one that ended at once has begun the next one
                self._begin_next(siblings)

    def _begin_next(self, siblings: Siblings) -> None:
        place, make = siblings.unbegun.popleft()
        self._begin(Branch(make(), siblings, place))

    def _begin(self, branch: Branch) -> None:
        assert branch.siblings is not None, "somebody waits for it"
        branch.siblings.running.append(branch)
        self._go_on(branch, branch.plan.send, None)

    def _has_ended(self, branch: Branch, value: Any, error: EffectError | None) -> None:
        siblings = branch.siblings
        if siblings is None:
            self._root_has_ended(value, error)
            return
        siblings.running.remove(branch)
        parent = siblings.parent
        if error is not None:
            siblings.unbegun.clear()
            for other in list(siblings.running):
                self._give_up(other)
            siblings.running.clear()
            self._go_on(parent, parent.plan.throw, error)
            return
        if not siblings.results:  # the plan was one step of its parent
            self._go_on(parent, parent.plan.send, value)
            return
        siblings.results[branch.place] = value
        if siblings.unbegun:
            self._begin_next(siblings)
        elif not siblings.running:
            self._go_on(parent, parent.plan.send, tuple(siblings.results))

    def _give_up(self, branch: Branch) -> None:
        for each in [branch, *self._below(branch)]:
            if each.request is not None:
                self.given_up.append(each.request)
                self.waiting.remove(each)
            each.close()

    def _root_has_ended(self, value: Any, error: EffectError | None) -> None:
        if not self._clearing:
            self.value, self.error = value, error
            if self._begun:
                self._clearing = True
                self._root = Branch(_abort(dict(self._begun)))
                self._go_on(self._root, self._root.plan.send, None)
                return
        self.ended = True

    def _below(self, branch: Branch) -> list[Branch]:
        return [each for each in self.waiting if _is_below(each, branch)]

    def _everything(self) -> list[Branch]:
        found: dict[int, Branch] = {id(self._root): self._root}
        for branch in self.waiting:
            each: Branch | None = branch
            while each is not None:
                found.setdefault(id(each), each)
                each = None if each.siblings is None else each.siblings.parent
        # Those that wait for others are closed after them.
        return list(reversed(found.values()))


def _is_below(branch: Branch, above: Branch) -> bool:
    each: Branch | None = branch
    while each is not None and each.siblings is not None:
        each = each.siblings.parent
        if each is above:
            return True
    return False


async def _hash(step: HashObjects) -> str | None:
    """`HashObjects`, one object after the other."""
    contents: list[bytes | bytearray] = []
    for key, size in step.objects:
        content = await Fetch(key, 0, size)
        if content is None:
            return None
        contents.append(content)
    return hexdigest(step.algorithm, b"".join(contents))


async def _abort(begun: dict[str, str]) -> None:
    for upload_id, key in begun.items():
        with suppress(EffectError):
            await AbortPieces(key, upload_id)
