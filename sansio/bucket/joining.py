"""How the parts of an upload become the pieces of one object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from angos.sansio.bucket.requests import Terms

PIECES_MAX = 10_000  # S3 User Guide, "Amazon S3 multipart upload limits"


@dataclass(frozen=True, slots=True)
class Slice:
    """Some bytes of one part."""

    part: int
    """Its index."""
    start: int
    length: int


Piece = tuple[Slice, ...]
"""One slice is copied inside the store; several have to be read and sent back."""


def pieces_of(sizes: Sequence[int], terms: Terms) -> list[Piece]:
    """Pieces that are all the bytes of parts of these sizes, in order, and that a store accepts.

    All but the last have to have a least size, and there may be 10,000. Copied ones have up to
    `Terms.copy_piece_bytes`, or more where there would be too many, or where the rest of a part would be too short.
    """
    if terms.uniform_piece_bytes is not None:
        return _uniform_pieces(sizes, max(terms.uniform_piece_bytes, -(-sum(sizes) // PIECES_MAX)))
    floor = max(terms.piece_bytes_min, -(-sum(sizes) // (PIECES_MAX - 1)))
    longest = min(max(terms.copy_piece_bytes, floor), terms.piece_bytes_max)
    pieces: list[Piece] = []
    held: list[Slice] = []
    missing = floor
    for index, size in enumerate(sizes):
        start = 0
        while start < size:
            left = size - start
            if not held and left >= floor:
                length = min(left, longest)
                if 0 < left - length < floor:  # what is left over can be copied too
                    length = left - floor if left >= 2 * floor else left
                pieces.append((Slice(index, start, length),))
            else:
                length = min(left, missing)
                held.append(Slice(index, start, length))
                missing -= length
                if not missing:
                    pieces.append(tuple(held))
                    held, missing = [], floor
            start += length
    if held:
        pieces.append(tuple(held))
    return pieces


def _uniform_pieces(sizes: Sequence[int], length: int) -> list[Piece]:
    pieces: list[Piece] = []
    held: list[Slice] = []
    missing = length
    for index, size in enumerate(sizes):
        start = 0
        while start < size:
            taken = min(size - start, missing)
            held.append(Slice(index, start, taken))
            start, missing = start + taken, missing - taken
            if not missing:
                pieces.append(tuple(held))
                held, missing = [], length
    if held:
        pieces.append(tuple(held))
    return pieces
