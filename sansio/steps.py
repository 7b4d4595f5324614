"""What plans are made of: a plan says in which order the steps of a storage effect are taken, and takes none itself."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

Reply = TypeVar("Reply", covariant=True)


@dataclass(frozen=True, slots=True)
class Step(Generic[Reply]):
    """Awaited by plans, taken by whoever runs them. ``await step`` evaluates to its reply."""

    def __await__(self) -> Generator[Step[Any], Any, Reply]:
        reply: Reply = yield self
        return reply
