"""Lists of tags: the same names as asking for each tag by itself, in few effects."""

from __future__ import annotations

import json
from collections.abc import Coroutine
from typing import Any, TypeVar

from hypothesis import example, given
from hypothesis import strategies as st

from angos.sansio import layout
from angos.sansio.config import RegistryConfig
from angos.sansio.effects import Key
from angos.sansio.http.message import Inline
from angos.sansio.http.query import Query
from angos.sansio.layout import TagEvent
from angos.sansio.oci.digest import Digest
from angos.sansio.oci.reference import Namespace, Tag
from angos.sansio.operation import Done, Operation
from angos.sansio.tags import list_tags, resolve_tag
from angos.simulator.world.clock import Clock
from angos.simulator.world.store import KeyWorld

T = TypeVar("T")

A = Namespace("a")
NAMES = st.text("ab.-_Z", min_size=1, max_size=4).filter(lambda name: name[0] not in ".-")
EVENTS = st.builds(
    TagEvent,
    st.integers(1, 4),  # so that many are of the same millisecond
    st.sampled_from(["set", "del"]),
    st.sampled_from([Digest.of(b"one"), Digest.of(b"two")]),
)


class Store:
    """What is stored, and one operation at a time on it. Counts its effects."""

    def __init__(self, events: dict[str, list[TagEvent]]) -> None:
        self.world = KeyWorld(Clock(tick_ms=1), {})
        self.effects = 0
        for name, own in events.items():
            for event in own:
                self.world._put(Key(f"{layout.tag_events_prefix(A, Tag(name))}{event}"), b"")
        self.world._put(layout.revision_key(A, Digest.of(b"one")), b"")

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        operation = Operation(coroutine)
        step = operation.resume()
        while not isinstance(step, Done):
            self.effects += 1
            step = operation.resume(self.world.apply(step, "p"))
        return step.value

    def tags(self, query: str) -> tuple[list[str], bool]:
        """Those of one page, and whether another one follows."""
        response = self.run(list_tags(A, Query(query), RegistryConfig()))
        assert isinstance(response.body, Inline)
        return json.loads(response.body.value)["tags"], any(name == "Link" for name, _ in response.headers)


@given(
    events=st.dictionaries(NAMES, st.lists(EVENTS, min_size=1, max_size=40), max_size=8),
    last=NAMES | st.sampled_from(["", "a!", "a!0", "a!/", "a/", "~"]),
    size=st.integers(1, 9),
)
@example({"a": [TagEvent(2, "del", Digest.of(b"one")), TagEvent(2, "set", Digest.of(b"one"))]}, "", 1)
def test_a_page_has_the_tags_that_are_there(events: dict[str, list[TagEvent]], last: str, size: int) -> None:
    store = Store(events)
    live = [name for name in sorted(events) if store.run(resolve_tag(A, Tag(name))) is not None and name > last]
    assert store.tags(f"n={size}&last={last}") == (live[:size], len(live) > size)


def test_a_page_takes_one_effect_however_many_tags_it_has() -> None:
    """It took one for each tag, each a request to a bucket."""
    store = Store({f"v{number:03}": [TagEvent(1, "set", Digest.of(b"one"))] for number in range(500)})
    names, more = store.tags("n=300")
    assert (len(names), more, store.effects) == (300, True, 1)


def test_a_tag_with_many_events_is_passed_over() -> None:
    """Those that decide nothing are not listed: of an old tag that was pushed often before its events were moved."""
    often = [TagEvent(number, "set", Digest.of(b"one")) for number in range(1, 5000)]
    store = Store({"a": often, "b": often, "c": often[:1]})
    assert store.tags("n=10") == (["a", "b", "c"], False)
    assert store.effects < 5
