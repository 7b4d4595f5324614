"""Bytes that have a size and an origin and are not there, so that terabytes fit into a simulated bucket of a test.

They are known by where they come from, so that an object made of pieces can be compared with what it was to be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from angos.sansio.bucket.requests import CopyPiece, Fetch, Put, PutPiece
from angos.sansio.steps import Step
from angos.simulator.world.bucket import AMAZON, Bucket
from angos.simulator.world.carrying import Carrying, Plan


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes `start` to `end` of what was put under a name in the beginning."""

    origin: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class PretendedBytes:
    """Spans, one after the other."""

    spans: tuple[Span, ...]

    def __len__(self) -> int:
        return sum(span.end - span.start for span in self.spans)

    def __getitem__(self, wanted: slice) -> PretendedBytes:
        found = []
        ends = list(accumulate(span.end - span.start for span in self.spans))
        for span, end in zip(self.spans, ends, strict=True):
            before = end - (span.end - span.start)
            first, last = max(wanted.start, before), min(wanted.stop, end)
            if first < last:
                found.append(Span(span.origin, span.start + first - before, span.start + last - before))
        return PretendedBytes(tuple(found))

    @classmethod
    def join(cls, pieces: Iterable[PretendedBytes]) -> PretendedBytes:
        """With neighbours made one."""
        found: list[Span] = []
        for span in (span for piece in pieces for span in piece.spans):
            if found and (found[-1].origin, found[-1].end) == (span.origin, span.start):
                found[-1] = Span(span.origin, found[-1].start, span.end)
            else:
                found.append(span)
        return cls(tuple(found))


class PretendedBucket(Bucket):
    """A bucket with Amazon's limits, whose objects are pretended, and which watches who asks."""

    def __init__(self) -> None:
        super().__init__(limits=AMAZON, join=PretendedBytes.join)
        self.held_most = 0
        """The longest content that whoever asks had in its hands for one request."""
        self.fetched = 0
        """Bytes that went out to whoever asks."""
        self.copies = 0
        self.vanishing: Callable[[Step[Any]], str | None] = lambda _: None
        """The key of an object that somebody removes right before this request."""

    def add(self, key: str, size: int) -> None:
        """An object with bytes of its own."""
        self._store(key, PretendedBytes((Span(key, 0, size),)), None)

    def run(self, plan: Plan) -> Any:
        """What it comes to."""
        return Carrying(self, plan, attempts=1, draw_writer=lambda: "writer").run()

    def take(self, request: Step[Any]) -> Any:
        """See `Bucket`."""
        if (gone := self.vanishing(request)) is not None:
            self._drop(gone)
        if isinstance(request, (Put, PutPiece)):
            self.held_most = max(self.held_most, sum(map(len, request.content)))
        self.copies += isinstance(request, CopyPiece)
        reply = super().take(request)
        if isinstance(request, Fetch) and reply is not None:
            self.fetched += len(reply)
        return reply
