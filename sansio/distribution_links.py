"""Writing link files for CNCF distribution, many at a time.

A bucket is asked as seldom as can be: what a listing has said is not asked for again, and what is to be written is
written together. When one of many cannot be written, the others are written all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from angos.sansio import layout
from angos.sansio.compact_json import parse_json
from angos.sansio.distribution import Problem
from angos.sansio.effects import CreateKeys, DeleteKeys, EffectError, Key, ListKeys, ReadKey, Stat, StatKey, StatKeys
from angos.sansio.oci.digest import Digest
from angos.sansio.oci.media_type import IMAGE_TYPES, INDEX_TYPES
from angos.sansio.oci.reference import Namespace
from angos.sansio.together import together

SERVED_TYPES = IMAGE_TYPES | INDEX_TYPES
BATCH = 50
BATCHES_AT_ONCE = 4  # a disk is waited for by several at once

LeaveOut = Callable[[str, Problem | EffectError], None]


@dataclass(frozen=True, slots=True)
class Link:
    """A link file that distribution needs."""

    namespace: Namespace
    key: Key
    digest: Digest
    """Its value."""
    what: str
    """What it is for, as it is told: ``<repository>@<digest>`` or ``<repository>:<tag>``."""


Check = Callable[[Digest], Coroutine[Any, Any, None]]
"""Raises `Problem` when distribution could do nothing with what a link leads to."""


class Links:
    """Writes them, and knows in which repositories distribution had none."""

    def __init__(self, leave_out: LeaveOut) -> None:
        """`leave_out` is told of what cannot be written."""
        self._leave_out = leave_out
        self._new: dict[Namespace, bool] = {}
        self.written = 0

    async def is_new(self, namespace: Namespace) -> bool:
        """Distribution had nothing of the repository before this run."""
        known = self._new.get(namespace)
        if known is None:
            page = await ListKeys(layout.distribution_prefix(namespace), limit=1)
            known = self._new[namespace] = not page.names
        return known

    async def write(self, links: Sequence[Link], check: Check | None = None, *, absent: bool = False) -> list[Link]:
        """Write those that are not there, and those that a power cut has emptied; `check` what they lead to before.
        Gives those that are there now. `absent`: none is there, as the caller has seen to."""
        sizes = [None for _ in links] if absent else await self._sizes(links)
        there = [link for link, size in zip(links, sizes, strict=True) if size]
        empty = {link.key for link, size in zip(links, sizes, strict=True) if size == 0}
        wanted = [link for link, size in zip(links, sizes, strict=True) if not size]
        if check is not None:
            found = await together(self._passes(link, check) for link in wanted)
            wanted = [link for link, passes in zip(wanted, found, strict=True) if passes]
        emptied = await self.remove([link for link in wanted if link.key in empty])
        wanted = [*emptied, *(link for link in wanted if link.key not in empty)]
        batches = (wanted[start : start + BATCH] for start in range(0, len(wanted), BATCH))
        for written in await together((self._create(batch) for batch in batches), limit=BATCHES_AT_ONCE):
            there += written
        return there

    async def remove(self, links: Sequence[Link]) -> list[Link]:
        """Remove link files. Gives those that are gone."""
        if not links:
            return []
        problem = await self._try(DeleteKeys(tuple(link.key for link in links)))
        if problem is None:
            return list(links)
        for link in links:
            self._leave_out(link.what, problem)
        return []

    async def _create(self, links: Sequence[Link]) -> list[Link]:
        entries = tuple((link.key, str(link.digest).encode()) for link in links)
        problem = await self._try(CreateKeys(entries))
        if problem is None:
            self.written += len(links)
            return list(links)
        if len(links) == 1:
            self._leave_out(links[0].what, problem)
            return []
        middle = len(links) // 2
        return await self._create(links[:middle]) + await self._create(links[middle:])

    async def _sizes(self, links: Sequence[Link]) -> list[int | None]:
        """Of the link files; None for one that is not there. One that cannot be looked at is told when it cannot be
        written."""
        await together(self.is_new(namespace) for namespace in dict.fromkeys(link.namespace for link in links))
        asked = [link.key for link in links if not self._new[link.namespace]]
        stats = dict(zip(asked, await stats_of(asked), strict=True))
        return [stat.size if isinstance(stat := stats.get(link.key), Stat) else None for link in links]

    async def _passes(self, link: Link, check: Check) -> bool:
        try:
            await check(link.digest)
        except (Problem, EffectError) as error:
            self._leave_out(link.what, error)
            return False
        return True

    async def _try(self, effect: CreateKeys | DeleteKeys) -> EffectError | None:
        try:
            await effect
        except EffectError as error:
            return error
        return None


# --- what links lead to -----------------------------------------------------------------------------------------------


async def check_manifest(digest: Digest) -> None:
    """Whether distribution makes head or tail of a manifest. It reads the body alone, not what it was pushed as."""
    body = await ReadKey(layout.blob_key(digest))
    if body is None:
        raise Problem("no-bytes", f"there are no bytes of {digest}")
    if not body:
        raise Problem("zero-bytes", f"the file of {digest} is empty")
    try:
        document = parse_json(body)
        media_type, version = document.get("mediaType"), document.get("schemaVersion")
    except (ValueError, AttributeError):
        raise Problem("unknown-type", "the manifest is no JSON object, which distribution needs") from None
    if media_type and media_type not in SERVED_TYPES:
        raise Problem("unknown-type", f"distribution serves no {str(media_type)[:200]}, only images and indexes")
    if version != 2:
        raise Problem("unknown-type", "the manifest has no schemaVersion 2, which distribution needs")


async def look_for_bytes(digests: Sequence[Digest]) -> dict[Digest, Problem | EffectError | None]:
    """For each of these None when its bytes are there, or what is wrong with them."""
    stats = await stats_of([layout.blob_key(digest) for digest in digests])
    return {digest: _wrong(digest, stat) for digest, stat in zip(digests, stats, strict=True)}


def _wrong(digest: Digest, stat: Stat | EffectError | None) -> Problem | EffectError | None:
    if isinstance(stat, EffectError):
        return stat
    if stat is None:
        return Problem("no-bytes", f"there are no bytes of {digest}")
    if stat.size == 0 and digest != Digest.of(b"", digest.algorithm):
        return Problem("zero-bytes", f"the file of {digest} is empty")
    return None


async def stats_of(keys: Sequence[Key]) -> list[Stat | EffectError | None]:
    """Together, or each by itself when that fails."""
    try:
        return list(await StatKeys(tuple(keys))) if keys else []
    except EffectError:
        pass
    return list(await together(_stat(key) for key in keys))


async def _stat(key: Key) -> Stat | EffectError | None:
    try:
        return await StatKey(key)
    except EffectError as error:
        return error
