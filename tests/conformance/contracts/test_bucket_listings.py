"""Listings of a store that cuts them off wherever it likes: every name exactly once and in order, or a failure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from angos.sansio.bucket.listing import list_folders, list_keys, sizes_below, uploads_below
from angos.sansio.bucket.requests import BeginPieces, List, Listed, Put, Terms
from angos.sansio.effects import ListFolders, ListKeys, Page, Prefix, StorageUnavailable
from angos.simulator.world.bucket import AMAZON, Bucket
from angos.simulator.world.carrying import Carrying, Plan
from angos.simulator.world.quirks import QuirkyBucket

PREFIX = Prefix("v2/ns/")
TERMS = Terms("the bucket", 5 << 20, 5 << 30, 5 << 30, 100_000_000, 4, 3, listing_max=4)

# Few characters, so that names begin like each other; those around "/" are what the order of folders stumbles over.
NAMES = st.sets(st.text("a!-./0", min_size=1, max_size=5).filter(lambda name: "" not in name.split("/")), max_size=12)


class Store(Bucket):
    """Has these keys. How many of the names that it could show it does show at a time, others decide."""

    def __init__(self, names: set[str], shown: Callable[[int], int]) -> None:
        super().__init__()
        self.shown = shown
        self.answer: Callable[[Listed], Listed] = lambda listed: listed
        for name in names:
            self.take(Put(f"{PREFIX}{name}", ()))

    def run(self, plan: Plan) -> Any:
        """What the plan comes to; its requests are all for listings."""
        return Carrying(self, plan, attempts=1, draw_writer=lambda: "writer").run()

    def page(self, request: List, limit: int) -> Listed:
        return self.answer(super().page(request, min(limit, self.shown(limit))))


def pages(store: Store, page: Callable[[str], Page]) -> list[str]:
    """All names, page by page."""
    names: list[str] = []
    for _ in count():
        found = page(names[-1] if names else "")
        names += found.names
        if not found.more:
            return names
    raise AssertionError


@given(names=NAMES, limit=st.integers(1, 5), data=st.data())
def test_every_key_is_listed_once_and_in_order(names: set[str], limit: int, data: st.DataObject) -> None:
    store = Store(names, lambda most: data.draw(st.integers(1, max(most, 1)), label="shown"))
    found = pages(store, lambda after: store.run(list_keys(ListKeys(PREFIX, after, limit), TERMS)))
    assert found == sorted(names)
    assert list(store.run(sizes_below(PREFIX, TERMS))) == sorted(names)


def test_a_page_of_keys_takes_one_request() -> None:
    """It took two: one for the 1,000 keys of a page, and one for the key that tells whether there is another page."""
    store = Store({f"{number:04}" for number in range(1500)}, lambda most: most)
    requests: list[Listed] = []

    def answer(listed: Listed) -> Listed:
        requests.append(listed)
        return listed

    store.answer = answer
    first = store.run(list_keys(ListKeys(PREFIX), replace(TERMS, listing_max=AMAZON.listing_max)))
    assert (len(requests), first.more) == (1, True)


@given(names=NAMES, limit=st.integers(1, 5), data=st.data())
def test_every_folder_is_listed_once_and_in_order(names: set[str], limit: int, data: st.DataObject) -> None:
    """Folders come in the order of their names, which is not the order of the store."""
    store = Store(names, lambda most: data.draw(st.integers(1, max(most, 1)), label="shown"))
    found = pages(store, lambda after: store.run(list_folders(ListFolders(PREFIX, after, limit), TERMS)))
    assert found == sorted({name.partition("/")[0] for name in names if "/" in name})


@given(names=NAMES.filter(lambda names: len(names) > 1), data=st.data())
def test_names_that_are_shown_again_or_out_of_order_are_a_failure(names: set[str], data: st.DataObject) -> None:
    """A store that lists otherwise than the registry relies on must not make it miss, or delete, anything."""
    store = Store(names, lambda most: most)
    wrong = data.draw(st.sampled_from(["turned round", "twice"]))

    def mixed_up(listed: Listed) -> Listed:
        keys = listed.keys[::-1] if wrong == "turned round" else listed.keys[:1] + listed.keys
        return Listed(keys, listed.folders, listed.next_token)

    store.answer = mixed_up
    with pytest.raises(StorageUnavailable, match="not in order"):
        store.run(list_keys(ListKeys(PREFIX, "", 100), Terms("the bucket", 1, 1, 1, 1, 1, 1)))


@pytest.mark.parametrize(
    "listing",
    [
        partial(list_keys, ListKeys(PREFIX, "", 100)),
        partial(list_folders, ListFolders(PREFIX, "", 100)),
        partial(sizes_below, PREFIX),
        partial(uploads_below, PREFIX),
    ],
    ids=["keys", "folders", "sizes", "uploads"],
)
def test_a_store_that_gives_its_first_page_again_and_again_is_not_asked_for_ever(listing: Callable[..., Plan]) -> None:
    """It takes no notice of the token. Joining the pages went on until there was no memory left."""
    bucket = QuirkyBucket(["goes in circles"], limits=replace(AMAZON, listing_max=TERMS.listing_max))
    for number in range(10):
        bucket.take(Put(f"{PREFIX}{number}/key", ()))
        bucket.take(BeginPieces(f"{PREFIX}{number}"))
    with pytest.raises(StorageUnavailable, match=r"again|not in order"):
        Carrying(bucket, listing(TERMS), attempts=1, draw_writer=lambda: "writer").run()
