"""Clients: what they do, what they ask for, and what those of one scenario know of each other.

A script is a generator: it yields a `Call` and gets the `Answer`, or None when it never came. What a call means for the
oracle is written on the call by the client, who knows what it wants; how the registry gets there is not its business.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Literal

from angos.simulator.oracle.history import Answer, Intent
from angos.simulator.world.bodies import SyntheticBody

NO_BODY = SyntheticBody()

Form = Literal["post", "put", "patch", "chunks"]
FORMS: tuple[Form, ...] = ("post", "put", "patch", "chunks")
"""One POST; POST and PUT; POST, one PATCH of unknown length, PUT; POST, PATCHes with ``Content-Range``, the last bytes
in the PUT."""


@dataclass(frozen=True, slots=True)
class Call:
    """A request, and what the client wants with it."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...] = ()
    body: SyntheticBody = NO_BODY
    intents: tuple[Intent, ...] = ()
    upload: str = ""
    """The location of the upload that the request is about."""
    elsewhere: bool = False
    """Prefer another replica than the last time."""
    chore: str = ""
    """No request, but work of the registry itself, by its name in `angos.simulator.world.chores`."""


Script = Generator[Call, Answer | None, None]


@dataclass(frozen=True, slots=True)
class Act:
    """One thing that a client does. Numbers are places in the lists of `angos.simulator.world.images`."""

    verb: str
    namespace: int = 0
    tag: int = 0
    item: int = 0
    """A blob or an image."""
    form: Form = "put"
    cut_at: int | None = None
    """The connection breaks after so many bytes of the first body of every blob."""
    other: int = 0
    """A second namespace, or where a join begins."""
    who: int = 0
    """Who does it, in a private world: a place in `angos.simulator.world.people.PEOPLE`."""


@dataclass(slots=True)
class Listing:
    """What a client read, page by page."""

    path: str
    names: list[str]
    whole: bool = False


@dataclass(slots=True)
class Shared:
    """What clients of one scenario know of each other."""

    listings: list[Listing] = field(default_factory=list)

    uploads: list[tuple[str, str, int]] = field(default_factory=list)
    """Namespace, location and blob of uploads that were opened."""
