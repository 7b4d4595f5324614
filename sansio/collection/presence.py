"""What every operation owes the collector: to say when a blob may have become needless, and to say so before it relies
on one that is already there. Why that is enough: `angos.sansio.collection.collector`.

A *suspicion* is an empty key that names a blob, newly made each time. It means two things at once: look at this blob
one day, and leave it alone until then. The collector only looks at blobs with suspicions, and at none that has one
younger than the grace period.

* Who takes a name off a blob (deletes a manifest, gives a blob up) calls `suspect` before, or does it by
  `suspect_and_remove`, which does not leave anything behind either when it stands still.
* Who is about to rely on bytes or names that are there already (mounts, pushes a manifest, answers HEAD) calls `keep`,
  and looks whether they are there after that, not before.
* Who brings the bytes himself creates `suspicions` together with his names, calls `until_unmarked`, and then looks
  whether it is all there: a collector may have been at it. If something is gone he puts it there again.

In all of these the caller has a quarter of a grace period to finish what he does. Who writes a name because of what he
has kept does it `in_time`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Coroutine, Iterable
from typing import Any, TypeVar

from angos.sansio import layout
from angos.sansio.compact_json import parse_json
from angos.sansio.effects import CreateKeys, DrawId, Key, ListKeys, ReadClock, ReadKey, Sleep
from angos.sansio.errors import RegistryError
from angos.sansio.oci.digest import Digest
from angos.sansio.together import together

T = TypeVar("T")

ID_LENGTH = 8
WAITS_SECONDS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4)
"""Between looks at what a collector is removing; a batch of it takes a second or so."""
ATTEMPTS_MAX = 3


async def suspicions(digests: Iterable[Digest], *, earlier_seconds: float = 0.0) -> tuple[tuple[Key, bytes], ...]:
    """Entries for a `CreateKeys` of the caller, one for each digest; dated so much earlier."""
    named = sorted(set(digests))
    if not named:
        return ()
    now_ms, suspect_id = await ReadClock(), (await DrawId())[:ID_LENGTH]
    at_ms = max(now_ms - int(earlier_seconds * 1000), 0)
    return tuple((layout.suspect_key(digest, at_ms, suspect_id), b"") for digest in named)


async def stale_suspicions(digests: Iterable[Digest], grace_seconds: float) -> tuple[tuple[Key, bytes], ...]:
    """The same, of which the collector takes notice as of any, and on which no `keep` of another one relies: so whoever
    makes them may disregard them himself."""
    return await suspicions(digests, earlier_seconds=grace_seconds)


async def suspect(digests: Iterable[Digest]) -> None:
    """Let the collector look at these blobs, when nothing has happened to them for a grace period."""
    entries = await suspicions(digests)
    if entries:
        await CreateKeys(entries)


async def suspect_and_remove(
    digests: Collection[Digest], remove: Callable[[], Coroutine[Any, Any, object]], grace_seconds: float
) -> None:
    """Suspect blobs and take names off them; suspect them again if meanwhile a collector may have found them named."""
    begun_ms = await ReadClock()
    await suspect(digests)
    await remove()
    if not 0 <= await ReadClock() - begun_ms < grace_seconds * 250:
        await suspect(digests)


async def keep(digests: Iterable[Digest], grace_seconds: float) -> None:
    """From now on, and for a quarter of a grace period, the collector takes nothing of these blobs that is there after
    this.

    What was seen of them before may be gone. Fails with a 503 when a collector is at them for too long.
    """
    named = sorted(set(digests))
    now_ms = await ReadClock()
    fresh = await together(_is_fresh(digest, now_ms, grace_seconds) for digest in named)
    await suspect(digest for digest, is_fresh in zip(named, fresh, strict=True) if not is_fresh)
    # Also for a fresh suspicion of somebody else: he may be waiting for the same mark.
    await until_unmarked(named)


async def in_time(name: Callable[[], Coroutine[Any, Any, T]], grace_seconds: float, *, undone: T | None = None) -> T:
    """Keep blobs, and write names because of what is there; again when that took so long that a collector may have
    removed it meanwhile: a process may stand still for as long as it likes. The last attempt finds its names in place.

    Fails with a 503 when no attempt was in time. `undone` is a reply that needs no names, however late it comes.
    """
    for _ in range(ATTEMPTS_MAX):
        begun_ms = await ReadClock()
        reply = await name()
        if reply == undone or 0 <= await ReadClock() - begun_ms < grace_seconds * 250:
            return reply
    message = (
        f"this took longer than a quarter of the {grace_seconds:g} s (gc_grace_secs) for which the collector leaves"
        " alone what is pushed, and so did doing it again; try again"
    )
    raise RegistryError(503, "UNAVAILABLE", message, headers={"Retry-After": "10"})


async def keep_suspected(digest: Digest, grace_seconds: float) -> None:
    """As `keep`, for a use that is announced and may never come: a blob that nobody suspects needs no protection,
    because whoever suspects it later leaves it a grace period."""
    page = await ListKeys(layout.suspects_prefix(digest), limit=1)
    if page.names:
        await keep((digest,), grace_seconds)


def is_fresh_at(at_ms: int, now_ms: int, grace_seconds: float) -> bool:
    """Whether what was written then protects from collection for a quarter of a grace period more.

    The two times may be of two clocks, which differ by less than a quarter of a grace period.
    """
    return grace_seconds * -250 < now_ms - at_ms < grace_seconds * 500


async def _is_fresh(digest: Digest, now_ms: int, grace_seconds: float) -> bool:
    page = await ListKeys(layout.suspects_prefix(digest), limit=1)
    at_ms = layout.parse_suspect_time(page.names[0]) if page.names else None
    return at_ms is not None and is_fresh_at(at_ms, now_ms, grace_seconds)


async def until_unmarked(digests: Collection[Digest] | None) -> bool:
    """Wait for collectors that may be removing these blobs, whose suspicions have been created already; None: any.

    Reply: True when there was none. Fails with a 503 when one has not come to an end.
    """
    known: dict[str, frozenset[str] | None] = {}
    for seconds in (0.0, *WAITS_SECONDS):
        if seconds:
            await Sleep(seconds)
        if not await _are_marked(digests, known):
            return not seconds
    subject = "some blobs" if digests is None else " ".join(sorted(map(str, digests))[:3])
    message = f"a collector is removing {subject}, which nobody needed, or was interrupted at it; try again in a minute"
    raise RegistryError(503, "UNAVAILABLE", message, headers={"Retry-After": "60"})


async def _are_marked(digests: Collection[Digest] | None, known: dict[str, frozenset[str] | None]) -> bool:
    """`known` remembers what marks say: they never change."""
    after, more = "", True
    while more:
        page = await ListKeys(layout.MARKS_PREFIX, after)
        for name in page.names:
            if name not in known:
                value = await ReadKey(layout.mark_key(name))
                known[name] = frozenset() if value is None else _parse_mark(value)
            marked = known[name]
            if marked is None or digests is None or any(str(digest) in marked for digest in digests):
                return True
        after, more = page.last, page.more
    return False


def mark_value(digests: Iterable[Digest]) -> bytes:
    """What a mark says."""
    return json.dumps([str(digest) for digest in digests], separators=(",", ":")).encode()


def _parse_mark(value: bytes) -> frozenset[str] | None:
    """The digests that a mark covers; None, which is all, for a damaged one."""
    try:
        found = parse_json(value)
    except ValueError:
        return None
    return frozenset(found) if isinstance(found, list) and all(isinstance(each, str) for each in found) else None
