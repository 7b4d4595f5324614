"""Operations that cross: every order of their effects can be played."""

from __future__ import annotations

from itertools import cycle
from typing import Any

from angos.sansio.effects import BodyHandle, Effect, EffectError
from angos.sansio.errors import RegistryError
from angos.sansio.http.message import Headers, Request, Response
from angos.sansio.operation import Done, Operation
from angos.sansio.registry import handle
from angos.simulator.choices import Choices, Drawn
from angos.simulator.registry import SimulatedRegistry
from angos.simulator.world.bodies import SyntheticBody


class Crossing:
    """Operations side by side over one world, step by step as a list of choices says; some die half-way."""

    def __init__(self, world: SimulatedRegistry, operations: list[Operation[Any]]) -> None:
        self.world = world
        self.waiting: dict[int, tuple[Operation[Any], Effect[Any]]] = {}
        self.results: dict[int, Any] = {}
        for number, operation in enumerate(operations):
            self._note(number, operation, operation.resume())

    def run(self, choices: list[int], deaths: dict[int, int]) -> None:
        numbers = cycle(choices)
        self.run_by(Drawn(lambda _, count: next(numbers) % count), deaths)

    def run_by(self, choices: Choices, deaths: dict[int, int]) -> None:
        while self.waiting:
            numbers = sorted(self.waiting)
            number = numbers[choices.pick("turn", len(numbers))]
            if deaths.get(number) == 0:
                self.kill(number)
                deaths[number] = -1
                continue
            deaths[number] = deaths.get(number, -1) - 1
            self.step(number)

    def step(self, number: int) -> None:
        """One effect of one operation."""
        operation, effect = self.waiting.pop(number)
        try:
            reply = self.world.perform(effect)
        except (EffectError, RegistryError) as error:
            self._note(number, operation, operation.fail(error))
        else:
            self._note(number, operation, operation.resume(reply))

    def advance(self, number: int, effects: int | None = None) -> int:
        """So many effects of one operation, or all that are left; how many there were."""
        done = 0
        while number in self.waiting and done != effects:
            self.step(number)
            done += 1
        return done

    def kill(self, number: int) -> None:
        """The process of this operation ends here."""
        if number in self.waiting:
            self.waiting.pop(number)[0].abandon()

    def _note(self, number: int, operation: Operation[Any], step: Any) -> None:
        if isinstance(step, Done):
            self.results[number] = step.value
        else:
            self.waiting[number] = (operation, step)


def requested(
    world: SimulatedRegistry, method: str, target: str, body: bytes, content_type: str
) -> Operation[Response]:
    """A whole request as an operation."""
    handle_ = BodyHandle(world.world.open_body(SyntheticBody(body)))
    headers = Headers((("content-type", content_type),))
    return handle(Request(method, target, headers, handle_, len(body)), world.config)
