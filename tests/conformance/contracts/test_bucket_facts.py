"""Facts about many keys of a bucket: what is there, in few requests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from angos.sansio.bucket import many
from angos.sansio.bucket.many import stat_keys, stats_below
from angos.sansio.bucket.requests import Put, Terms
from angos.sansio.effects import Key, Prefix, Stat, StatKeys, StatsBelow
from angos.simulator.world.bucket import Bucket, Limits
from angos.simulator.world.carrying import Carrying, Plan

TERMS = Terms("the bucket", 5 << 20, 5 << 30, 5 << 30, 100_000_000, 4, 3)
HEX = st.text("0123", min_size=3, max_size=3)
REASONS = st.sets(st.sampled_from(["a!own", "a!r/rev", "a/b!own", "b!own"]), max_size=4)


class CountingBucket(Bucket):
    """Counts what it is asked."""

    def __init__(self, keys: Sequence[str], listing_max: int) -> None:
        super().__init__(limits=Limits(listing_max=listing_max))
        for key in keys:
            self.take(Put(key, (b"v",)))
        self.asked: Counter[str] = Counter()

    def take(self, request: Any) -> Any:
        if hasattr(self, "asked"):
            self.asked[type(request).__name__] += 1
        return super().take(request)

    def run(self, plan: Plan) -> Any:
        """What the plan comes to."""
        return Carrying(self, plan, attempts=1, draw_writer=lambda: "writer").run()


@given(
    stored=st.dictionaries(HEX, REASONS, max_size=12),
    wanted=st.lists(HEX, max_size=8),
    listing_max=st.integers(1, 9),
    neighbours=st.integers(1, 9),
)
def test_what_is_found_is_what_is_there_however_it_is_asked_for(
    stored: dict[str, set[str]], wanted: list[str], listing_max: int, neighbours: int
) -> None:
    keys = [f"v2/ref/{each}/{name}" for each, names in stored.items() for name in names]
    terms = replace(TERMS, listing_max=listing_max)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(many, "NEIGHBOURS", neighbours)
        bucket = CountingBucket(keys, listing_max)
        found = bucket.run(stats_below(StatsBelow(tuple(Prefix(f"v2/ref/{each}/") for each in wanted)), terms))
        assert found == tuple(tuple((name, Stat(1, 0)) for name in sorted(stored.get(each, ()))) for each in wanted)
        asked = [Key(f"v2/ref/{each}/b!own") for each in wanted]
        stats = bucket.run(stat_keys(StatKeys(tuple(asked)), terms))
        assert stats == tuple(Stat(1, 0) if key in keys else None for key in asked)


def names(numbers: Sequence[int]) -> list[str]:
    return [f"v2/ref/{number:06}/a!own" for number in numbers]


def test_what_lies_close_together_is_listed_and_what_lies_far_apart_is_asked_for() -> None:
    """The requests are few in both cases: a listing for a thousand keys, or one request for each of what is wanted."""
    bucket = CountingBucket(names(range(20_000)), 1000)
    close = tuple(Prefix(f"v2/ref/{number:06}/") for number in range(0, 2000, 4))
    assert all(len(each) == 1 for each in bucket.run(stats_below(StatsBelow(close), TERMS)))
    assert bucket.asked["List"] <= 4
    bucket.asked.clear()
    far = tuple(Prefix(f"v2/ref/{number:06}/") for number in range(0, 20_000, 200))
    assert all(len(each) == 1 for each in bucket.run(stats_below(StatsBelow(far), TERMS)))
    assert bucket.asked["List"] <= len(far) + 3
    bucket.asked.clear()
    stats = bucket.run(stat_keys(StatKeys(tuple(Key(f"{each}a!own") for each in far)), TERMS))
    assert None not in stats
    assert bucket.asked["List"] <= 3
    assert bucket.asked["Head"] <= len(far)
