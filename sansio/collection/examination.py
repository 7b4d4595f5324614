"""Whether anybody needs a blob: what a collector finds out about one of them, without changing anything.

Nothing here decides on something that could not be read: such a blob is kept, and the reason is told.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal

from angos.sansio import layout
from angos.sansio.effects import EffectError, Key, ListStats, ReadKey, Stat, StatKey
from angos.sansio.errors import Invalid
from angos.sansio.history import is_kept
from angos.sansio.layout import Name
from angos.sansio.oci.digest import Digest
from angos.sansio.oci.manifest import parse_manifest
from angos.sansio.oci.reference import Namespace

NEVER_MS = 1 << 62

Suspicions = tuple[tuple[Key, Stat], ...]
"""The keys that ask for a look at one blob."""


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

    def __init__(self, now_ms: int, history_seconds: float) -> None:
        self._now_ms = now_ms
        self._history_seconds = history_seconds
        self._known: dict[Key, Existence] = {}

    async def look(self, namespace: Namespace, manifest: Digest) -> Existence:
        """Whether the namespace has this manifest."""
        key = layout.revision_key(namespace, manifest)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = await self._look(key, namespace, manifest)
        return found

    async def _look(self, key: Key, namespace: Namespace, manifest: Digest) -> Existence:
        if await StatKey(key) is not None:
            return "there"
        if not self._history_seconds or await StatKey(layout.blob_key(manifest)) is None:
            return "gone"
        return "deleted" if await is_kept(namespace, manifest, self._now_ms, self._history_seconds) else "gone"


async def examine(
    digest: Digest, suspicions: Suspicions, now_ms: int, grace_seconds: float | None, revisions: Revisions
) -> Examined:
    """Look who needs a blob. `now_ms` is the time of the store, from before this look. With `grace_seconds` None what
    is young is not left alone."""
    old_ms = NEVER_MS if grace_seconds is None else now_ms - int(grace_seconds * 1000)
    try:
        return await _examine(digest, suspicions, old_ms, revisions)
    except EffectError as error:
        return Examined(digest, Excuse.UNREADABLE, problem=str(error))


async def _examine(digest: Digest, suspicions: Suspicions, old_ms: int, revisions: Revisions) -> Examined:
    if any(stat.modified_ms > old_ms for _, stat in suspicions):
        return Examined(digest, Excuse.YOUNG)
    settled = tuple(key for key, _ in suspicions)
    names = await _names(digest)
    if any(stat.modified_ms > old_ms for _, _, stat in names):
        return Examined(digest, Excuse.YOUNG)
    needing, again = set(), True
    for name, _, _ in names:
        if name is None or (not name.owner and name.revision is None):
            # Written by another version: it may know why.
            return Examined(digest, Excuse.NEEDED, settled=settled)
        existence = "gone" if name.revision is None else await revisions.look(name.namespace, name.revision)
        if existence != "gone":
            needing.add((name.namespace, name.revision))
            again = again and existence == "deleted"
    namespaces = {namespace for namespace, _ in needing}
    void = tuple(
        key
        for name, key, _ in names
        if name is not None
        and ((name.namespace, name.revision) not in needing)
        # As long as the namespace needs it for anything, it may read it, and has had it.
        and not ((name.owner or name.revision == digest) and name.namespace in namespaces)
    )
    if needing:
        return Examined(digest, Excuse.NEEDED, void, settled, again=again)
    stat = await StatKey(layout.blob_key(digest))
    if stat is None:
        return Examined(digest, None, void, settled)
    if stat.modified_ms > old_ms:
        return Examined(digest, Excuse.YOUNG)
    is_manifest = any(name is not None and not name.owner and name.revision == digest for name, _, _ in names)
    children = await _children(digest) if is_manifest else ()
    return Examined(digest, None, void, settled, stat.size, children=children)


async def _names(digest: Digest) -> list[tuple[Name | None, Key, Stat]]:
    prefix = layout.blob_references_prefix(digest)
    names: list[tuple[Name | None, Key, Stat]] = []
    after, more = "", True
    while more:
        page = await ListStats(prefix, after)
        names += ((layout.parse_blob_name(digest, name), Key(prefix + name), stat) for name, stat in page.entries)
        after, more = page.last, page.more
    return names


async def _children(digest: Digest) -> tuple[Digest, ...]:
    """What a manifest names. None of what cannot be parsed: it was stored under other rules."""
    body = await ReadKey(layout.blob_key(digest))
    try:
        references = parse_manifest(body or b"{}", None).references
    except Invalid:
        return ()
    return tuple(child.storable for child in references if child.storable is not None)
