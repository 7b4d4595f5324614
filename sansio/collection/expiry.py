"""Uploads that nobody continues: what is left of clients that went away, and of processes that were killed.

The keys of an upload are all of one family, below one prefix (`angos.sansio.upload_session`). When the youngest of them
is older than the expiry, the family goes as a whole, as when a client cancels: a request that comes all the same is
told that there is no such upload. Uploads of CNCF distribution lie in the same folders and are not ours to judge.

A bucket also keeps what a process had begun to send in pieces when it was killed, out of sight, for ever, and for
money. That of an upload goes with the upload (`DiscardUpload`). What has no upload any more, and what was to become a
blob, goes when it was begun longer ago than the expiry: a live process is done with a blob within minutes. Pieces of
an upload that is there are never touched, as young ones may be among them.

Namespaces are found by their folders, a level at a time: what it costs is the number of repositories, whatever they
hold.
"""

from __future__ import annotations

from dataclasses import dataclass

from angos.sansio import layout
from angos.sansio.effects import (
    DiscardUnfinished,
    DiscardUpload,
    EffectError,
    ListFolders,
    ListKeys,
    ListStats,
    ListUnfinished,
    Prefix,
    Unfinished,
)
from angos.sansio.oci.reference import Namespace
from angos.sansio.together import together

PAGE = 1000
MADE_OF_PIECES = (layout.BLOBS_PREFIX, layout.DISTRIBUTION_PREFIX, Prefix(layout.LOST_AND_FOUND + layout.BLOBS_PREFIX))
"""Below these lies what the registry sends in pieces."""


@dataclass(frozen=True, slots=True)
class Expired:
    """What was found."""

    number: int
    """Uploads, or values sent in pieces, that were discarded, or would be."""
    problems: tuple[tuple[str, str], ...] = ()
    """What could not be looked at or removed, and why."""


async def discard_expired(now_ms: int, expiry_seconds: float, *, dry_run: bool = False) -> Expired:
    """Look at every upload. `now_ms` is the time of the store."""
    old_ms = now_ms - int(expiry_seconds * 1000)
    uploads, problems = 0, list[tuple[str, str]]()
    waiting = [""]
    while waiting:
        namespace = waiting.pop()
        problem: EffectError | None = None
        try:
            below = await _folders(Prefix(f"{layout.DISTRIBUTION_PREFIX}{namespace}"))
            if "_uploads" in below:
                uploads += await _expire(namespace.removesuffix("/"), old_ms, dry_run)
            waiting += [f"{namespace}{folder}/" for folder in reversed(below) if not folder.startswith("_")]
        except EffectError as error:
            problem = error
        if problem is not None:
            problems.append((namespace.removesuffix("/") or "repositories", str(problem)))
    return Expired(uploads, tuple(problems))


async def _folders(prefix: Prefix) -> list[str]:
    folders: list[str] = []
    after, more = "", True
    while more:
        page = await ListFolders(prefix, after, PAGE)
        folders += page.names
        after, more = page.last, page.more
    return folders


async def _expire(namespace: str, old_ms: int, dry_run: bool) -> int:
    prefix = layout.uploads_prefix(namespace)
    newest: dict[str, int] = {}
    after, more = "", True
    while more:
        page = await ListStats(prefix, after, PAGE)
        for name, stat in page.entries:
            if (upload := layout.parse_upload_name(name)) is not None:
                newest[upload] = max(newest.get(upload, 0), stat.modified_ms)
        after, more = page.last, page.more
    expired = [upload for upload, modified_ms in newest.items() if modified_ms <= old_ms]
    if not dry_run:
        await together(_discard(layout.upload_prefix(Namespace(namespace), upload)) for upload in expired)
    return len(expired)


async def _discard(upload: Prefix) -> None:
    await DiscardUpload(upload)


async def discard_abandoned(now_ms: int, expiry_seconds: float, *, dry_run: bool = False) -> Expired:
    """Look at everything that was begun and not completed. After `discard_expired`, with the same times."""
    old_ms = now_ms - int(expiry_seconds * 1000)
    number, problems = 0, list[tuple[str, str]]()
    for prefix in MADE_OF_PIECES:
        problem: EffectError | None = None
        try:
            for each in await ListUnfinished(prefix):
                if await _is_abandoned(each, old_ms):
                    if not dry_run:
                        await DiscardUnfinished(each.key, each.id)
                    number += 1
        except EffectError as error:
            problem = error
        if problem is not None:
            problems.append((prefix.removesuffix("/"), str(problem)))
    return Expired(number, tuple(problems))


async def _is_abandoned(unfinished: Unfinished, old_ms: int) -> bool:
    """In the same bucket others may send to keys that are none of ours: these are theirs."""
    if unfinished.began_ms is None or unfinished.began_ms > old_ms:
        return False
    blob = layout.parse_blob_key(unfinished.key.removeprefix(layout.LOST_AND_FOUND))
    if blob is not None:
        return True
    upload = layout.parse_upload_key(unfinished.key)
    return upload is not None and not (await ListKeys(upload, limit=1)).names
