"""One change of what all workers serve with: made by all of them, or by none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from angos.runtime.server.messages import Kind, Mailbox, Message
from angos.runtime.server.serving import Serving

PREPARE_SECONDS: Final = 30.0


class Round:
    """Asks each worker to prepare, then all to install; a single refusal makes all of them keep what they have.

    A worker that ends meanwhile is no longer asked: the one that takes its place begins with what was decided.
    """

    def __init__(
        self, number: int, candidate: bytes, serving: Serving, workers: Mapping[int, Mailbox], now: float
    ) -> None:
        """`workers` by number; `candidate` is what the parent itself has prepared as `serving`."""
        self.serving = serving
        self.ends_at = now + PREPARE_SECONDS
        """When those that have not answered are no longer waited for (`give_up`)."""
        self._number = number
        self._workers = dict(workers)
        self._awaited = set(self._workers)
        self._installing = False
        self.refusals: list[str] = []
        """Why it cannot be. Empty while it may still be."""
        self._tell(Kind.PREPARE, candidate)
        self._go_on()  # when all workers have just ended, there is nobody to ask

    @property
    def settled(self) -> bool:
        """It is decided, and as far as possible carried out."""
        return bool(self.refusals) or (self._installing and not self._awaited)

    def hear(self, worker: int, message: Message) -> None:
        """A worker says something."""
        if message.round != self._number or self.refusals or worker not in self._awaited:
            return
        if message.kind is Kind.REFUSED:
            self._refuse(f"worker {worker}: {message.content.decode()}")
        elif message.kind is (Kind.INSTALLED if self._installing else Kind.PREPARED):
            self._awaited.discard(worker)
            self._go_on()

    def lose(self, worker: int) -> None:
        """A worker has ended."""
        if self._workers.pop(worker, None) is None or self.settled:
            return
        self._awaited.discard(worker)
        if self._workers or self._installing:
            self._go_on()
        else:
            self._refuse("every worker ended while it prepared it")

    def give_up(self, now: float) -> None:
        """Refuse when the time for preparing is over."""
        if now >= self.ends_at and not self._installing and not self.refusals:
            numbers = ", ".join(map(str, sorted(self._awaited)))
            self._refuse(f"no answer from worker {numbers} within {PREPARE_SECONDS:g} seconds")

    def _go_on(self) -> None:
        if not self._awaited and not self._installing:
            self._installing = True
            self._awaited = set(self._workers)
            self._tell(Kind.INSTALL)

    def _refuse(self, reason: str) -> None:
        self.refusals.append(reason)
        self._tell(Kind.FORGET)

    def _tell(self, kind: Kind, content: bytes = b"") -> None:
        for mailbox in self._workers.values():
            mailbox.put(Message(kind, self._number, content))
