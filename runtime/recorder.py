"""Records what single operations ask of the world and what they are told, as traces that the simulator replays.

Around the driver, for each request to be recorded::

    recording = recorder.begin(request, performer)
    response = await drive(handle(request, config), recording)
    recorder.end(recording, response)

The file holds no credentials and no large bodies: see `angos.sansio.trace`. ``python -m angos.simulator replay FILE``
tells whether today's code asks the same.
"""

from __future__ import annotations

import os
from collections.abc import Coroutine
from itertools import count
from pathlib import Path
from types import CoroutineType
from typing import Any

from angos.runtime.driver import Performer
from angos.sansio.config import RegistryConfig
from angos.sansio.effects import Effect
from angos.sansio.http.message import Request, Response
from angos.sansio.trace import OperationTrace, Step, encode, encode_effect, encode_outcome, write_operation_trace


class Recording:
    """A performer that hands everything on and remembers it."""

    __slots__ = ("_performer", "_steps", "request")

    def __init__(self, request: Request, performer: Performer) -> None:
        self.request = request
        self._performer = performer
        self._steps: list[tuple[Effect[Any], Any, Any]] = []

    def perform(self, effect: Effect[Any], /) -> Any:
        """See `Performer`."""
        place = len(self._steps)
        # An effect that is never answered, because its process ended, stays without an outcome.
        self._steps.append((effect, encode_effect(effect), None))
        try:
            reply = self._performer.perform(effect)
        except Exception as error:
            self._settle(place, error)
            raise
        if type(reply) is CoroutineType:
            return self._wait(place, reply)
        self._settle(place, reply)
        return reply

    def steps(self) -> tuple[Step, ...]:
        """What has been answered so far, in the order in which it was asked."""
        return tuple(Step(effect, outcome) for _, effect, outcome in self._steps if outcome is not None)

    async def _wait(self, place: int, coroutine: Coroutine[Any, Any, Any]) -> Any:
        try:
            reply = await coroutine
        except Exception as error:
            self._settle(place, error)
            raise
        self._settle(place, reply)
        return reply

    def _settle(self, place: int, outcome: Any) -> None:
        effect, encoded, _ = self._steps[place]
        self._steps[place] = (effect, encoded, encode_outcome(outcome, effect))


class Recorder:
    """Writes a file for each operation into a folder that exists."""

    def __init__(self, folder: Path, config: RegistryConfig) -> None:
        self._folder = folder
        self._config = config
        self._numbers = count()

    def under(self, config: RegistryConfig) -> Recorder:
        """One that writes into the same folder what happens under another configuration."""
        other = Recorder(self._folder, config)
        other._numbers = self._numbers
        return other

    def begin(self, request: Request, performer: Performer) -> Recording:
        """The performer to drive the operation with."""
        return Recording(request, performer)

    def end(self, recording: Recording, response: Response | None) -> Path:
        """Write what was recorded; None when the operation was cancelled or raised. Raises `OSError`."""
        encoded = None if response is None else encode(response)
        trace = OperationTrace(recording.request, self._config, recording.steps(), encoded)
        path = self._folder / f"{os.getpid()}-{next(self._numbers):06d}.jsonl"
        path.write_text(write_operation_trace(trace))
        return path
