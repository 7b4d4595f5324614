"""All storage effects on a bucket.

What the core relies on, and what gives it here: a key is created at most once (``If-None-Match: *``, which the store
must know), what was answered is durable, and a listing shows everything that was answered before it began.

A process that is killed may leave a multipart upload behind: those of an upload's parts end with the upload, but one
to a blob's key stays. A lifecycle rule of the bucket (AbortIncompleteMultipartUpload) removes such remains.
"""

from __future__ import annotations

from functools import partial

from anyio.to_thread import run_sync

from angos.runtime.hashing import Hasher, hex_of
from angos.runtime.performer import Body
from angos.runtime.server.application import FetchedContent
from angos.runtime.stores.s3 import listing, objects, promotion, staging
from angos.runtime.stores.s3.bucket import Bucket
from angos.runtime.stores.s3.multipart import abort
from angos.runtime.stores.s3.options import S3Options
from angos.runtime.stores.s3.side_by_side import side_by_side
from angos.sansio.effects import (
    CreateKeys,
    DeleteKeys,
    DiscardPart,
    DiscardUpload,
    HashParts,
    Key,
    ListFolders,
    ListKeys,
    Page,
    PromoteParts,
    ReadKey,
    StageBody,
    Staged,
    Stat,
    StatKey,
    StorageCorrupt,
    StorageRefused,
    StorageUnavailable,
)
from angos.sansio.layout import parse_blob_key

HASH_BYTES = 1 << 20  # gathered before they are worth a thread
HASH_ON_LOOP_BYTES = 64 << 10


class S3Store:
    """All storage effects on a bucket. Made anywhere, then used on one event loop."""

    def __init__(self, options: S3Options) -> None:
        """Asks for nothing yet. Raises `ClientTlsUnusable`."""
        self._bucket = Bucket(options)

    def follow(self, options: S3Options) -> None:
        """Ask from now on like this: with other keys, sizes or times. The bucket stays the one that it was."""
        self._bucket.follow(options)

    async def close(self) -> None:
        """End the idle connections."""
        await self._bucket.close()

    # --- reads --------------------------------------------------------------------------------------------------------

    async def read_key(self, effect: ReadKey) -> bytes | None:
        """`ReadKey`. The bytes of a blob are checked against its digest."""
        value = await objects.read(self._bucket, effect.key)
        digest = parse_blob_key(effect.key)
        if value is None or digest is None:
            return value
        if len(value) > HASH_ON_LOOP_BYTES:
            found = await run_sync(hex_of, digest.algorithm, value)
        else:
            found = hex_of(digest.algorithm, value)
        if found != digest.hex:
            raise StorageCorrupt(f"the stored bytes of {digest} have another digest")
        return value

    async def stat_key(self, effect: StatKey) -> Stat | None:
        """`StatKey`."""
        return await objects.stat(self._bucket, effect.key)

    async def list_keys(self, effect: ListKeys) -> Page:
        """`ListKeys`."""
        return await listing.page_of_keys(self._bucket, effect)

    async def list_folders(self, effect: ListFolders) -> Page:
        """`ListFolders`."""
        return await listing.page_of_folders(self._bucket, effect)

    def open_content(self, key: Key) -> FetchedContent:
        """A value to send, fetched in slices."""
        return FetchedContent(partial(objects.fetch, self._bucket, key))

    async def hash_parts(self, effect: HashParts) -> str | None:
        """`HashParts`."""
        if not await promotion.are_there(self._bucket, effect.upload, effect.parts):
            return None
        hasher = Hasher(effect.algorithm)
        held = bytearray()

        async def take(data: bytes) -> None:
            nonlocal held
            held += data
            if len(held) >= HASH_BYTES:
                full, held = held, bytearray()
                await run_sync(hasher.update, full)

        for part in effect.parts:
            key = promotion.part_key(effect.upload, part.name)
            if not await objects.fetch(self._bucket, key, 0, part.size, take):
                return None
        hasher.update(held)
        return hasher.hex()

    # --- writes -------------------------------------------------------------------------------------------------------

    async def create_keys(self, effect: CreateKeys) -> tuple[bool, ...]:
        """`CreateKeys`."""
        first = dict(reversed([(key, value) for key, value in effect.entries]))  # of equal keys, the first one counts
        jobs = [partial(objects.create, self._bucket, key, value) for key, value in first.items()]
        try:
            created = dict(zip(first, await side_by_side(jobs, objects.REQUESTS_AT_ONCE), strict=True))
        except StorageRefused as error:
            if len(jobs) == 1:
                raise
            # Others may have been created: no refusal is definite then.
            raise StorageUnavailable(str(error)) from None
        return tuple(created.pop(key, False) for key, _ in effect.entries)

    async def delete_keys(self, effect: DeleteKeys) -> None:
        """`DeleteKeys`."""
        if effect.keys:
            await objects.delete(self._bucket, effect.keys)

    async def stage_body(self, effect: StageBody, body: Body) -> Staged:
        """`StageBody`. A part of an upload is one object, whatever its size."""
        return await staging.stage(self._bucket, promotion.part_key(effect.upload, effect.part), effect, body)

    async def promote_parts(self, effect: PromoteParts) -> bool:
        """`PromoteParts`."""
        return await promotion.promote(self._bucket, effect)

    async def discard_part(self, effect: DiscardPart) -> None:
        """`DiscardPart`."""
        await objects.delete(self._bucket, [promotion.part_key(effect.upload, effect.part)])

    async def discard_upload(self, effect: DiscardUpload) -> None:
        """`DiscardUpload`. What is left of requests that never ended is discarded too."""
        open_uploads = await listing.uploads_below(self._bucket, effect.upload)
        jobs = [partial(abort, self._bucket, key, upload_id) for key, upload_id in open_uploads]
        if jobs:
            await side_by_side(jobs, objects.REQUESTS_AT_ONCE)
        keys = [effect.upload + name for name in await listing.sizes_below(self._bucket, effect.upload)]
        # A batch is deleted in no order, so the name that has to go first goes by itself.
        for batch in (keys[-1:], keys[:-1]):
            if batch:
                await objects.delete(self._bucket, batch)
