"""Timeouts without timers: every connection notes until when it may wait, and one task looks around now and then.

A request that never waits long costs two assignments. A timeout may strike a second late, which no limit here minds.
"""

from __future__ import annotations

import time
from enum import Enum
from typing import Final

import anyio

from angos.runtime.server.channel import Channel

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


class Deadline:
    """Until when one connection may go on waiting."""

    __slots__ = ("_seconds", "_unsent", "at", "channel", "expired", "wait")

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.wait = Wait.NOTHING
        self.at = _NEVER
        """On the clock of `time.monotonic`."""
        self.expired = False
        self._seconds = 0.0
        self._unsent = 0

    def start(self, wait: Wait, seconds: float) -> None:
        """From now on the connection waits, for at most this long."""
        self.wait = wait
        self.at = time.monotonic() + seconds

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

    def expire(self) -> None:
        """Wake the connection: it finds the end of the stream, or a broken one where an answer can no longer help."""
        if self.wait is Wait.SENDING and (unsent := self.channel.unsent()) < self._unsent:
            self._unsent = unsent
            self.at = time.monotonic() + self._seconds
            return
        self.expired = True
        self.at = _NEVER
        if self.wait in (Wait.SENDING, Wait.CLOSING):
            self.channel.abort()
        else:
            self.channel.end_receiving()


async def sweep(deadlines: set[Deadline], seconds: float) -> None:
    """Expire what is overdue, for ever, looking around after this many seconds."""
    while True:
        await anyio.sleep(seconds)
        now = time.monotonic()
        for deadline in [deadline for deadline in deadlines if deadline.at <= now]:
            deadline.expire()
