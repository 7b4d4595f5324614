"""What a server serves with, and how something else takes its place while it runs."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import anyio

from angos.runtime.server.application import Application
from angos.runtime.server.framing import HeadParser
from angos.runtime.server.limits import ServerOptions
from angos.runtime.server.listener import choose_parser, serve_until_signal
from angos.runtime.server.surroundings import Surroundings

if TYPE_CHECKING:
    from angos.runtime.server.counters import OnAnswer
    from angos.runtime.server.tls import ServerTls


@dataclass(frozen=True, slots=True)
class Serving:
    """What a server serves with. A reload replaces all of it together."""

    application: Application
    options: ServerOptions
    tls: ServerTls | None = None
    """Whether there is any is decided at the start; in a reload, None keeps what there is."""
    trusted_proxies: tuple[str, ...] = ()
    on_answer: OnAnswer | None = None
    take_effect: Callable[[], None] = lambda: None
    """What changes in each process besides, at the same moment. Must not fail."""

    def installation(self) -> Installation:
        """All that may fail, done, so that only installing is left. Raises `ListenError`."""
        return Installation(self, HeadParser(choose_parser(self.options), self.options.fields_max))


OpenServing = Callable[[], AbstractAsyncContextManager[Serving]]
"""What to serve with at first. Called in the process and on the loop that serves; left when the last request has ended.
"""
HandOver = Callable[[Surroundings], None]
"""Gets what the connections of a process share, before the first of them."""


@dataclass(frozen=True, slots=True)
class Installation:
    """Something to serve with that can take its place at any moment."""

    serving: Serving
    head_parser: HeadParser

    def install(self, surroundings: Surroundings) -> None:
        """From now on each new request is answered with this, on open connections too. Cannot fail."""
        serving = self.serving
        surroundings.application = serving.application
        surroundings.options = serving.options
        surroundings.head_parser = self.head_parser
        surroundings.trusted_proxies = serving.trusted_proxies
        surroundings.on_answer = serving.on_answer
        if serving.tls is not None:
            before, surroundings.tls = surroundings.tls, serving.tls
            if before is not None and serving.tls.would_ask_again(before, certificate=True):
                surroundings.end_idle()
        serving.take_effect()


async def serve_with(
    serving: Serving,
    *,
    sockets: Sequence[socket.socket],
    on_ready: Callable[[], None],
    hand_over: HandOver,
    stop: anyio.Event | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT or until `stop` is set, at first with this."""
    installation = serving.installation()

    def install(surroundings: Surroundings) -> None:
        installation.install(surroundings)
        hand_over(surroundings)

    await serve_until_signal(
        serving.application,
        serving.options,
        sockets=sockets,
        on_ready=on_ready,
        hand_over=install,
        stop=stop,
        tls=serving.tls,
    )


class NotServable(Exception):
    """What was found cannot be served with. The text is for the operator, and may have several lines."""


class Reloader(Protocol):
    """Where something new to serve with comes from.

    One process looks; every process that serves prepares what that one has found, from the same bytes. The methods of
    one process are called one at a time, not always in the same thread.
    """

    def look(self, *, at_once: bool) -> bytes | None:
        """What to change to, if there is anything; in a form that other processes understand.

        `at_once`: somebody asked, so there is something even if nothing has changed. Raises `NotServable` when what
        has changed cannot even be read.
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
