"""What `angos.sansio.effects` promises about keys and their listings, asked of every store."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from angos.sansio.effects import (
    CopyKey,
    CreateKeys,
    DeleteKeys,
    HashKey,
    Key,
    ListFolders,
    ListKeys,
    Page,
    Prefix,
    ReadKey,
    StatKey,
    StatKeys,
    StatsBelow,
)
from tests.conformance.contracts.store import StoreUnderTest, fresh_prefix

SHARED = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def create(store: StoreUnderTest, *entries: tuple[str, bytes]) -> tuple[bool, ...]:
    return store.do(CreateKeys(tuple((Key(key), value) for key, value in entries)))


def read(store: StoreUnderTest, key: str) -> bytes | None:
    return store.do(ReadKey(Key(key)))


# --- values -----------------------------------------------------------------------------------------------------------


def test_an_absent_key_is_none_to_every_reader(store: StoreUnderTest) -> None:
    prefix = fresh_prefix()
    assert read(store, f"{prefix}a") is None
    assert store.do(StatKey(Key(f"{prefix}a/b/c"))) is None


@pytest.mark.parametrize("value", [b"", b"v", bytes(range(256)) * 300, b"m" * ((3 << 20) + 1)], ids=len)
def test_a_created_key_gives_back_its_value_and_size(store: StoreUnderTest, value: bytes) -> None:
    key = f"{fresh_prefix()}a/b"
    assert create(store, (key, value)) == (True,)
    for _ in range(3):
        assert read(store, key) == value
    stat = store.do(StatKey(Key(key)))
    assert stat is not None
    assert stat.size == len(value)


def test_a_folder_of_keys_is_no_key(store: StoreUnderTest) -> None:
    prefix = fresh_prefix()
    create(store, (f"{prefix}a/b", b"v"))
    assert read(store, f"{prefix}a") is None
    assert store.do(StatKey(Key(f"{prefix}a"))) is None
    assert read(store, f"{prefix}a/b/c") is None
    assert store.do(StatKey(Key(f"{prefix}a/b/c"))) is None


def test_creating_again_changes_nothing_and_says_so(store: StoreUnderTest) -> None:
    key, other = (f"{fresh_prefix()}{name}" for name in "ab")
    create(store, (key, b"first"))
    assert create(store, (key, b"second"), (other, b"new"), (key, b"")) == (False, True, False)
    assert read(store, key) == b"first"
    assert read(store, other) == b"new"


def test_of_equal_keys_in_one_effect_the_first_counts(store: StoreUnderTest) -> None:
    prefix = fresh_prefix()
    entries = ((f"{prefix}a", b"1"), (f"{prefix}a", b"2"), (f"{prefix}e", b""), (f"{prefix}e", b""))
    assert create(store, *entries) == (True, False, True, False)
    assert read(store, f"{prefix}a") == b"1"


@pytest.mark.parametrize("empty", [False, True])
def test_of_racing_writers_exactly_one_wins(store: StoreUnderTest, empty: bool) -> None:
    for _ in range(5):
        key = Key(f"{fresh_prefix()}deep/in/folders")
        values = [b"" if empty else b"%d" % number * 1000 for number in range(12)]
        created = store.do_together([CreateKeys(((key, value),)) for value in values])
        assert sum(won for (won,) in created) == 1
        assert read(store, key) == values[created.index((True,))]


def test_a_deleted_key_is_gone_and_can_be_created_again(store: StoreUnderTest) -> None:
    key = Key(f"{fresh_prefix()}a")
    create(store, (key, b"first"))
    assert read(store, key) == b"first"
    store.do(DeleteKeys((key, Key(f"{key}/never/was"), Key(f"{fresh_prefix()}never/was"))))
    assert read(store, key) is None
    assert create(store, (key, b"second")) == (True,)
    assert read(store, key) == b"second"


def test_a_blob_is_read_as_it_was_created(store: StoreUnderTest) -> None:
    value = b'{"schemaVersion": 2}'
    encoded = hashlib.sha256(value).hexdigest()
    key = f"v2/blobs/sha256/{encoded[:2]}/{encoded}/data"
    create(store, (key, value), (f"{fresh_prefix()}beside", b""))
    for _ in range(3):
        assert read(store, key) == value
    store.do(DeleteKeys((Key(key),)))
    assert read(store, key) is None


def test_keys_of_both_stores_in_one_effect_keep_their_order(store: StoreUnderTest) -> None:
    prefix = fresh_prefix()
    blob = f"v2/blobs/sha512/00/{prefix.split('/')[2]}/data"
    assert create(store, (f"{prefix}a", b"1"), (blob, b"2"), (f"{prefix}b", b"3")) == (True, True, True)
    assert create(store, (f"{prefix}c", b"4"), (blob, b"5"), (f"{prefix}a", b"6")) == (True, False, False)
    store.do(DeleteKeys((Key(f"{prefix}a"), Key(blob))))
    assert store.do(ListKeys(Prefix(prefix))).names == ("b", "c")
    assert store.do(StatKey(Key(blob))) is None


# --- maintenance ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [b"", b"v", b"m" * ((3 << 20) + 1)], ids=len)
def test_a_copy_has_the_bytes_and_outlives_what_it_was_made_of(store: StoreUnderTest, value: bytes) -> None:
    key, copy = Key(f"{fresh_prefix()}a/b"), Key(f"_lost_and_found/{fresh_prefix()}a/b")
    create(store, (key, value))
    assert store.do(CopyKey(key, copy)) is True
    assert (read(store, key), read(store, copy)) == (value, value)
    store.do(DeleteKeys((key,)))
    assert read(store, key) is None
    assert read(store, copy) == value


def test_a_copy_replaces_nothing_and_needs_something_to_copy(store: StoreUnderTest) -> None:
    prefix = fresh_prefix()
    key, copy, never = (Key(f"{prefix}{name}") for name in ("key", "copy", "never"))
    create(store, (key, b"new"), (copy, b"old"))
    assert store.do(CopyKey(key, copy)) is False
    assert read(store, copy) == b"old"
    assert store.do(CopyKey(never, Key(f"{prefix}other"))) is None
    assert store.do(CopyKey(Key(f"{never}/deep"), Key(f"{prefix}other"))) is None
    assert read(store, f"{prefix}other") is None


def test_a_blob_is_copied_within_the_store_of_blobs(store: StoreUnderTest) -> None:
    key = Key(f"v2/blobs/sha256/00/{fresh_prefix().split('/')[2]}/data")
    create(store, (key, b"wrong"))
    assert store.do(CopyKey(key, Key(f"_lost_and_found/{key}"))) is True
    store.do(DeleteKeys((key,)))
    assert read(store, f"_lost_and_found/{key}") == b"wrong"


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("value", [b"", b"v", b"m" * ((3 << 20) + 1)], ids=len)
def test_a_digest_is_that_of_the_bytes_whatever_the_key_says(
    store: StoreUnderTest, value: bytes, algorithm: str
) -> None:
    key = Key(f"v2/blobs/sha256/00/{fresh_prefix().split('/')[2]}/data")
    create(store, (key, value))
    wanted = hashlib.new(algorithm, value).hexdigest()
    assert store.do(HashKey(key, algorithm)) == wanted
    assert store.do(HashKey(key, algorithm, bytes_per_second=1 << 30)) == wanted
    assert store.do(HashKey(Key(f"{key}/never"), algorithm)) is None


# --- listings ---------------------------------------------------------------------------------------------------------

COMPONENTS = st.sampled_from(["a", "a!", "a-b", "a.b", "ab", "b", "0", "Z", "_", "a!r", "zz", "~"])
NAMES = st.lists(COMPONENTS, min_size=1, max_size=4).map("/".join)
AFTER = st.one_of(st.just(""), NAMES, NAMES.map(lambda name: f"{name}/"), st.text("ab/!~", max_size=6))


def without_folders(names: set[str]) -> list[str]:
    """The names that are no folder of another one: a directory cannot hold both."""
    folders = {name[:end] for name in names for end in range(len(name)) if name[end] == "/"}
    return sorted(names - folders)


def page_of(names: list[str], after: str, limit: int) -> Page:
    later = [name for name in sorted(names) if name > after]
    return Page(tuple(later[:limit]), len(later) > limit)


def folders_of(names: list[str]) -> list[str]:
    return sorted({name.partition("/")[0] for name in names if "/" in name})


@SHARED
@given(names=st.sets(NAMES, max_size=25), after=AFTER, limit=st.integers(1, 12), inside=COMPONENTS, data=st.data())
def test_listings_are_pages_of_the_sorted_names(
    store: StoreUnderTest, names: set[str], after: str, limit: int, inside: str, data: st.DataObject
) -> None:
    prefix = fresh_prefix()
    present = without_folders(names)
    if present:
        create(store, *((prefix + name, b"" if len(name) % 2 else b"v") for name in present))
    for _ in range(2):
        assert store.do(ListKeys(Prefix(prefix), after, limit)) == page_of(present, after, limit)
        assert store.do(ListFolders(Prefix(prefix), after, limit)) == page_of(folders_of(present), after, limit)
        below = [name.removeprefix(f"{inside}/") for name in present if name.startswith(f"{inside}/")]
        assert store.do(ListKeys(Prefix(f"{prefix}{inside}/"), after, limit)) == page_of(below, after, limit)
        if not present:
            return
        gone = data.draw(st.sets(st.sampled_from(present)))
        store.do(DeleteKeys(tuple(Key(prefix + name) for name in sorted(gone))))
        present = [name for name in present if name not in gone]


@SHARED
@given(names=st.sets(NAMES, max_size=30), limit=st.integers(1, 7))
def test_pages_joined_together_are_the_whole(store: StoreUnderTest, names: set[str], limit: int) -> None:
    prefix = Prefix(fresh_prefix())
    present = without_folders(names)
    if present:
        create(store, *((prefix + name, b"") for name in present))
    joined: list[str] = []
    more = True
    while more:
        page = store.do(ListKeys(prefix, joined[-1] if joined else "", limit))
        joined += page.names
        more = page.more
    assert joined == present


def test_listing_under_a_key_or_nothing_is_an_empty_page(store: StoreUnderTest) -> None:
    prefix = fresh_prefix()
    create(store, (f"{prefix}a", b"v"))
    for inside in (f"{prefix}a/", f"{prefix}b/", f"{prefix}b/c/d/"):
        assert store.do(ListKeys(Prefix(inside))) == Page((), False)
        assert store.do(ListFolders(Prefix(inside))) == Page((), False)


def test_every_change_shows_in_the_next_listing(store: StoreUnderTest) -> None:
    prefix = Prefix(fresh_prefix())
    present: list[str] = []
    for number in range(60):
        name = f"{number * 7919 % 100:02}-{number}"
        create(store, (f"{prefix}{name}", b""))
        present.append(name)
        assert store.do(ListKeys(prefix)).names == tuple(sorted(present))
        if number % 3 == 2:
            store.do(DeleteKeys((Key(f"{prefix}{present.pop(0)}"),)))
            assert store.do(ListKeys(prefix)).names == tuple(sorted(present))


def test_thousands_of_names_are_paged_in_order(store: StoreUnderTest) -> None:
    prefix = Prefix(fresh_prefix())
    names = sorted(f"{number * 7919 % 10007:05}" for number in range(3000))
    create(
        store, *((f"{prefix}{name}/k", b"") for name in names[:2000]), *((f"{prefix}{n}", b"") for n in names[2000:])
    )
    assert store.do(ListFolders(prefix, names[1000], 100)) == Page(tuple(names[1001:1101]), True)
    assert store.do(ListFolders(prefix, names[1950], 100)) == Page(tuple(names[1951:2000]), False)
    assert store.do(ListKeys(prefix, f"{names[1997]}/k", 4)).names == (
        f"{names[1998]}/k",
        f"{names[1999]}/k",
        names[2000],
        names[2001],
    )


@settings(SHARED, max_examples=12)
@given(
    names=st.sets(NAMES, max_size=25),
    folders=st.lists(COMPONENTS, max_size=6),
    keys=st.lists(NAMES, max_size=8),
    beginning=st.sampled_from(["a", "a!", "z", "0"]),
)
def test_facts_about_many_keys_are_those_about_each(
    store: StoreUnderTest, names: set[str], folders: list[str], keys: list[str], beginning: str
) -> None:
    """In the order in which they were asked for, absent keys and empty folders among them."""
    prefix = fresh_prefix()
    present = without_folders(names)
    if present:
        create(store, *((prefix + name, b"" if len(name) % 2 else b"v") for name in present))
    prefixes = (*(Prefix(f"{prefix}{folder}/") for folder in folders), Prefix(prefix + beginning))
    below = store.do(StatsBelow(prefixes))
    assert len(below) == len(prefixes)
    for each, entries in zip(prefixes, below, strict=True):
        found = [entry for entry in entries if entry[0]]
        cut = len(each) - len(prefix)
        wanted = [name[cut:] for name in present if (prefix + name).startswith(each) and prefix + name != each]
        assert [name for name, _ in found] == wanted
        assert [stat.size for _, stat in found] == [1 - len(each[len(prefix) :] + name) % 2 for name in wanted]
    stats = store.do(StatKeys(tuple(Key(prefix + key) for key in keys)))
    assert [stat and stat.size for stat in stats] == [1 - len(key) % 2 if key in present else None for key in keys]
