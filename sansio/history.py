"""What a tag named before: its changes, newest first, and the way back to one of them.

Every change of a tag is an event of its own and stays (`angos.sansio.tags`), so the history is there to be read. A
*change* lasts until the next one happens. For a window of time after that, `global.tag_history_secs`, the tag can be
set back to what it named, also when the manifest was deleted: `still_restorable` is the rule, for whoever restores and
for whoever wants to get rid of the bytes (`is_kept`).

Restoring is a push: of the manifest, if it was deleted, and of those that it names, and then of the tag. It takes the
same steps in the same order as `angos.sansio.manifests.push_manifest`, because it is that operation. So what holds for
a push that crosses pushes, deletions, retention and the collector holds for it, immutable tags are respected, and a
crash leaves what a crash in a push leaves. What it brings back must be whole: it is refused when something is missing
that the manifest needs, and nothing has been named then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from angos.sansio import layout
from angos.sansio.config import RegistryConfig
from angos.sansio.effects import Key, ListKeys, ReadClock, ReadKey, StatKey
from angos.sansio.errors import Invalid, RegistryError
from angos.sansio.layout import TagEvent
from angos.sansio.manifests import find_references, push_manifest, read_media_type
from angos.sansio.oci.digest import Digest
from angos.sansio.oci.manifest import Manifest, parse_manifest
from angos.sansio.oci.media_type import IMAGE_TYPES, INDEX_TYPES
from angos.sansio.oci.reference import Namespace, Tag
from angos.sansio.tags import parse_event_body, time_of
from angos.sansio.together import together

PAGE = 100
DEPTH_MAX = 8
"""Indexes of indexes that are brought back with the one that a tag names."""


@dataclass(frozen=True, slots=True)
class Change:
    """A tag was set or deleted."""

    event: TagEvent
    at_ms: int
    """When it happened. An event that deletes is dated otherwise, by what it deletes."""
    until_ms: int | None
    """When the next change happened; None while there is none."""
    by: str | None = None
    """Who did it, where that was known and recorded."""
    media_type: str | None = None
    """Of a deletion: the type that the manifest was pushed with, if that was known."""


def still_restorable(change: Change, now_ms: int, window_seconds: float) -> bool:
    """Whether the tag can be set back to what this change made of it, even if that has been deleted since."""
    if change.event.kind == "del":
        return False
    return change.until_ms is None or now_ms - change.until_ms <= window_seconds * 1000


async def is_kept(namespace: Namespace, manifest: Digest, now_ms: int, window_seconds: float) -> bool:
    """Whether a tag of the namespace could be set back to this manifest, or to one that names it. For the collector,
    about a manifest that was deleted; what the manifest names is needed as long."""
    return window_seconds > 0 and await _is_kept(namespace, manifest, now_ms, window_seconds, {manifest})


async def _is_kept(
    namespace: Namespace, manifest: Digest, now_ms: int, window_seconds: float, seen: set[Digest]
) -> bool:
    after, more = "", True
    while more:
        page = await ListKeys(layout.references_prefix(manifest, namespace), after)
        for name in page.names:
            if (tag := layout.parse_tag_reference_name(name)) is not None:
                if await _tag_keeps(namespace, tag, manifest, now_ms, window_seconds):
                    return True
            elif (index := layout.parse_manifest_reference_name(name)) is not None and index not in seen:
                seen.add(index)
                if await _is_kept(namespace, index, now_ms, window_seconds, seen):
                    return True
        after, more = page.last, page.more
    return False


async def _tag_keeps(namespace: Namespace, tag: Tag, manifest: Digest, now_ms: int, window_seconds: float) -> bool:
    """Reads no further back than the window."""
    after, more = "", True
    while more:
        changes, after, more = await read_changes(namespace, tag, after, PAGE)
        for change in changes:
            if change.event.digest == manifest and still_restorable(change, now_ms, window_seconds):
                return True
        if changes and now_ms - changes[-1].at_ms > window_seconds * 1000:
            return False
    return False


async def restorable(
    namespace: Namespace, manifests: frozenset[Digest], now_ms: int, window_seconds: float
) -> frozenset[Digest]:
    """Those of these manifests that some tag of the namespace can be set back to. Costs a listing of all its tags, and
    a look at the deletions that matter."""
    events: dict[Tag, set[TagEvent]] = {}
    for prefix in (layout.tags_prefix(namespace), layout.histories_prefix(namespace)):
        after, more = "", True
        while more:
            page = await ListKeys(prefix, after)
            after, more = page.last, page.more
            for name in page.names:
                folder, _, last = name.partition("/")
                tag, event = layout.parse_tag_folder(folder), layout.parse_tag_event(last)
                if tag is not None and event is not None:
                    events.setdefault(tag, set()).add(event)
    found = set()
    for tag, of_tag in events.items():
        until: TagEvent | None = None
        for event in sorted(of_tag, key=lambda each: (each.at_ms, each.kind == "set", each.digest), reverse=True):
            if event.digest in manifests and event.digest not in found:
                # A deletion is dated by what it deletes; what counts is when it really happened, which is later.
                known = None if until is None else until.at_ms
                if until is not None and until.kind == "del" and now_ms - until.at_ms > window_seconds * 1000:
                    known = time_of(until, await _body(namespace, tag, until))
                if still_restorable(Change(event, event.at_ms, known), now_ms, window_seconds):
                    found.add(event.digest)
            until = event
    return frozenset(found)


async def read_changes(
    namespace: Namespace, tag: Tag, after: str = "", limit: int = PAGE
) -> tuple[tuple[Change, ...], str, bool]:
    """Changes newest first: a page of `limit`, or a few more, since those of one millisecond are not torn apart. And
    what the next page comes after, and whether there is one."""
    here, there = layout.tag_events_prefix(namespace, tag), layout.tag_history_prefix(namespace, tag)
    current = await ListKeys(here, after, limit + 1)
    superseded = await ListKeys(there, after, limit + 1)
    names = sorted({*current.names, *superseded.names})
    more = current.more or superseded.more or len(names) > limit
    page = names[:limit]
    while page and names[len(page) :] and names[len(page)][:16] == page[-1][:16]:
        page.append(names[len(page)])
    events = [event for name in page if (event := layout.parse_tag_event(name)) is not None]
    bodies = await together(_body(namespace, tag, event) for event in events)
    known = dict(zip(events, bodies, strict=True))
    until_ms = await _happened_ms(namespace, tag, after) if after else None
    changes: list[Change] = []
    for _, same in groupby(events, key=lambda event: event.at_ms):
        for event in sorted(same, key=lambda event: (event.kind == "set", event.digest), reverse=True):
            change = _change(event, known[event], until_ms)
            changes.append(change)
            until_ms = change.at_ms
    return tuple(changes), page[-1] if page else after, more and bool(page)


async def _happened_ms(namespace: Namespace, tag: Tag, name: str) -> int | None:
    event = layout.parse_tag_event(name)
    return None if event is None else _change(event, await _body(namespace, tag, event), None).at_ms


async def _body(namespace: Namespace, tag: Tag, event: TagEvent) -> dict[str, Any]:
    value = await ReadKey(Key(f"{layout.tag_events_prefix(namespace, tag)}{event}"))
    if value is None:  # moved meanwhile, or long ago
        value = await ReadKey(Key(f"{layout.tag_history_prefix(namespace, tag)}{event}"))
    return parse_event_body(value)


def _change(event: TagEvent, body: dict[str, Any], until_ms: int | None) -> Change:
    by, media_type = body.get("by"), body.get("media_type")
    return Change(
        event,
        time_of(event, body),
        until_ms,
        by if isinstance(by, str) else None,
        media_type if isinstance(media_type, str) else None,
    )


# --- restoring --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Restored:
    """What a tag names again."""

    digest: Digest
    before: Digest | None
    """What it named until now; None when there was no such tag."""
    manifests: tuple[Digest, ...]
    """Those that had been deleted and are there again."""


async def restore_tag(
    namespace: Namespace, tag: Tag, to: Digest | int | None, config: RegistryConfig, by: str | None = None
) -> Restored:
    """Let a tag name again what it named before: before its last change, or the manifest `to`, or what it named at the
    time `to` in milliseconds. Raises `RegistryError` when there is nothing to go back to, or no way."""
    repository = config.repository(namespace)
    if repository is not None and repository.upstreams:
        from angos.sansio.upstream.answering import no_push  # a registry without upstreams starts without it

        raise no_push(repository)
    changes, wanted = await _find(namespace, tag, to)
    digest = wanted.event.digest
    newest = changes[0].event
    body, manifest = await _read(namespace, digest, changes)
    # What is whole now is restored whole, or refused: retention may be about to take it all, an index before its
    # children.
    missing, _ = await find_references(namespace, manifest, config.collection_grace_seconds)
    gone = await StatKey(layout.revision_key(namespace, digest)) is None
    if gone:
        _check_window(tag, digest, changes, await ReadClock(), config)
    brought = await _bring_back(namespace, manifest, config, by, DEPTH_MAX) if gone else ()
    await push_manifest(namespace, digest, body, manifest, (tag,), config, by=by, whole=gone or not missing)
    before = newest.digest if newest.kind == "set" else None
    return Restored(digest, before, (*brought, digest) if gone else ())


async def _find(namespace: Namespace, tag: Tag, to: Digest | int | None) -> tuple[list[Change], Change]:
    """The changes down to the one that is wanted, and that one."""
    seen: list[Change] = []
    after, more = "", True
    while more:
        changes, after, more = await read_changes(namespace, tag, after, PAGE)
        for change in changes:
            seen.append(change)
            if _is_wanted(change, seen[0], to):
                if change.event.kind == "del":
                    raise _nothing(f"tag {tag} of {namespace} was deleted at that time")
                return seen, change
    if not seen:
        raise _nothing(f"{namespace} never had a tag {tag}")
    if isinstance(to, Digest):
        raise _nothing(f"tag {tag} of {namespace} never named {to}")
    if to is not None:
        raise _nothing(f"{namespace} had no tag {tag} at that time")
    raise _nothing(f"tag {tag} of {namespace} never named anything else")


def _is_wanted(change: Change, newest: Change, to: Digest | int | None) -> bool:
    event = change.event
    if isinstance(to, int):
        return change.at_ms <= to
    if event.kind == "del":
        return False
    if to is not None:
        return event.digest == to
    return newest.event.kind == "del" or event.digest != newest.event.digest


def _nothing(message: str) -> RegistryError:
    return RegistryError(404, "MANIFEST_UNKNOWN", message)


def _check_window(tag: Tag, digest: Digest, changes: Sequence[Change], now_ms: int, config: RegistryConfig) -> None:
    window = config.tag_history_seconds
    if not any(change.event.digest == digest and still_restorable(change, now_ms, window) for change in changes):
        raise _nothing(
            f"{digest}, which tag {tag} named, was deleted, and global.tag_history_secs does not reach back to it;"
            " push it again"
        )


async def _read(namespace: Namespace, digest: Digest, changes: Sequence[Change] = ()) -> tuple[bytes, Manifest]:
    """The bytes of a manifest, and what they say."""
    body = await ReadKey(layout.blob_key(digest))
    if body is None:
        raise _nothing(f"the bytes of {digest} are gone; push it again")
    told = (change.media_type for change in changes if change.event.digest == digest and change.media_type)
    media_type = await read_media_type(namespace, digest) or next(told, None)
    try:
        return body, parse_manifest(body, media_type)
    except Invalid as error:
        raise RegistryError(400, "MANIFEST_INVALID", f"{digest} was stored under looser rules: {error}") from None


async def _bring_back(
    namespace: Namespace, manifest: Manifest, config: RegistryConfig, by: str | None, depth: int
) -> tuple[Digest, ...]:
    """Push those again that this manifest names and that were deleted here, the innermost first.

    That it names a digest, or that its bytes are there, says nothing: they may be of another namespace."""
    missing, _ = await find_references(namespace, manifest, config.collection_grace_seconds)
    brought: list[Digest] = []
    for descriptor in missing:
        child = descriptor.storable
        if child is None or descriptor.media_type not in IMAGE_TYPES | INDEX_TYPES or not depth:
            continue  # told by the push that misses it
        if await StatKey(layout.revision_reference_key(child, namespace)) is None:
            continue  # the namespace never had it
        if await StatKey(layout.blob_key(child)) is None:
            continue
        body, parsed = await _read(namespace, child)
        brought += await _bring_back(namespace, parsed, config, by, depth - 1)
        await push_manifest(namespace, child, body, parsed, (), config, by=by, whole=True)
        brought.append(child)
    return tuple(brought)
