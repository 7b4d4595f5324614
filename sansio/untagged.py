"""Manifests without a tag: which of them no rule of retention keeps. Decides, and touches nothing.

A manifest *stays* when one of these is so:

* a tag names it;
* a rule keeps it, with ``image.tag`` null; or a rule fails, or it is young, as with tags (`angos.sansio.retention`);
* somebody pushed it, or was about to rely on it, less than a grace period of the collector ago;
* a tag can be set back to it, or to an index that names it (`angos.sansio.history`);
* something about it could not be read, or is not understood;
* an index that stays names it; it refers to a subject that stays; something that stays refers to it.

The last line is the least solution: what only keeps itself, round a circle, does not stay. So an index goes together
with its children, and an image with its signature.

A tag made from the digest of a manifest, ``sha256-<hex>``, belongs to that manifest and would keep it for ever by this,
as each of the two keeps the other. So what is reached from such tags alone stays too, but keeps nothing to which it
refers: first the manifest goes, and then, in a run after that, what belonged to it.

How the manifests that do not stay are deleted: `angos.sansio.untagged_removal`.
"""

from __future__ import annotations

from collections.abc import Collection, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from angos.sansio import layout
from angos.sansio.compact_json import parse_json
from angos.sansio.effects import EffectError, Key, ListKeys, ListStats, ReadKey, StatKey
from angos.sansio.errors import Invalid
from angos.sansio.history import restorable
from angos.sansio.listing import names_below
from angos.sansio.manifests import recorded_media_type
from angos.sansio.oci.digest import Digest
from angos.sansio.oci.manifest import parse_manifest
from angos.sansio.oci.reference import Namespace, Tag
from angos.sansio.pulls import PullTimes
from angos.sansio.retention import RetentionRule, Ruled, apply_rules, named_subject
from angos.sansio.together import together

LOOKS_AT_ONCE: Final = 32
CHUNK: Final = 1000
"""Looks that are prepared at a time."""

Link = Literal["part", "refers", "referred", "belongs"]
"""Why one manifest keeps another: an index names it; it refers to it; it is referred to by it; its tag is made from the
digest."""
WhyManifest = Literal[
    Ruled, "young", "undated", "used", "restorable", "unknown", "unreadable", "part", "refers", "referred"
]
"""What decided. ``used``: somebody pushed it, or was about to rely on it; ``unknown``: another version noted a reason
for it, or its bytes cannot be understood; the last three: another manifest keeps it. ``no rule`` is why one goes."""


@dataclass(frozen=True, slots=True)
class Fate:
    """What is to become of a manifest without a tag, and why."""

    digest: Digest
    pushed_ms: int | None
    """When it was pushed for the first time, None when that is not known or did not matter."""
    why: WhyManifest
    rule: RetentionRule | None = None
    problem: str = ""
    """Of the rule that failed, or what could not be read."""
    by: Digest | None = None
    """The manifest that keeps it."""

    @property
    def goes(self) -> bool:
        """Whether it may be deleted."""
        return self.why == "no rule"


@dataclass(frozen=True, slots=True)
class Named:
    """What a manifest names."""

    children: tuple[Digest, ...]
    subject: Digest | None


@dataclass(frozen=True, slots=True)
class Terms:
    """What a run goes by."""

    rules: tuple[RetentionRule, ...]
    now_ms: int
    min_age_ms: int
    grace_seconds: float
    """That of the collector."""
    history_seconds: float
    own: dict[Key, None]
    """Suspicions that the run made itself."""
    pulls: PullTimes | None = None
    """None: no rule asks for them."""


class Look:
    """One look at the manifests of a namespace that no tag names: at all of them, or at some again."""

    def __init__(self, namespace: Namespace, terms: Terms, now_ms: int | None = None, before: Look | None = None):
        self._namespace = namespace
        self._terms = terms
        self._now_ms = terms.now_ms if now_ms is None else now_ms
        """By which suspicions are young."""
        self.named: dict[Digest, Named] = {} if before is None else before.named
        """What those name that go. It never changes."""
        self.weak: frozenset[Digest] = frozenset() if before is None else before.weak
        """What stays for the sake of a tag that belongs to another manifest."""
        self._there: dict[Digest, bool] = {}
        """What is known about which manifests the namespace has; from the beginning, all that are looked at."""
        self._untagged: dict[Digest, None] = {}
        self._links: dict[Digest, list[tuple[Digest, Link]]] = {}
        """From what stays to what stays with it."""
        self._roots: dict[Digest, None] = {}
        self._weak_roots: dict[Digest, None] = {}
        self._absent: dict[Digest, None] = {}
        """Indexes that were deleted."""
        self._own: dict[Digest, Fate] = {}
        """Those of manifests that stay by themselves."""
        self._pushed_ms: dict[Digest, int | None] = {}
        self._types: dict[Digest, str | None] = {}

    async def fates(self, tags: Mapping[Tag, Digest], only: Collection[Digest] | None = None) -> tuple[Fate, ...]:
        """What is to become of each, in the order of digests. `tags` are those that stay, and what they name.

        Fails when the namespace cannot be listed.
        """
        listed = await revisions_of(self._namespace) if only is None else tuple(sorted(only))
        self._there = dict.fromkeys(listed, True)
        self._note_tags(tags)
        self._untagged = {
            digest: None for digest in listed if digest not in self._roots and digest not in self._weak_roots
        }
        if not self._untagged:
            return ()
        await self._note_referrers()
        await _each(self._note_parents(digest) for digest in self._untagged)
        await _each(self._ask_rules(digest) for digest in self._left())
        await self._note_history(self._left())
        await _each(self._look_closer(digest) for digest in self._left())
        strongly = self._spread(self._roots, {}, upwards=True)
        weakly = self._spread(self._weak_roots, strongly, upwards=False)
        self.weak |= frozenset(weakly)
        stays = {**weakly, **strongly}
        return tuple(self._fate(digest, stays) for digest in self._untagged if self._there[digest])

    # --- what stays -----------------------------------------------------------------------------------------------

    def _note_tags(self, tags: Mapping[Tag, Digest]) -> None:
        for tag, digest in tags.items():
            subject = named_subject(tag)
            if subject is None or subject not in self._there:
                self._roots[digest] = None
            else:
                self._weak_roots[digest] = None
                self._link(subject, digest, "belongs")

    def _link(self, keeper: Digest, kept: Digest, link: Link) -> None:
        self._links.setdefault(keeper, []).append((kept, link))

    def _keep(self, fate: Fate) -> None:
        self._own[fate.digest] = fate
        self._roots[fate.digest] = None

    def _spread(
        self, roots: Iterable[Digest], known: Mapping[Digest, object], *, upwards: bool
    ) -> dict[Digest, tuple[Digest, Link] | None]:
        """Everything that stays with these, and what keeps it; nothing that is known already."""
        reached: dict[Digest, tuple[Digest, Link] | None] = {root: None for root in roots if root not in known}
        waiting = list(reached)
        while waiting:
            keeper = waiting.pop()
            for kept, link in self._links.get(keeper, ()):
                if kept not in reached and kept not in known and (upwards or link != "referred"):
                    reached[kept] = (keeper, link)
                    waiting.append(kept)
        return reached

    def _left(self) -> list[Digest]:
        """Those for which no reason to stay has been found yet."""
        reached = self._spread(self._roots, {}, upwards=True)
        return [digest for digest in self._untagged if digest not in reached]

    def _fate(self, digest: Digest, stays: Mapping[Digest, tuple[Digest, Link] | None]) -> Fate:
        if digest in self._own:
            return self._own[digest]
        pushed_ms = self._pushed_ms.get(digest)
        if digest not in stays:
            return Fate(digest, pushed_ms, "no rule")
        keeper = stays[digest]
        assert keeper is not None, "only tags keep without another manifest, and these have none"
        why = keeper[1]
        assert why != "belongs", "that needs a tag"
        return Fate(digest, pushed_ms, why, by=keeper[0])

    # --- looking --------------------------------------------------------------------------------------------------

    async def _is_there(self, digest: Digest) -> bool:
        """Whether the namespace has this manifest. One that is not among those that are looked at stays."""
        there = self._there.get(digest)
        if there is None:
            there = await StatKey(layout.revision_key(self._namespace, digest)) is not None
            self._there[digest] = there
            if there:
                (self._weak_roots if digest in self.weak else self._roots)[digest] = None
        return there

    async def _note_referrers(self) -> None:
        after, more = "", True
        while more:
            page = await ListKeys(layout.subjects_prefix(self._namespace), after)
            after, more = page.last, page.more
            for name in page.names:
                pair = layout.parse_subject_name(name)
                if pair is not None and (pair[0] in self._untagged or pair[1] in self._untagged):
                    await self._note_reference(*pair)

    async def _note_reference(self, subject: Digest, referrer: Digest) -> None:
        # A subject need not be there, and a record may outlive its manifest.
        if await self._is_there(subject) and await self._is_there(referrer):
            self._link(subject, referrer, "refers")
            self._link(referrer, subject, "referred")

    async def _note_parents(self, digest: Digest) -> None:
        problem = ""
        try:
            for parent in await self._parents(digest):
                self._link(parent, digest, "part")
                if not await self._is_there(parent):
                    self._absent[parent] = None
        except EffectError as error:
            problem = str(error)
        if problem:
            self._keep(Fate(digest, None, "unreadable", problem=problem))

    async def _parents(self, digest: Digest) -> list[Digest]:
        """The manifests of the namespace that name it, or did."""
        found: list[Digest] = []
        for text in await names_below(layout.references_prefix(digest, self._namespace)):
            name = layout.parse_blob_name(digest, f"{self._namespace}!r/{text}")
            if name is None or name.revision is None:
                self._keep(Fate(digest, None, "unknown", problem=f"it is needed for {text}"))
            elif name.revision != digest:
                found.append(name.revision)
        return found

    async def _ask_rules(self, digest: Digest) -> None:
        record: bytes | None = None
        problem = ""
        try:
            record = await ReadKey(layout.revision_key(self._namespace, digest))
        except EffectError as error:
            problem = str(error)
        if problem:
            self._keep(Fate(digest, None, "unreadable", problem=problem))
        elif record is None:
            self._there[digest] = False  # somebody has deleted it
        else:
            self._types[digest] = recorded_media_type(record)
            self._judge(digest, _pushed_ms(record))

    def _judge(self, digest: Digest, pushed_ms: int | None) -> None:
        self._pushed_ms[digest] = pushed_ms
        terms = self._terms
        if pushed_ms is None:
            self._keep(Fate(digest, None, "undated"))
        elif terms.now_ms - pushed_ms < terms.min_age_ms:
            self._keep(Fate(digest, pushed_ms, "young"))
        else:
            pulled_ms = None if terms.pulls is None else terms.pulls.last(digest, pushed_ms)
            why, rule, problem = apply_rules(terms.rules, None, pushed_ms, terms.now_ms, pulled_ms)
            if why != "no rule":
                self._keep(Fate(digest, pushed_ms, why, rule, problem))

    async def _note_history(self, left: Sequence[Digest]) -> None:
        """Deleted indexes, and those above them, keep what they name as long as a tag can be set back to them."""
        window = self._terms.history_seconds
        if not window or not left:
            return
        looked: dict[Digest, None] = {}
        while above := [digest for digest in self._absent if digest not in looked]:
            looked |= dict.fromkeys(above)
            await _each(self._note_parents_of_deleted(digest) for digest in above)
        wanted = frozenset((*left, *self._absent))
        for digest in sorted(await restorable(self._namespace, wanted, self._terms.now_ms, window)):
            self._keep(Fate(digest, self._pushed_ms.get(digest), "restorable"))

    async def _note_parents_of_deleted(self, digest: Digest) -> None:
        for parent in await self._parents(digest):
            self._link(parent, digest, "part")
            if not await self._is_there(parent):
                self._absent[parent] = None

    async def _look_closer(self, digest: Digest) -> None:
        """At what would go."""
        problem = ""
        try:
            if await self._is_used(digest):
                self._keep(Fate(digest, self._pushed_ms.get(digest), "used"))
                return
            if digest not in self.named:
                self.named[digest] = await self._read(digest)
            if (subject := self.named[digest].subject) is not None:
                await self._note_reference(subject, digest)
        except EffectError as error:
            problem = str(error)
        except Invalid as error:
            # Stored by another registry under looser rules, or its bytes are lost: a scrub tells which.
            self._keep(Fate(digest, self._pushed_ms.get(digest), "unknown", problem=str(error)))
        if problem:
            self._keep(Fate(digest, self._pushed_ms.get(digest), "unreadable", problem=problem))

    async def _is_used(self, digest: Digest) -> bool:
        old_ms = self._now_ms - int(self._terms.grace_seconds * 1000)
        prefix = layout.suspects_prefix(digest)
        after, more = "", True
        while more:
            page = await ListStats(prefix, after)
            after, more = page.last, page.more
            others = (stat for name, stat in page.entries if Key(prefix + name) not in self._terms.own)
            if any(stat.modified_ms > old_ms for stat in others):
                return True
        return False

    async def _read(self, digest: Digest) -> Named:
        body = await ReadKey(layout.blob_key(digest))
        if body is None:
            raise Invalid("there are no bytes of it")
        manifest = parse_manifest(body, self._types.get(digest))
        children = tuple(each.storable for each in manifest.references if each.storable is not None)
        return Named(children, manifest.subject)


async def revisions_of(namespace: Namespace) -> tuple[Digest, ...]:
    names = await names_below(layout.revisions_prefix(namespace))
    return tuple(digest for name in names if (digest := layout.parse_revision_name(name)) is not None)


def _pushed_ms(record: bytes) -> int | None:
    """When the manifest of this record was pushed for the first time; None when it does not say it."""
    try:
        at = datetime.fromisoformat(parse_json(record)["created_at"])
        at_ms = int((at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, KeyError, TypeError, OverflowError):
        return None
    return at_ms if at_ms >= 0 else None


async def _each(coroutines: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run them all, some at a time; not all of them are made at once."""
    chunk: list[Coroutine[Any, Any, None]] = []
    for coroutine in coroutines:
        chunk.append(coroutine)
        if len(chunk) == CHUNK:
            await together(chunk, limit=LOOKS_AT_ONCE)
            chunk = []
    await together(chunk, limit=LOOKS_AT_ONCE)
