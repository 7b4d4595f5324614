"""Runs an operation of the core against a performer, on asyncio or trio.

Most effects of a read are answered at once, so a performer gives either the reply or a coroutine that ends with it:
an operation whose effects are all immediate runs like a plain function.

Writes to a disk wait for it in a worker thread, and a push is a row of them. Going to a thread and back costs about as
much as such a write does, so an operation goes there once and takes all its steps that can be taken there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from types import CoroutineType
from typing import Any, Protocol, TypeVar, cast

from anyio import CancelScope, create_task_group, current_time
from anyio.lowlevel import checkpoint

from angos.runtime.threads import run_in_thread
from angos.sansio.effects import (
    Effect,
    EffectError,
    OperationCancelled,
    StorageCorrupt,
    StorageFull,
    StorageRefused,
    StorageUnavailable,
    Together,
)
from angos.sansio.operation import Done, Operation

T = TypeVar("T")

_log = logging.getLogger("angos.storage")

CLEANUP_SECONDS = 5.0
IMMEDIATE_MAX = 100  # effects in a row, 1 to 2 ms; then others get their turn


class Performer(Protocol):
    """Carries out effects."""

    def perform(self, effect: Effect[Any], /) -> Any:
        """The reply, or a coroutine that ends with it. Never sees `Together`. Fails with an `EffectError`."""
        ...


Calls = dict[type[Effect[Any]], Callable[[Any], Any]]


@dataclass(frozen=True, slots=True)
class InThread:
    """What can be carried out by a plain call in a worker thread."""

    waiting: Calls = field(default_factory=dict)
    """Effects that wait for a disk. An operation goes to a thread for them."""
    quick: Calls = field(default_factory=dict)
    """Effects for which an operation that is there need not come back."""


NOTHING_IN_THREAD = InThread()


async def drive(
    operation: Operation[T],
    performer: Performer,
    in_thread: InThread = NOTHING_IN_THREAD,
    *,
    cleanup_seconds: float = CLEANUP_SECONDS,
) -> T:
    """The result of the operation, or whatever it raises.

    Effects that `in_thread` knows are carried out by it, but for those of operations side by side, which would wait
    for each other in one thread.

    When this is cancelled, the operation gets `OperationCancelled` and may still do its clean-up effects, for
    `cleanup_seconds` at most and shielded from the cancellation.
    """
    return await _continue(operation, performer, None, cleanup_seconds, in_thread)


async def _continue(
    operation: Operation[T],
    performer: Performer,
    waiting: Coroutine[Any, Any, Any] | None,
    cleanup_seconds: float,
    in_thread: InThread = NOTHING_IN_THREAD,
) -> T:
    """Go on with an operation whose last effect is `waiting`; None for one that has not been started."""
    immediate = 0
    waits = in_thread.waiting
    step: Effect[Any] | Done[T] | None = None
    if waiting is None:
        step = operation.resume()
    while not isinstance(step, Done):
        if type(step) in waits:
            step = await _go_to_thread(operation, step, performer, in_thread, cleanup_seconds)
            continue
        try:
            if step is None:
                assert waiting is not None
                reply = await waiting
            elif isinstance(step, Together):
                reply = await _perform_together(step, performer, cleanup_seconds)
            else:
                reply = performer.perform(step)
                if type(reply) is CoroutineType:
                    immediate = 0
                    reply = await reply
                else:
                    immediate += 1
                    if immediate > IMMEDIATE_MAX:
                        immediate = 0
                        await checkpoint()
        except Exception as error:  # the operation decides; what it does not handle, it raises
            if not isinstance(step, Together):  # whose children have told already
                _note(operation, error)
            step = operation.fail(error)
        except GeneratorExit:  # we ourselves are abandoned
            operation.abandon()
            raise
        except BaseException:
            await _clean_up(operation, performer, cleanup_seconds)
            raise
        else:
            step = operation.resume(reply)
    return step.value


async def _go_to_thread(
    operation: Operation[T], step: Any, performer: Performer, in_thread: InThread, cleanup_seconds: float
) -> Effect[Any] | Done[T]:
    """Take this step of the operation and those after it in a worker thread. Gives the first one that needs the loop.

    A cancellation is noticed before and after, never in the middle of these steps.
    """
    try:
        return await run_in_thread(_take_in_thread, operation, step, in_thread)
    except (Exception, GeneratorExit):  # out of the operation itself; or we are abandoned, and the thread still has it
        raise
    except BaseException:
        if not operation.has_ended:
            await _clean_up(operation, performer, cleanup_seconds)
        raise


def _take_in_thread(operation: Operation[T], step: Any, in_thread: InThread) -> Effect[Any] | Done[T]:
    while True:
        call = in_thread.waiting.get(type(step)) or in_thread.quick.get(type(step))
        if call is None:
            return cast("Effect[Any] | Done[T]", step)
        try:
            reply = call(step)
        except Exception as error:  # as in `_continue`
            _note(operation, error)
            step = operation.fail(error)
        else:
            step = operation.resume(reply)


async def _clean_up(operation: Operation[Any], performer: Performer, seconds: float) -> None:
    """Let a cancelled operation release what it holds. Failures here matter less than the cancellation."""
    try:
        with CancelScope(shield=True, deadline=current_time() + seconds):
            step = operation.fail(OperationCancelled())
            while not isinstance(step, Done):
                try:
                    if isinstance(step, Together):
                        reply = await _perform_together(step, performer, seconds)
                    else:
                        reply = performer.perform(step)
                        if type(reply) is CoroutineType:
                            reply = await reply
                except EffectError as error:
                    step = operation.fail(error)
                else:
                    step = operation.resume(reply)
    except (OperationCancelled, EffectError):
        return
    finally:
        operation.abandon()


async def _perform_together(effect: Together[Any], performer: Performer, cleanup_seconds: float) -> tuple[Any, ...]:
    """`Together`. Children run here one after the other as long as all is immediate; tasks serve those that wait."""
    group = _Group(effect, performer, cleanup_seconds)
    try:
        waiting: list[tuple[int, Coroutine[Any, Any, Any]]] = []
        for index in group.to_start:
            coroutine = group.start(index)
            if coroutine is not None:
                waiting.append((index, coroutine))
            elif not waiting and index % IMMEDIATE_MAX == IMMEDIATE_MAX - 1:
                await checkpoint()
            if len(waiting) == effect.limit or group.failures:
                break
        if waiting:
            async with create_task_group() as tasks:
                for index, coroutine in waiting:
                    tasks.start_soon(group.lane, index, coroutine)
    finally:
        for index in group.to_start:
            effect.operations[index].abandon()
    if group.failures:
        raise group.failures[min(group.failures)]
    return tuple(group.results)


def _note(operation: Operation[Any], error: Exception) -> None:
    """Tell the operator about a failing store. Clients get an answer that says less, and their mistakes are no news."""
    if isinstance(error, (StorageUnavailable, StorageFull, StorageRefused, StorageCorrupt)):
        _log.error("%s: %s (at %s)", type(error).__name__, error, operation.where())


class _Group:
    """The children of one `Together`."""

    def __init__(self, effect: Together[Any], performer: Performer, cleanup_seconds: float) -> None:
        self._operations = effect.operations
        self._performer = performer
        self._cleanup_seconds = cleanup_seconds
        self.to_start: Iterator[int] = iter(range(len(effect.operations)))
        self.results: list[Any] = [None] * len(effect.operations)
        self.failures: dict[int, Exception] = {}

    def start(self, index: int) -> Coroutine[Any, Any, Any] | None:
        """Run a child until it ends (None) or has to wait for the coroutine that is returned."""
        operation = self._operations[index]
        try:
            step = operation.resume()
            while not isinstance(step, Done):
                if isinstance(step, Together):
                    return _perform_together(step, self._performer, self._cleanup_seconds)
                try:
                    reply = self._performer.perform(step)
                except Exception as error:
                    _note(operation, error)
                    step = operation.fail(error)
                    continue
                if type(reply) is CoroutineType:
                    return reply
                step = operation.resume(reply)
            self.results[index] = step.value
        except Exception as error:
            self.failures[index] = error
        return None

    async def lane(self, index: int, waiting: Coroutine[Any, Any, Any] | None) -> None:
        """Finish a child that waits, then run further ones until none is left or one has failed."""
        while True:
            try:
                self.results[index] = await _continue(
                    self._operations[index], self._performer, waiting, self._cleanup_seconds
                )
            except Exception as error:
                self.failures[index] = error
            waiting = None
            following = None if self.failures else next(self.to_start, None)
            if following is None:
                return
            index = following
