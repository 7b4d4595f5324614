"""What `angos.sansio.effects` promises about bodies and parts, asked of every store."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from angos.sansio.effects import (
    BodyTooLarge,
    CreateKeys,
    DiscardPart,
    DiscardUpload,
    HashParts,
    HashState,
    Key,
    ListKeys,
    Part,
    Prefix,
    PromoteParts,
    ReadKey,
    StageBody,
    Staged,
    StatKey,
)
from tests.conformance.contracts.store import BODY, Sent, StoreUnderTest, fresh_prefix, fresh_upload

FRESH = HashState("sha256", "", None)
SIZES = [0, 1, 65_535, 65_536, 65_537, 100_000, 262_144, 262_145, 5_000_003]


def bytes_of(size: int, seed: int = 0) -> bytes:
    return hashlib.shake_128(b"%d" % seed).digest(size)


def stage(
    store: StoreUnderTest,
    upload: str,
    part: str,
    content: bytes,
    hashes: tuple[HashState, ...] = (FRESH,),
    size_max: int | None = None,
    **how: int,
) -> Staged:
    return store.do(StageBody(Prefix(upload), part, BODY, hashes, size_max), Sent(content, **how))


def blob_key() -> Key:
    return Key(fresh_prefix().replace("v2/ns/", "v2/blobs/") + "data")


def bytes_at(store: StoreUnderTest, key: Key) -> bytes | None:
    return store.do(ReadKey(key))


# --- staging ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_a_body_becomes_a_part_with_its_size_and_digests(store: StoreUnderTest, size: int) -> None:
    upload, content = fresh_upload(), bytes_of(size)
    staged = stage(store, upload, "p", content, (FRESH, HashState("sha512", "", None)), size_max=size)
    assert (staged.part, staged.whole) == (Part("p", size), True)
    assert [state.algorithm for state in staged.hashes] == ["sha256", "sha512"]
    assert [state.hex for state in staged.hashes] == [
        hashlib.sha256(content).hexdigest(),
        hashlib.sha512(content).hexdigest(),
    ]
    key = blob_key()
    assert store.do(PromoteParts(Prefix(upload), (staged.part,), key)) is True
    assert bytes_at(store, key) == content


@pytest.mark.parametrize("turn", [1, 777, 65_536, 1 << 20])
def test_how_a_body_arrives_does_not_matter(store: StoreUnderTest, turn: int) -> None:
    content = bytes_of(1000 if turn == 1 else 700_000)
    staged = stage(store, fresh_upload(), "p", content, turn=turn)
    assert staged.hashes[0].hex == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("cut_at", [0, 1, 65_536, 65_537, 400_000])
def test_what_arrived_of_a_cut_body_is_kept(store: StoreUnderTest, cut_at: int) -> None:
    upload, content = fresh_upload(), bytes_of(500_000)
    staged = stage(store, upload, "p", content, cut_at=cut_at)
    assert (staged.part, staged.whole) == (Part("p", cut_at), False)
    found = hashlib.sha256(content[:cut_at]).hexdigest()
    assert staged.hashes[0].hex == found
    assert store.do(HashParts(Prefix(upload), (staged.part,), "sha256")) == found


@pytest.mark.parametrize("size_max", [0, 10, 65_536, 300_000])
def test_a_body_that_is_too_long_leaves_nothing(store: StoreUnderTest, size_max: int) -> None:
    upload = fresh_upload()
    with pytest.raises(BodyTooLarge):
        stage(store, upload, "p", bytes_of(size_max + 1), size_max=size_max)
    assert store.do(HashParts(Prefix(upload), (Part("p", size_max),), "sha256")) is None
    assert store.do(ListKeys(Prefix(upload))).names == ()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.integers(0, 400), min_size=1, max_size=5), algorithm=st.sampled_from(["sha256", "sha512"]))
def test_digests_go_on_from_part_to_part(store: StoreUnderTest, sizes: list[int], algorithm: str) -> None:
    upload, whole = fresh_upload(), b""
    hashes: tuple[HashState, ...] = (HashState(algorithm, "", None),)
    for number, size in enumerate(sizes):
        content = bytes_of(size, number)
        whole += content
        hashes = stage(store, upload, f"p{number}", content, hashes).hashes
        assert hashes[0].hex == hashlib.new(algorithm, whole).hexdigest()
        assert hashes[0].state is not None


def test_a_part_without_digests_to_continue_has_none(store: StoreUnderTest) -> None:
    assert stage(store, fresh_upload(), "p", b"x", ()).hashes == ()


# --- parts ------------------------------------------------------------------------------------------------------------


def test_parts_are_hashed_in_the_order_given(store: StoreUnderTest) -> None:
    upload = Prefix(fresh_upload())
    contents = [bytes_of(size, size) for size in (0, 5, 1_500_000, 70_000)]
    parts = [stage(store, upload, f"p{number}", content).part for number, content in enumerate(contents)]
    backwards = b"".join(reversed(contents))
    found = store.do(HashParts(upload, tuple(reversed(parts)), "sha512"))
    assert found == hashlib.sha512(backwards).hexdigest()
    assert store.do(HashParts(upload, (*parts, Part("missing", 1)), "sha256")) is None
    assert store.do(HashParts(upload, (), "sha256")) == hashlib.sha256().hexdigest()


@pytest.mark.parametrize("sizes", [(), (0,), (7,), (0, 0), (3, 0, 2_000_001, 65_536)])
def test_parts_become_a_value_and_stay(store: StoreUnderTest, sizes: tuple[int, ...]) -> None:
    upload, key = Prefix(fresh_upload()), blob_key()
    contents = [bytes_of(size, size) for size in sizes]
    parts = tuple(stage(store, upload, f"p{number}", content).part for number, content in enumerate(contents))
    for _ in range(2):  # a client whose answer was lost asks again
        assert store.do(PromoteParts(upload, parts, key)) is True
        assert bytes_at(store, key) == b"".join(contents)
    found = store.do(HashParts(upload, parts, "sha256"))
    assert found == hashlib.sha256(b"".join(contents)).hexdigest()


def test_a_value_outlives_its_upload(store: StoreUnderTest) -> None:
    upload, key = Prefix(fresh_upload()), blob_key()
    part = stage(store, upload, "p", b"content").part
    store.do(PromoteParts(upload, (part,), key))
    store.do(DiscardUpload(upload))
    assert bytes_at(store, key) == b"content"


@pytest.mark.parametrize("count", [1, 2])
def test_promoting_replaces_what_the_key_held(store: StoreUnderTest, count: int) -> None:
    upload, key = Prefix(fresh_upload()), blob_key()
    store.do(CreateKeys(((key, b"damaged"),)))
    assert bytes_at(store, key) == b"damaged"
    parts = tuple(stage(store, upload, f"p{number}", b"good").part for number in range(count))
    assert store.do(PromoteParts(upload, parts, key)) is True
    assert bytes_at(store, key) == b"good" * count
    stat = store.do(StatKey(key))
    assert stat is not None
    assert stat.size == 4 * count


@pytest.mark.parametrize("missing", [Part("missing", 4), Part("p", 3)])
def test_promoting_a_missing_part_does_nothing(store: StoreUnderTest, missing: Part) -> None:
    upload, key = Prefix(fresh_upload()), blob_key()
    part = stage(store, upload, "p", b"good").part
    for parts in ((missing,), (part, missing), (missing, part)):
        assert store.do(PromoteParts(upload, parts, key)) is False
    assert bytes_at(store, key) is None


def test_a_discarded_part_is_gone_and_the_others_stay(store: StoreUnderTest) -> None:
    upload = Prefix(fresh_upload())
    parts = tuple(stage(store, upload, name, b"good").part for name in ("a", "b"))
    for _ in range(2):
        store.do(DiscardPart(upload, "a"))
    assert store.do(HashParts(upload, parts[:1], "sha256")) is None
    assert store.do(HashParts(upload, parts[1:], "sha256")) == hashlib.sha256(b"good").hexdigest()


def test_a_discarded_upload_is_gone_and_its_neighbours_stay(store: StoreUnderTest) -> None:
    upload = Prefix(fresh_upload())
    neighbour = Prefix(f"{upload[:-1]}0/")
    for prefix in (upload, neighbour):
        stage(store, prefix, "p", b"good")
        store.do(CreateKeys(((Key(f"{prefix}chunk.0"), b"record"), (Key(f"{prefix}session.1.any"), b""))))
    for _ in range(2):
        store.do(DiscardUpload(upload))
    assert store.do(ListKeys(upload)).names == ()
    assert store.do(HashParts(upload, (Part("p", 4),), "sha256")) is None
    assert bytes_at(store, Key(f"{neighbour}chunk.0")) == b"record"
    assert store.do(HashParts(neighbour, (Part("p", 4),), "sha256")) is not None
