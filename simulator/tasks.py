"""Who does what in a run: clients, their requests on the way, and the operations that answer them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

from angos.sansio.effects import Effect, Together
from angos.sansio.operation import Operation
from angos.sansio.pulls import Pull, PullBook
from angos.simulator.world.carrying import Carrying
from angos.simulator.world.client import Act, Call, Script
from angos.simulator.world.directory import RunningPlan
from angos.simulator.world.people import PEOPLE


@dataclass(slots=True, eq=False)
class Client:
    """Somebody who plays acts one after the other, one request at a time."""

    name: str
    acts: deque[Act]
    replica: int = 0
    who: str = PEOPLE[0]
    script: Script | None = None


@dataclass(slots=True, eq=False)
class Exchange:
    """One request on its way."""

    client: Client
    call: Call
    replica: str
    called: int = 0
    effects: int = 0
    book: PullBook | None = None
    pulls: tuple[Pull, ...] = ()
    """What it writes of the pulls that its process remembers in the book."""
    faulty: bool = False
    arrives_late: bool = False
    """Something that it creates may be created once more, after its answer."""


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
    issued_ms: int = 0
    """When the effect was issued."""
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
    """The reply of the first of two applications, or one that takes its time, in a tuple."""
    plan: RunningPlan | None = None
    carrying: Carrying | None = None
    """The effect, in the middle of its requests to a bucket."""
    doom: tuple[str, int] | None = None
    """What happens to the plan, and after how many steps."""


def abandon_children(effect: Effect[Any] | None) -> None:
    """Those that have not begun. Abandoning an operation that is a task of its own, too, does no harm."""
    if isinstance(effect, Together):
        for operation in effect.operations:
            operation.abandon()
