"""A bucket whose objects have sizes and no bytes, and which keeps the limits of Amazon's to the letter.

Terabytes fit into it. Content is known by where it comes from, so that an object made of pieces can be compared with
what it was to be. Requests that break a limit fail a test at once: a store would answer them with an error.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from angos.sansio.bucket.requests import (
    BeginPieces,
    CompletePieces,
    Copy,
    CopyPiece,
    Fetch,
    Found,
    Head,
    List,
    Listed,
    Put,
    PutPiece,
    SideBySide,
)
from angos.sansio.effects import EffectError
from angos.sansio.steps import Step

LEAST = 5 << 20
MOST = 5 << 30
PARTS = 10_000
LISTED = 1000

DONE = SimpleNamespace(done=True, again=False)


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes `start` to `end` of what was put under a name in the beginning."""

    origin: str
    start: int
    end: int

    def __len__(self) -> int:
        return self.end - self.start


@dataclass(slots=True)
class PretendedBucket:
    """Carries plans out, one request after the other."""

    objects: dict[str, tuple[Span, ...]] = field(default_factory=dict)
    open_uploads: dict[str, dict[int, tuple[Span, ...]]] = field(default_factory=dict)
    held_most: int = 0
    """The longest content that whoever asks had in its hands for one request."""
    fetched: int = 0
    """Bytes that went out to whoever asks."""
    copies: int = 0
    vanishing: Callable[[Step[Any]], str | None] = lambda _: None
    """The key of an object that somebody removes right before this request."""

    def add(self, key: str, size: int) -> None:
        """An object with bytes of its own."""
        self.objects[key] = (Span(key, 0, size),)

    def run(self, plan: Coroutine[Any, Any, Any]) -> Any:
        """What it comes to."""
        advance: Callable[[Any], Any] = plan.send
        outcome: Any = None
        while True:
            try:
                step = advance(outcome)
            except StopIteration as stop:
                return stop.value
            try:
                advance, outcome = plan.send, self._take(step)
            except EffectError as error:
                advance, outcome = plan.throw, error

    def _take(self, step: Step[Any]) -> Any:
        if (gone := self.vanishing(step)) is not None:
            self.objects.pop(gone, None)
        match step:
            case SideBySide(plans):
                return tuple(self.run(plan()) for plan in plans)
            case Head(key):
                return Found(_size(self.objects[key]), 0, None) if key in self.objects else None
            case List():
                return self._list(step)
            case Fetch(key, start, length):
                assert length >= 1, "at least one byte is fetched"
                return None if key not in self.objects else self._fetched(_cut(self.objects[key], start, length))
            case Put(key, content, None):
                self._hold(content)
                assert _size(content) <= MOST, "EntityTooLarge"
                self.objects[key] = _joined(content)
                return DONE
            case Copy(source, key):
                return self._copy(source, key)
            case BeginPieces():
                upload_id = f"upload {len(self.open_uploads)}"
                self.open_uploads[upload_id] = {}
                return upload_id
            case PutPiece(_, upload_id, number, content):
                self._hold(content)
                return self._piece(upload_id, number, _joined(content))
            case CopyPiece(_, upload_id, number, source, start, length):
                self.copies += 1
                if source not in self.objects:
                    return None
                return self._piece(upload_id, number, _cut(self.objects[source], start, length))
            case CompletePieces(key, upload_id, tags):
                return self._complete(key, upload_id, tags)
            case _:
                raise AssertionError(f"no plan that is tried here sends {type(step).__name__}")

    def _list(self, step: List) -> Listed:
        names = sorted(key[len(step.prefix) :] for key in self.objects if key.startswith(step.prefix))
        start = bisect_right(names, step.token or step.after)
        page = names[start : start + min(step.limit, LISTED)]
        more = start + len(page) < len(names)
        sizes = tuple((name, _size(self.objects[f"{step.prefix}{name}"])) for name in page)
        return Listed(sizes, (), page[-1] if more else None)

    def _fetched(self, spans: tuple[Span, ...]) -> Any:
        (only,) = spans
        self.fetched += len(only)
        return only

    def _copy(self, source: str, key: str) -> bool:
        if source not in self.objects:
            return False
        assert _size(self.objects[source]) <= MOST, "InvalidRequest: the copy source is larger than 5 GiB"
        self.objects[key] = self.objects[source]
        return True

    def _hold(self, content: Iterable[Any]) -> None:
        self.held_most = max(self.held_most, _size(content))

    def _piece(self, upload_id: str, number: int, spans: tuple[Span, ...]) -> str:
        assert 1 <= number <= PARTS, "InvalidArgument: part number"
        assert 1 <= _size(spans) <= MOST, "EntityTooLarge, or nothing at all"
        self.open_uploads[upload_id][number] = spans
        return f"tag {number}"

    def _complete(self, key: str, upload_id: str, tags: tuple[str, ...]) -> Any:
        pieces = self.open_uploads.pop(upload_id)
        assert tags == tuple(f"tag {number}" for number in range(1, len(pieces) + 1)), "InvalidPart"
        assert len(pieces) == len(tags), "InvalidPart: pieces that nobody asked for"
        sizes = [_size(pieces[number]) for number in range(1, len(tags) + 1)]
        assert all(size >= LEAST for size in sizes[:-1]), "EntityTooSmall"
        self.objects[key] = _joined(span for number in range(1, len(tags) + 1) for span in pieces[number])
        return DONE


def _size(spans: Iterable[Any]) -> int:
    return sum(map(len, spans))


def _joined(spans: Iterable[Any]) -> tuple[Span, ...]:
    """With neighbours made one."""
    found: list[Span] = []
    for span in spans:
        if found and (found[-1].origin, found[-1].end) == (span.origin, span.start):
            found[-1] = Span(span.origin, found[-1].start, span.end)
        else:
            found.append(span)
    return tuple(found)


def _cut(spans: tuple[Span, ...], start: int, length: int) -> tuple[Span, ...]:
    (only,) = spans  # what is cut here was put as a whole
    assert 0 <= start < start + length <= len(only), "InvalidRange"
    return (Span(only.origin, only.start + start, only.start + start + length),)
