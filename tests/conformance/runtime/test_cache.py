"""What one process remembers, for how long, and how much."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from angos.runtime.cache import local
from angos.runtime.cache.local import ENTRY_BYTES, LocalCache
from angos.sansio.effects import ReadCache, WriteCache
from angos.sansio.secret import Secret


class Time:
    """The monotonic clock, moved by the test."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    time = Time()
    monkeypatch.setattr(local, "monotonic", time)
    return time


def test_a_value_is_remembered_as_long_as_was_said(time: Time) -> None:
    cache = LocalCache()
    cache.write_cache(WriteCache("name", b"value", 60))
    time.seconds += 59.9
    assert cache.read_cache(ReadCache("name")) == b"value"
    time.seconds += 0.1
    assert cache.read_cache(ReadCache("name")) is None


def test_variants_of_a_name_are_apart() -> None:
    cache = LocalCache()
    cache.write_cache(WriteCache("name", b"one", 60, Secret("a")))
    cache.write_cache(WriteCache("name", b"two", 60, Secret("b")))
    assert cache.read_cache(ReadCache("name", Secret("a"))) == b"one"
    assert cache.read_cache(ReadCache("name", Secret("b"))) == b"two"
    assert cache.read_cache(ReadCache("name")) is None
    assert cache.read_cache(ReadCache("namea")) is None


def test_the_last_write_counts(time: Time) -> None:
    cache = LocalCache()
    cache.write_cache(WriteCache("name", b"long", 60))
    cache.write_cache(WriteCache("name", b"", 1))
    assert cache.read_cache(ReadCache("name")) == b""
    time.seconds += 2
    assert cache.read_cache(ReadCache("name")) is None


def test_no_time_forgets() -> None:
    cache = LocalCache()
    for seconds in (0, -1):
        cache.write_cache(WriteCache("name", b"value", 60))
        cache.write_cache(WriteCache("name", b"value", seconds))
        assert cache.read_cache(ReadCache("name")) is None


def test_what_was_used_longest_ago_goes_first() -> None:
    cache = LocalCache(3 * (ENTRY_BYTES + 10))
    for name in ("a", "b", "c"):
        cache.write_cache(WriteCache(name, b"value", 60))
    assert cache.read_cache(ReadCache("a")) == b"value"
    cache.write_cache(WriteCache("d", b"value", 60))
    assert [cache.read_cache(ReadCache(name)) for name in "abcd"] == [b"value", None, b"value", b"value"]


def test_a_value_that_is_too_large_displaces_nothing_but_its_predecessor() -> None:
    cache = LocalCache(2000)
    cache.write_cache(WriteCache("small", b"value", 60))
    cache.write_cache(WriteCache("large", b"value", 60))
    cache.write_cache(WriteCache("large", bytes(3000), 60))
    assert cache.read_cache(ReadCache("large")) is None
    assert cache.read_cache(ReadCache("small")) == b"value"


@given(
    st.lists(
        st.tuples(
            st.sampled_from("abcdefgh"),
            st.sampled_from(["", "x"]),
            st.binary(max_size=900),
            st.sampled_from([-1, 0, 60]),
        )
    )
)
def test_it_never_gives_anything_but_the_last_value_and_never_grows_beyond_its_bound(
    writes: list[tuple[str, str, bytes, int]],
) -> None:
    cache, last = LocalCache(4000), dict[tuple[str, str], bytes]()
    for name, variant, value, seconds in writes:
        cache.write_cache(WriteCache(name, value, seconds, Secret(variant)))
        last[name, variant] = value
        kept = {
            key: found for key in last if (found := cache.read_cache(ReadCache(key[0], Secret(key[1])))) is not None
        }
        assert kept.items() <= last.items()
        assert ((name, variant) in kept) == (seconds > 0)
        assert sum(len(value) + ENTRY_BYTES for value in kept.values()) <= 4000
