"""How manifests without a tag are deleted while everybody goes on pushing.

A manifest is removed as the collector removes a blob (`angos.sansio.collection.collector`, whose proof this is), by the
same marks and permits, and under the lease of the collector:

    P1  create a mark, which names the manifests
    P2  look at all of them once more (`angos.sansio.untagged`): leave out each that was pushed, or is relied on, or has
        a suspicion younger than the grace period of the collector; then everything that stays with one of these
    P3  suspect what goes and what it names, so that the collector looks at the bytes one day; these suspicions are
        dated so that no `keep` takes one of them for its own, and the run that made them disregards them
    P4  look whether there is a permit still; remove the records of referrers, then revisions, indexes before children
    P5  remove the mark

Whoever relies on a manifest has told so before, and looks for marks after that and before he looks at the manifest:

* a push of the manifest, which is also how a tag is set to it and restored, creates a suspicion with its bytes, waits
  for marks, and writes the revision only then (`angos.sansio.manifests.push_manifest`);
* a push of an index keeps the children, and looks only then whether they are there (`keep_references`);
* a restore of a tag keeps what the manifest names, looks whether that is there, and only then whether the manifest
  is: what was whole is restored whole, or refused.

If P1 came before he looked for marks, he waits, and then sees what is gone: the push writes it again, the index is told
that its child is missing. If not, his suspicion came before his look, that before P1, and P1 before P2: P2 sees the
suspicion, or it is older than a grace period, and he named what he wanted to name in a quarter of one, or begins again
(`in_time`). What he has written is seen by P2 then: tags and parents are read under the mark. So nothing that was
acknowledged is lost, whoever dies where. A tag is set by a push alone, so a manifest that has been tagged and untagged
since the decision has a young suspicion, too; P2 reads the history of tags all the same.

Manifests that keep each other are decided on and removed under one mark, so that none of them stays without the others.
After a crash some of them may be left, children without their index rather than an index without its children; and a
mark, which the next collector removes, the next removal here, or a server that notices it. What could not be read, or
removed, stays.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from typing import Final, Literal

from angos.sansio import layout
from angos.sansio.collection import collector
from angos.sansio.collection.presence import mark_value, stale_suspicions
from angos.sansio.effects import (
    CreateKeys,
    DeleteKeys,
    DeleteKeysWithin,
    DrawId,
    EffectError,
    Key,
    Sleep,
    StatKey,
)
from angos.sansio.oci.digest import Digest
from angos.sansio.oci.reference import Namespace, Tag
from angos.sansio.scopes import leased
from angos.sansio.tags import newest_events
from angos.sansio.untagged import Fate, Look, Named, Terms

BATCH: Final = 100
"""Manifests under one mark, unless more of them keep each other. A writer that needs one waits for them all."""
LEASE_SECONDS: Final = 600.0
WAIT_SECONDS: Final = 60.0
TAKING_OVER: Final = "a take-over of another registry has begun"

Removal = Literal["deleted", "pushed again", "failed"]
"""``pushed again``: or relied on again, or deleted by somebody else, since it was looked at."""
LookAgain = Callable[[Sequence[Digest], int], Awaitable[tuple[Digest, ...]]]
"""Which of these go when everything about them is read again, suspicions being as young as this time says."""


class Removing:
    """Removes what goes from one namespace."""

    def __init__(self, namespace: Namespace, terms: Terms, named: Mapping[Digest, Named], look_again: LookAgain):
        self._namespace = namespace
        self._terms = terms
        self._named = named
        self._look_again = look_again
        self._permit = Key("")
        self._in_doubt = False
        """What was asked for last may happen at any moment."""
        self.problems: list[str] = []
        """Why some of it failed."""

    async def remove(self, going: Sequence[Digest]) -> dict[Digest, Removal]:
        """Try to remove these. Fails when the store cannot be listed or written to."""
        outcomes: dict[Digest, Removal] = dict.fromkeys(going, "failed")
        async with leased(collector.WORK, seconds=LEASE_SECONDS, wait_seconds=WAIT_SECONDS) as alone:
            if not alone:
                self.problems.append(collector.BUSY)
                return outcomes
            await collector.take_over_from_others()
            self._permit = layout.permit_key(await DrawId())
            await CreateKeys(((self._permit, b"{}"),))
            for batch in _batches(going, self._named):
                done = await self._remove_batch(batch)
                outcomes |= done
                if self.problems:
                    break
            await DeleteKeys((self._permit,))
        return outcomes

    async def _remove_batch(self, batch: Sequence[Digest]) -> dict[Digest, Removal]:
        mark = layout.mark_key(await DrawId())
        await CreateKeys(((mark, mark_value(batch)),))
        removed: tuple[Digest, ...] = ()
        failure: EffectError | None = None
        try:
            removed = await self._remove_marked(batch, mark)
        except EffectError as error:
            failure = error
        if failure is not None and self._in_doubt:
            await Sleep(collector.SETTLED_SECONDS)  # writers have to wait for that too
        await DeleteKeys((mark,))
        if failure is not None:
            self.problems.append(str(failure))
        if self.problems:
            return {}
        return {digest: "deleted" if digest in removed else "pushed again" for digest in batch}

    async def _remove_marked(self, batch: Sequence[Digest], mark: Key) -> tuple[Digest, ...]:
        stat = await StatKey(mark)
        if await StatKey(layout.TAKING_OVER_KEY) is not None or stat is None:
            self.problems.append(collector.OVERTAKEN if stat is None else TAKING_OVER)
            return ()
        going = await self._look_again(batch, stat.modified_ms)
        suspected = (each for digest in going for each in (digest, *self._named[digest].children))
        if entries := await stale_suspicions(suspected, self._terms.grace_seconds):
            self._terms.own.update(dict.fromkeys(key for key, _ in entries))
            await CreateKeys(entries)
        for keys in (self._records(going), *self._levels(going)):
            if not keys:
                continue
            if await StatKey(self._permit) is None:
                self.problems.append(collector.OVERTAKEN)
                return ()
            self._in_doubt = True
            await DeleteKeysWithin(keys, collector.REMOVAL_SECONDS)
            self._in_doubt = False
        return going

    def _records(self, going: Sequence[Digest]) -> tuple[Key, ...]:
        subjects = ((digest, self._named[digest].subject) for digest in going)
        return tuple(
            layout.referrer_key(self._namespace, subject, digest) for digest, subject in subjects if subject is not None
        )

    def _levels(self, going: Sequence[Digest]) -> Iterator[tuple[Key, ...]]:
        """Revisions, each after those of all indexes that name it."""
        for level in levels(going, self._named):
            yield tuple(layout.revision_key(self._namespace, digest) for digest in level)


def levels(going: Sequence[Digest], named: Mapping[Digest, Named]) -> Iterator[tuple[Digest, ...]]:
    """These manifests, each after all that name it."""
    above = dict.fromkeys(going, 0)
    for digest in going:
        for child in named[digest].children:
            if child in above:
                above[child] += 1
    level = [digest for digest in going if not above[digest]]
    while level:
        yield tuple(level)
        below: list[Digest] = []
        for digest in level:
            for child in named[digest].children:
                if child in above:
                    above[child] -= 1
                    if not above[child]:
                        below.append(child)
        level = below


def _batches(going: Sequence[Digest], named: Mapping[Digest, Named]) -> Iterator[tuple[Digest, ...]]:
    """These manifests, those that keep each other together."""
    batch: list[Digest] = []
    for group in groups(going, named):
        batch += group
        if len(batch) >= BATCH:
            yield tuple(sorted(batch))
            batch = []
    if batch:
        yield tuple(sorted(batch))


def groups(going: Sequence[Digest], named: Mapping[Digest, Named]) -> Iterator[tuple[Digest, ...]]:
    """Those of these manifests that are connected by what they name."""
    beside: dict[Digest, list[Digest]] = {digest: [] for digest in going}
    for digest in going:
        what = named[digest]
        for other in (*what.children, *((what.subject,) if what.subject is not None else ())):
            if other in beside:
                beside[digest].append(other)
                beside[other].append(digest)
    seen: dict[Digest, None] = {}
    for first in going:
        if first in seen:
            continue
        seen[first] = None
        group = [first]
        for digest in group:  # grows while it is read
            for other in beside[digest]:
                if other not in seen:
                    seen[other] = None
                    group.append(other)
        yield tuple(group)


# --- one namespace ----------------------------------------------------------------------------------------------------


async def prune_untagged(
    namespace: Namespace, terms: Terms, without: Collection[Tag], *, dry_run: bool
) -> tuple[tuple[tuple[Fate, Removal | None], ...], tuple[str, ...]]:
    """Look at the manifests of a namespace that no tag names, and remove those that go unless it is a dry run. Tags
    `without` which it is to be judged count as deleted.

    Reply: what is to become of each, and of those that go, what has become of it (``deleted`` in a dry run); and why
    removing some of them failed. Fails when the namespace cannot be listed.
    """
    look = Look(namespace, terms)
    fates = await look.fates(await _live_tags(namespace, without))
    going = [fate.digest for fate in fates if fate.goes]

    async def look_again(batch: Sequence[Digest], now_ms: int) -> tuple[Digest, ...]:
        again = Look(namespace, terms, now_ms, look)
        return tuple(fate.digest for fate in await again.fates(await _live_tags(namespace), batch) if fate.goes)

    removals: dict[Digest, Removal] = dict.fromkeys(going, "deleted")
    problems: list[str] = []
    if going and not dry_run:
        removing = Removing(namespace, terms, look.named, look_again)
        removals = await removing.remove(going)
        problems = removing.problems
    return tuple((fate, removals.get(fate.digest)) for fate in fates), tuple(problems)


async def _live_tags(namespace: Namespace, without: Collection[Tag] = ()) -> dict[Tag, Digest]:
    newest = await newest_events(namespace)
    return {tag: event.digest for tag, event in newest.items() if event.kind == "set" and tag not in without}
