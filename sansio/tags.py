"""Tags: a list of events per tag, of which the newest decides (distribution-spec end-8 and parts of end-7, end-9).

Setting or deleting a tag writes one event under a name of its own; nothing is overwritten, so replicas cannot lose
each other's pushes. A `set` is dated by the writer's clock, but always later than every event that the writer has
seen, so a push that begins after another one was acknowledged wins even when clocks disagree. A `del` is dated one
millisecond after the event that it deletes and no later: it takes back what its writer saw, not a push that crossed
it. Events of the same millisecond were concurrent: setting beats deleting, and among equals the higher digest wins.

A push of what the tag names already is an event as well. So every push that was acknowledged is dated later than the
event that a crossing deletion was decided on, and stands, whenever that deletion is written and whatever becomes of
who writes it; and the age of a tag is the time since its last push.

An event says inside what nobody needs to find the manifest: who did it, and of a deletion when it really happened.

`TagEvent` orders by name: newest first. Superseded events are moved to the tag's history now and then, so that reading
a tag stays one short listing however often it is pushed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from angos.sansio import layout
from angos.sansio.compact_json import compact_json, parse_json
from angos.sansio.config import RegistryConfig
from angos.sansio.effects import (
    PAGE_NAMES,
    CreateKeys,
    DeleteKeys,
    Key,
    ListKeys,
    ReadClock,
    ReadKey,
    StorageCorrupt,
)
from angos.sansio.errors import RegistryError
from angos.sansio.http.message import Inline, Response
from angos.sansio.http.query import Query, next_page, page_size
from angos.sansio.layout import TagEvent
from angos.sansio.oci.digest import Digest
from angos.sansio.oci.reference import Namespace, Tag
from angos.sansio.together import together

CLAIMS_MAX = 8  # deletions that may cross one push of an immutable tag before it gives up
CLAIM_OLD_MS = 60_000  # an event of this age says nothing about a push of now
EVENTS_LIMIT = 64
EVENTS_PER_TAG = 8  # listed for each tag that is still missing in a list of tags
SUPERSEDED_MAX = 16  # events that readers list in vain before a push moves them to the history


def winner(events: Iterable[TagEvent]) -> TagEvent | None:
    """The event that decides what the tag is now."""
    return max(events, key=_rank, default=None)


def _rank(event: TagEvent) -> tuple[int, bool, Digest]:
    return event.at_ms, event.kind == "set", event.digest


async def newest_event(namespace: Namespace, tag: Tag) -> TagEvent | None:
    """The event that decides what the tag is now, None when the tag never was. One listing, as a rule."""
    events, _ = await _list_events(namespace, tag, everything=False)
    return winner(events)


async def newest_events(namespace: Namespace) -> dict[Tag, TagEvent]:
    """For every tag that there is or was, the event that decides what it is now; in the order of keys."""
    newest: dict[Tag, TagEvent] = {}
    after, more = "", True
    while more:
        page = await ListKeys(layout.tags_prefix(namespace), after)
        for name in page.names:
            folder, _, event_name = name.partition("/")
            tag, event = layout.parse_tag_folder(folder), layout.parse_tag_event(event_name)
            if tag is not None and event is not None:
                newest[tag] = max(newest.get(tag, event), event, key=_rank)
        after, more = page.last, page.more
    return newest


async def resolve_tag(namespace: Namespace, tag: Tag) -> Digest | None:
    """The manifest that the tag names, None when there is no such tag."""
    event = await newest_event(namespace, tag)
    return event.digest if event is not None and event.kind == "set" else None


async def set_tag(namespace: Namespace, tag: Tag, digest: Digest, by: str | None = None) -> None:
    """Let the tag name this manifest, whose revision and references are already written. `by` is who wants it."""
    events, more = await _list_events(namespace, tag, everything=False)
    current = winner(events)
    now_ms = await ReadClock()
    at_ms = now_ms if current is None else max(now_ms, current.at_ms + 1)
    await _write_event(namespace, tag, TagEvent(at_ms, "set", digest), _said(by=by))
    if more or len(events) > SUPERSEDED_MAX:
        await _move_to_history(namespace, tag)


async def set_immutable_tag(namespace: Namespace, tag: Tag, digest: Digest, by: str | None = None) -> Digest | None:
    """Let the tag name this manifest unless it names another one already: then that one is the reply.

    Writers agree by a claim, created if absent: the name of the one event that may follow the tag's deletion, or its
    beginning. Whoever finds a claim writes its event, whoever made it, so a writer that dies half-way leaves nothing
    undecided, and one that was slow cannot change what others have seen: its event has been there for long.
    Only a deletion takes an event back, never another push, also when the manifest is gone that it names: somebody may
    be pushing that again at this moment, and be told that it has the tag.

    A push of the same manifest claims the event that would follow a deletion of the tag, without waiting for one: when
    there is a deletion, it was before this push; and when somebody else saw it first, the claim is theirs.
    """
    for _ in range(CLAIMS_MAX):
        events, more = await _list_events(namespace, tag, everything=False)
        current = winner(events)
        if current is not None and current.kind == "set" and current.digest != digest:
            # Whoever wrote it may not have made it durable yet.
            await _write_event(namespace, tag, current, b"")
            return current.digest
        after_ms = 0 if current is None else current.at_ms + (current.kind == "set")
        now_ms = await ReadClock()
        event = await _claim(namespace, tag, TagEvent(max(now_ms, after_ms + 1), "set", digest), after_ms)
        if event.digest != digest and current is not None and current.kind == "set":
            continue  # it was deleted since we looked
        await _write_event(namespace, tag, event, _said(by=by if event.digest == digest else None))
        if more or len(events) > SUPERSEDED_MAX:
            await _move_to_history(namespace, tag)
        if event.digest == digest:
            if event.at_ms > now_ms - CLAIM_OLD_MS:
                return None
        elif await newest_event(namespace, tag) == event:
            return event.digest
        # Somebody died who had claimed this event long ago, or the tag was set and deleted since we looked: its next
        # event is claimed anew.
    raise RegistryError(503, "UNAVAILABLE", f"tag {tag} is being pushed and deleted again and again; push it once more")


async def _claim(namespace: Namespace, tag: Tag, event: TagEvent, after_ms: int) -> TagEvent:
    key = layout.tag_claim_key(namespace, tag, after_ms)
    await CreateKeys(((key, str(event).encode()),))
    value = await ReadKey(key)
    claimed = None if value is None else layout.parse_tag_event(value.decode("ascii", "replace"))
    if claimed is None:
        raise StorageCorrupt(f"the claim on tag {tag} of {namespace} is damaged")
    return claimed


async def unset_tag(
    namespace: Namespace,
    tag: Tag,
    *,
    only: Digest | None = None,
    by: str | None = None,
    media_type: str | None = None,
) -> bool:
    """Delete the tag; with `only`, unless it names another manifest by now. False when there was nothing to delete.
    `media_type` is that of a manifest that goes too, for whoever brings it back."""
    current = await newest_event(namespace, tag)
    if current is None or current.kind == "del" or (only is not None and current.digest != only):
        return False
    await _take_back(namespace, tag, current, by, media_type)
    return True


async def unset_event(namespace: Namespace, tag: Tag, event: TagEvent, by: str | None = None) -> bool:
    """Delete the tag as this event left it, unless it was pushed or deleted since. False when it was.

    Every push that is acknowledged after the event was read stands, also when it comes between any two steps here.
    """
    if await newest_event(namespace, tag) != event:
        return False
    await _take_back(namespace, tag, event, by)
    return True


async def _take_back(
    namespace: Namespace, tag: Tag, event: TagEvent, by: str | None, media_type: str | None = None
) -> None:
    body = _said(deleted_at_ms=await ReadClock(), by=by, media_type=media_type)
    await _write_event(namespace, tag, TagEvent(event.at_ms + 1, "del", event.digest), body)


def time_of(event: TagEvent, body: Mapping[str, Any]) -> int:
    """When it was done. A deletion is dated by what it deletes, and says inside when that was."""
    at_ms = body.get("deleted_at_ms")
    if event.kind == "set" or type(at_ms) is not int or at_ms > layout.EVENT_MS_MAX:
        return event.at_ms
    return max(event.at_ms, at_ms)


def parse_event_body(value: bytes | None) -> dict[str, Any]:
    """What an event says inside. A damaged one says nothing: its name has all that matters."""
    try:
        body = parse_json(value or b"{}")
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


async def delete_tag(namespace: Namespace, tag: Tag, by: str | None = None) -> Response:
    """end-9 with a tag: the tag goes, its manifest stays."""
    if not await unset_tag(namespace, tag, by=by):
        raise RegistryError(404, "MANIFEST_UNKNOWN", f"there is no tag {tag} in {namespace}")
    return Response(202)


async def list_tags(namespace: Namespace, query: Query, config: RegistryConfig) -> Response:
    """end-8: the tags in byte order, a page at a time. The cost is that of the page."""
    size = page_size(query, default=config.page_size_default, largest=config.page_size_max)
    last = query.get("last") or ""
    found, more = await _live_tags(namespace, last, size)
    if not found and not await has_content(namespace):
        raise RegistryError(404, "NAME_UNKNOWN", f"there is no repository {namespace}")
    names = [tag.name for tag in found]
    headers = [("Content-Type", "application/json")]
    if more and names:
        headers.append(next_page(f"/v2/{namespace}/tags/list", n=size, last=names[-1]))
    body = compact_json({"name": namespace, "tags": names})
    return Response(200, tuple(headers), Inline(body))


async def has_content(namespace: Namespace) -> bool:
    """True when the namespace holds a manifest."""
    after, more = "", True
    while more:
        page = await ListKeys(layout.revisions_prefix(namespace), after, limit=1)
        if any(layout.parse_revision_name(name) is not None for name in page.names):
            return True
        after, more = page.last, page.more
    return False


async def _live_tags(namespace: Namespace, last: str, size: int) -> tuple[list[Tag], bool]:
    """At most `size` tags after `last` that name a manifest, and whether there are more.

    The events of all tags are listed together: a bucket would be asked as many times as there are tags otherwise.
    """
    newest: dict[Tag, TagEvent] = {}
    live: list[Tag] = []
    after, more = layout.after_tag(last) if last else "", size > 0
    # The tag in which a page ends may not be decided yet, so one more is found than is needed.
    limit = size + 2  # nearly all tags have one event
    while more and len(live) < size + 2:
        page = await ListKeys(layout.tags_prefix(namespace), after, min(limit, PAGE_NAMES))
        after, more = page.last, page.more
        for name in page.names:
            folder, _, event_name = name.partition("/")
            tag, event = layout.parse_tag_folder(folder), layout.parse_tag_event(event_name)
            if tag is None or event is None or tag.name <= last:  # the last one may be any text
                continue
            newest[tag] = max(newest.get(tag, event), event, key=_rank)
            if name == page.last and event.at_ms < newest[tag].at_ms:
                after = layout.after_tag(tag.name)  # older ones cannot win
        live = [tag for tag, event in newest.items() if event.kind == "set"]
        limit = EVENTS_PER_TAG * (size + 2 - len(live))
    return live[:size], len(live) > size


async def _list_events(namespace: Namespace, tag: Tag, *, everything: bool) -> tuple[list[TagEvent], bool]:
    """The events of a tag, newest first: all of them, or enough to find the winner; and whether there are more."""
    events: list[TagEvent] = []
    after, more = "", True
    while more:
        page = await ListKeys(layout.tag_events_prefix(namespace, tag), after, EVENTS_LIMIT)
        events += [event for name in page.names if (event := layout.parse_tag_event(name)) is not None]
        after, more = page.last, page.more
        # Events of the same millisecond may go on behind the page; older ones cannot win.
        if not everything and events and events[-1].at_ms != events[0].at_ms:
            break
    return events, more


def _said(**said: int | str | None) -> bytes:
    """What an event says inside. Nothing, as a rule: an empty file costs a disk less."""
    known = {name: value for name, value in said.items() if value is not None}
    return compact_json(known) if known else b""


async def _write_event(namespace: Namespace, tag: Tag, event: TagEvent, body: bytes) -> None:
    if event.at_ms > layout.EVENT_MS_MAX:
        raise StorageCorrupt(f"the last change of tag {tag} of {namespace} is dated at the end of time; remove its key")
    await CreateKeys(((Key(f"{layout.tag_events_prefix(namespace, tag)}{event}"), body),))


async def _move_to_history(namespace: Namespace, tag: Tag) -> None:
    """Readers only need the winner, and any event is older than it or as old: those that are older can go."""
    events, _ = await _list_events(namespace, tag, everything=True)
    newest = winner(events)
    old = [event for event in events if newest is not None and event.at_ms < newest.at_ms]
    here, there = layout.tag_events_prefix(namespace, tag), layout.tag_history_prefix(namespace, tag)
    bodies = await together(_read(Key(f"{here}{event}")) for event in old)
    kept = tuple((Key(f"{there}{event}"), body) for event, body in zip(old, bodies, strict=True) if body is not None)
    if kept:
        await CreateKeys(kept)
    if old:
        await DeleteKeys(tuple(Key(f"{here}{event}") for event in old))


async def _read(key: Key) -> bytes | None:
    return await ReadKey(key)
