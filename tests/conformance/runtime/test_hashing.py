"""Digests that are continued by somebody else."""

from __future__ import annotations

import hashlib
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from angos.runtime import hashing
from angos.runtime.hashing import Hasher, can_export, hex_of, resume
from angos.sansio.effects import HashState

ALGORITHMS = st.sampled_from(["sha256", "sha512"])
PIECES = st.lists(st.binary(max_size=300), max_size=8)

exporting = pytest.mark.skipif(not can_export(), reason="this interpreter's libcrypto cannot export hash states")


@given(ALGORITHMS, PIECES)
def test_any_split_gives_the_digest_of_the_whole(algorithm: str, pieces: list[bytes]) -> None:
    hasher = Hasher(algorithm)
    for index, piece in enumerate(pieces):
        hasher.update((piece, bytearray(piece), memoryview(bytearray(piece)))[index % 3])
    whole = b"".join(pieces)
    assert hasher.hex() == hashlib.new(algorithm, whole).hexdigest() == hex_of(algorithm, whole)


@exporting
@given(ALGORITHMS, PIECES)
def test_a_digest_goes_on_where_it_was_exported(algorithm: str, pieces: list[bytes]) -> None:
    state = HashState(algorithm, "", None)
    whole = b""
    for piece in pieces:
        hasher = resume(state)
        assert hasher is not None
        hasher.update(piece)
        whole += piece
        state = hasher.state()
        assert state.hex == hashlib.new(algorithm, whole).hexdigest()
        assert hasher.state() == state  # exporting changes nothing


@exporting
def test_lengths_beyond_32_bits_are_kept() -> None:
    hasher = Hasher("sha256")
    exported = hasher.state().state
    assert exported is not None
    # As if 5 GiB of whole blocks had gone by; only the length can be checked, against libcrypto's own counting.
    size = 5 << 30
    forged = exported[:-8] + size.to_bytes(8, "big")
    context = hashing._families()["sha256"].restore(forged)
    assert context is not None
    assert hashing._families()["sha256"].export(context) == forged
    assert context.bits_high << 32 | context.bits_low == size * 8


@exporting
@given(ALGORITHMS, st.binary(max_size=400), st.data())
def test_a_damaged_state_is_refused(algorithm: str, content: bytes, data: st.DataObject) -> None:
    hasher = Hasher(algorithm)
    hasher.update(content)
    state = hasher.state()
    assert state.state is not None
    damage = bytearray(state.state)
    if data.draw(st.booleans()):
        damage[data.draw(st.integers(0, len(damage) - 1))] ^= data.draw(st.integers(1, 255))
    else:
        del damage[data.draw(st.integers(0, len(damage) - 1)) :]
    assert resume(HashState(algorithm, state.hex, bytes(damage))) is None


@given(ALGORITHMS, st.binary(max_size=300))
def test_a_foreign_state_is_refused(algorithm: str, state: bytes) -> None:
    assert resume(HashState(algorithm, hashlib.new(algorithm, b"seen").hexdigest(), state)) is None


def test_a_state_of_another_algorithm_is_refused() -> None:
    state = Hasher("sha256").state()
    assert resume(HashState("sha512", state.hex, state.state or b"")) is None


def test_no_state_starts_afresh_unless_bytes_were_seen() -> None:
    empty = hashlib.sha256().hexdigest()
    for known in ("", empty):
        hasher = resume(HashState("sha256", known, None))
        assert hasher is not None
        assert hasher.hex() == empty
    assert resume(HashState("sha256", hashlib.sha256(b"seen").hexdigest(), None)) is None


def test_buffers_are_let_go_of() -> None:
    buffer = bytearray(b"x" * 5000)
    before = sys.getrefcount(buffer)
    hasher = Hasher("sha256")
    for size in (10, 5000):
        hasher.update(memoryview(buffer)[:size])
    assert sys.getrefcount(buffer) == before
    buffer.append(0)  # a buffer that is still exported cannot be resized


def test_what_is_no_buffer_is_a_type_error() -> None:
    with pytest.raises((TypeError, BufferError)):
        Hasher("sha256").update("text")  # type: ignore[arg-type]


def test_without_libcrypto_digests_are_right_and_states_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashing, "_loaded", {})
    hasher = resume(HashState("sha256", "", None))
    assert hasher is not None
    hasher.update(b"some")
    assert hasher.state() == HashState("sha256", hashlib.sha256(b"some").hexdigest(), None)
    assert resume(HashState("sha256", hashlib.sha256(b"some").hexdigest(), b"\x01\x01" + bytes(44))) is None
    assert not can_export()


def test_a_libcrypto_that_cannot_be_loaded_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashing, "_loaded_libcrypto", lambda: "/nowhere/libcrypto.so.3")
    assert hashing._load() == {}
    monkeypatch.setattr(hashing, "_loaded_libcrypto", lambda: None)
    assert hashing._load() == {}


@exporting
def test_a_libcrypto_that_hashes_wrongly_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashing._Family, "hex_of", lambda family, context: "0" * 64)
    assert hashing._load() == {}
