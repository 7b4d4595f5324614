"""The S3 store of the runtime, on a simulated bucket: the real plans, request by request."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from functools import partial
from typing import Any

from angos.sansio.bucket import listing, many, plans
from angos.sansio.bucket.probe import ensure
from angos.sansio.bucket.requests import BeginPieces, Put, PutPiece, SideBySide, Terms
from angos.sansio.effects import (
    CopyKey,
    CreateKeys,
    DeleteKeys,
    DeleteKeysWithin,
    DiscardPart,
    DiscardUnfinished,
    DiscardUpload,
    Effect,
    EffectError,
    HashKey,
    HashParts,
    ListFolders,
    ListKeys,
    ListStats,
    ListUnfinished,
    Part,
    PromoteParts,
    ReadKey,
    StageBody,
    Staged,
    StatKey,
    StatKeys,
    StatsBelow,
    StorageCorrupt,
)
from angos.sansio.layout import parse_blob_key
from angos.sansio.steps import Step
from angos.simulator.choices import Choices
from angos.simulator.world.bodies import continued, hexdigest
from angos.simulator.world.bucket import Bucket, Limits
from angos.simulator.world.carrying import Carrying
from angos.simulator.world.clock import Clock
from angos.simulator.world.quirks import QuirkyBucket
from angos.simulator.world.store import Bodies

SMALL = Limits(piece_bytes_min=8, piece_bytes_max=32, listing_max=5, deletions_max=3)
"""For a world whose blobs have up to 37 bytes: each limit is met by some of them."""

TERMS = Terms(
    "bucket registry",
    piece_bytes_min=SMALL.piece_bytes_min,
    piece_bytes_max=SMALL.piece_bytes_max,
    copy_bytes_max=30,
    copy_piece_bytes=16,
    copies_at_once=2,
    attempts=3,
    listing_max=SMALL.listing_max,
    deletions_max=SMALL.deletions_max,
    requests_at_once=2,
)


class S3World:
    """A `Store` in a `Bucket`."""

    def __init__(
        self,
        clock: Clock,
        bodies: Bodies,
        *,
        exports_hash_states: bool = True,
        limits: Limits = SMALL,
        terms: Terms = TERMS,
        quirks: Iterable[str] = (),
        tried_out: bool = True,
    ) -> None:
        """Without `tried_out`, each process tries the bucket out before it writes for the first time."""
        self._clock = clock
        self._bodies = bodies
        self._exported = exports_hash_states
        quirks = tuple(quirks)
        make = partial(QuirkyBucket, quirks) if quirks else Bucket
        self.bucket: Bucket = make(lambda: clock.now_ms, limits=limits)
        self.touched = self.bucket.touched
        self.terms = terms
        self._tried_out = tried_out
        self._trusting: set[str] = set()
        self._writers = 0

    def carry_out(self, effect: Effect[Any], process: str) -> Carrying:
        """An effect, in the middle of its requests."""
        plan = PLANNED[type(effect)](self, effect, process)
        return Carrying(self.bucket, plan, attempts=self.terms.attempts, draw_writer=self._draw_writer)

    def apply(self, effect: Effect[Any], process: str) -> Any:
        """See `Store`: all requests at once."""
        return self.carry_out(effect, process).run()

    def take_quietly(self, request: Step[Any]) -> None:
        """Apply a request whose answer nobody gets."""
        with suppress(EffectError):
            self.bucket.take(request)

    def get(self, key: str) -> bytes | None:
        """See `Store`."""
        found = self.bucket.objects.get(key)
        return None if found is None else found.content

    def surviving(self, key: str) -> bytes | None:
        """See `Store`: everything is durable."""
        return self.get(key)

    def names(self, prefix: str) -> list[str]:
        """See `Store`."""
        return self.bucket.names(prefix)

    def cut_power(self, choices: Choices, *, at_rest: bool = False) -> None:
        """See `Store`: the bucket goes on."""

    def kill(self, process: str) -> None:
        """See `Store`: the next process tries the bucket out anew."""
        self._trusting.discard(process)

    def _draw_writer(self) -> str:
        self._writers += 1
        return f"{self._writers:032x}"

    # --- what the runtime adds to the plans ---------------------------------------------------------------------------

    async def _read_key(self, effect: ReadKey) -> bytes | None:
        value = await plans.read_key(effect)
        digest = parse_blob_key(effect.key)
        if value is not None and digest is not None and hexdigest(digest.algorithm, value) != digest.hex:
            raise StorageCorrupt(f"the stored bytes of {digest} have another digest")
        return value

    async def _ensure_tried(self, process: str) -> None:
        if not self._tried_out and process not in self._trusting:
            await ensure(self.terms, self._clock.now_ms)
            self._trusting.add(process)

    async def _create_keys(self, effect: CreateKeys, process: str) -> tuple[bool, ...]:
        await self._ensure_tried(process)
        return await plans.create_keys(effect, self.terms)

    async def _promote_parts(self, effect: PromoteParts, process: str) -> bool:
        await self._ensure_tried(process)
        return await plans.promote_parts(effect, self.terms)

    async def _stage_body(self, effect: StageBody, process: str) -> Staged:
        """A part is one object. A body that is longer than one piece is sent in pieces."""
        await self._ensure_tried(process)
        content, whole = self._bodies[effect.body].receive(effect.size_max)
        key, size = plans.part_key(effect.upload, effect.part), self.terms.piece_bytes_min
        if len(content) <= size:
            await Put(key, (content,))
        else:
            upload_id = await BeginPieces(key)
            sent = tuple(
                partial(_put_piece, PutPiece(key, upload_id, number, (content[start : start + size],)))
                for number, start in enumerate(range(0, len(content), size), 1)
            )
            tags = await SideBySide(sent, 2)
            await plans.complete(key, upload_id, tags, self.terms, new_size=len(content))
        hashes = tuple(continued(state, content, exported=self._exported) for state in effect.hashes)
        return Staged(Part(effect.part, len(content)), hashes, whole)


async def _put_piece(piece: PutPiece) -> str:
    return await piece


PLANNED: dict[type[Effect[Any]], Callable[[S3World, Any, str], Coroutine[Any, Any, Any]]] = {
    ReadKey: lambda world, effect, _: world._read_key(effect),
    StatKey: lambda world, effect, _: plans.stat_key(effect),
    ListKeys: lambda world, effect, _: listing.list_keys(effect, world.terms),
    ListFolders: lambda world, effect, _: listing.list_folders(effect, world.terms),
    ListStats: lambda world, effect, _: listing.list_stats(effect, world.terms),
    StatKeys: lambda world, effect, _: many.stat_keys(effect, world.terms),
    StatsBelow: lambda world, effect, _: many.stats_below(effect, world.terms),
    CreateKeys: lambda world, effect, process: world._create_keys(effect, process),
    DeleteKeys: lambda world, effect, _: plans.delete_keys(effect, world.terms),
    DeleteKeysWithin: lambda world, effect, _: plans.delete_keys_within(effect, world.terms),
    HashKey: lambda world, effect, _: plans.hash_key(effect),
    CopyKey: lambda world, effect, _: plans.copy_key(effect, world.terms),
    StageBody: lambda world, effect, process: world._stage_body(effect, process),
    HashParts: lambda world, effect, _: plans.hash_parts(effect, world.terms),
    PromoteParts: lambda world, effect, process: world._promote_parts(effect, process),
    DiscardPart: lambda world, effect, _: plans.discard_part(effect),
    DiscardUpload: lambda world, effect, _: plans.discard_upload(effect, world.terms),
    ListUnfinished: lambda world, effect, _: listing.list_unfinished(effect, world.terms),
    DiscardUnfinished: lambda world, effect, _: plans.discard_unfinished(effect),
}
"""All storage effects. Looked up late, so that a test can break a plan."""
