"""Runs an operation of the core against a performer, on asyncio or trio.

Most effects of a read are answered at once, so a performer gives either the reply or a coroutine that ends with it:
an operation whose effects are all immediate runs like a plain function.
"""

from __future__ import annotations

import logging
from collections.abc import Coroutine, Iterator
from types import CoroutineType
from typing import Any, Protocol, TypeVar

from anyio import CancelScope, create_task_group, current_time
from anyio.lowlevel import checkpoint

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


async def drive(operation: Operation[T], performer: Performer, *, cleanup_seconds: float = CLEANUP_SECONDS) -> T:
    """The result of the operation, or whatever it raises.

    When this is cancelled, the operation gets `OperationCancelled` and may still do its clean-up effects, for
    `cleanup_seconds` at most and shielded from the cancellation.
    """
    return await _continue(operation, performer, None, cleanup_seconds)


async def _continue(
    operation: Operation[T], performer: Performer, waiting: Coroutine[Any, Any, Any] | None, cleanup_seconds: float
) -> T:
    """Go on with an operation whose last effect is `waiting`; None for one that has not been started."""
    immediate = 0
    step: Effect[Any] | Done[T] | None = None
    if waiting is None:
        step = operation.resume()
    while not isinstance(step, Done):
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
