"""All that a prefix holds, for whoever needs it as a whole. Who can do with a page at a time asks for pages."""

from __future__ import annotations

from angos.sansio.effects import ListKeys, ListStats, Prefix, Stat


async def names_below(prefix: Prefix) -> list[str]:
    """The names of all keys below a prefix, without it, in the order of bytes. Fails as `ListKeys` does."""
    names: list[str] = []
    after, more = "", True
    while more:
        page = await ListKeys(prefix, after)
        names += page.names
        after, more = page.last, page.more
    return names


async def stats_below(prefix: Prefix) -> list[tuple[str, Stat]]:
    """As `names_below`, with size and age of each. Fails as `ListStats` does."""
    entries: list[tuple[str, Stat]] = []
    after, more = "", True
    while more:
        page = await ListStats(prefix, after)
        entries += page.entries
        after, more = page.last, page.more
    return entries
