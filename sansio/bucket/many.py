"""Facts about many keys of a bucket, in as few requests as it takes.

A listing gives the facts about a thousand keys in the time of one. So what is wanted is listed together with whatever
lies between, as long as that is not too much, and asked for one by one when it is.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from functools import partial

from angos.sansio.bucket.listing import check_order, list_stats
from angos.sansio.bucket.plans import stat_key
from angos.sansio.bucket.requests import List, SideBySide, Terms
from angos.sansio.effects import Key, ListStats, Prefix, Stat, StatKey, StatKeys, StatsBelow

NEIGHBOURS = 30
"""Keys of no interest, for each thing that is wanted, that are listed rather than to ask for each of these things: to
read so many names takes less time than a request."""

Facts = list[tuple[str, Stat]]
"""Whole keys, in order."""


async def stat_keys(effect: StatKeys, terms: Terms) -> tuple[Stat | None, ...]:
    """`StatKeys`."""
    wanted = sorted(set(effect.keys))
    listed, reached = await _between(wanted, terms)
    found: dict[str, Stat | None] = dict.fromkeys(wanted[:reached])
    found.update((key, stat) for key, stat in listed if key in found)
    rest = wanted[reached:]
    stats = await SideBySide(tuple(partial(stat_key, StatKey(Key(key))) for key in rest), terms.requests_at_once)
    found.update(zip(rest, stats, strict=True))
    return tuple(found[key] for key in effect.keys)


async def stats_below(effect: StatsBelow, terms: Terms) -> tuple[tuple[tuple[str, Stat], ...], ...]:
    """`StatsBelow`."""
    wanted = sorted(set(effect.prefixes))
    listed, reached = await _between(wanted, terms)
    found = {prefix: _below(prefix, listed) for prefix in wanted[:reached]}
    rest = wanted[reached:]
    facts = await SideBySide(tuple(partial(_all_below, Prefix(each), terms) for each in rest), terms.requests_at_once)
    found.update(zip(rest, facts, strict=True))
    return tuple(found[prefix] for prefix in effect.prefixes)


async def _between(wanted: Sequence[str], terms: Terms) -> tuple[Facts, int]:
    """What is stored from the first of these texts on, and how many of them are settled by that: all keys are known
    that are one of them or begin with it. The rest is not to be had by listings at a fair price."""
    facts: Facts = []
    reached = 0
    if len(wanted) < 2:
        return facts, 0
    common = _common_beginning(wanted[0], wanted[-1])
    while reached < len(wanted):
        before = reached
        # Some of these are keys, and a listing begins behind the text that it is given.
        after = wanted[reached][:-1]
        limit = min(terms.listing_max, NEIGHBOURS * (len(wanted) - reached))
        listed = await List(Prefix(common), after[len(common) :], "", limit)
        last = after[len(common) :]
        for (name, size), modified_ms in zip(listed.keys, listed.modified_ms, strict=True):
            if not name or name.endswith("/"):  # what consoles show as empty folders
                continue
            check_order(terms, Prefix(common), last, name)
            last = name
            if modified_ms is None:
                raise terms.unavailable(f"listing {common}", f"it does not say when {name} was written")
            if not facts or common + name > facts[-1][0]:  # it was not listed the time before
                facts.append((common + name, Stat(size, modified_ms)))
        if listed.next_token is None:
            return facts, len(wanted)
        end = common + last
        while reached < len(wanted) and wanted[reached] <= end and not end.startswith(wanted[reached]):
            reached += 1
        if (reached - before) * NEIGHBOURS <= len(listed.keys):
            break
    return facts, reached


def _common_beginning(first: str, last: str) -> str:
    """The folder that all texts between these two, both included, begin with."""
    length = next((index for index, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), 0)
    return first[: first.rfind("/", 0, length) + 1]


def _below(prefix: str, facts: Facts) -> tuple[tuple[str, Stat], ...]:
    start = bisect_left(facts, prefix, key=lambda fact: fact[0])
    cut = len(prefix)
    found = []
    for key, stat in facts[start:]:
        if not key.startswith(prefix):
            break
        found.append((key[cut:], stat))
    return tuple(found)


async def _all_below(prefix: Prefix, terms: Terms) -> tuple[tuple[str, Stat], ...]:
    entries: list[tuple[str, Stat]] = []
    after, more = "", True
    while more:
        page = await list_stats(ListStats(prefix, after), terms)
        entries += page.entries
        after, more = page.last, page.more
    return tuple(entries)
