"""Parts of an upload become one object: copied inside the store, or, when they are small, read and sent back."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from anyio import CapacityLimiter

from angos.runtime.stores.s3 import objects
from angos.runtime.stores.s3.bucket import Bucket
from angos.runtime.stores.s3.joining import Piece, pieces_of
from angos.runtime.stores.s3.listing import sizes_below
from angos.runtime.stores.s3.multipart import Multipart
from angos.runtime.stores.s3.options import PART_BYTES_MAX, PART_BYTES_MIN
from angos.runtime.stores.s3.side_by_side import side_by_side
from angos.sansio.effects import Part, Prefix, PromoteParts


def part_key(upload: Prefix, part: str) -> str:
    """Where a part of an upload is kept."""
    return f"{upload}part.{part}"


async def are_there(bucket: Bucket, upload: Prefix, parts: Sequence[Part]) -> bool:
    """True when all the parts are stored, each with its size."""
    if len(parts) == 1:
        found = await objects.stat(bucket, part_key(upload, parts[0].name))
        return found is not None and found.size == parts[0].size
    sizes = await sizes_below(bucket, Prefix(part_key(upload, ""))) if parts else {}
    return all(sizes.get(part.name) == part.size for part in parts)


async def promote(bucket: Bucket, effect: PromoteParts) -> bool:
    """`PromoteParts`."""
    if not await are_there(bucket, effect.upload, effect.parts):
        return False
    parts = [part for part in effect.parts if part.size]
    keys = [part_key(effect.upload, part.name) for part in parts]
    size = sum(part.size for part in parts)
    if len(parts) == 1 and size <= min(bucket.options.copy_threshold_bytes, PART_BYTES_MAX):
        return await objects.copy(bucket, keys[0], effect.key)
    if size <= PART_BYTES_MIN:
        values = await objects.fetch_all(bucket, [(key, 0, part.size) for key, part in zip(keys, parts, strict=True)])
        if values is None:
            return False
        await objects.put(bucket, effect.key, [memoryview(value) for value in values], f"creating {effect.key}")
        return True
    return await _join(bucket, keys, [part.size for part in parts], effect.key)


async def _join(bucket: Bucket, keys: Sequence[str], sizes: Sequence[int], key: str) -> bool:
    multipart = await Multipart.begin(bucket, key)
    one_in_memory = CapacityLimiter(1)

    async def make(number: int, piece: Piece) -> bool:
        if len(piece) == 1:
            (only,) = piece
            return await multipart.copy(number, keys[only.part], only.start, only.length)
        async with one_in_memory:
            values = await objects.fetch_all(bucket, [(keys[each.part], each.start, each.length) for each in piece])
            if values is None:
                return False
            await multipart.put(number, [memoryview(value) for value in values])
            return True

    try:
        pieces = pieces_of(sizes, bucket.options.copy_piece_bytes)
        jobs = [partial(make, number, piece) for number, piece in enumerate(pieces, 1)]
        if not all(await side_by_side(jobs, bucket.options.copy_jobs)):
            await multipart.abort()
            return False
        await multipart.complete()
    except BaseException:
        await multipart.abort()
        raise
    return True
