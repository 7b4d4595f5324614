"""Timeouts without timers: every connection notes until when it may wait, and one task looks around now and then.

A request that never waits long costs a few assignments. A timeout may strike a second late, which no limit here minds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import Enum
from typing import Final

from angos.runtime.server.channel import Channel
from angos.runtime.server.counters import ServerCounters

_NEVER: Final = float("inf")


class Wait(Enum):
    """What a connection is waiting for."""

    NOTHING = 0
    """The application works; its time is its own."""
    REQUEST = 1
    """The first byte of a request."""
    HEAD = 2
    BODY = 3
    SENDING = 4
    CLOSING = 5
    """The client to end its side, after the last answer."""
    HANDSHAKE = 6
    """The client to agree on keys."""


_KINDS: Final = {  # in the counters
    Wait.REQUEST: "idle",
    Wait.HEAD: "head",
    Wait.BODY: "body",
    Wait.SENDING: "sending",
    Wait.CLOSING: "closing",
    Wait.HANDSHAKE: "handshake",
}


def _ignore() -> None:
    """Nothing can be given up."""


class Deadline:
    """Until when one connection may go on waiting, and its request may go on at all."""

    __slots__ = (
        "_seconds",
        "_unsent",
        "answering",
        "at",
        "channel",
        "expired",
        "give_up",
        "overdue",
        "request_ends",
        "since",
        "wait",
    )

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.wait = Wait.NOTHING
        self.since = 0.0
        """When the waiting began, on the clock of `time.monotonic`."""
        self.at = _NEVER
        """When it ends at the latest."""
        self.expired = False
        self.request_ends = _NEVER
        """When the request in flight has taken too long in all, on the same clock."""
        self.overdue = False
        """It has."""
        self.answering = False
        """Its answer has begun."""
        self.give_up: Callable[[], None] = _ignore
        """Stops the work on the request."""
        self._seconds = 0.0
        self._unsent = 0

    def begin_request(self, ends: float) -> None:
        """A request was received; until then it has to be answered."""
        self.request_ends = ends
        self.overdue = self.answering = False

    def end_request(self) -> None:
        """It was answered."""
        self.request_ends = _NEVER

    def start(self, wait: Wait, seconds: float) -> None:
        """From now on the connection waits, for at most this long."""
        self.wait = wait
        self.since = time.monotonic()
        self.at = self.since + seconds

    def start_sending(self, seconds: float) -> None:
        """Like `start`, but a client that takes anything at all gets more time.

        The socket takes bytes again only once a good part of its buffer is empty, which a slow but honest client may
        not manage in time; what it has taken of the buffer can be asked for.
        """
        self._seconds = seconds
        self._unsent = self.channel.unsent()
        self.start(Wait.SENDING, seconds)

    def stop(self) -> None:
        """Nothing is waited for."""
        self.wait = Wait.NOTHING
        self.at = _NEVER

    def expire(self) -> bool:
        """Wake the connection: it finds the end of the stream, or a broken one where an answer can no longer help.

        False when the client deserves more time.
        """
        if self.wait is Wait.SENDING and (unsent := self.channel.unsent()) < self._unsent:
            self._unsent = unsent
            self.at = time.monotonic() + self._seconds
            return False
        self.expired = True
        self.at = _NEVER
        if self.wait in (Wait.SENDING, Wait.CLOSING, Wait.HANDSHAKE):
            self.channel.abort()
        else:
            self.channel.end_receiving()
        return True

    def expire_request(self, grace_seconds: float) -> None:
        """The request takes too long: give it up, or let the answer that has begun come to its end for a while."""
        if self.overdue:
            self.request_ends = _NEVER
            self.channel.abort()
            return
        self.overdue = True
        self.request_ends = time.monotonic() + grace_seconds
        if not self.answering:
            self.give_up()


def expire_overdue(deadlines: set[Deadline], grace_seconds: float, counters: ServerCounters) -> None:
    """Look around once."""
    now = time.monotonic()
    for deadline in [deadline for deadline in deadlines if deadline.at <= now or deadline.request_ends <= now]:
        if deadline.request_ends <= now:
            if not deadline.overdue:
                counters.timeouts["request"] += 1
            deadline.expire_request(grace_seconds)
        elif deadline.expire():
            counters.timeouts[_KINDS[deadline.wait]] += 1
