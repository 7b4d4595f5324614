"""Pruning: carry out retention in every repository, or only say what it would come to.

Only tags are deleted. A manifest that no tag names any more can still be pulled by its digest.

What could not be read is passed over and kept, and costs nothing but itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from angos.sansio import layout
from angos.sansio.effects import EffectError, ListFolders, ListKeys, Page, ReadClock, StatKey, Tell
from angos.sansio.errors import Invalid
from angos.sansio.layout import TagEvent
from angos.sansio.oci.reference import Namespace, Tag, parse_namespace
from angos.sansio.progress import Passed, Progress
from angos.sansio.retention import RetentionConfig, TagFacts, Verdict, judge, named_subject
from angos.sansio.tags import newest_event
from angos.sansio.together import together

WORK = "retention"


@dataclass(frozen=True, slots=True)
class Judged:
    """A tag, and what is to become of it."""

    namespace: Namespace
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Pruned:
    """What a run has come to."""

    tags: tuple[Judged, ...]
    """Of every tag that was looked at, in the order of names."""
    namespaces: int
    """In which there was a tag."""
    passed: int
    """Repositories and tags that could not be read."""


async def prune(config: RetentionConfig, wanted: Sequence[str] = ()) -> Pruned:
    """Judge the tags of the repositories that are wanted and of those below them; of all when none is named.

    Fails when the repositories cannot be listed.
    """
    run = _Run(config)
    after, more = "", True
    while more:
        page = await ListKeys(layout.CATALOG_PREFIX, after)
        for name in page.names:
            namespace = _namespace(name)
            if namespace is not None and _is_wanted(namespace, wanted):
                await run.visit(namespace)
        after, more = page.last, page.more
    await Tell(Progress(WORK, "", run.looked_at, None, run.told(), ended=True))
    return run.result()


def _namespace(name: str) -> Namespace | None:
    found = layout.parse_catalog_name(name)
    try:
        return None if found is None else parse_namespace(found)
    except Invalid:
        return None


def _is_wanted(namespace: Namespace, wanted: Sequence[str]) -> bool:
    return not wanted or any(namespace == name or namespace.startswith(f"{name}/") for name in wanted)


class _Run:
    def __init__(self, config: RetentionConfig) -> None:
        self._config = config
        self._judged: list[Judged] = []
        self._namespaces = 0
        self._counts: Counter[str] = Counter()
        self.looked_at = 0

    def told(self) -> tuple[tuple[str, int], ...]:
        return tuple((name, self._counts[name]) for name in ("kept", "to_delete", "passed"))

    def result(self) -> Pruned:
        return Pruned(tuple(self._judged), self._namespaces, self._counts["passed"])

    async def visit(self, namespace: Namespace) -> None:
        """Judge the tags of this repository."""
        facts: list[TagFacts] = []
        try:
            after, more = "", True
            while more:
                page: Page = await ListFolders(layout.tags_prefix(namespace), after)
                tags = [tag for folder in page.names if (tag := layout.parse_tag_folder(folder)) is not None]
                found = await together(self._look(namespace, tag) for tag in tags)
                facts += [one for one in found if one is not None]
                after, more = page.last, page.more
        except EffectError as error:
            problem = str(error)
        else:
            problem = ""
        if problem:
            # Half of the tags would be ranked wrongly.
            await self._pass(str(namespace), problem)
            return
        now_ms = await ReadClock()
        rules, min_age_ms = self._config.rules_for(namespace), int(self._config.min_age_seconds * 1000)
        verdicts = judge(facts, rules, now_ms, min_age_ms=min_age_ms)
        self._namespaces += bool(facts)
        self.looked_at += len(facts)
        for verdict in verdicts:
            self._counts["to_delete" if verdict.goes else "kept"] += 1
            self._judged.append(Judged(namespace, verdict))
        await Tell(Progress(WORK, str(namespace), self.looked_at, None, self.told()))

    async def _look(self, namespace: Namespace, tag: Tag) -> TagFacts | None:
        """None when the tag is deleted."""
        event: TagEvent | None = None
        has_subject, problem = False, ""
        try:
            event = await newest_event(namespace, tag)
            if event is None or event.kind == "del":
                return None
            subject = named_subject(tag)
            has_subject = subject is not None and await StatKey(layout.revision_key(namespace, subject)) is not None
        except EffectError as error:
            problem = str(error)
        if problem:
            await self._pass(f"{namespace}:{tag}", problem)
            return TagFacts(tag, None)
        return TagFacts(tag, event, has_subject)

    async def _pass(self, what: str, problem: str) -> None:
        self._counts["passed"] += 1
        await Tell(Passed(WORK, what, problem))
