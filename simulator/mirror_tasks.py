"""What goes on in a simulated mirror: requests, fills, and what a server does by itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from angos.sansio.effects import Effect
from angos.sansio.http.message import Response
from angos.sansio.operation import Operation
from angos.sansio.upstream.effects import FillEnd


@dataclass(eq=False)
class Fill:
    """A fill, and what its followers have of it."""

    name: str
    task: Task
    content: bytes = b""
    size: int | None = None
    shown: bool = False
    released: bool = False
    end: FillEnd | None = None


@dataclass(eq=False)
class Task:
    """An operation and the effect that it waits for."""

    replica: str
    operation: Operation[Any]
    effect: Effect[Any] | None = None
    fill: Fill | None = None
    """The fill that it is."""
    parent: Task | None = None
    children: list[Any] = field(default_factory=list)
    wake_ms: int = 0
    give_up_ms: int | None = None
    place: int = 0
    """Among the children of its parent."""


@dataclass(eq=False)
class Pull:
    """A request, and its answer."""

    target: str
    method: str = "GET"
    replica: int = 0
    fields: tuple[tuple[str, str], ...] = ()
    begins: int = 0
    """After how many steps of the run."""
    response: Response | None = None
    content: bytes | None = None
    """What was stored under the key that it is answered with, at that moment. None: a server has nothing to send then,
    which is a 500."""
