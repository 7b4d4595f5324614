"""``Content-Range`` of an upload chunk (distribution-spec, Pushing a blob in chunks)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from angos.sansio.errors import Invalid

# The specification says ``0-99``; ``bytes 0-99/100``, ``bytes=0-99`` and ``0-99/100`` are seen in the wild.
_GRAMMAR = re.compile(r"(?:bytes[ =])?\s*([0-9]{1,19})-([0-9]{1,19})(?:/(?:[0-9]{1,19}|\*))?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ContentRange:
    """Where a chunk belongs: `start` up to and including `end`, in bytes from the start of the blob."""

    start: int
    end: int

    @classmethod
    def parse(cls, text: str) -> ContentRange:
        """Raises `Invalid`, also when the end lies before the start."""
        match = _GRAMMAR.fullmatch(text.strip())
        if match is None:
            raise Invalid(f"Content-Range {text[:100]!r} is not of the form <start>-<end>")
        found = cls(int(match[1]), int(match[2]))
        if found.end < found.start:
            raise Invalid(f"Content-Range {text[:100]!r} ends before it starts")
        return found

    @property
    def size(self) -> int:
        """Bytes of the chunk."""
        return self.end - self.start + 1

    def __str__(self) -> str:
        return f"{self.start}-{self.end}"
