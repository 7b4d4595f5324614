"""What a server serves with, and how something else takes its place while it runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from angos.runtime.server.application import Application
from angos.runtime.server.connection import Surroundings
from angos.runtime.server.framing import HeadParser
from angos.runtime.server.limits import ServerOptions
from angos.runtime.server.listener import choose_parser


@dataclass(frozen=True, slots=True)
class Serving:
    """What a server serves with. A reload replaces all of it together."""

    application: Application
    options: ServerOptions
    take_effect: Callable[[], None] = lambda: None
    """What changes in each process besides, at the same moment. Must not fail."""

    def installation(self) -> Installation:
        """All that may fail, done, so that only installing is left. Raises `ListenError`."""
        return Installation(self, HeadParser(choose_parser(self.options), self.options.fields_max))


OpenServing = Callable[[], AbstractAsyncContextManager[Serving]]
"""What to serve with at first. Called in the process and on the loop that serves; left when the last request has ended.
"""


@dataclass(frozen=True, slots=True)
class Installation:
    """Something to serve with that can take its place at any moment."""

    serving: Serving
    head_parser: HeadParser

    def install(self, surroundings: Surroundings) -> None:
        """From now on each new request is answered with this, on open connections too. Cannot fail."""
        surroundings.application = self.serving.application
        surroundings.options = self.serving.options
        surroundings.head_parser = self.head_parser
        self.serving.take_effect()


class NotServable(Exception):
    """What was found cannot be served with. The text is for the operator, and may have several lines."""


class Reloader(Protocol):
    """Where something new to serve with comes from.

    One process looks; every process that serves prepares what that one has found, from the same bytes. The methods of
    one process are called one at a time, not always in the same thread.
    """

    def look(self, *, at_once: bool) -> bytes | None:
        """What to change to, if there is anything; in a form that other processes understand.

        `at_once`: somebody asked, so there is something even if nothing has changed.
        """
        ...

    def prepare(self, candidate: bytes) -> Serving:
        """Make everything that is needed to serve with what was found. Raises `NotServable`."""
        ...

    def accept(self) -> None:
        """Every process serves with what was prepared last; say so. Called where `look` is."""
        ...

    def refuse(self, reasons: Sequence[str]) -> None:
        """No process serves with what was looked at last; say why. Called where `look` is."""
        ...
