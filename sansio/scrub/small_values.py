"""Values that say something besides their names: events of tags, claims, chunks of uploads, imports."""

from __future__ import annotations

from angos.sansio import layout
from angos.sansio.compact_json import parse_json
from angos.sansio.effects import Key, ReadKey, StatKey, StorageCorrupt
from angos.sansio.scrub.hands import Hands
from angos.sansio.scrub.keys import Known
from angos.sansio.upload_session import Chunk

VALUE_BYTES_MAX = 1 << 20
"""None of them has ever been larger."""


async def check(hands: Hands, key: Key, known: Known) -> None:
    """Is the value what belongs there?"""
    stat = await StatKey(key)
    if stat is None:
        return
    value = b"\0" if stat.size > VALUE_BYTES_MAX else await ReadKey(key)
    if value is None:
        return
    match known.kind:
        case "claim":
            if layout.parse_tag_event(value.decode("ascii", "replace")) is None:
                # Nobody gets the tag while it is there; the next push claims it anew.
                await hands.quarantine(key, "corrupt", "it claims the tag for no event", stat)
        case "chunk":
            if not _is_chunk(known.offset, value):
                await hands.quarantine(key, "corrupt", "it does not say which part of the upload it is", stat)
        case "import":
            if not _is_object(value):
                detail = "it does not say what was not taken; that it is there keeps what was deleted here deleted"
                hands.note(key, "damaged-record", detail)
        case _:
            if value and not _is_object(value):
                hands.note(key, "damaged-record", "it is no JSON; only its name counts, so the tag is what it was")


def _is_chunk(offset: int, value: bytes) -> bool:
    try:
        Chunk.parse(offset, value)
    except StorageCorrupt:
        return False
    return True


def _is_object(value: bytes) -> bool:
    try:
        return isinstance(parse_json(value), dict)
    except ValueError:
        return False
