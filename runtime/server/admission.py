"""How many requests are worked on at the same time, and who has to wait.

The limit is one on work, not on connections or transfers. A request counts while the application works on it: from its
head on until its answer begins to be sent, except while its body is being received, and while it waits for others: for
a password to be checked, a webhook or an identity provider to answer, a lease. So clients that send or take gigabytes,
or do so slowly, keep nobody waiting, nor does a slow service; what bounds them are the threads for transfers
(``transfer_threads``), their timeouts, and the number of connections. A request whose waiting is over goes on at once,
even if that makes one more than allowed: nobody has to wait twice.

Beyond the limit requests wait in the order in which they came, and those that wait for too long are refused.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import anyio
from anyio import CapacityLimiter

from angos.runtime.server.application import Sink
from angos.runtime.server.body_reader import BodyReader
from angos.runtime.server.channel import Channel
from angos.runtime.server.counters import ServerCounters
from angos.runtime.server.deadlines import Deadline
from angos.runtime.server.framing import Head
from angos.runtime.server.limits import ServerOptions

EXEMPT: Final = frozenset(("/healthz", "/readyz", "/metrics"))
"""Paths that are answered even when too much else is asked for: this is when somebody has to be able to look."""


def is_exempt(target: str) -> bool:
    """Whether no limit on requests holds for this target."""
    return target.partition("?")[0] in EXEMPT


class RequestSlots:
    """Of one event loop. A slot belongs to a request that is worked on."""

    __slots__ = ("_counters", "_waiting")

    def __init__(self, counters: ServerCounters) -> None:
        self._counters = counters
        self._waiting: deque[anyio.Event] = deque()

    def take_now(self, limit: int) -> bool:
        """Take a slot if there is a free one and nobody has waited for it."""
        if self._counters.requests_working < limit and not self._waiting:
            self._counters.requests_working += 1
            return True
        return False

    async def take(self, limit: int, seconds: float) -> bool:
        """Wait for a slot. False when there was none in this time."""
        counters = self._counters
        counters.requests_queued += 1
        counters.requests_waiting += 1
        turn = anyio.Event()
        self._waiting.append(turn)
        self._hand_out(limit)  # the limit may have been raised since the last request went
        taken = False
        try:
            with anyio.move_on_after(seconds):
                await turn.wait()
                taken = True
        finally:
            counters.requests_waiting -= 1
            if not taken:
                if turn.is_set():  # the slot came while we were leaving
                    self.give_back(limit)
                else:
                    self._waiting.remove(turn)
        return taken

    def take_anyhow(self) -> None:
        """Take a slot even if there is none."""
        self._counters.requests_working += 1

    def give_back(self, limit: int) -> None:
        """Somebody who waits gets the slot."""
        self._counters.requests_working -= 1
        if self._waiting:
            self._hand_out(limit)

    def _hand_out(self, limit: int) -> None:
        while self._waiting and self._counters.requests_working < limit:
            self._counters.requests_working += 1
            self._waiting.popleft().set()


class AdmittedBody(BodyReader):
    """The body of a request that has a slot, which it gives away as long as it waits for its client."""

    __slots__ = ("_length", "_slots")

    def __init__(
        self,
        head: Head,
        pending: bytes,
        channel: Channel,
        deadline: Deadline,
        options: ServerOptions,
        limiter: CapacityLimiter,
        slots: RequestSlots,
    ) -> None:
        super().__init__(head, pending, channel, deadline, options, limiter)
        self._length = head.content_length or 0
        self._slots = slots

    @property
    def received(self) -> int:
        """Bytes of the body that have come; of a chunked one, those of every chunk that has begun."""
        return self._length - self._left if self._decoder is None else self._decoder.announced

    async def receive(self, sink: Sink, size_max: int | None) -> bool:
        """See `angos.runtime.server.application.RequestBody`."""
        with self.aside():
            return await super().receive(sink, size_max)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """See `angos.runtime.server.application.RequestBody`."""
        self._slots.give_back(self._options.max_concurrent_requests)
        try:
            yield
        finally:
            self._slots.take_anyhow()
