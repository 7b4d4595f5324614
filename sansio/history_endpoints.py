"""``/v2/_ext/<namespace>/_history``: what tags named, and when; and ``_restore``, which sets one back."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from angos.sansio import layout
from angos.sansio.compact_json import compact_json
from angos.sansio.config import RegistryConfig
from angos.sansio.effects import ListFolders, ReadClock, StatKey
from angos.sansio.errors import Invalid, RegistryError
from angos.sansio.history import PAGE, Change, Restored, read_changes, restore_tag, still_restorable
from angos.sansio.http.message import Header, Inline, Response
from angos.sansio.http.query import Query, next_page, page_size
from angos.sansio.oci.digest import Digest
from angos.sansio.oci.reference import Namespace, Tag
from angos.sansio.together import together


async def list_history(namespace: Namespace, query: Query, config: RegistryConfig) -> Response:
    """Every tag that is or was there, with its last change; with ``tag``, the changes of that one, newest first."""
    text = query.get("tag")
    size = page_size(query, default=config.page_size_default, largest=config.page_size_max)
    if text is None:
        return await _list_tags(namespace, query, size)
    return await _list_changes(namespace, _tag(text), query, size, config)


async def post_restore(namespace: Namespace, query: Query, config: RegistryConfig, by: str | None) -> Response:
    """Set ``tag`` back: to what it named before its last change, or to what ``to`` says, a digest or a time."""
    text = query.get("tag")
    if text is None:
        raise RegistryError(400, "NAME_INVALID", "which tag? add ?tag=<tag>")
    if len(query.all("tag")) > 1 or len(query.all("to")) > 1:
        raise RegistryError(400, "UNSUPPORTED", "one tag at a time can be set back, to one digest or time")
    tag, to = _tag(text), query.get("to")
    restored = await restore_tag(namespace, tag, None if to is None else _target(to), config, by)
    headers = (
        ("Content-Type", "application/json"),
        ("Location", f"/v2/{namespace}/manifests/{tag}"),
        ("Docker-Content-Digest", str(restored.digest)),
    )
    return Response(201, headers, Inline(compact_json({"name": namespace, "tag": tag.name, **told(restored)})))


def told(restored: Restored) -> dict[str, object]:
    """The outcome of a restore, as JSON."""
    value: dict[str, object] = {"digest": str(restored.digest)}
    if restored.before is not None:
        value["before"] = str(restored.before)
    if restored.manifests:
        value["manifests"] = [str(digest) for digest in restored.manifests]
    return value


def parse_target(text: str) -> Digest | int:
    """What a tag is to go back to: a digest, or a time (RFC 3339) in milliseconds. Raises `Invalid`."""
    if not text[:4].isdigit():
        return Digest.parse(text)
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise Invalid(f"{text[:60]!r} is neither a digest nor a time such as 2026-01-31T12:00:00Z") from None
    if time.tzinfo is None:
        raise Invalid(f"the time {text[:60]!r} lacks its zone; add Z for UTC")
    return round(time.timestamp() * 1000)


def timestamp(at_ms: int) -> str:
    """A time as text (RFC 3339), in UTC, to the millisecond."""
    time = datetime.fromtimestamp(at_ms // 1000, UTC).replace(microsecond=at_ms % 1000 * 1000)
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _tag(text: str) -> Tag:
    try:
        return Tag.parse(text)
    except Invalid as error:
        raise RegistryError(400, "NAME_INVALID", str(error)) from None


def _target(text: str) -> Digest | int:
    try:
        return parse_target(text)
    except Invalid as error:
        raise RegistryError(400, "DIGEST_INVALID", str(error)) from None


async def _list_tags(namespace: Namespace, query: Query, size: int) -> Response:
    last = query.get("last") or ""
    found: list[tuple[Tag, Change]] = []
    after, more = layout.tag_folder(last) if last else "", size > 0
    while more and len(found) <= size:
        page, after, more = await last_changes(namespace, after, size + 1 - len(found))
        found += page
    shown = [{"tag": tag.name, **described(change)} for tag, change in found[:size]]
    headers: list[Header] = [("Content-Type", "application/json")]
    if len(found) > size and shown:
        headers.append(next_page(f"/v2/_ext/{namespace}/_history", n=size, last=shown[-1]["tag"]))
    return Response(200, tuple(headers), Inline(compact_json({"name": namespace, "tags": shown})))


async def _list_changes(namespace: Namespace, tag: Tag, query: Query, size: int, config: RegistryConfig) -> Response:
    last = query.get("last") or ""
    if last and layout.parse_tag_event(last) is None:
        raise RegistryError(400, "UNSUPPORTED", "last must be that of the Link header of the page before")
    changes: tuple[Change, ...] = ()
    more = False
    if size:
        changes, last, more = await read_changes(namespace, tag, last, size)
    now_ms = await ReadClock()
    restorable = await are_restorable(namespace, changes, now_ms, config)
    events = [
        {**described(change), "restorable": possible} for change, possible in zip(changes, restorable, strict=True)
    ]
    headers: list[Header] = [("Content-Type", "application/json")]
    if more:
        headers.append(next_page(f"/v2/_ext/{namespace}/_history", tag=tag.name, n=size, last=last))
    return Response(200, tuple(headers), Inline(compact_json({"name": namespace, "tag": tag.name, "events": events})))


async def are_restorable(
    namespace: Namespace, changes: tuple[Change, ...], now_ms: int, config: RegistryConfig
) -> tuple[bool, ...]:
    """Whether the tag can be set back to each of these: the manifest is there, or was deleted within the window."""
    digests = list(dict.fromkeys(change.event.digest for change in changes))
    stats = await together(_exists(namespace, digest) for digest in digests)
    there = dict(zip(digests, stats, strict=True))
    window = config.tag_history_seconds
    return tuple(
        change.event.kind == "set" and (there[change.event.digest] or still_restorable(change, now_ms, window))
        for change in changes
    )


async def _exists(namespace: Namespace, digest: Digest) -> bool:
    return await StatKey(layout.revision_key(namespace, digest)) is not None


async def last_changes(
    namespace: Namespace, after: str = "", limit: int = PAGE
) -> tuple[list[tuple[Tag, Change]], str, bool]:
    """A page of the tags that are or were there, in byte order, each with its last change. And what the next page
    comes after, and whether there is one."""
    page = await ListFolders(layout.tags_prefix(namespace), after, limit)
    tags = [tag for folder in page.names if (tag := layout.parse_tag_folder(folder)) is not None]
    newest = await together(_last_change(namespace, tag) for tag in tags)
    found = [(tag, change) for tag, change in zip(tags, newest, strict=True) if change is not None]
    return found, page.last, page.more


async def _last_change(namespace: Namespace, tag: Tag) -> Change | None:
    changes, after, more = await read_changes(namespace, tag, "", 1)
    while not changes and more:  # keys that are no events come first
        changes, after, more = await read_changes(namespace, tag, after)
    return changes[0] if changes else None


def described(change: Change) -> dict[str, Any]:
    """A change, as JSON."""
    kind = "set" if change.event.kind == "set" else "delete"
    value: dict[str, Any] = {"kind": kind, "digest": str(change.event.digest)}
    if change.at_ms >= 0:  # Angos 1.6 has events without a time
        value["at"] = timestamp(change.at_ms)
    if change.until_ms is not None:
        value["until"] = timestamp(change.until_ms)
    if change.by is not None:
        value["by"] = change.by
    return value
