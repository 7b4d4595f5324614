"""Scrub: look at every object of both stores, mend what can be derived, move what is wrong out of the way.

Every key is taken apart by the grammar of the layout, and every value that is ever read is compared with what it has
to be. Keys come in pages, in their order; several are looked at side by side.

* A sound store stays as it is, byte for byte. A dry run writes nothing at all.
* What can be derived from what is there is created if absent, in the order of a push. So it is what a push of the same
  manifest would have written, and a delete that crosses it takes it back.
* What the layout does not know, and what has other bytes than its name says, is moved to ``_lost_and_found/`` in the
  same store, never deleted (`angos.sansio.scrub.hands`).
* What is younger than the grace is not judged: somebody may be in the middle of it.
* Who owns a blob cannot be derived. A digest is no password, and a manifest that names one proves nothing.
* That something could not be read proves nothing either: it is told, and what depends on it is left alone.
* Killed at any effect and run again it goes on where it was, and ends in the same place.
* A lease keeps two of them from doing the same work. Two at once are safe, as nothing is done twice: what one has moved
  or created the other finds done, and a record of how far one has come is as good for the other.

Leftovers that are no mistakes (bytes that nobody needs, references of what was deleted, uploads nobody finished) belong
to the collector.
"""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final

from angos.sansio import layout
from angos.sansio.effects import EffectError, Key, ListKeys, ListStats, Prefix, ReadClock, StatKey, StorageCorrupt, Tell
from angos.sansio.oci.digest import Digest
from angos.sansio.oci.reference import Namespace
from angos.sansio.progress import Progress
from angos.sansio.scopes import leased
from angos.sansio.scrub import content, records, small_values
from angos.sansio.scrub.hands import Hands, Settings
from angos.sansio.scrub.keys import Known, recognise
from angos.sansio.scrub.records import Place
from angos.sansio.scrub.report import Scrubbed, Tally
from angos.sansio.together import together

STAGES: Final = (
    layout.BLOBS_PREFIX,
    layout.DISTRIBUTION_PREFIX,
    layout.NAMESPACES_PREFIX,
    layout.REFERENCES_PREFIX,
    layout.ROOT_PREFIX,
)
"""Bytes first: what the manifests among them need is looked for later. The last one has what is left."""

BEHIND = "~"  # sorts behind every name that the layout knows


WORK: Final = "scrub"
LEASE_SECONDS: Final = 86_400.0
BUSY: Final = "another scrub is at work; wait for its report"


async def scrub(settings: Settings) -> Scrubbed:
    """Do all of it, or, while another one is known to be at work, nothing. Fails when the store cannot be listed."""
    if settings.dry_run:  # changes nothing, and needs nobody out of its way
        return await _scrub(settings)
    async with leased(WORK, seconds=LEASE_SECONDS, wait_seconds=0.0, needed=False) as granted:
        return await _scrub(settings) if granted else Tally().result(dry_run=False, resumed=False, refused=BUSY)


async def _scrub(settings: Settings) -> Scrubbed:
    earlier = None if settings.dry_run else await records.load(settings)
    place, tally = earlier or (Place(0, ""), Tally())
    run = _Run(settings, tally)
    recorded_ms = await ReadClock()
    while place.stage < len(STAGES):
        prefix = STAGES[place.stage]
        page = await run.next_page(prefix, place.after)
        names = _not_elsewhere(prefix, page.names)
        await run.look_at(prefix, names, page.full)
        place.after = page.last
        if len(names) < len(page.names):
            place.after = _behind_family(prefix, page.last)
        if not page.more:
            place.stage, place.after = place.stage + 1, ""
        await Tell(Progress(WORK, prefix, sum(tally.objects.values()), None, tally.told()))
        now_ms = await ReadClock()
        if not settings.dry_run and abs(now_ms - recorded_ms) >= settings.record_ms and place.stage < len(STAGES):
            await records.store(place, tally, settings)
            recorded_ms = now_ms
    if not settings.dry_run:
        await records.forget()
    await Tell(Progress(WORK, "", sum(tally.objects.values()), None, tally.told(), ended=True))
    return tally.result(dry_run=settings.dry_run, resumed=earlier is not None)


@dataclass(frozen=True, slots=True)
class _Page:
    names: tuple[str, ...]
    last: str
    more: bool
    full: frozenset[str] = frozenset()
    """Those of blobs that have bytes, as far as the listing says so."""


async def _page(prefix: Prefix, after: str, limit: int) -> _Page:
    if prefix != layout.BLOBS_PREFIX:
        page = await ListKeys(prefix, after, limit)
        return _Page(page.names, page.last, page.more)
    # A listing has the sizes as well, which saves a question about each blob.
    found = await ListStats(prefix, after, limit)
    full = frozenset(name for name, stat in found.entries if stat.size)
    return _Page(tuple(name for name, _ in found.entries), found.last, found.more, full)


def _not_elsewhere(prefix: Prefix, names: Sequence[str]) -> list[str]:
    """Those that no other stage looks at."""
    if prefix != layout.ROOT_PREFIX:
        return list(names)
    return [name for name in names if not (prefix + name).startswith(STAGES[:-1])]


def _behind_family(prefix: Prefix, name: str) -> str:
    """Where to go on after a name, without going through a whole family that another stage has gone through."""
    family = next((stage for stage in STAGES[:-1] if (prefix + name).startswith(stage)), None)
    return name if family is None else max(name, family[len(prefix) :] + BEHIND)


class _Run:
    def __init__(self, settings: Settings, tally: Tally) -> None:
        self._hands = Hands(settings, tally)
        self._settings = settings
        self._tally = tally

    async def next_page(self, prefix: Prefix, after: str) -> _Page:
        """An empty one when a folder comes next that cannot be read."""
        try:
            return await _page(prefix, after, self._settings.page)
        except EffectError as error:
            if not error.behind:
                raise
            self._hands.note(Key(prefix + error.behind[:-1]), "unreadable", content.unreadable(error))
            return _Page((), error.behind, more=True)

    async def look_at(self, prefix: Prefix, names: Sequence[str], full: frozenset[str]) -> None:
        """One page of names."""
        jobs: list[tuple[Key, Coroutine[Any, Any, None]]] = []
        owners: dict[Digest, list[Namespace]] = {}
        tags: dict[tuple[Namespace, str], None] = {}
        for name in names:
            key = Key(prefix + name)
            known = recognise(key)
            if known is None or known.kind != "scrub":
                self._tally.objects["unknown" if known is None else known.kind] += 1
            if known is None:
                jobs.append((key, self._move_unknown(key)))
            elif name in full and known.kind == "blob" and not self._settings.verify_bytes:
                continue  # nothing more can be said without reading it
            elif known.kind == "owner" and known.digest is not None:
                owners.setdefault(known.digest, []).append(known.namespace)
            elif (job := self._job(key, known)) is not None:
                jobs.append((key, job))
            if known is not None and known.kind == "tag event" and known.tag is not None:
                place = (known.namespace, known.tag.name)
                if place not in tags:
                    tags[place] = None
                    jobs.append((key, content.check_tag(self._hands, known.namespace, known.tag)))
        for digest, those in owners.items():
            jobs.append((layout.blob_key(digest), content.check_owned(self._hands, digest, those)))
        hashing = self._settings.verify_bytes and prefix == layout.BLOBS_PREFIX
        limit = content.READS_AT_ONCE if hashing else self._settings.at_once
        await together((self._guarded(key, job) for key, job in jobs), limit=limit)

    def _job(self, key: Key, known: Known) -> Coroutine[Any, Any, None] | None:
        hands, digest = self._hands, known.digest
        match known.kind:
            case "blob" if digest is not None:
                return content.check_blob(hands, key, digest)
            case "revision" if digest is not None:
                return content.check_revision(hands, known.namespace, digest)
            case "referrer" if known.referrer is not None:
                return content.check_referrer(hands, key, known.namespace, known.referrer)
            case "tag event" | "history" | "claim" | "chunk" | "import":
                return small_values.check(hands, key, known)
            case _:
                return None

    async def _guarded(self, key: Key, job: Coroutine[Any, Any, None]) -> None:
        """One bad object must not end the run."""
        try:
            await job
        except StorageCorrupt as error:
            self._hands.note(key, "damaged-record", str(error))
        except EffectError as error:
            self._hands.note(key, "unreadable", content.unreadable(error))

    async def _move_unknown(self, key: Key) -> None:
        stat = await StatKey(key)
        if stat is not None:
            await self._hands.quarantine(key, "unknown-key", "the layout has no such key", stat)
