"""Take-over: what CNCF distribution has stored becomes readable here, where it lies.

Both keep the bytes of a blob under the same key, so none is copied, moved or linked. Distribution says in link files
who has what; this writes what `angos.sansio.layout` says instead, beside them. Link files are only read, so the old
registry can be started again at any time and serves what it served before.

Names come in the order of their keys: of one namespace first the layers, then the manifests, then the tags. That is the
order of a push too, and everything is created if absent. So a crash leaves keys too many, never a name that leads
nowhere, and running again goes on with the rest and ends in the same place.

Running it again later must not bring back what was deleted here meanwhile:

* a tag is dated by its link file, and taken only if that is newer than whatever is known here, deletions included;
* when a namespace is done, a key records the newest link that was seen. A layer or a manifest whose link is as old,
  and which is not here any more, was deleted here. What could not be taken is recorded there too, and tried again;
* a link as old need not have been seen: a bucket dates by whole seconds, and what comes while a run goes on may come
  behind it. So links of the last hour are recorded by name.

One damaged thing is named in the report and costs nothing but itself. What could not be read is not "absent".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import groupby

from angos.sansio import layout
from angos.sansio.collection.collector import take_over_from_others
from angos.sansio.collection.presence import until_unmarked
from angos.sansio.compact_json import compact_json, parse_json
from angos.sansio.effects import (
    CreateKeys,
    DeleteKeys,
    EffectError,
    Key,
    ListKeys,
    ReadKey,
    Stat,
    StatKey,
    StorageCorrupt,
    Tell,
)
from angos.sansio.errors import Invalid, RegistryError
from angos.sansio.layout import DISTRIBUTION_PREFIX, DistributionLink, TagEvent
from angos.sansio.manifests import plan_references, revision_record
from angos.sansio.oci.digest import Digest
from angos.sansio.oci.manifest import SchemaOne, parse_manifest, referrer_descriptor
from angos.sansio.oci.reference import Namespace, Tag, parse_namespace
from angos.sansio.progress import Progress
from angos.sansio.tags import newest_event, parse_event_body, time_of
from angos.sansio.together import together

LINK_SIZE_MAX = 1024
SETTLED_MS = 3_600_000
"""A link that was not seen by a run is at most so much older than the newest that was."""


@dataclass(frozen=True, slots=True)
class Untaken:
    """Something that could not be taken over."""

    key: str
    """Its link file."""
    problem: str
    """In a word: ``schema-1``, ``broken-link``, ``zero-bytes``, ``unreadable``, ``corrupt``, ``invalid-name``,
    ``invalid-manifest``, ``too-large``."""
    detail: str


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import has come to."""

    namespaces: int
    """In which something was found."""
    layers: int
    """Links of layers that are valid here now, those of earlier runs included; likewise the following two."""
    manifests: int
    tags: int
    created: int
    """Of those, what this run has taken."""
    deleted_here: int
    """Left out, because it was taken before and deleted here since."""
    newer_here: int
    """Tags that were pushed or deleted here later than there."""
    untaken: tuple[Untaken, ...]


async def import_distribution(manifest_size_max: int) -> Imported:
    """Take over every repository. Fails when the store cannot be listed."""
    await _stop_collectors()
    run = _Run(manifest_size_max)
    after, more = "", True
    while more:
        page = await ListKeys(DISTRIBUTION_PREFIX, after)
        links = [(name, link) for name in page.names if (link := layout.parse_distribution_link(name)) is not None]
        for namespace, found in groupby(links, key=lambda entry: entry[1].namespace):
            await run.enter(namespace)
            for _, same in groupby(found, key=lambda entry: entry[1].kind):
                await together(run.take(Key(DISTRIBUTION_PREFIX + name), link) for name, link in same)
            await Tell(Progress("import", namespace, run.done, None, run.told()))
        after, more = page.last, page.more
    await run.leave()
    await CreateKeys(((layout.TAKEN_OVER_KEY, b""),))
    await DeleteKeys((layout.TAKING_OVER_KEY,))
    await Tell(Progress("import", "", run.done, None, run.told(), ended=True))
    return run.result()


async def _stop_collectors() -> None:
    """Nothing is collected as long as a take-over goes on: blobs are named one after the other, and until then the old
    registry alone needs them. A collector looks for this key after it has made its mark."""
    await CreateKeys(((layout.TAKING_OVER_KEY, b""),))
    is_killed = False
    try:
        await until_unmarked(None)
    except RegistryError:  # its mark would stay for ever: no other one begins as long as this key is there
        is_killed = True
    if is_killed:
        await take_over_from_others()


@dataclass(slots=True)
class Place:
    """How far a namespace was taken over, and how far it is when this run is done with it."""

    namespace: Namespace
    taken_until_ms: int | None
    """Links up to here were seen by an earlier run."""
    untaken: frozenset[str]
    """Those of them that it could not take."""
    recent: frozenset[str] | None = None
    """Those of them of the last `SETTLED_MS`; None when that is not known."""
    missed: set[str] = field(default_factory=set)
    """Names of this run's links that could not be taken."""
    _seen_ms: dict[str, int] = field(default_factory=dict)

    def has_seen(self, link: DistributionLink, stat: Stat) -> bool:
        """An earlier run has taken it."""
        return self.knows(link, stat) and name_of(link) not in self.untaken

    def knows(self, link: DistributionLink, stat: Stat) -> bool:
        """An earlier run has come by it."""
        until = self.taken_until_ms
        if until is None or stat.modified_ms > until:
            return False
        return self.recent is None or stat.modified_ms <= until - SETTLED_MS or name_of(link) in self.recent

    def see(self, link: DistributionLink, stat: Stat) -> None:
        """This run comes by it."""
        self._seen_ms[name_of(link)] = stat.modified_ms

    def forget(self, link: DistributionLink) -> None:
        """This run has removed it. When it comes back it is another one."""
        self._seen_ms.pop(name_of(link), None)

    async def record(self) -> None:
        """This run is done with the namespace."""
        until = max(self._seen_ms.values(), default=0)
        if self.taken_until_ms is not None:
            until = max(until, self.taken_until_ms)
            if until == self.taken_until_ms:
                if self.missed == self.untaken and self._recent(until) == self.recent:
                    return
                until += 1
        value = compact_json({"not_taken": sorted(self.missed), "recent": sorted(self._recent(until))})
        await CreateKeys(((layout.import_key(self.namespace, until), value),))

    def _recent(self, until_ms: int) -> frozenset[str]:
        return frozenset(name for name, at_ms in self._seen_ms.items() if at_ms > until_ms - SETTLED_MS)


def name_of(link: DistributionLink) -> str:
    """How a record names a link."""
    return f"{link.kind}/{link.name}"


class Problem(Exception):
    """Why something can be taken neither here nor there."""

    def __init__(self, problem: str, detail: str) -> None:
        super().__init__(detail)
        self.problem = problem


def told(error: Problem | EffectError) -> tuple[str, str]:
    """The word for it, and what to tell beside."""
    if isinstance(error, Problem):
        return error.problem, str(error)
    return "corrupt" if isinstance(error, StorageCorrupt) else "unreadable", str(error)


class _Run:
    def __init__(self, manifest_size_max: int) -> None:
        self._size_max = manifest_size_max
        self._current: str | None = None
        self._place: Place | None = None
        self._counts: Counter[str] = Counter()
        self._untaken: list[Untaken] = []
        self.done = 0

    def told(self) -> tuple[tuple[str, int], ...]:
        return (*((name, self._counts[name]) for name in ("manifests", "tags")), ("not_taken", len(self._untaken)))

    def result(self) -> Imported:
        counts = self._counts
        return Imported(
            counts["namespaces"],
            counts["layers"],
            counts["manifests"],
            counts["tags"],
            counts["created"],
            counts["deleted_here"],
            counts["newer_here"],
            tuple(sorted(self._untaken, key=lambda untaken: untaken.key)),
        )

    async def enter(self, text: str) -> None:
        """Links of this namespace follow."""
        if text == self._current:
            return
        await self.leave()
        self._current = text
        try:
            namespace = parse_namespace(text)
        except Invalid:
            return
        self._place = await place_of(namespace)
        self._counts["namespaces"] += 1

    async def leave(self) -> None:
        """No more links of the namespace follow: record how far it was taken."""
        place, self._place = self._place, None
        if place is not None:
            await place.record()

    async def take(self, key: Key, link: DistributionLink) -> None:
        """Take what a link names, or note why not."""
        self.done += 1
        try:
            await self._take(key, link)
        except (Problem, EffectError) as error:
            self._untaken.append(Untaken(key, *told(error)))
            if self._place is not None:
                self._place.missed.add(name_of(link))

    async def _take(self, key: Key, link: DistributionLink) -> None:
        place = self._place
        if place is None:
            raise Problem("invalid-name", f"{link.namespace!r} is not the name of a repository")
        stat = await StatKey(key)
        if stat is None:  # deleted since it was listed
            return None
        place.see(link, stat)
        if link.kind == "tag":
            return await self._take_tag(place, key, link, stat)
        digest = layout.parse_distribution_digest(link.name)
        if digest is None:
            raise Problem("invalid-name", f"{link.name!r} is not a digest that can be stored here")
        here = (
            layout.owner_key(digest, place.namespace)
            if link.kind == "layer"
            else layout.revision_key(place.namespace, digest)
        )
        if place.has_seen(link, stat):
            if await StatKey(here) is None:
                self._counts["deleted_here"] += 1
                return None
        else:
            # Also when it is here: the run that took it may have been killed before the last of its keys.
            created = await self._create(place.namespace, digest, link, stat)
            self._counts["created"] += created  # in a line of its own: others count while this one waits
        self._counts["layers" if link.kind == "layer" else "manifests"] += 1
        return None

    async def _create(self, namespace: Namespace, digest: Digest, link: DistributionLink, stat: Stat) -> bool:
        """True when it was not here before."""
        size = await _size(digest)
        if link.kind == "revision":
            return await self._create_revision(namespace, digest, size, stat.modified_ms)
        owner, listed = layout.owner_key(digest, namespace), layout.catalog_key(namespace)
        return (await CreateKeys(((owner, b""), (listed, b""))))[0]

    async def _create_revision(self, namespace: Namespace, digest: Digest, size: int, at_ms: int) -> bool:
        if size > self._size_max:
            raise Problem("too-large", f"manifest {digest} has {size} bytes, {self._size_max} are allowed")
        body = await ReadKey(layout.blob_key(digest))
        if body is None:
            raise Problem("broken-link", f"there are no bytes of {digest}")
        if Digest.of(body, digest.algorithm) != digest:
            raise Problem("corrupt", f"the stored bytes of {digest} have another digest")
        try:
            manifest = parse_manifest(body, None)
        except SchemaOne as error:
            raise Problem("schema-1", str(error)) from None
        except Invalid as error:
            raise Problem("invalid-manifest", str(error)) from None
        await CreateKeys(plan_references(namespace, digest, body, manifest, ()))
        revision = layout.revision_key(namespace, digest), revision_record(manifest, at_ms)
        created = (await CreateKeys((revision,)))[0]
        if manifest.subject is not None:
            referrer = referrer_descriptor(manifest, digest, len(body))
            await CreateKeys(((layout.referrer_key(namespace, manifest.subject, digest), referrer),))
        return created

    async def _take_tag(self, place: Place, key: Key, link: DistributionLink, stat: Stat) -> None:
        try:
            tag = Tag.parse(link.name)
        except Invalid as error:
            raise Problem("invalid-name", str(error)) from None
        digest = await link_target(key, stat)
        current = await newest_event(place.namespace, tag)
        if current is not None and (current.kind, current.digest) == ("set", digest):
            self._counts["tags"] += 1
            return
        if current is not None and stat.modified_ms <= await happened_ms(place.namespace, tag, current):
            self._counts["newer_here"] += 1
            return
        if await StatKey(layout.revision_key(place.namespace, digest)) is None:
            message = f"tag {tag} names {digest}, which is not among the manifests that were taken"
            raise Problem("broken-link", message)
        event = TagEvent(stat.modified_ms, "set", digest)
        await CreateKeys(((layout.tag_reference_key(digest, place.namespace, tag), b""),))
        await CreateKeys(((Key(f"{layout.tag_events_prefix(place.namespace, tag)}{event}"), b""),))
        self._counts["created"] += 1
        self._counts["tags"] += 1


async def _size(digest: Digest) -> int:
    stat = await StatKey(layout.blob_key(digest))
    if stat is None:
        raise Problem("broken-link", f"there are no bytes of {digest}")
    if stat.size == 0 and digest != Digest.of(b"", digest.algorithm):
        raise Problem("zero-bytes", f"the file of {digest} is empty")
    return stat.size


async def link_target(key: Key, stat: Stat) -> Digest:
    """What the link file of a tag says."""
    if stat.size == 0:
        raise Problem("zero-bytes", "the link file is empty")
    if stat.size > LINK_SIZE_MAX:
        raise Problem("corrupt", f"the link file has {stat.size} bytes")
    value = await ReadKey(key) or b""
    try:
        return Digest.parse(value.decode("ascii").strip())
    except (Invalid, UnicodeDecodeError):
        raise Problem("corrupt", f"the link file says {value[:100]!r}, which is no digest") from None


async def happened_ms(namespace: Namespace, tag: Tag, event: TagEvent) -> int:
    """When this happened to the tag."""
    if event.kind == "set":
        return event.at_ms
    body = await ReadKey(Key(f"{layout.tag_events_prefix(namespace, tag)}{event}"))
    return time_of(event, parse_event_body(body))


async def place_of(namespace: Namespace) -> Place:
    """How far earlier runs have taken the namespace. An unreadable record counts as one that names nothing: what was
    deleted stays deleted."""
    page = await ListKeys(layout.imports_prefix(namespace), limit=1)
    until = layout.parse_ordered_name(page.names[0]) if page.names else None
    if until is None:
        return Place(namespace, None, frozenset())
    value = await ReadKey(layout.import_key(namespace, until))
    try:
        record = parse_json(value or b"{}")
        untaken, recent = _names(record["not_taken"]), record.get("recent")
        return Place(namespace, until, untaken, None if recent is None else _names(recent))
    except (ValueError, KeyError, TypeError, AttributeError):
        return Place(namespace, until, frozenset())


def _names(recorded: Iterable[object]) -> frozenset[str]:
    return frozenset(name for name in recorded if isinstance(name, str))
