"""All storage effects on a bucket.

In which order requests are sent is said by `angos.sansio.bucket.plans`. Only bodies go their own way, in pieces while
they arrive: `angos.runtime.stores.s3.staging`.

A process that is killed may leave a multipart upload behind: those of an upload's parts end with the upload, others
are removed by the collector (`angos.sansio.collection.expiry`).
"""

from __future__ import annotations

from functools import partial

from anyio import Lock, move_on_after
from anyio.to_thread import run_sync

from angos.runtime.clock import SystemClock
from angos.runtime.driver import NOTHING_IN_THREAD
from angos.runtime.hashing import hex_of
from angos.runtime.performer import Body
from angos.runtime.server.application import FetchedContent
from angos.runtime.stores.s3 import objects, staging
from angos.runtime.stores.s3.bucket import Bucket
from angos.runtime.stores.s3.carrying_out import carry_out
from angos.runtime.stores.s3.options import S3Options
from angos.runtime.stores.s3.remembered_stats import RememberedStats
from angos.sansio.bucket import listing, many, plans
from angos.sansio.bucket.probe import ensure
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
    Key,
    ListFolders,
    ListKeys,
    ListStats,
    ListUnfinished,
    Page,
    PromoteParts,
    ReadClock,
    ReadKey,
    SignedUrl,
    SignUrl,
    StageBody,
    Staged,
    Stat,
    StatKey,
    StatKeys,
    StatPage,
    StatsBelow,
    StorageCorrupt,
    Unfinished,
)
from angos.sansio.layout import parse_blob_key
from angos.sansio.secret import Secret

HASH_ON_LOOP_BYTES = 64 << 10


class S3Store:
    """All storage effects on a bucket. Made anywhere, then used on one event loop."""

    in_thread = NOTHING_IN_THREAD

    def __init__(self, options: S3Options) -> None:
        """Asks for nothing yet. Raises `ClientTlsUnusable`."""
        self._bucket = Bucket(options)
        self._stats = RememberedStats()
        self._trying = Lock()
        self.tried = False
        """The bucket is known to do what the registry relies on. Otherwise the first write finds it out."""

    def follow(self, options: S3Options) -> None:
        """Ask from now on like this: with other keys, sizes or times. The bucket stays the one that it was."""
        self._bucket.follow(options)

    async def close(self) -> None:
        """End the idle connections."""
        await self._bucket.close()

    # --- reads --------------------------------------------------------------------------------------------------------

    async def read_key(self, effect: ReadKey) -> bytes | None:
        """`ReadKey`. The bytes of a blob are checked against its digest."""
        value = await carry_out(self._bucket, plans.read_key(effect))
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
        if effect.lately and (remembered := self._stats.get(effect.key)) is not None:
            return remembered
        found = await carry_out(self._bucket, plans.stat_key(effect))
        if found is None:
            self._stats.drop(effect.key)
        elif effect.lately:
            self._stats.keep(effect.key, found)
        return found

    async def list_keys(self, effect: ListKeys) -> Page:
        """`ListKeys`."""
        return await carry_out(self._bucket, listing.list_keys(effect, self._bucket.terms))

    async def list_folders(self, effect: ListFolders) -> Page:
        """`ListFolders`."""
        return await carry_out(self._bucket, listing.list_folders(effect, self._bucket.terms))

    async def list_stats(self, effect: ListStats) -> StatPage:
        """`ListStats`."""
        return await carry_out(self._bucket, listing.list_stats(effect, self._bucket.terms))

    async def stat_keys(self, effect: StatKeys) -> tuple[Stat | None, ...]:
        """`StatKeys`."""
        return await carry_out(self._bucket, many.stat_keys(effect, self._bucket.terms))

    async def stats_below(self, effect: StatsBelow) -> tuple[tuple[tuple[str, Stat], ...], ...]:
        """`StatsBelow`."""
        return await carry_out(self._bucket, many.stats_below(effect, self._bucket.terms))

    def open_content(self, key: Key) -> FetchedContent:
        """A value to send, fetched in slices."""
        return FetchedContent(partial(objects.fetch, self._bucket, key))

    async def sign_url(self, effect: SignUrl) -> SignedUrl:
        """`SignUrl`. The bucket is not asked."""
        target = await self._bucket.presigned(f"signing a URL of {effect.key}", effect.key, effect.media_type)
        path, _, query = target.partition("?")
        return SignedUrl(f"{self._bucket.options.endpoint.origin}{path}", Secret(query))

    async def hash_parts(self, effect: HashParts) -> str | None:
        """`HashParts`."""
        return await carry_out(self._bucket, plans.hash_parts(effect, self._bucket.terms))

    async def hash_key(self, effect: HashKey) -> str | None:
        """`HashKey`."""
        return await carry_out(self._bucket, plans.hash_key(effect))

    async def list_unfinished(self, effect: ListUnfinished) -> tuple[Unfinished, ...]:
        """`ListUnfinished`."""
        return await carry_out(self._bucket, listing.list_unfinished(effect, self._bucket.terms))

    # --- writes -------------------------------------------------------------------------------------------------------

    async def create_keys(self, effect: CreateKeys) -> tuple[bool, ...]:
        """`CreateKeys`."""
        await self._ensure_tried()
        return await carry_out(self._bucket, plans.create_keys(effect, self._bucket.terms))

    async def _ensure_tried(self) -> None:
        if self.tried:
            return
        async with self._trying:
            if not self.tried:
                await carry_out(self._bucket, ensure(self._bucket.terms, SystemClock().read(ReadClock())))
                self.tried = True

    async def delete_keys(self, effect: DeleteKeys) -> None:
        """`DeleteKeys`."""
        for key in effect.keys:
            self._stats.drop(key)
        await carry_out(self._bucket, plans.delete_keys(effect, self._bucket.terms))

    async def copy_key(self, effect: CopyKey) -> bool | None:
        """`CopyKey`."""
        return await carry_out(self._bucket, plans.copy_key(effect, self._bucket.terms))

    async def delete_keys_within(self, effect: DeleteKeysWithin) -> None:
        """`DeleteKeysWithin`. When it is too late the request on its way is given up and no other one is sent."""
        with move_on_after(effect.within_seconds) as patience:
            await carry_out(self._bucket, plans.delete_keys_within(effect, self._bucket.terms))
        if patience.cancelled_caught:
            doing = f"deleting {len(effect.keys)} keys"
            raise self._bucket.terms.unavailable(doing, f"it took longer than {effect.within_seconds:.0f} s")

    async def stage_body(self, effect: StageBody, body: Body) -> Staged:
        """`StageBody`. A part of an upload is one object, whatever its size."""
        await self._ensure_tried()
        return await staging.stage(self._bucket, plans.part_key(effect.upload, effect.part), effect, body)

    async def promote_parts(self, effect: PromoteParts) -> bool:
        """`PromoteParts`."""
        await self._ensure_tried()
        return await carry_out(self._bucket, plans.promote_parts(effect, self._bucket.terms))

    async def discard_part(self, effect: DiscardPart) -> None:
        """`DiscardPart`."""
        await carry_out(self._bucket, plans.discard_part(effect))

    async def discard_upload(self, effect: DiscardUpload) -> None:
        """`DiscardUpload`. What is left of requests that never ended is discarded too."""
        await carry_out(self._bucket, plans.discard_upload(effect, self._bucket.terms))

    async def discard_unfinished(self, effect: DiscardUnfinished) -> None:
        """`DiscardUnfinished`."""
        await carry_out(self._bucket, plans.discard_unfinished(effect))
