"""The collector: removes what nobody needs while everybody goes on working.

What it takes
-------------
A blob (bytes, layers and manifests alike) is *needed* when some namespace has a name for it whose manifest exists:
the blob is a manifest of the namespace, or a manifest of the namespace names it. An owner key alone is no need: it says
that a blob was pushed, and the manifest may still come; for that there is the grace period. Of a blob that is needed
by others, a namespace loses the names that have become void. What could not be read counts as needed, and is told. A
manifest that was deleted counts as long as a tag can be set back to it (`angos.sansio.history`).

Only blobs with a *suspicion* are looked at (`angos.sansio.collection.presence`), and of these only those whose
suspicions are all older than the grace period. So a run costs what has changed since, not what is stored.

Why that is safe
----------------
The collector, for a batch of blobs:

    C1  creates its mark, which names them
    C2  lists their suspicions; leaves out every blob that has one younger than the grace period
    C3  reads who needs them
    C4  looks whether it has a permit still; removes void names, then, when all is void, the bytes
    C5  removes the old suspicions and the mark

A writer that relies on something that is there:

    W1  creates a suspicion
    W2  lists the marks; if one covers the blob, it waits until the mark is gone
    W3  looks whether what it relies on is there, and goes on as if for the first time

If C1 comes before W2, the writer sees the mark, and when it looks (W3) everything that is removed has been removed. If
not, W1 came before W2, W2 before C1, and C1 before C2: the collector sees the suspicion and leaves the blob alone. From
W2 on this holds for every later batch too, until the suspicion is a grace period old; the writer is done in a quarter
of that, or begins again at W1 (`angos.sansio.collection.presence.in_time`). A writer that brings the bytes himself
creates the suspicion with his owner key, *after* the bytes, and is covered by the same argument once he puts the bytes
there again if a mark was there (W3). The collector also leaves alone what
has young bytes or names, so nothing depends on whether two keys of one effect appear at the same moment.

Why leases do not matter
------------------------
A lease keeps collectors from doing the same work twice. Two of them at once are safe: each one's removals happen under
its own mark. What matters is that nothing is removed after its mark is gone, also by a collector that stood still in
between, or that is taken for dead:

* C4 reads the permit of the run and removes with `DeleteKeysWithin`: nothing of it happens later than
  `REMOVAL_SECONDS` after the permit was seen.
* Who finds a mark of another collector then takes away the permits that are there, that of its maker among them, waits
  for longer than `REMOVAL_SECONDS`, and removes the mark. Nobody removes a mark that is not his own in any other way.
* A removal whose outcome is unknown is waited for in the same way, before its mark goes. One that was answered, but
  only when it was sent again, is such a removal: the request before it may be carried out yet.
* A permit that was taken away does not come back: the collector uses none whose creation had to be sent again.

The collector compares no clocks: ages are differences of modification times in the store, `REMOVAL_SECONDS` is a
duration. What is assumed: all processes have the same grace period configured; clocks differ by less than a quarter of
it. A writer that stands still for longer may leave names of what has gone; so names prove nothing, who relies on bytes
looks for them.

What a crash leaves
-------------------
At any point: suspicions, so that the next run looks again; names are removed before bytes, so never a name that leads
nowhere; a mark, which the next run removes as said above. What a manifest needed is suspected before the manifest goes.
After a power cut some of what was removed may be back, names and bytes alike: void as before, and harmless, but for the
space until the next look at everything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain

from angos.sansio import layout
from angos.sansio.collection.examination import Examined, Excuse, Revisions, Suspicions, examine
from angos.sansio.collection.expiry import discard_abandoned, discard_expired
from angos.sansio.collection.presence import mark_value, suspect
from angos.sansio.config import RegistryConfig
from angos.sansio.effects import (
    CreateKeys,
    DeleteKeys,
    DeleteKeysWithin,
    DrawId,
    EffectError,
    Key,
    ListKeys,
    ListStats,
    ReadClock,
    Sleep,
    Stat,
    StatKey,
    StorageUnavailable,
    Tell,
)
from angos.sansio.listing import names_below, stats_below
from angos.sansio.oci.digest import Digest
from angos.sansio.progress import Passed, Progress
from angos.sansio.scopes import leased
from angos.sansio.together import together

WORK = "collection"
CLEARING = "interrupted collections"
"""What is done about them."""
LEASE_SECONDS = 3600.0
REMOVAL_SECONDS = 60.0
SETTLED_SECONDS = 90.0
"""After this, no removal that was begun under a permit that is gone can happen any more."""
SLOW_SECONDS = 60.0
"""A mark that has been there for so long is of no collector that goes on."""
BATCH = 1000
"""Blobs under one mark. A writer that needs one of them waits for the whole batch."""
PAGE = 1000
NEIGHBOURS = 3
"""Suspicions of others, for each one that is wanted, that are listed rather than to ask for each blob."""
GROUP = 125
"""Blobs that are looked at in one go."""
GROUPS_AT_ONCE = 4
ASKED_AT_ONCE = 32
PERMITS_TRIED = 3
FAILURES_MAX = 20
"""Removals that may fail before a run gives up."""
BUSY = "another collector is at work"
OVERTAKEN = "another collector has taken over"


@dataclass(frozen=True, slots=True)
class Collected:
    """What a run has come to."""

    examined: int
    """Blobs that were looked at."""
    blobs: int
    """Those whose bytes were removed, or would be."""
    size: int
    """Their bytes."""
    names: int
    """Keys removed that said who owns or needs a blob."""
    needed: int
    """Blobs looked at that are needed."""
    waiting: int
    """Blobs that are not looked at yet: their grace period goes on."""
    uploads: int = 0
    """Uploads removed that nobody continues."""
    unfinished: int = 0
    """What processes had begun to send to a bucket when they were killed: removed."""
    passed_over: int = 0
    """What could not be read or removed."""
    refused: str = ""
    """Why nothing was collected, in a sentence."""


async def collect(config: RegistryConfig, *, dry_run: bool = False) -> Collected:
    """One run. With `dry_run` nothing is changed, and what would be removed is counted.

    Fails when the store cannot be listed or written to; then the next run goes on with the rest.
    """
    async with leased(WORK, seconds=LEASE_SECONDS, wait_seconds=0.0) as granted:
        if not granted:
            return Collected(0, 0, 0, 0, 0, 0, refused=BUSY)
        run = _Run(config, dry_run=dry_run)
        if not dry_run:
            await take_over_from_others()
        if (refusal := await why_not()) is not None:
            return Collected(0, 0, 0, 0, 0, 0, refused=refusal)
        if not dry_run:
            await run.begin()
        await run.candidates()
        if not run.refused:
            await run.uploads()
        await run.end()
        return run.result()


async def collect_now_and_then(config: RegistryConfig) -> None:
    """One run of a server. Nobody waits for what it has come to, so a refusal is told."""
    done = await collect(config)
    if done.refused and done.refused != BUSY:
        await Tell(Passed(WORK, "the store", done.refused))


async def let_writers_pass() -> None:
    """Clear up behind a collector that was killed, so that nobody waits for it until the next one runs.

    Should it only be slow, it finds its permit gone.
    """
    before = await names_below(layout.MARKS_PREFIX)
    if before:
        await Sleep(SLOW_SECONDS)
        if set(before) & set(await names_below(layout.MARKS_PREFIX)):
            async with leased(WORK, seconds=LEASE_SECONDS, wait_seconds=0.0) as granted:
                if granted:
                    await take_over_from_others()


async def why_not() -> str | None:
    """Why nothing may be collected in this store, None when it may."""
    if await StatKey(layout.TAKING_OVER_KEY) is not None:
        return "a take-over goes on or was broken off; run angos import distribution to its end first"
    if await StatKey(layout.TAKEN_OVER_KEY) is None and await _has_foreign_content():
        return (
            "the store holds what a docker-registry has stored, which nothing here names yet; run angos import"
            " distribution first"
        )
    return None


async def _has_foreign_content() -> bool:
    after, more = "", True
    while more:
        page = await ListKeys(layout.DISTRIBUTION_PREFIX, after)
        if any(layout.parse_distribution_link(name) is not None for name in page.names):
            return True
        after, more = page.last, page.more
    return False


async def take_over_from_others() -> None:
    """Make sure that no collector before this one goes on, and let writers pass that wait for one."""
    # In this order: whoever made a mark that we see had his permit before, so we see that one too, and take it away.
    marks = [layout.mark_key(name) for name in await names_below(layout.MARKS_PREFIX)]
    permits = [layout.permit_key(name) for name in await names_below(layout.PERMITS_PREFIX)]
    if permits:
        await DeleteKeys(tuple(permits))
    if marks:
        await Tell(Progress(WORK, "waiting for a collector that was interrupted", 0, None))
        await Sleep(SETTLED_SECONDS)
        await DeleteKeys(tuple(marks))


@dataclass(slots=True)
class _Run:
    config: RegistryConfig
    dry_run: bool
    counts: Counter[str] = field(default_factory=Counter)
    done: int = 0
    total: int = 0
    id: str = ""
    refused: str = ""
    removing: bool = False
    """What has been asked for last may be removed at any moment."""
    settled: tuple[Key, ...] = ()
    """Suspicions of the batch that have been looked into."""
    failures: int = 0

    async def begin(self) -> None:
        """Draw a permit: one that cannot come back when another collector has taken it away."""
        failure: StorageUnavailable | None = None
        for _ in range(PERMITS_TRIED):
            self.id = await DrawId()
            permit = (layout.permit_key(self.id), b"{}")  # not empty, so that its age is exact
            try:
                await CreateKeys((permit,), definite=True)
            except StorageUnavailable as error:
                failure = error
            else:
                return
        assert failure is not None, "each try has failed"
        raise failure

    async def end(self) -> None:
        """Give the permit back."""
        if not self.dry_run:
            await DeleteKeys((layout.permit_key(self.id),))
        await Tell(Progress(WORK, "", self.done, self.done, self.told(), ended=True))

    def told(self) -> tuple[tuple[str, int], ...]:
        """The counts, for people and for metrics."""
        shown = ("examined", "blobs", "bytes", "names", "needed", "uploads", "unfinished", "passed_over")
        return tuple((name, self.counts[name]) for name in shown)

    def result(self) -> Collected:
        """How it ended."""
        counts = self.counts
        return Collected(
            counts["examined"],
            counts["blobs"],
            counts["bytes"],
            counts["names"],
            counts["needed"],
            counts["waiting"],
            counts["uploads"],
            counts["unfinished"],
            counts["passed_over"],
            self.refused,
        )

    # --- which blobs --------------------------------------------------------------------------------------------------

    async def candidates(self) -> None:
        """Look at every blob whose suspicions are old enough by their names, in the order of digests."""
        now_ms = await ReadClock()
        after, more, held = "", True, dict[Digest, int]()
        self.total = await self._count(now_ms)
        while more and not self.refused:
            page = await ListKeys(layout.SUSPECTS_PREFIX, after, PAGE)
            after, more = page.last, page.more
            held, kept = _newest(page.names, held, more=more)
            await self._look_at(held, now_ms)
            held = kept

    async def _count(self, now_ms: int) -> int:
        newest: dict[Digest, int] = {}
        total, after, more = 0, "", True
        while more:
            page = await ListKeys(layout.SUSPECTS_PREFIX, after, PAGE)
            after, more = page.last, page.more
            newest, kept = _newest(page.names, newest, more=more)
            total += sum(self._is_due(at_ms, now_ms) for at_ms in newest.values())
            newest = kept
        return total

    def _is_due(self, at_ms: int, now_ms: int) -> bool:
        """By the clocks of those who wrote it and of this one: only to spare a closer look."""
        return now_ms - at_ms >= self.config.collection_grace_seconds * 1000

    async def _look_at(self, newest: dict[Digest, int], now_ms: int) -> None:
        due = [digest for digest, at_ms in newest.items() if self._is_due(at_ms, now_ms)]
        self.counts["waiting"] += len(newest) - len(due)
        for start in range(0, len(due), BATCH):
            batch = due[start : start + BATCH]
            if (refused := await self._collect_batch(batch)) is not None:
                self.refused = refused
                return
            self.done += len(batch)
            await Tell(Progress(WORK, "looking at blobs", self.done, max(self.total, self.done), self.told()))

    # --- uploads ------------------------------------------------------------------------------------------------------

    async def uploads(self) -> None:
        """Discard those that nobody continues, and what is left of sending their parts, and blobs, to a bucket."""
        await Tell(Progress(WORK, "looking at uploads", self.done, max(self.total, self.done), self.told()))
        permit = None if self.dry_run else await StatKey(layout.permit_key(self.id))
        # The permit was made when the run began: what was older then is older now.
        now_ms = await ReadClock() if permit is None else permit.modified_ms
        expiry = self.config.upload_expiry_seconds
        expired = await discard_expired(now_ms, expiry, dry_run=self.dry_run)
        abandoned = await discard_abandoned(now_ms, expiry, dry_run=self.dry_run)
        self.counts["uploads"] += expired.number
        self.counts["unfinished"] += abandoned.number
        for what, problem in expired.problems:
            await self._passed(f"uploads of {what}", problem)
        for what, problem in abandoned.problems:
            await self._passed(f"unfinished uploads below {what}", problem)

    # --- one batch ----------------------------------------------------------------------------------------------------

    async def _collect_batch(self, batch: Sequence[Digest]) -> str | None:
        """Gives the reason when the run may not go on."""
        if self.dry_run:
            await self._note(await self._examine(batch, await ReadClock()))
            return None
        mark = layout.mark_key(await DrawId())
        await CreateKeys(((mark, mark_value(batch)),))
        self.removing, self.settled = False, ()
        failure: EffectError | None = None
        refused = None
        try:
            refused = await self._collect_marked(batch, mark)
        except EffectError as error:
            failure = error
        if failure is not None and self.removing:
            # What was asked for may still happen: writers have to wait for that too.
            await Sleep(SETTLED_SECONDS)
        await DeleteKeys((*self.settled, mark))
        if failure is None:
            return refused
        if not self.removing:
            raise failure
        return await self._divide(batch, failure)

    async def _divide(self, batch: Sequence[Digest], failure: EffectError) -> str | None:
        """Something in a batch could not be removed: that must not keep the others."""
        self.failures += 1
        if self.failures > FAILURES_MAX:
            raise failure
        if len(batch) == 1:
            await self._passed(str(batch[0]), failure)
            return None
        middle = len(batch) // 2
        refused = await self._collect_batch(batch[:middle])
        return refused if refused is not None else await self._collect_batch(batch[middle:])

    async def _collect_marked(self, batch: Sequence[Digest], mark: Key) -> str | None:
        if await StatKey(layout.TAKING_OVER_KEY) is not None:
            return "a take-over of another registry has begun"
        stat = await StatKey(mark)
        if stat is None:
            return OVERTAKEN
        examined = await self._examine(batch, stat.modified_ms)
        await suspect(each.digest for each in examined if each.again)
        await _suspect_orphans({child for each in examined for child in each.children} - set(batch))
        names = tuple(name for each in examined for name in each.void)
        blobs = tuple(layout.blob_key(each.digest) for each in examined if each.bytes is not None)
        for keys in (names, blobs):
            if keys:
                if await StatKey(layout.permit_key(self.id)) is None:
                    return OVERTAKEN
                self.removing = True
                await DeleteKeysWithin(keys, REMOVAL_SECONDS)
        self.removing = False
        self.settled = tuple(key for each in examined for key in each.settled)
        await self._note(examined)
        return None

    async def _examine(self, batch: Sequence[Digest], now_ms: int) -> tuple[Examined, ...]:
        """Look at the blobs; under a mark, if anything is to be removed."""
        found = await _suspicions_between(batch[0], batch[-1], NEIGHBOURS * len(batch) + PAGE)
        if found is None:  # too many others lie between them
            listed = await together((_suspicions(digest) for digest in batch), limit=ASKED_AT_ONCE)
            found = dict(zip(batch, listed, strict=True))
        revisions = Revisions(now_ms, self.config.history_seconds)
        looks = (
            examine(batch[start : start + GROUP], found, now_ms, self.config.collection_grace_seconds, revisions)
            for start in range(0, len(batch), GROUP)
        )
        return tuple(chain.from_iterable(await together(looks, limit=GROUPS_AT_ONCE)))

    async def _note(self, examined: Iterable[Examined]) -> None:
        for each in examined:
            counts = self.counts
            counts["examined"] += 1
            counts["names"] += len(each.void)
            if each.problem:
                await self._passed(str(each.digest), each.problem)
            elif each.bytes is not None:
                counts["blobs"] += 1
                counts["bytes"] += each.bytes
            elif each.excuse is Excuse.NEEDED:
                counts["needed"] += 1
            elif each.excuse is Excuse.YOUNG:
                counts["waiting"] += 1

    async def _passed(self, what: str, problem: object) -> None:
        self.counts["passed_over"] += 1
        await Tell(Passed(WORK, what, str(problem)))


async def _suspect_orphans(children: Iterable[Digest]) -> None:
    """Let what a manifest needed be looked at, too. As a rule whoever deleted the manifest has seen to that."""
    named = sorted(children)
    forgotten = await together((_is_forgotten(child) for child in named), limit=ASKED_AT_ONCE)
    await suspect(child for child, is_forgotten in zip(named, forgotten, strict=True) if is_forgotten)


async def _is_forgotten(digest: Digest) -> bool:
    page = await ListKeys(layout.suspects_prefix(digest), limit=1)
    return not page.names and await StatKey(layout.blob_key(digest)) is not None


async def _suspicions_between(first: Digest, last: Digest, limit: int) -> dict[Digest, Suspicions] | None:
    """Those of these two and of all blobs between them; None when there are more than so many."""
    found: dict[Digest, list[tuple[Key, Stat]]] = {}
    after, more = layout.suspects_prefix(first)[len(layout.SUSPECTS_PREFIX) : -1], True
    while more and limit > 0:
        page = await ListStats(layout.SUSPECTS_PREFIX, after, PAGE)
        after, more, limit = page.last, page.more, limit - PAGE
        for name, stat in page.entries:
            suspicion = layout.parse_suspect_name(name)
            if suspicion is not None and suspicion.digest > last:
                more = False
            elif suspicion is not None:
                found.setdefault(suspicion.digest, []).append((Key(layout.SUSPECTS_PREFIX + name), stat))
    return None if more else {digest: tuple(each) for digest, each in found.items()}


async def _suspicions(digest: Digest) -> Suspicions:
    prefix = layout.suspects_prefix(digest)
    return tuple((Key(prefix + name), stat) for name, stat in await stats_below(prefix))


def _newest(
    names: Iterable[str], held: dict[Digest, int], *, more: bool
) -> tuple[dict[Digest, int], dict[Digest, int]]:
    """When each blob was suspected for the last time, in the order of digests, as names of a page say it beside what is
    held from the page before; and, apart, that of the last blob, whose suspicions may go on behind the page."""
    newest = dict(held)
    for name in names:
        suspicion = layout.parse_suspect_name(name)
        if suspicion is not None:
            newest[suspicion.digest] = max(newest.get(suspicion.digest, 0), suspicion.at_ms)
    last = max(newest, default=None) if more else None
    return newest, {} if last is None else {last: newest.pop(last)}
