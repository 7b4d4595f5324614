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
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from angos.sansio import layout
from angos.sansio.distribution import Place, Problem, happened_ms, link_target, name_of, place_of, told
from angos.sansio.distribution_links import Link, Links, check_manifest, look_for_bytes, stats_of
from angos.sansio.effects import (
    DeleteKeys,
    Effect,
    EffectError,
    Key,
    ListKeys,
    Page,
    Prefix,
    Stat,
    StatKey,
    Tell,
)
from angos.sansio.errors import Invalid
from angos.sansio.layout import DISTRIBUTION_PREFIX, DistributionLink, TagEvent
from angos.sansio.oci.digest import Digest
from angos.sansio.oci.reference import Namespace, Tag, parse_namespace
from angos.sansio.progress import Progress
from angos.sansio.tags import newest_event, winner
from angos.sansio.together import together

T = TypeVar("T")

_State = Literal["same", "absent", "other", "deleted", "deleted, there", "left out"]


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
    # Not by the catalogue: of a repository that it has lost, the layers alone would be linked.
    await _each_page(lambda after: ListKeys(layout.NAMESPACES_PREFIX, after), run.link_names)
    await run.settle_tags()
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
        self._comparisons: dict[str, _Comparison | None] = {}
        self._links = Links(self._leave_out)
        self._seen: Namespace | None = None
        self._held: tuple[Namespace, Tag, TagEvent] | None = None
        self.done = 0

    def told(self) -> tuple[tuple[str, int], ...]:
        counts = self._counts
        numbers = ("written", self._links.written), ("removed", counts["removed"])
        return (*numbers, ("not_exported", len(self._unexported)))

    def result(self) -> Exported:
        counts = self._counts
        return Exported(
            counts["namespaces"],
            counts["layers"],
            counts["manifests"],
            counts["tags"],
            self._links.written,
            counts["removed"],
            tuple(sorted(self._unexported, key=lambda unexported: unexported.what)),
        )

    # --- what is here -------------------------------------------------------------------------------------------------

    async def link_layers(self, names: tuple[str, ...]) -> None:
        """Some of the keys below `REFERENCES_PREFIX`."""
        owned = [found for name in names if (found := layout.parse_owned_name(name)) is not None]
        problems = await look_for_bytes(list(dict.fromkeys(digest for digest, _ in owned)))
        links: list[Link] = []
        for digest, namespace in owned:
            what = f"{namespace}@{digest}"
            if (problem := problems[digest]) is None:
                links.append(Link(namespace, layout.distribution_layer_key(namespace, digest), digest, what))
            else:
                self._leave_out(what, problem)
        self._counts["layers"] += len(await self._links.write(links))
        self.done += len(owned)
        await Tell(Progress("export", "layers", self.done, None, self.told()))

    async def link_names(self, names: tuple[str, ...]) -> None:
        """Some of the keys below `NAMESPACES_PREFIX`: of each namespace the manifests come before the tags."""
        links: list[Link] = []
        settled: dict[tuple[Namespace, Tag], TagEvent] = {}
        for name in names:
            if (revision := layout.parse_namespace_revision(name)) is not None:
                namespace, digest = revision
                what = f"{namespace}@{digest}"
                links.append(Link(namespace, layout.distribution_revision_key(namespace, digest), digest, what))
                self._see(namespace)
            elif (found := layout.parse_namespace_event(name)) is not None:
                namespace, tag, event = found
                self._see(namespace)
                if self._held is not None and self._held[:2] != (namespace, tag):
                    settled[self._held[0], self._held[1]] = self._held[2]
                    self._held = None
                best = event if self._held is None else winner((self._held[2], event)) or event
                self._held = namespace, tag, best  # further events may come with the next page
        self._counts["manifests"] += len(await self._links.write(links, check_manifest))
        self.done += len(links)
        await self._settle(settled)
        if self._seen is not None:
            await Tell(Progress("export", self._seen, self.done, None, self.told()))

    def _see(self, namespace: Namespace) -> None:
        self._counts["namespaces"] += namespace != self._seen
        self._seen = namespace

    async def settle_tags(self) -> None:
        """No more names follow."""
        if self._held is not None:
            namespace, tag, event = self._held
            self._held = None
            await self._settle({(namespace, tag): event})

    async def _settle(self, tags: dict[tuple[Namespace, Tag], TagEvent]) -> None:
        """Let distribution know these tags as they are here."""
        self.done += len(tags)
        found = await together(self._look_at(namespace, tag, event) for (namespace, tag), event in tags.items())
        moved: list[Link] = []
        wanted: list[Link] = []
        gone: list[Coroutine[Any, Any, None]] = []
        indexes: dict[str, Link] = {}
        for ((namespace, tag), event), state in zip(tags.items(), found, strict=True):
            what = f"{namespace}:{tag}"
            link = Link(namespace, layout.distribution_tag_key(namespace, tag), event.digest, what)
            if state in ("same", "absent", "other"):
                key = layout.distribution_tag_index_key(namespace, tag, event.digest)
                indexes[what] = Link(namespace, key, event.digest, what)
            if state == "absent":
                wanted.append(link)
            elif state == "other":
                moved.append(link)
            elif state in ("deleted", "deleted, there"):
                gone.append(self._unlink_tag(namespace, tag, known=state != "deleted"))
        await together(gone)
        wanted += await self._links.remove(moved)
        named = {link.what for link in await self._links.write(list(indexes.values()))}
        known = named - {link.what for link in (*moved, *wanted)}
        written = await self._links.write([link for link in wanted if link.what in named], absent=True)
        self._counts["tags"] += len(known) + len(written)

    async def _look_at(self, namespace: Namespace, tag: Tag, event: TagEvent) -> _State:
        """How a tag is there, or that it has to be left out."""
        try:
            return await self._state(namespace, tag, event)
        except (Problem, EffectError) as error:
            self._leave_out(f"{namespace}:{tag}", error)
            return "left out"

    async def _state(self, namespace: Namespace, tag: Tag, event: TagEvent) -> _State:
        key = layout.distribution_tag_key(namespace, tag)
        stat = None if await self._links.is_new(namespace) else await StatKey(key)
        if stat is not None and stat.size:
            named = await _named(key, stat)
            if event.kind == "set" and named == event.digest:
                return "same"
            if named is not None and not (await place_of(namespace)).knows(
                DistributionLink(namespace, "tag", tag.name), stat
            ):
                happened = await happened_ms(namespace, tag, event)
                if stat.modified_ms > happened:
                    raise Problem("newer-there", "the old registry was given this tag later; import it first")
        if event.kind == "del":
            return "deleted" if stat is None else "deleted, there"
        revision = await StatKey(layout.distribution_revision_key(namespace, event.digest))
        if revision is None or await StatKey(layout.revision_key(namespace, event.digest)) is None:
            raise Problem("no-manifest", f"it names {event.digest}, which is not among the manifests there")
        return "absent" if stat is None else "other"

    async def _unlink_tag(self, namespace: Namespace, tag: Tag, *, known: bool) -> None:
        """All of it. That of a tag which is not there too: a run that was killed may have left folders on a disk."""
        try:
            await self._unlink(namespace, tag)
            self._counts["removed"] += known
        except EffectError as error:
            self._leave_out(f"{namespace}:{tag}", error)

    async def _unlink(self, namespace: Namespace, tag: Tag) -> None:
        if await self._links.is_new(namespace):
            return
        prefix = layout.distribution_tag_prefix(namespace, tag)
        await DeleteKeys((layout.distribution_tag_key(namespace, tag),))

        async def unlink(names: tuple[str, ...]) -> None:
            if names:
                await DeleteKeys(tuple(Key(prefix + name) for name in names))

        await _each_page(_keys_of(prefix), unlink)

    def _leave_out(self, what: str, error: Problem | EffectError) -> None:
        self._unexported.append(Unexported(what, *told(error)))

    # --- what is there ------------------------------------------------------------------------------------------------

    async def compare(self, names: tuple[str, ...]) -> None:
        """Some of the keys below `DISTRIBUTION_PREFIX`."""
        links = [(name, link) for name in names if (link := layout.parse_distribution_link(name)) is not None]
        if not links:
            return
        begun = [text for text in dict.fromkeys(link.namespace for _, link in links) if text not in self._comparisons]
        found = await together(_begin(text) for text in begun)
        self._comparisons |= dict(zip(begun, found, strict=True))
        here = await self._look_here([link for _, link in links])
        await together(
            self._compare(self._comparisons[link.namespace], Key(DISTRIBUTION_PREFIX + name), link, here.get(link))
            for name, link in links
        )
        last = links[-1][1].namespace  # further links of it may come with the next page
        await self.leave(last)
        await Tell(Progress("export", last, self.done, None, self.told()))

    async def _look_here(self, links: Sequence[DistributionLink]) -> dict[DistributionLink, Stat | EffectError | None]:
        """What is here for the links of layers and manifests."""
        keys: dict[DistributionLink, Key] = {}
        for link in links:
            comparison = self._comparisons[link.namespace]
            digest = layout.parse_distribution_digest(link.name) if link.kind != "tag" else None
            if comparison is not None and digest is not None:
                key_of = layout.owner_key if link.kind == "layer" else _revision_key
                keys[link] = key_of(digest, comparison.place.namespace)
        return dict(zip(keys, await stats_of(list(keys.values())), strict=True))

    async def _compare(
        self,
        comparison: _Comparison | None,
        key: Key,
        link: DistributionLink,
        here: Stat | EffectError | None,
    ) -> None:
        """`here` is what is here for a layer or a manifest."""
        seen = False
        try:
            stat = await StatKey(key)
            if stat is None:
                return
            if comparison is not None:
                comparison.place.see(link, stat)
                seen = comparison.place.has_seen(link, stat)
                if isinstance(here, EffectError):
                    raise here
                if here is not None or await _is_tag_here(comparison.place.namespace, link):
                    return
                if seen and link.kind != "tag":
                    comparison.gone.append((link, key))
                    return
            raise Problem("not-imported", "it is unknown here; import it first, or it stays as it is")
        except (Problem, EffectError) as error:
            self._leave_out(key, error)
            if comparison is not None and not seen:
                comparison.place.missed.add(name_of(link))

    async def leave(self, but: str | None = None) -> None:
        """No more links of the namespaces follow that were compared, except of one of them."""
        left = [comparison for text, comparison in self._comparisons.items() if text != but]
        self._comparisons = {text: found for text, found in self._comparisons.items() if text == but}
        await together(self._end(comparison) for comparison in left if comparison is not None)

    async def _end(self, comparison: _Comparison) -> None:
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


async def _begin(text: str) -> _Comparison | None:
    try:
        namespace = parse_namespace(text)
    except Invalid:
        return None
    return _Comparison(await place_of(namespace))


async def _is_tag_here(namespace: Namespace, link: DistributionLink) -> bool:
    if link.kind != "tag":
        return False
    try:
        return await newest_event(namespace, Tag.parse(link.name)) is not None
    except Invalid:
        return False


def _revision_key(digest: Digest, namespace: Namespace) -> Key:
    return layout.revision_key(namespace, digest)


async def _named(key: Key, stat: Stat) -> Digest | None:
    """What the link of a tag says; None when it says nothing."""
    try:
        return await link_target(key, stat)
    except Problem:
        return None


def _keys_of(prefix: Prefix) -> Callable[[str], Effect[Page]]:
    return lambda after: ListKeys(prefix, after)
