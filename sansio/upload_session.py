"""An upload between its first and its last request: what is stored of it, and how it grows.

An upload is a family of write-once keys beside its parts, all under the prefix of the upload::

    <id>.session.<started_ms>.<algorithm|any>    it exists; the algorithm is the one that the client announced, if any
    <id>.chunk.<offset>                          the bytes from this offset (16 hex digits) on are a part: see `Chunk`
    <id>.part.<name>                             the bytes of one part, written by one request

A request that brings bytes writes them into a part of its own and then creates the chunk key of the offset at which
they belong. Creating is what counts: of two requests that extend an upload at the same offset, on one replica or on
two, exactly one creates the key, and the other one is told that it is out of order. So the chunks of an upload are one
gapless chain, no lock decides anything, and a crash at any moment leaves either the chunk or none of it.

Listing all these names for every chunk would make an upload of n chunks cost n² names. So an upload of some chunks has
a *state* in the query of its ``Location``, which clients give back: the name of its session key and the offset of its
last chunk. It is a hint, nothing else. From a chunk that is there the end of the chain is found by going on, chunk by
chunk, so one that is old, wrong or forged gives the same session as a listing, or costs that listing.
"""

from __future__ import annotations

import binascii
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from angos.sansio.compact_json import compact_json, parse_json
from angos.sansio.effects import HashState, Key, ListKeys, Part, Prefix, ReadKey, Stat, StatKey, StorageCorrupt
from angos.sansio.oci.digest import HEX_LENGTH
from angos.sansio.together import together

A = TypeVar("A")
B = TypeVar("B")

LISTING_LIMIT = 10_000
STATE_PARAMETER = "_state"  # what CNCF distribution calls it, so that nobody on the way is surprised
STATE_CHUNKS_MIN = 2  # a listing of fewer costs as much; most uploads have one
FOLLOWED_MAX = 16  # chunks that others may have appended since the state was told


@dataclass(frozen=True, slots=True)
class Chunk:
    """The bytes of an upload from `offset` on that one request brought."""

    offset: int
    part: Part
    hashes: tuple[HashState, ...]
    """Digests of everything up to the end of this chunk; empty where the driver could not continue them."""
    after: str | None = None
    """The part of the chunk before it, which its digests cover; None for the first one."""

    @property
    def end(self) -> int:
        """The offset at which the next chunk belongs."""
        return self.offset + self.part.size

    def to_json(self) -> bytes:
        """The value of the chunk key."""
        hashes = {
            state.algorithm: {
                "hex": state.hex,
                "state": None if state.state is None else binascii.b2a_base64(state.state, newline=False).decode(),
            }
            for state in self.hashes
        }
        record = {"part": self.part.name, "size": self.part.size, "hashes": hashes}
        return compact_json(record if self.after is None else {**record, "after": self.after})

    @classmethod
    def parse(cls, offset: int, value: bytes) -> Chunk:
        """Raises `StorageCorrupt` for a value that `to_json` did not make."""
        try:
            record = parse_json(value)
            hashes = tuple(
                HashState(
                    algorithm,
                    state["hex"],
                    None if state["state"] is None else binascii.a2b_base64(state["state"], strict_mode=True),
                )
                for algorithm, state in record["hashes"].items()
            )
            return cls(offset, Part(record["part"], record["size"]), hashes, record.get("after"))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise StorageCorrupt(f"the record of an upload's chunk at {offset} is damaged") from None


@dataclass(frozen=True, slots=True)
class UploadSession:
    """An upload that exists, as far as its chunks reach."""

    prefix: Prefix
    started_ms: int
    algorithm: str | None
    """The digest algorithm that the client announced when it began: a hint what to compute on the way."""
    offsets: tuple[int, ...] | None
    """Where its chunks begin, ascending; None when they were not listed."""
    last: Chunk | None

    @property
    def offset(self) -> int:
        """Bytes that the upload holds; where the next chunk belongs."""
        return self.last.end if self.last is not None else 0

    @property
    def hashes(self) -> tuple[HashState, ...]:
        """The digests to continue with the next chunk. Without an announcement sha256: nearly every blob has it."""
        if self.last is None:
            return (HashState(self.algorithm or "sha256", "", None),)
        return tuple(state for state in self.last.hashes if state.state is not None)

    def appended(self, chunk: Chunk) -> UploadSession:
        """The session after its chunk has been created."""
        assert chunk.offset == self.offset, "a chunk belongs at the end of its upload"
        offsets = None if self.offsets is None else (*self.offsets, chunk.offset)
        return UploadSession(self.prefix, self.started_ms, self.algorithm, offsets, chunk)

    @property
    def state(self) -> str | None:
        """For the client to give back with its next request; None while the upload is found without."""
        if self.last is None or (self.offsets is not None and len(self.offsets) < STATE_CHUNKS_MIN):
            return None
        return f"{self.started_ms}.{self.algorithm or 'any'}.{self.last.offset:x}"


def session_key(prefix: Prefix, started_ms: int, algorithm: str | None) -> Key:
    """The key whose presence means that the upload exists."""
    return Key(f"{prefix}session.{started_ms}.{algorithm or 'any'}")


def chunk_key(prefix: Prefix, offset: int) -> Key:
    """The key that says which part holds the bytes at this offset."""
    return Key(f"{prefix}chunk.{offset:016x}")


def part_key(prefix: Prefix, part: Part) -> Key:
    """Where the bytes of a part are."""
    return Key(f"{prefix}part.{part.name}")


async def load_session(prefix: Prefix) -> UploadSession | None:
    """The upload as it is stored now, None when there is none."""
    started: tuple[int, str | None] | None = None
    offsets = []
    parts: set[str] = set()
    after, more = "", True
    while more:
        page = await ListKeys(prefix, after, LISTING_LIMIT)
        for name in page.names:
            kind, _, rest = name.partition(".")
            if kind == "chunk" and (offset := _parse_offset(rest)) is not None:
                offsets.append(offset)
            elif kind == "part":
                parts.add(rest)
            elif kind == "session":
                started = _parse_started(rest) or started
        after, more = page.last, page.more
    if started is None:
        return None
    last = await load_chunk(prefix, offsets[-1]) if offsets else None
    if offsets and (last is None or last.part.name not in parts):
        # Finished or cancelled between the listing and the look. Or the power was cut before either name was durable,
        # and the disk kept that of the chunk and lost that of its part: nobody was promised these bytes.
        return None
    return UploadSession(prefix, started[0], started[1], tuple(offsets), last)


async def resume_session(prefix: Prefix, state: str | None) -> UploadSession | None:
    """As `load_session`, at a cost that does not grow with the upload when the client gives its state back. The offsets
    of the chunks are not known then."""
    hint = None if state is None else _parse_state(state)
    session = None if hint is None else await _follow(prefix, *hint)
    return session or await load_session(prefix)


async def _follow(prefix: Prefix, started_ms: int, algorithm: str | None, offset: int) -> UploadSession | None:
    """The session from this chunk on; None when it cannot be found out this way."""
    exists, last = await _both(_existing(session_key(prefix, started_ms, algorithm)), load_chunk(prefix, offset))
    for _ in range(FOLLOWED_MAX):
        if exists is None or last is None:
            return None
        exists, following = await _both(_existing(part_key(prefix, last.part)), load_chunk(prefix, last.end))
        if following is None:
            return None if exists is None else UploadSession(prefix, started_ms, algorithm, None, last)
        last = following
    return None


async def load_chunk(prefix: Prefix, offset: int) -> Chunk | None:
    """One chunk of an upload whose key has been listed; None when the upload has been discarded since."""
    value = await ReadKey(chunk_key(prefix, offset))
    return None if value is None else Chunk.parse(offset, value)


async def load_parts(session: UploadSession) -> tuple[Part, ...] | None:
    """The parts of an upload in order; None when they are not one gapless chain any more.

    Chunks are only ever removed all together, but a removal need not survive a power cut: what is left of an upload
    that was finished before may be any of its chunks. Its digests would vouch for bytes that are not there, or, when a
    gap among them was filled since, for others than those.
    """
    assert session.offsets is not None, "its chunks were listed"
    chunks = await together(load_chunk(session.prefix, offset) for offset in session.offsets[:-1])
    end, parts = 0, list[Part]()
    for chunk in (*chunks, session.last) if session.last is not None else ():
        before = parts[-1].name if parts else None
        if chunk is None or chunk.offset != end or chunk.after != before:
            return None
        end = chunk.end
        parts.append(chunk.part)
    return tuple(parts)


async def _both(first: Coroutine[Any, Any, A], second: Coroutine[Any, Any, B]) -> tuple[A, B]:
    found: tuple[Any, ...] = await together((first, second))
    return found[0], found[1]


async def _existing(key: Key) -> Stat | None:
    return await StatKey(key)


def _parse_state(text: str) -> tuple[int, str | None, int] | None:
    started, _, offset = text.rpartition(".")
    parsed = _parse_started(started)
    if parsed is None or not 1 <= len(offset) <= 16 or offset.strip("0123456789abcdef"):
        return None
    return *parsed, int(offset, 16)


def _parse_offset(text: str) -> int | None:
    if len(text) != 16 or text.strip("0123456789abcdef"):
        return None
    return int(text, 16)


def _parse_started(text: str) -> tuple[int, str | None] | None:
    started, _, algorithm = text.partition(".")
    if not (started.isascii() and started.isdigit()):
        return None
    return int(started), algorithm if algorithm in HEX_LENGTH else None
