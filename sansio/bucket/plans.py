"""How each storage effect is carried out in a bucket, so that it keeps the promises of effects.py whatever gets lost.

What the core relies on, and what gives it here: a key is created at most once (``If-None-Match: *``), what was answered
is durable, and a listing shows everything that was answered before it began. Three rules:

1. A creation carries the name of its writer. When it finds an object in its way, the writer tells whose it is: an
   attempt before it may have had no answer, and something on the way may have sent the request twice.
2. A blob is made of parts only when all of them were found with their sizes, and a part that vanishes on the way ends
   the work without an object: an object never has fewer bytes than its parts.
3. Of an upload the key of its session is removed first, and alone, because a batch is removed in no order.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from angos.sansio.bucket.joining import Piece, pieces_of
from angos.sansio.bucket.listing import sizes_below, uploads_below
from angos.sansio.bucket.requests import (
    AbortPieces,
    BackOff,
    BeginPieces,
    CompletePieces,
    Content,
    Copy,
    CopyPiece,
    Delete,
    DeleteMany,
    DrawWriter,
    Fetch,
    Get,
    HashObjects,
    Head,
    Put,
    PutPiece,
    SideBySide,
    Terms,
)
from angos.sansio.effects import (
    CopyKey,
    CreateKeys,
    DeleteKeys,
    DeleteKeysWithin,
    DiscardPart,
    DiscardUnfinished,
    DiscardUpload,
    HashKey,
    HashParts,
    Part,
    Prefix,
    PromoteParts,
    ReadKey,
    Stat,
    StatKey,
    StorageFull,
    StorageRefused,
    StorageUnavailable,
)


def part_key(upload: Prefix, part: str) -> str:
    """Where a part of an upload is kept: it is one object, whatever its size."""
    return f"{upload}part.{part}"


# --- reads ------------------------------------------------------------------------------------------------------------


async def read_key(effect: ReadKey) -> bytes | None:
    """`ReadKey`."""
    return await Get(effect.key)


async def stat_key(effect: StatKey) -> Stat | None:
    """`StatKey`."""
    found = await Head(effect.key)
    return None if found is None else Stat(found.size, found.modified_ms)


async def hash_parts(effect: HashParts, terms: Terms) -> str | None:
    """`HashParts`."""
    if not await are_there(effect.upload, effect.parts, terms):
        return None
    parts = tuple((part_key(effect.upload, part.name), part.size) for part in effect.parts if part.size)
    return await HashObjects(parts, effect.algorithm)


async def hash_key(effect: HashKey) -> str | None:
    """`HashKey`."""
    found = await Head(effect.key)
    if found is None:
        return None
    objects = ((effect.key, found.size),) if found.size else ()
    return await HashObjects(objects, effect.algorithm, effect.bytes_per_second)


async def are_there(upload: Prefix, parts: Sequence[Part], terms: Terms) -> bool:
    """True when all the parts are stored, each with its size."""
    if len(parts) == 1:
        found = await Head(part_key(upload, parts[0].name))
        return found is not None and found.size == parts[0].size
    sizes = await sizes_below(Prefix(part_key(upload, "")), terms) if parts else {}
    return all(sizes.get(part.name) == part.size for part in parts)


# --- keys -------------------------------------------------------------------------------------------------------------


async def create_keys(effect: CreateKeys, terms: Terms) -> tuple[bool, ...]:
    """`CreateKeys`."""
    first = dict(reversed(effect.entries))  # of equal keys, the first one counts
    doubts = (terms,) if effect.definite else ()
    jobs = tuple(partial(create, key, value, *doubts) for key, value in first.items())
    try:
        created = dict(zip(first, await SideBySide(jobs, terms.requests_at_once), strict=True))
    except (StorageRefused, StorageFull) as error:
        if len(jobs) == 1:
            raise
        # Others may have been created: no refusal is definite then.
        raise StorageUnavailable(str(error)) from None
    return tuple(created.pop(key, False) for key, _ in effect.entries)


async def create(key: str, value: bytes, definite: Terms | None = None) -> bool:
    """Make these bytes the object unless there is one. True if this call did it. `definite`: the terms, for a failure
    when a request that had no answer may be carried out yet."""
    writer = await DrawWriter()
    outcome = await Put(key, (value,), writer)
    if definite is not None and outcome.again:
        raise definite.unavailable(f"creating {key}", "a request that had no answer may be carried out yet")
    if outcome.done:
        return True
    found = await Head(key)
    return found is not None and found.writer == writer


async def delete_keys(effect: DeleteKeys, terms: Terms) -> None:
    """`DeleteKeys`."""
    await delete(effect.keys, terms)


async def delete_keys_within(effect: DeleteKeysWithin, terms: Terms) -> None:
    """`DeleteKeysWithin`: whoever carries it out gives it up when it is too late.

    A request that had no answer may arrive after the one that was sent again and answered, and take what somebody has
    put there since. So it fails then, and whoever asked waits until nothing can happen any more.
    """
    await delete(effect.keys, terms, definite=True)


async def delete(keys: Sequence[str], terms: Terms, *, definite: bool = False) -> None:
    """Remove objects; those that are absent are no error."""
    if len(keys) == 1:
        await Delete(keys[0], definite)
        return
    for start in range(0, len(keys), terms.deletions_max):
        await _delete_many(tuple(keys[start : start + terms.deletions_max]), terms, definite)


async def _delete_many(keys: tuple[str, ...], terms: Terms, definite: bool) -> None:
    doing = f"deleting {keys[0]} and {len(keys) - 1} more keys"
    for attempt in range(1, terms.attempts + 1):
        left = await DeleteMany(keys, definite)
        if not left:
            return
        # Some keys are gone and some are not: that is no definite refusal, whatever each of them was told.
        if attempt == terms.attempts or not all(each.again for each in left):
            raise terms.unavailable(doing, next((each for each in left if not each.again), left[0]).why)
        await BackOff(attempt)


async def copy_key(effect: CopyKey, terms: Terms) -> bool | None:
    """`CopyKey`: inside the store."""
    found = await Head(effect.key)
    if found is None:
        return None
    if await Head(effect.copy) is not None:
        return False
    if found.size <= min(terms.copy_bytes_max, terms.piece_bytes_max):
        return await Copy(effect.key, effect.copy) or None
    return await _join([effect.key], [found.size], effect.copy, terms) or None


# --- uploads ----------------------------------------------------------------------------------------------------------


async def promote_parts(effect: PromoteParts, terms: Terms) -> bool:
    """`PromoteParts`: copied inside the store, or, when the parts are small, read and sent back."""
    if not await are_there(effect.upload, effect.parts, terms):
        return False
    parts = [part for part in effect.parts if part.size]
    keys = [part_key(effect.upload, part.name) for part in parts]
    sizes = [part.size for part in parts]
    if len(parts) == 1 and sizes[0] <= min(terms.copy_bytes_max, terms.piece_bytes_max):
        return await Copy(keys[0], effect.key)
    if sum(sizes) <= terms.piece_bytes_min:
        content = await _fetch_all([(key, 0, size) for key, size in zip(keys, sizes, strict=True)], terms)
        if content is None:
            return False
        await Put(effect.key, content)
        return True
    return await _join(keys, sizes, effect.key, terms)


async def _fetch_all(slices: Sequence[tuple[str, int, int]], terms: Terms) -> Content | None:
    """Slices of objects (key, start, length); None when an object is absent."""
    jobs = tuple(partial(_fetch, *each) for each in slices)
    values = await SideBySide(jobs, terms.requests_at_once) if jobs else ()
    return None if None in values else values


async def _fetch(key: str, start: int, length: int) -> bytes | bytearray | None:
    return await Fetch(key, start, length)


async def _join(keys: Sequence[str], sizes: Sequence[int], key: str, terms: Terms) -> bool:
    upload_id = await BeginPieces(key)
    pieces = pieces_of(sizes, terms)
    tags: dict[int, str] = {}

    async def copy(number: int, piece: Piece) -> bool:
        (only,) = piece
        tag = await CopyPiece(key, upload_id, number, keys[only.part], only.start, only.length)
        return _note(number, tag)

    async def gather() -> bool:  # one after the other: each is held in memory
        for number, piece in enumerate(pieces, 1):
            if len(piece) == 1:
                continue
            content = await _fetch_all([(keys[each.part], each.start, each.length) for each in piece], terms)
            if content is None:
                return False
            _note(number, await PutPiece(key, upload_id, number, content))
        return True

    def _note(number: int, tag: str | None) -> bool:
        if tag is not None:
            tags[number] = tag
        return tag is not None

    copies = [partial(copy, number, piece) for number, piece in enumerate(pieces, 1) if len(piece) == 1]
    if not all(await SideBySide((*copies, gather), terms.copies_at_once)):
        return False
    await complete(key, upload_id, tuple(tag for _, tag in sorted(tags.items())), terms)
    return True


async def complete(
    key: str, upload_id: str, tags: tuple[str, ...], terms: Terms, *, new_size: int | None = None
) -> None:
    """Put pieces together: the object is there.

    With `new_size`, in bytes, nobody else can have made an object under this key. Then finding one tells that a
    request whose answer was lost has succeeded; otherwise its outcome is not known.
    """
    doing = f"creating {key}"
    outcome = await CompletePieces(key, upload_id, tags)
    if outcome.done:
        return
    if not outcome.again:
        raise terms.unavailable(doing, "the store has forgotten the pieces that it was sent")
    found = None if new_size is None else await Head(key)
    if found is None or found.size != new_size:
        raise terms.unavailable(doing, "it is not known whether the pieces were put together")


async def discard_part(effect: DiscardPart) -> None:
    """`DiscardPart`."""
    await Delete(part_key(effect.upload, effect.part))


async def discard_upload(effect: DiscardUpload, terms: Terms) -> None:
    """`DiscardUpload`. What is left of requests that never ended is discarded too."""
    jobs = tuple(partial(_abort, *each) for each in await uploads_below(effect.upload, terms))
    if jobs:
        await SideBySide(jobs, terms.requests_at_once)
    keys = [effect.upload + name for name in await sizes_below(effect.upload, terms)]
    for batch in (keys[-1:], keys[:-1]):
        if batch:
            await delete(batch, terms)


async def _abort(key: str, upload_id: str) -> None:
    await AbortPieces(key, upload_id)


async def discard_unfinished(effect: DiscardUnfinished) -> None:
    """`DiscardUnfinished`."""
    await AbortPieces(effect.key, effect.id)
