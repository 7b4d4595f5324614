"""What a store refuses: parts of under 5 MiB or over 5 GiB, more than 10,000 of them, copies of more than 5 GiB.

Bytes are pretended, so that sizes can be any; the simulated bucket refuses to the byte.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from angos.sansio.bucket import plans
from angos.sansio.bucket.requests import CopyPiece, Fetch, Terms
from angos.sansio.effects import CreateKeys, Key, Part, Prefix, PromoteParts
from angos.sansio.oci.digest import Digest
from angos.sansio.steps import Step
from angos.sansio.upload_session import Chunk, chunk_key
from angos.simulator.registry import SimulatedRegistry
from angos.simulator.world.bucket import AMAZON
from tests.conformance.contracts.pretended_bytes import PretendedBucket, Span

LEAST, MOST, PARTS = AMAZON.piece_bytes_min, AMAZON.piece_bytes_max, AMAZON.pieces_max
GIB = 1 << 30
MIB = 1 << 20
UPLOAD = Prefix("v2/repositories/x/_uploads/u/u.")
BLOB = Key("v2/blobs/sha256/aa/aa/data")


def terms(uniform: int | None = None, copied: int = 100_000_000, threshold: int = MOST) -> Terms:
    return Terms("the bucket", LEAST, MOST, threshold, copied, 4, 3, uniform_piece_bytes=uniform)


def joined(sizes: list[int], **how: Any) -> PretendedBucket:
    """After parts of these sizes have become a blob."""
    bucket = PretendedBucket()
    parts = tuple(Part(f"{number:06}", size) for number, size in enumerate(sizes))
    for part in parts:
        bucket.add(plans.part_key(UPLOAD, part.name), part.size)
    assert bucket.run(plans.promote_parts(PromoteParts(UPLOAD, parts, BLOB), terms(**how))) is True
    wanted = [Span(plans.part_key(UPLOAD, part.name), 0, part.size) for part in parts if part.size]
    assert list(bucket.objects[BLOB].content.spans) == wanted or not wanted
    assert bucket.uploads == {}
    return bucket


SIZES = st.one_of(
    st.integers(0, 100),
    st.integers(LEAST - 2, LEAST + 2),
    st.integers(2 * LEAST - 2, 2 * LEAST + 2),
    st.integers(MOST - 2, MOST + 2),
    st.integers(0, 40 * GIB),
)


@settings(max_examples=300)
@given(
    sizes=st.lists(SIZES, max_size=12),
    uniform=st.none() | st.integers(LEAST, 100 * MIB),
    copied=st.integers(LEAST, MOST),
    threshold=st.integers(1, MOST),
)
def test_parts_of_any_sizes_are_joined_within_the_limits(
    sizes: list[int], uniform: int | None, copied: int, threshold: int
) -> None:
    bucket = joined(sizes, uniform=uniform, copied=copied, threshold=threshold)
    assert bucket.held_most <= max(LEAST, uniform or 0, sum(sizes) // (PARTS - 1) + 1), "memory is bounded"


@pytest.mark.parametrize("size", [MOST, MOST + 1, 12 * GIB, 5_000 * GIB])
def test_what_is_larger_than_one_copy_can_be_is_copied_inside_the_store_in_pieces(size: int) -> None:
    bucket = joined([size])
    assert (bucket.fetched, bucket.held_most) == (0, 0), "no byte has passed through the registry"
    assert (bucket.copies > 0) == (size > MOST)


@pytest.mark.parametrize("uniform", [None, LEAST])
@pytest.mark.parametrize(("count", "size"), [(10_001, LEAST), (12_000, LEAST + 1), (20_000, MIB)])
def test_more_chunks_than_an_object_can_have_parts_become_one(count: int, size: int, uniform: int | None) -> None:
    bucket = joined([size] * count, uniform=uniform)
    assert bucket.held_most <= 2 * LEAST, "one piece is held at a time"


@pytest.mark.parametrize("sizes", [[6 * GIB, 1, 7 * GIB], [100, 12 * GIB, 3], [LEAST - 1, LEAST, 6 * GIB]])
def test_a_part_that_vanishes_leaves_no_blob(sizes: list[int]) -> None:
    """Whichever it is, right before it is read for the first time."""
    parts = tuple(Part(f"{number:06}", size) for number, size in enumerate(sizes))
    for number in range(len(parts)):
        bucket = PretendedBucket()
        for part in parts:
            bucket.add(plans.part_key(UPLOAD, part.name), part.size)
        gone = plans.part_key(UPLOAD, parts[number].name)

        def vanishing(step: Step[Any], gone: str = gone) -> str | None:
            read = step.source if isinstance(step, CopyPiece) else step.key if isinstance(step, Fetch) else None
            return gone if read == gone else None

        bucket.vanishing = vanishing
        assert bucket.run(plans.promote_parts(PromoteParts(UPLOAD, parts, BLOB), terms())) is False
        assert BLOB not in bucket.objects


def test_an_upload_of_more_than_ten_thousand_chunks_is_closed() -> None:
    """By the operations of the core. The first 10,050 chunks are written as a replica left them behind."""
    registry = SimulatedRegistry()
    location = registry.send("POST", "/v2/a/blobs/uploads/").header("location")
    assert location is not None
    store = registry.world.store
    (session,) = store.names("v2/repositories/a/_uploads/")
    prefix, content = Prefix(session.partition("session.")[0]), b""
    entries = []
    for number in range(10_050):
        chunk = Chunk(len(content), Part(f"p{number}", 4), (), f"p{number - 1}" if number else None)
        entries += [
            (Key(f"{prefix}part.p{number}"), b"%04x" % number),
            (chunk_key(prefix, chunk.offset), chunk.to_json()),
        ]
        content += b"%04x" % number
    registry.perform(CreateKeys(tuple(entries)))
    assert registry.send("GET", location).header("range") == f"0-{len(content) - 1}"
    start = len(content)
    content += b"the end"
    digest = Digest.of(content)
    fields = {"content-range": f"{start}-{len(content) - 1}"}
    assert registry.send("PUT", f"{location}?digest={digest}", fields, b"the end").status == 201
    assert registry.send("GET", f"/v2/a/blobs/{digest}").body == content
    assert store.names("v2/repositories/a/_uploads/") == []
