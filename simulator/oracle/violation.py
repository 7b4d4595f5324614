"""What the oracle says, and what it looks at."""

from __future__ import annotations

from typing import Protocol

from angos.sansio.effects import Key


class Violation(Exception):
    """Something that must never be."""

    def __init__(self, kind: str, sentence: str) -> None:
        super().__init__(f"{kind}: {sentence}")
        self.kind = kind
        self.sentence = sentence


class Visible(Protocol):
    """The storage, to look at."""

    touched: list[Key]

    def get(self, key: str) -> bytes | None: ...
    def surviving(self, key: str) -> bytes | None: ...
    def names(self, prefix: str) -> list[str]: ...
