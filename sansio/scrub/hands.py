"""What a scrub does to a store: it creates what is missing and moves what is wrong, and never deletes the only copy.

To move is to copy and then to delete, two effects: killed between them, the next run finds the copy, recognises it and
goes on. Whatever changed while it was judged is left where it is, since somebody has just written it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from angos.sansio import layout
from angos.sansio.effects import CopyKey, CreateKeys, DeleteKeys, HashKey, Key, ReadClock, Stat, StatKey
from angos.sansio.scrub.removal import remove_bytes
from angos.sansio.scrub.report import Action, Finding, Problem, Tally

COPIES_MAX = 1000  # of one key in the lost and found, before somebody has to look there


@dataclass(frozen=True, slots=True)
class Settings:
    """How a scrub goes about it."""

    dry_run: bool = False
    """Look only."""
    verify_bytes: bool = False
    """Read all blobs, not only the manifests, and compare their bytes with their digests."""
    bytes_per_second: int | None = None
    """Read no faster than that, all together."""
    grace_ms: int = 3_600_000
    """What is younger is not judged: somebody may be in the middle of writing it."""
    manifest_bytes_max: int = 4 << 20
    at_once: int = 16
    """Keys that are looked at side by side."""
    page: int = 500
    record_ms: int = 30_000
    """Time between two records of how far it has come."""


class Hands:
    """Does it and counts it; in a dry run, only counts it."""

    def __init__(self, settings: Settings, tally: Tally) -> None:
        self.settings = settings
        self.tally = tally

    def note(self, key: Key, problem: Problem, detail: str, action: Action = "kept") -> None:
        """Tell of a problem."""
        self.tally.note(Finding(key, problem, detail, action))

    async def is_young(self, stat: Stat) -> bool:
        """It changed a moment ago, or is dated in the future, which is no age."""
        return await ReadClock() - stat.modified_ms < self.settings.grace_ms

    async def quarantine(self, key: Key, problem: Problem, detail: str, judged: Stat) -> bool:
        """Move a key out of the way that was like this when it was judged. True when it is gone from its place."""
        if await self.is_young(judged):
            self.note(key, problem, detail, "postponed")
            return False
        if self.settings.dry_run:
            self.note(key, problem, detail, "quarantined")
            return False
        for number in range(1, COPIES_MAX + 1):
            copy = layout.lost_and_found_key(key, number)
            copied = await CopyKey(key, copy)
            if copied is None:
                return True
            if copied or await _same(key, copy):
                break
        else:
            self.note(key, problem, f"{detail}; not moved, since too many like it lie in {layout.LOST_AND_FOUND}")
            return False
        if not await _remove(key, judged):
            self.note(key, problem, "somebody has replaced it meanwhile; run it again", "postponed")
            return False
        self.note(key, problem, detail if number == 1 else f"{detail}; it lies in {copy}", "quarantined")
        return True

    async def create(self, entries: Iterable[tuple[Key, bytes]], problem: Problem, detail: str) -> None:
        """Write what is missing."""
        wanted = tuple(entries)
        if wanted and not self.settings.dry_run:
            created = await CreateKeys(wanted)
            wanted = tuple(entry for entry, mine in zip(wanted, created, strict=True) if mine)
        for key, _ in wanted:
            self.note(key, problem, detail, "created")


async def _remove(key: Key, judged: Stat) -> bool:
    """Unless somebody has replaced it since it was judged."""
    if (digest := layout.parse_blob_key(key)) is not None:
        return await remove_bytes(digest, judged)
    if await StatKey(key) != judged:
        return False
    await DeleteKeys((key,))
    return True


async def _same(key: Key, copy: Key) -> bool:
    """An earlier run was killed after it had copied."""
    one, other = await StatKey(key), await StatKey(copy)
    if one is None or other is None or one.size != other.size:
        return False
    return await HashKey(key, "sha256") == await HashKey(copy, "sha256")
