"""Bodies that are longer than one request to a bucket may be, on a real server."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import anyio
import pytest

from angos.runtime.clock import SystemClock
from angos.runtime.entropy import SystemEntropy
from angos.runtime.leases.local import LocalLeases
from angos.runtime.performer import Services
from angos.runtime.stores.s3 import multipart
from angos.runtime.stores.s3.bucket import Bucket
from angos.runtime.stores.s3.carrying_out import carry_out
from angos.runtime.stores.s3.options import PART_BYTES_MIN, S3Options
from angos.runtime.stores.s3.store import S3Store
from angos.sansio.bucket.listing import uploads_below
from angos.sansio.bucket.requests import BeginPieces, PutPiece
from angos.sansio.effects import (
    BodyTooLarge,
    DiscardUpload,
    Effect,
    HashParts,
    HashState,
    Key,
    ListKeys,
    Part,
    Prefix,
    PromoteParts,
    ReadKey,
    StageBody,
)
from tests.conformance.contracts.s3 import s3_bucket
from tests.conformance.contracts.store import BODY, Sent, fresh_upload, perform

FRESH = HashState("sha256", "", None)
EVERYTHING = Prefix("v2/")
CONTENT = hashlib.shake_128(b"content").digest(12_000_001)


@pytest.fixture(scope="module")
def options() -> Iterator[S3Options]:
    with s3_bucket() as options:
        yield options


def do(options: S3Options, *effects: tuple[Effect[Any], Sent | None]) -> list[Any]:
    """What a new store replies to the effects, one after the other."""

    async def all_of_them() -> list[Any]:
        store = S3Store(options)
        services = Services(store, store, LocalLeases(), SystemClock(), SystemEntropy())
        try:
            return [await perform(effect, services, sent) for effect, sent in effects]
        finally:
            await store.close()

    return anyio.run(all_of_them)


def left_open(options: S3Options) -> list[tuple[str, str]]:
    """The multipart uploads that nobody has ended."""

    async def look() -> list[tuple[str, str]]:
        bucket = Bucket(options)
        found = await carry_out(bucket, uploads_below(EVERYTHING, bucket.terms))
        await bucket.close()
        return found

    return anyio.run(look)


@pytest.mark.parametrize(
    "size", [PART_BYTES_MIN - 1, PART_BYTES_MIN, PART_BYTES_MIN + 1, 2 * PART_BYTES_MIN, 12_000_001]
)
def test_a_long_body_becomes_one_part_with_its_digest(options: S3Options, size: int) -> None:
    upload, content = Prefix(fresh_upload()), CONTENT[:size]
    digest = hashlib.sha256(content).hexdigest()
    (staged,) = do(options, (StageBody(upload, "p", BODY, (FRESH,)), Sent(content, turn=1_000_003)))
    assert (staged.part, staged.whole, staged.hashes[0].hex) == (Part("p", size), True, digest)
    assert do(options, (HashParts(upload, (staged.part,), "sha256"), None)) == [digest]
    assert left_open(options) == []


def test_what_arrived_of_a_long_body_is_kept(options: S3Options) -> None:
    upload, cut_at = Prefix(fresh_upload()), 11_000_000
    (staged,) = do(options, (StageBody(upload, "p", BODY, (FRESH,)), Sent(CONTENT, cut_at)))
    assert (staged.part, staged.whole) == (Part("p", cut_at), False)
    assert staged.hashes[0].hex == hashlib.sha256(CONTENT[:cut_at]).hexdigest()


def test_of_a_body_that_is_too_long_nothing_stays(options: S3Options) -> None:
    upload = Prefix(fresh_upload())
    with pytest.raises(BodyTooLarge):
        do(options, (StageBody(upload, "p", BODY, (FRESH,), 11_000_000), Sent(CONTENT)))
    assert do(options, (ListKeys(upload), None))[0].names == ()
    assert left_open(options) == []


@pytest.mark.parametrize(
    "sizes",
    [(12_000_001,), (6_000_000, 6_000_001), (100, 12_000_001 - 100), (4_000_000,) * 3, (7_000_000, 1, 5_000_000)],
)
@pytest.mark.parametrize("uniform", [False, True])
def test_parts_of_any_sizes_are_joined(options: S3Options, sizes: tuple[int, ...], uniform: bool) -> None:
    options = replace(
        options, copy_threshold_bytes=PART_BYTES_MIN, copy_piece_bytes=PART_BYTES_MIN, uniform_parts=uniform
    )
    upload, key = Prefix(fresh_upload()), Key(f"v2/blobs/joined/{uniform}/{len(sizes)}/{sizes[0]}/data")
    parts, start = [], 0
    for number, size in enumerate(sizes):
        parts.append(Part(f"p{number}", size))
        do(options, (StageBody(upload, f"p{number}", BODY, ()), Sent(CONTENT[start : start + size], turn=4_000_000)))
        start += size
    assert do(options, (PromoteParts(upload, tuple(parts), key), None), (ReadKey(key), None)) == [True, CONTENT[:start]]
    assert left_open(options) == []


def test_what_a_killed_replica_left_open_ends_with_its_upload(options: S3Options) -> None:
    upload = Prefix(fresh_upload())

    async def begin() -> None:
        bucket = Bucket(options)
        key = f"{upload}part.p"
        upload_id = await multipart.begin(bucket, BeginPieces(key))
        await multipart.put(bucket, PutPiece(key, upload_id, 1, (CONTENT[:PART_BYTES_MIN],)))
        await bucket.close()

    anyio.run(begin)
    assert [key for key, _ in left_open(options)] == [f"{upload}part.p"]
    do(options, (DiscardUpload(upload), None))
    assert left_open(options) == []


def test_an_upload_that_is_cancelled_leaves_nothing_open(options: S3Options) -> None:
    class Endless:
        """A body without an end; the request is given up when two pieces of it have been taken."""

        def __init__(self, scope: anyio.CancelScope) -> None:
            self._scope = scope

        async def receive(self, sink: Any, size_max: int | None) -> bool:
            piece = memoryview(CONTENT)[:1_000_000]
            while True:
                if sink.size > 2 * PART_BYTES_MIN:
                    self._scope.cancel()
                await sink.make_room()
                await anyio.to_thread.run_sync(sink, [piece])

    async def run() -> None:
        store: Any = S3Store(options)
        with anyio.CancelScope() as scope:
            await store.stage_body(StageBody(Prefix(fresh_upload()), "p", BODY, (FRESH,)), Endless(scope))
        assert scope.cancelled_caught
        await store.close()

    anyio.run(run)
    assert left_open(options) == []
