"""Whether anybody needs some blobs: what a collector finds out about them, without changing anything.

Many blobs are looked at in one go, question by question, which saves most of what it costs to ask. Nothing here
decides on something that could not be read: such a blob is kept, and the reason is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Literal

from angos.sansio import layout
from angos.sansio.effects import EffectError, Key, ReadKey, Stat, StatKeys, StatsBelow
from angos.sansio.errors import Invalid
from angos.sansio.history import is_kept
from angos.sansio.oci.digest import Digest
from angos.sansio.oci.manifest import parse_manifest
from angos.sansio.oci.reference import Namespace
from angos.sansio.together import together

NEVER_MS = 1 << 62

Suspicions = tuple[tuple[Key, Stat], ...]
"""The keys that ask for a look at one blob."""


Revision = tuple[Namespace, Digest]
"""A manifest of a namespace."""

Existence = Literal["there", "deleted", "gone"]
"""Of a manifest: ``deleted`` is one that a tag can still be set back to."""


class Excuse(Enum):
    """Why the bytes of a blob stay."""

    NEEDED = "needed"
    YOUNG = "young"
    """Somebody may be about to need it."""
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Examined:
    """What is to become of one blob."""

    digest: Digest
    excuse: Excuse | None
    """None: the bytes go, if they are there."""
    void: tuple[Key, ...] = ()
    """Names that mean nothing any more: those of everybody, or of namespaces that do not need it."""
    settled: tuple[Key, ...] = ()
    """Suspicions that have been looked into."""
    bytes: int | None = None
    """How many there are to be removed; None for none."""
    again: bool = False
    """Needed for a while only: it has to be looked at again."""
    children: tuple[Digest, ...] = ()
    """What it needed itself, when it is a manifest."""
    problem: str = ""


class Revisions:
    """Which manifests exist, as far as it has been asked under one mark. What is absent then stays so: whoever pushes a
    manifest keeps what it names before, and finds the mark."""

    def __init__(self, now_ms: int, history_seconds: Callable[[Namespace], float]) -> None:
        """`history_seconds`: how long a tag of a namespace can be set back."""
        self._now_ms = now_ms
        self._history_seconds = history_seconds
        self._known: dict[Revision, Existence] = {}

    async def look(self, wanted: Iterable[Revision]) -> Mapping[Revision, Existence]:
        """What is known of the manifests of namespaces, these among them."""
        unknown = [each for each in dict.fromkeys(wanted) if each not in self._known]
        if unknown:
            stats = await StatKeys(tuple(layout.revision_key(namespace, manifest) for namespace, manifest in unknown))
            absent = [each for each, stat in zip(unknown, stats, strict=True) if stat is None]
            kept = await self._kept([each for each in absent if self._history_seconds(each[0])])
            for each, stat in zip(unknown, stats, strict=True):
                self._known[each] = "there" if stat is not None else "deleted" if each in kept else "gone"
        return self._known

    async def _kept(self, absent: Sequence[Revision]) -> frozenset[Revision]:
        """Those of these that a tag can be set back to."""
        stats = await StatKeys(tuple(layout.blob_key(manifest) for _, manifest in absent)) if absent else ()
        possible = [each for each, stat in zip(absent, stats, strict=True) if stat is not None]
        kept = await together(is_kept(*each, self._now_ms, self._history_seconds(each[0])) for each in possible)
        return frozenset(each for each, is_one in zip(possible, kept, strict=True) if is_one)


async def examine(
    digests: Sequence[Digest],
    suspicions: Mapping[Digest, Suspicions],
    now_ms: int,
    grace_seconds: float | None,
    revisions: Revisions,
) -> tuple[Examined, ...]:
    """Look who needs these blobs. `now_ms` is the time of the store, from before this look. With `grace_seconds` None
    what is young is not left alone."""
    old_ms = NEVER_MS if grace_seconds is None else now_ms - int(grace_seconds * 1000)
    try:
        return await _examine(digests, suspicions, old_ms, revisions)
    except EffectError as error:
        failure = error
    if len(digests) == 1:
        return (Examined(digests[0], Excuse.UNREADABLE, problem=str(failure)),)
    # One of them that cannot be read must not keep the others.
    middle = len(digests) // 2
    first = await examine(digests[:middle], suspicions, now_ms, grace_seconds, revisions)
    return first + await examine(digests[middle:], suspicions, now_ms, grace_seconds, revisions)


async def _examine(
    digests: Sequence[Digest], suspicions: Mapping[Digest, Suspicions], old_ms: int, revisions: Revisions
) -> tuple[Examined, ...]:
    found = {digest: Examined(digest, Excuse.YOUNG) for digest in digests}
    old = [digest for digest in digests if all(stat.modified_ms <= old_ms for _, stat in suspicions.get(digest, ()))]
    listed = await StatsBelow(tuple(map(layout.blob_references_prefix, old))) if old else ()
    names = [
        _Names(digest, tuple(key for key, _ in suspicions.get(digest, ())), entries)
        for digest, entries in zip(old, listed, strict=True)
        if all(stat.modified_ms <= old_ms for _, stat in entries)
    ]
    known = await revisions.look(revision for each in names for revision in each.revisions)
    judged = [each.judged(known) for each in names]
    found.update((each.digest, each) for each in judged)
    needless = [each for each in judged if each.excuse is None]
    stats = await StatKeys(tuple(layout.blob_key(each.digest) for each in needless)) if needless else ()
    there = [(each, stat) for each, stat in zip(needless, stats, strict=True) if stat is not None]
    manifests = {each.digest for each in names if each.is_manifest}
    looked_into = [each.digest for each, stat in there if stat.modified_ms <= old_ms and each.digest in manifests]
    children = dict(zip(looked_into, await together(map(_children, looked_into)), strict=True))
    for each, stat in there:
        if stat.modified_ms > old_ms:
            found[each.digest] = Examined(each.digest, Excuse.YOUNG)
        else:
            found[each.digest] = replace(each, bytes=stat.size, children=children.get(each.digest, ()))
    return tuple(found[digest] for digest in digests)


class _Names:
    """All that is recorded about who owns or needs one blob."""

    def __init__(self, digest: Digest, settled: tuple[Key, ...], entries: Iterable[tuple[str, Stat]]) -> None:
        prefix = layout.blob_references_prefix(digest)
        self.digest = digest
        self._settled = settled
        self._names = [(layout.parse_blob_name(digest, name), Key(prefix + name)) for name, _ in entries]

    @property
    def revisions(self) -> list[Revision]:
        """The manifests that need it, if they exist; none when there is a name whose meaning is not known."""
        if self._is_strange:
            return []
        return [(name.namespace, name.revision) for name, _ in self._names if name and name.revision is not None]

    @property
    def is_manifest(self) -> bool:
        """Of some namespace."""
        return any(name is not None and not name.owner and name.revision == self.digest for name, _ in self._names)

    @property
    def _is_strange(self) -> bool:
        """Another version has written some of it, and may know why."""
        return any(name is None or (not name.owner and name.revision is None) for name, _ in self._names)

    def judged(self, known: Mapping[Revision, Existence]) -> Examined:
        """What is to become of it, without a look at the bytes."""
        if self._is_strange:
            return Examined(self.digest, Excuse.NEEDED, settled=self._settled)
        needing = {each for each in self.revisions if known[each] != "gone"}
        namespaces = {namespace for namespace, _ in needing}
        void = tuple(
            key
            for name, key in self._names
            if name is not None
            and (name.revision is None or (name.namespace, name.revision) not in needing)
            # As long as the namespace needs it for anything, it may read it, and has had it.
            and not ((name.owner or name.revision == self.digest) and name.namespace in namespaces)
        )
        again = bool(needing) and all(known[each] == "deleted" for each in needing)
        return Examined(self.digest, Excuse.NEEDED if needing else None, void, self._settled, again=again)


async def _children(digest: Digest) -> tuple[Digest, ...]:
    """What a manifest names. None of what cannot be parsed: it was stored under other rules."""
    body = await ReadKey(layout.blob_key(digest))
    try:
        references = parse_manifest(body or b"{}", None).references
    except Invalid:
        return ()
    return tuple(child.storable for child in references if child.storable is not None)
