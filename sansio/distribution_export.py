"""The way back from a take-over: link files say again who has what, so that CNCF distribution serves what came since.

Bytes lie where distribution looks for them (see `angos.sansio.distribution`). What is missing are its link files, and
those of what was deleted here are too many. They come and go in such an order that distribution, started at any moment,
finds no name that leads nowhere: layers, manifests, tags are linked in this order, and unlinked in the opposite one. A
tag that names something else there is unlinked and linked again, as nothing can be overwritten; killed in between, it
is missing there until the next run.

Nothing is unlinked because it is unknown here. A link goes only when it was here once: it was taken over or written by
an export that came to its end (`Place.has_seen`), or, for a tag, it is older than what happened to the tag here. What
the old registry was given in the meantime stays there, and is named, so that it can be taken over first.

Until the next take-over nothing is collected here, as distribution may store what nothing here names.

At the end it is recorded of each namespace that its links were seen, as after a take-over. So a later import brings
nothing back that is deleted here from now on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, TypeVar

from angos.sansio import layout
from angos.sansio.compact_json import parse_json
from angos.sansio.distribution import Place, Problem, happened_ms, link_target, name_of, place_of, told
from angos.sansio.effects import (
    CreateKeys,
    DeleteKeys,
    Effect,
    EffectError,
    Key,
    ListFolders,
    ListKeys,
    Page,
    Prefix,
    ReadKey,
    StatKey,
    Tell,
)
from angos.sansio.errors import Invalid
from angos.sansio.layout import DISTRIBUTION_PREFIX, DistributionLink
from angos.sansio.oci.digest import Digest
from angos.sansio.oci.media_type import IMAGE_TYPES, INDEX_TYPES
from angos.sansio.oci.reference import Namespace, Tag, parse_namespace
from angos.sansio.progress import Progress
from angos.sansio.tags import newest_event
from angos.sansio.together import together

T = TypeVar("T")

SERVED_TYPES = IMAGE_TYPES | INDEX_TYPES


@dataclass(frozen=True, slots=True)
class Unexported:
    """Something that differs there from here after an export."""

    what: str
    """``<repository>@<digest>``, ``<repository>:<tag>`` or, for a link that stays there, its key."""
    problem: str
    """In a word: ``unknown-type``, ``no-bytes``, ``zero-bytes``, ``no-manifest``, ``not-imported``, ``newer-there``,
    ``unreadable``, ``corrupt``."""
    detail: str


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export has come to."""

    namespaces: int
    layers: int
    """That distribution serves now, those included that it served before; likewise the following two."""
    manifests: int
    tags: int
    written: int
    """Link files that this run has written; a tag has two."""
    removed: int
    """Layers, manifests and tags that were deleted here, whose links this run has removed."""
    unexported: tuple[Unexported, ...]


async def export_distribution() -> Exported:
    """Let distribution serve what is here. Fails when a store cannot be listed."""
    # From now on the old registry may be given what nothing here names: until the next import nothing is collected.
    await DeleteKeys((layout.TAKEN_OVER_KEY,))
    run = _Run()
    await _each_page(lambda after: ListKeys(layout.REFERENCES_PREFIX, after), run.link_layers)
    await _each_page(lambda after: ListKeys(layout.CATALOG_PREFIX, after), run.link_namespaces)
    await _each_page(lambda after: ListKeys(DISTRIBUTION_PREFIX, after), run.compare)
    await run.leave()
    await Tell(Progress("export", "", run.done, None, run.told(), ended=True))
    return run.result()


async def _each_page(
    listing: Callable[[str], Effect[Page]], work: Callable[[tuple[str, ...]], Coroutine[Any, Any, None]]
) -> None:
    after, more = "", True
    while more:
        page = await listing(after)
        await work(page.names)
        after, more = page.last, page.more


@dataclass(slots=True)
class _Comparison:
    """A namespace of distribution whose links are being compared with what is here."""

    place: Place
    gone: list[tuple[DistributionLink, Key]] = field(default_factory=list)
    """Links of what was deleted here."""


class _Run:
    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._unexported: list[Unexported] = []
        self._current: str | None = None
        self._comparison: _Comparison | None = None
        self.done = 0

    def told(self) -> tuple[tuple[str, int], ...]:
        counts = self._counts
        return (*((name, counts[name]) for name in ("written", "removed")), ("not_exported", len(self._unexported)))

    def result(self) -> Exported:
        counts = self._counts
        return Exported(
            counts["namespaces"],
            counts["layers"],
            counts["manifests"],
            counts["tags"],
            counts["written"],
            counts["removed"],
            tuple(sorted(self._unexported, key=lambda unexported: unexported.what)),
        )

    # --- what is here -------------------------------------------------------------------------------------------------

    async def link_layers(self, names: tuple[str, ...]) -> None:
        """Some of the keys below `REFERENCES_PREFIX`."""
        owned = [found for name in names if (found := layout.parse_owned_name(name)) is not None]
        await together(
            self._link_layer(digest, [owner for _, owner in same])
            for digest, same in groupby(owned, key=lambda found: found[0])
        )
        await Tell(Progress("export", "layers", self.done, None, self.told()))

    async def _link_layer(self, digest: Digest, namespaces: list[Namespace]) -> None:
        self.done += len(namespaces)
        try:
            await _check_bytes(digest)
            for namespace in namespaces:
                await self._link(digest, layout.distribution_layer_key(namespace, digest))
                self._counts["layers"] += 1
        except (Problem, EffectError) as error:
            for namespace in namespaces:
                self._leave_out(f"{namespace}@{digest}", error)

    async def link_namespaces(self, names: tuple[str, ...]) -> None:
        """Some of the keys below `CATALOG_PREFIX`."""
        for name in names:
            namespace = layout.parse_catalog_name(name)
            if namespace is None:
                continue
            self._counts["namespaces"] += 1
            revisions, tags = layout.revisions_prefix(namespace), layout.tags_prefix(namespace)
            place = await place_of(namespace)

            async def link_manifests(names: tuple[str, ...], namespace: Namespace = namespace) -> None:
                digests = [digest for name in names if (digest := layout.parse_revision_name(name)) is not None]
                await together(self._link_manifest(namespace, digest) for digest in digests)

            async def link_tags(names: tuple[str, ...], place: Place = place) -> None:
                tags = [tag for name in names if (tag := layout.parse_tag_folder(name)) is not None]
                await together(self._settle_tag(place, tag) for tag in tags)

            await _each_page(_keys_of(revisions), link_manifests)
            await _each_page(_folders_of(tags), link_tags)
            await Tell(Progress("export", namespace, self.done, None, self.told()))

    async def _link_manifest(self, namespace: Namespace, digest: Digest) -> None:
        self.done += 1
        key = layout.distribution_revision_key(namespace, digest)
        try:
            stat = await StatKey(key)
            if stat is None or not stat.size:  # else it was good enough when it was written
                await _check_bytes(digest)
                await _check_type(digest)
            await self._link(digest, key)
            self._counts["manifests"] += 1
        except (Problem, EffectError) as error:
            self._leave_out(f"{namespace}@{digest}", error)

    async def _settle_tag(self, place: Place, tag: Tag) -> None:
        self.done += 1
        try:
            event = await newest_event(place.namespace, tag)
            if event is None:
                return
            key = layout.distribution_tag_key(place.namespace, tag)
            stat = await StatKey(key)
            if stat is not None and stat.size and event.kind == "set":
                try:
                    same = await link_target(key, stat) == event.digest
                except Problem:  # it says nothing
                    same, stat = False, None
                if same:
                    await self._link_tag(place.namespace, tag, event.digest)
                    return
            link = DistributionLink(place.namespace, "tag", str(tag))
            if stat is not None and stat.size and not place.knows(link, stat):
                happened = await happened_ms(place.namespace, tag, event)
                if stat.modified_ms > happened:
                    raise Problem("newer-there", "the old registry was given this tag later; import it first")
            if event.kind == "del":
                await self._unlink_tag(place.namespace, tag, known=stat is not None)
                return
            revision = await StatKey(layout.distribution_revision_key(place.namespace, event.digest))
            if revision is None or await StatKey(layout.revision_key(place.namespace, event.digest)) is None:
                raise Problem("no-manifest", f"it names {event.digest}, which is not among the manifests there")
            await DeleteKeys((key,))
            await self._link_tag(place.namespace, tag, event.digest)
        except (Problem, EffectError) as error:
            self._leave_out(f"{place.namespace}:{tag}", error)

    async def _link_tag(self, namespace: Namespace, tag: Tag, digest: Digest) -> None:
        await self._link(digest, layout.distribution_tag_index_key(namespace, tag, digest))
        await self._link(digest, layout.distribution_tag_key(namespace, tag))
        self._counts["tags"] += 1

    async def _unlink_tag(self, namespace: Namespace, tag: Tag, *, known: bool) -> None:
        """All of it. That of a tag which is not there too: a run that was killed may have left folders on a disk."""
        prefix = layout.distribution_tag_prefix(namespace, tag)
        current = layout.distribution_tag_key(namespace, tag)
        await DeleteKeys((current,))

        async def unlink(names: tuple[str, ...]) -> None:
            if names:
                await DeleteKeys(tuple(Key(prefix + name) for name in names))

        await _each_page(_keys_of(prefix), unlink)
        self._counts["removed"] += known

    async def _link(self, digest: Digest, key: Key) -> None:
        stat = await StatKey(key)
        if stat is not None and stat.size:
            return
        if stat is not None:  # a power cut has emptied it
            await DeleteKeys((key,))
        await CreateKeys(((key, str(digest).encode()),))
        self._counts["written"] += 1

    def _leave_out(self, what: str, error: Problem | EffectError) -> None:
        self._unexported.append(Unexported(what, *told(error)))

    # --- what is there ------------------------------------------------------------------------------------------------

    async def compare(self, names: tuple[str, ...]) -> None:
        """Some of the keys below `DISTRIBUTION_PREFIX`."""
        links = [(name, link) for name in names if (link := layout.parse_distribution_link(name)) is not None]
        for namespace, found in groupby(links, key=lambda entry: entry[1].namespace):
            if namespace != self._current:
                await self.leave()
                self._current = namespace
                parsed = _namespace(namespace)
                self._comparison = None if parsed is None else _Comparison(await place_of(parsed))
            await together(self._compare(Key(DISTRIBUTION_PREFIX + name), link) for name, link in found)
            await Tell(Progress("export", namespace, self.done, None, self.told()))

    async def _compare(self, key: Key, link: DistributionLink) -> None:
        comparison = self._comparison
        seen = False
        try:
            stat = await StatKey(key)
            if stat is None:
                return
            if comparison is not None:
                comparison.place.see(link, stat)
                seen = comparison.place.has_seen(link, stat)
                if await _is_here(comparison.place.namespace, link):
                    return
                if seen and link.kind != "tag":
                    comparison.gone.append((link, key))
                    return
            raise Problem("not-imported", "it is unknown here; import it first, or it stays as it is")
        except (Problem, EffectError) as error:
            self._leave_out(key, error)
            if comparison is not None and not seen:
                comparison.place.missed.add(name_of(link))

    async def leave(self) -> None:
        """No more links of this namespace follow."""
        comparison, self._comparison = self._comparison, None
        if comparison is None:
            return
        for kind in ("revision", "layer"):
            links = tuple(link for link, _ in comparison.gone if link.kind == kind)
            keys = tuple(key for link, key in comparison.gone if link.kind == kind)
            try:
                if keys:
                    await DeleteKeys(keys)
                    self._counts["removed"] += len(keys)
                    for link in links:
                        comparison.place.forget(link)
            except EffectError as error:
                for key in keys:
                    self._leave_out(key, error)
                return
        await comparison.place.record()


async def _is_here(namespace: Namespace, link: DistributionLink) -> bool:
    if link.kind == "tag":
        try:
            return await newest_event(namespace, Tag.parse(link.name)) is not None
        except Invalid:
            return False
    digest = layout.parse_distribution_digest(link.name)
    if digest is None:
        return False
    here = layout.owner_key(digest, namespace) if link.kind == "layer" else layout.revision_key(namespace, digest)
    return await StatKey(here) is not None


async def _check_bytes(digest: Digest) -> None:
    stat = await StatKey(layout.blob_key(digest))
    if stat is None:
        raise Problem("no-bytes", f"there are no bytes of {digest}")
    if stat.size == 0 and digest != Digest.of(b"", digest.algorithm):
        raise Problem("zero-bytes", f"the file of {digest} is empty")


async def _check_type(digest: Digest) -> None:
    """Whether distribution makes head or tail of the manifest. It reads the body alone, not what it was pushed as."""
    body = await ReadKey(layout.blob_key(digest)) or b""
    try:
        document = parse_json(body)
        media_type, version = document.get("mediaType"), document.get("schemaVersion")
    except (ValueError, AttributeError):
        raise Problem("unknown-type", "the manifest is no JSON object, which distribution needs") from None
    if media_type and media_type not in SERVED_TYPES:
        raise Problem("unknown-type", f"distribution serves no {str(media_type)[:200]}, only images and indexes")
    if version != 2:
        raise Problem("unknown-type", "the manifest has no schemaVersion 2, which distribution needs")


def _namespace(text: str) -> Namespace | None:
    try:
        return parse_namespace(text)
    except Invalid:
        return None


def _keys_of(prefix: Prefix) -> Callable[[str], Effect[Page]]:
    return lambda after: ListKeys(prefix, after)


def _folders_of(prefix: Prefix) -> Callable[[str], Effect[Page]]:
    return lambda after: ListFolders(prefix, after)
