"""Pages of names out of a bucket: complete, in order, each name once, or no page at all.

A store lists keys by code point, 1,000 at a time, and can roll up those below a folder into one entry ``folder/``. That
is the order of keys, but not always that of the names of folders: ``a!/`` and ``a./`` come before ``a/``, because
``!`` and ``.`` sort before ``/``. So a folder can be in a page only when no shorter one can still come up.
"""

from __future__ import annotations

from itertools import zip_longest

from angos.sansio.bucket.requests import List, ListUploads, Terms
from angos.sansio.effects import (
    Key,
    ListFolders,
    ListKeys,
    ListStats,
    ListUnfinished,
    Page,
    Prefix,
    Stat,
    StatPage,
    StorageUnavailable,
    Unfinished,
)


async def list_keys(effect: ListKeys, terms: Terms) -> Page:
    """`ListKeys`."""
    names: list[str] = []
    token: str | None = ""
    while token is not None and len(names) <= effect.limit:
        room = effect.limit + 1 - len(names)
        listed = await List(effect.prefix, effect.after, token, min(terms.listing_max, room))
        for name, _ in listed.keys:
            # The prefix itself, and names that end with a slash, are what consoles show as empty folders.
            if name and not name.endswith("/"):
                check_order(terms, effect.prefix, names[-1] if names else effect.after, name)
                names.append(name)
        token = listed.next_token
    more = len(names) > effect.limit or token is not None
    return Page(tuple(names[: effect.limit]), more)


async def list_stats(effect: ListStats, terms: Terms) -> StatPage:
    """`ListStats`. A key whose age the store does not tell fails it: nobody may take it for old."""
    entries: list[tuple[str, Stat]] = []
    last, token = effect.after, ""
    while True:
        room = effect.limit - len(entries)
        listed = await List(effect.prefix, effect.after, token, min(terms.listing_max, room))
        for (name, size), modified_ms in zip(listed.keys, listed.modified_ms, strict=True):
            if name and not name.endswith("/"):
                check_order(terms, effect.prefix, last, name)
                last = name
                if modified_ms is None:
                    raise terms.unavailable(f"listing {effect.prefix}", f"it does not say when {name} was written")
                entries.append((name, Stat(size, modified_ms)))
        if listed.next_token is None or len(entries) >= effect.limit:
            return StatPage(tuple(entries), last, listed.next_token is not None)
        token = listed.next_token


async def list_folders(effect: ListFolders, terms: Terms) -> Page:
    """`ListFolders`."""
    found: set[str] = set()
    passed = ""
    token: str | None = ""
    while True:
        listed = await List(effect.prefix, effect.after, token or "", terms.listing_max, folders=True)
        before = passed
        for folder in listed.folders:
            check_order(terms, effect.prefix, passed, folder)
            passed = folder
            if folder[:-1] > effect.after:
                found.add(folder[:-1])
        if listed.keys:
            passed = max(passed, listed.keys[-1][0])
        if (listed.keys or listed.folders) and passed <= before:
            raise _goes_in_circles(terms, effect.prefix)
        token = listed.next_token
        names = sorted(found)
        if token is None:
            return Page(tuple(names[: effect.limit]), len(names) > effect.limit)
        settled = next((index for index, name in enumerate(names) if not _is_settled(name, passed)), len(names))
        if settled > effect.limit:
            return Page(tuple(names[: effect.limit]), more=True)


async def sizes_below(prefix: Prefix, terms: Terms) -> dict[str, int]:
    """All keys below a prefix, relative to it and in order, with their sizes in bytes."""
    sizes: dict[str, int] = {}
    token: str | None = ""
    while token is not None:
        listed = await List(prefix, "", token, terms.listing_max)
        if listed.keys and all(name in sizes for name, _ in listed.keys):
            raise _goes_in_circles(terms, prefix)
        sizes.update(listed.keys)
        token = listed.next_token
    return sizes


async def uploads_below(prefix: Prefix, terms: Terms) -> list[tuple[str, str]]:
    """The multipart uploads that are open below a prefix: key and upload id."""
    return [(each.key, each.id) for each in await list_unfinished(ListUnfinished(prefix), terms)]


async def list_unfinished(effect: ListUnfinished, terms: Terms) -> tuple[Unfinished, ...]:
    """`ListUnfinished`: the multipart uploads that are open."""
    found: list[Unfinished] = []
    markers: tuple[str, str] | None = ("", "")
    while markers is not None:
        listed = await ListUploads(effect.prefix, markers)
        found += (
            Unfinished(Key(key), upload_id, began_ms)
            for (key, upload_id), began_ms in zip_longest(listed.uploads, listed.began_ms)
        )
        if listed.next_markers is not None and listed.next_markers == markers:
            raise _goes_in_circles(terms, effect.prefix)
        markers = listed.next_markers
    return tuple(found)


def check_order(terms: Terms, prefix: Prefix, before: str, name: str) -> None:
    if name <= before:
        raise terms.unavailable(
            f"listing {prefix}", "the names are not in order of their code points, as the registry needs them"
        )


def _goes_in_circles(terms: Terms, prefix: Prefix) -> StorageUnavailable:
    """For a page that brings nothing new: asking on and on would never end."""
    return terms.unavailable(f"listing {prefix}", "it gives the same names again")


def _is_settled(name: str, passed: str) -> bool:
    """True when no folder that is a beginning of `name`, and so belongs before it, can come after `passed`."""
    if name.find("!") == len(name) - 1:
        # The layout ends names with this mark, which is in none of them: none of them begins another one.
        return True
    first = next((index for index, character in enumerate(name) if character < "/"), None)
    return first is None or passed > f"{name[:first]}/"
