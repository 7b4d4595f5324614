"""Replays what one operation was told by the world, and compares what it asks with what it asked then."""

from __future__ import annotations

from collections import deque
from typing import Any

from angos.sansio import registry
from angos.sansio.effects import Effect, EffectError, Together
from angos.sansio.errors import RegistryError
from angos.sansio.operation import Done, Operation
from angos.sansio.trace import Elided, Step, decode_outcome, encode, encode_effect, read_operation_trace
from angos.sansio.upstream.effects import FollowFill


class _Divergence(Exception):
    pass


class _Replay:
    def __init__(self, steps: tuple[Step, ...]) -> None:
        self._steps = deque(enumerate(steps))

    def drive(self, operation: Operation[Any]) -> Any:
        step = operation.resume()
        while not isinstance(step, Done):
            outcome = self._together(step) if isinstance(step, Together) else self._outcome_of(step, operation.where())
            step = operation.fail(outcome) if isinstance(outcome, BaseException) else operation.resume(outcome)
        return step.value

    def left(self) -> int:
        return len(self._steps)

    def _outcome_of(self, effect: Effect[Any], where: str) -> Any:
        """What was recorded for this effect. Those of operations side by side may be recorded in another order."""
        wanted = encode_effect(effect)
        if isinstance(effect, FollowFill):
            effect.operation.abandon()  # what a fill does is no part of the request that waits for it
        for position, (_, step) in enumerate(self._steps):
            if step.effect == wanted:
                del self._steps[position]
                outcome = decode_outcome(step.outcome)
                if isinstance(outcome, Elided):
                    raise _Divergence(f"the reply to {wanted['is']} had {outcome.size} bytes, too many for the trace")
                return outcome
        if not self._steps:
            raise _Divergence(f"the recording ends, and the code now issues {wanted['is']} at {where}")
        number, step = self._steps[0]
        raise _Divergence(f"recorded {step.effect['is']} at n={number}, the code now issues {wanted['is']} at {where}")

    def _together(self, effect: Together[Any]) -> Any:
        results: list[Any] = []
        failure: BaseException | None = None
        for operation in effect.operations:
            if failure is not None:
                operation.abandon()
                continue
            try:
                results.append(self.drive(operation))
            except (EffectError, RegistryError) as error:
                failure = error
        return failure if failure is not None else tuple(results)


def replay_outcomes(text: str) -> str | None:
    """Feed a trace of kind ``outcomes`` back to the core. The first difference as a sentence, None when all is as it
    was. Raises `TraceInvalid`."""
    trace = read_operation_trace(text)
    operation = registry.handle(trace.request, trace.config)
    replay = _Replay(trace.steps)
    try:
        response = replay.drive(operation)
    except _Divergence as divergence:
        operation.abandon()
        return str(divergence)
    if trace.response is None:
        return None
    if encode(response) != trace.response:
        return f"recorded a response of status {trace.response['status']}, the code now gives {response.status}"
    if replay.left():
        return f"the code no longer issues the last {replay.left()} of the recorded effects"
    return None
