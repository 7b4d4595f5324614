"""Pruning: carry out retention in every repository, or only say what it would come to.

First tags are deleted, each as the event left it that the verdict was about (`angos.sansio.tags.unset_event`). So a
push of the tag that comes meanwhile stands, between any two steps of this, and also when this dies at any of them. Then
the manifests that no tag names are judged (`angos.sansio.untagged`) and deleted (`angos.sansio.untagged_removal`).

What could not be read is passed over and kept, and costs nothing but itself. The lease is for politeness: two runs at
once do what one does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from angos.sansio import layout
from angos.sansio.collection.collector import why_not
from angos.sansio.config import RegistryConfig
from angos.sansio.effects import EffectError, Key, ListKeys, ReadClock, StatKey, Tell
from angos.sansio.layout import TagEvent
from angos.sansio.oci.reference import Namespace, Tag
from angos.sansio.progress import Passed, Progress, Removed
from angos.sansio.pulls import LastPulls, PullTimes, forget_pulls, last_pulls, recording_since
from angos.sansio.retention import RetentionConfig, TagFacts, Verdict, judge, named_subject
from angos.sansio.scopes import leased
from angos.sansio.tags import newest_events, unset_event
from angos.sansio.together import together
from angos.sansio.untagged import Fate, Terms, revisions_of
from angos.sansio.untagged_removal import prune_untagged

WORK = "retention"
LEASE_SECONDS = 600.0
FORGET_SECONDS = 30 * 86_400.0
"""When something was pulled that is gone is of no use after so long."""

Outcome = Literal["kept", "deleted", "pushed again", "failed"]
"""``pushed again``: or deleted by somebody else, since it was looked at. ``failed``: it should have been deleted."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A tag, and what became of it; without deleting, what would."""

    namespace: Namespace
    verdict: Verdict
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class JudgedManifest:
    """A manifest without a tag, and what became of it; without deleting, what would."""

    namespace: Namespace
    fate: Fate
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Pruned:
    """What a run has come to."""

    tags: tuple[Judged, ...] = ()
    """Every tag that was looked at, in the order of names; none when nobody wanted to know."""
    manifests: tuple[JudgedManifest, ...] = ()
    """Likewise those without a tag."""
    namespaces: int = 0
    """In which there was something to look at."""
    passed: int = 0
    """Repositories, tags and manifests that could not be read or changed."""
    busy: bool = False
    """Another run is going on, so nothing was done."""


async def prune(
    config: RetentionConfig,
    wanted: Sequence[str] = (),
    *,
    registry: RegistryConfig | None = None,
    dry_run: bool = False,
    report: bool = True,
) -> Pruned:
    """Delete what the rules let go, in the repositories that are wanted and those below them; in all when none is
    named. With `dry_run`, nothing is changed. `report`: tell what became of every tag and manifest. Manifests without a
    tag are left alone unless `registry` says how long the collector waits, and how far back tags can be set.

    Fails when the repositories cannot be listed.
    """
    if dry_run:
        return await _prune(_Run(config, registry, report, dry_run=True), wanted)
    async with leased(WORK, seconds=LEASE_SECONDS, wait_seconds=0) as alone:
        return await _prune(_Run(config, registry, report), wanted) if alone else Pruned(busy=True)


async def _prune(run: _Run, wanted: Sequence[str]) -> Pruned:
    after, more = "", True
    while more:
        page = await ListKeys(layout.CATALOG_PREFIX, after)
        for name in page.names:
            namespace = layout.parse_catalog_name(name)
            if namespace is None:
                continue
            if not wanted or any(namespace == one or namespace.startswith(f"{one}/") for one in wanted):
                await run.visit(namespace)
        after, more = page.last, page.more
    await Tell(Progress(WORK, "", run.looked_at, None, run.told(), ended=True))
    return run.result()


class _Run:
    def __init__(
        self, config: RetentionConfig, registry: RegistryConfig | None, report: bool, *, dry_run: bool = False
    ) -> None:
        self._config = config
        self._registry = registry
        self._refusal: str | None = None
        """Why manifests without a tag are left alone; empty for no reason, None while that is not known."""
        self._report = report
        self._dry_run = dry_run
        self._suspicions: dict[Key, None] = {}
        """Made by this run."""
        self._judged: list[Judged] = []
        self._manifests: list[JudgedManifest] = []
        self._namespaces = 0
        self._passed = 0
        self._counts: Counter[Outcome] = Counter()
        self._of_manifests: Counter[Outcome] = Counter()
        self._recording_ms: int | None = None
        """Since when pulls are recorded."""
        self.looked_at = 0

    def told(self) -> tuple[tuple[str, int], ...]:
        deleted = "would_go" if self._dry_run else "deleted"
        return (
            ("kept", self._counts["kept"]),
            (deleted, self._counts["deleted"]),
            ("pushed_again", self._counts["pushed again"]),
            ("manifests_kept", self._of_manifests["kept"]),
            (f"manifests_{deleted}", self._of_manifests["deleted"]),
            ("manifests_pushed_again", self._of_manifests["pushed again"]),
            ("passed", self._passed),
        )

    def result(self) -> Pruned:
        return Pruned(tuple(self._judged), tuple(self._manifests), self._namespaces, self._passed)

    async def visit(self, namespace: Namespace) -> None:
        """Judge the tags of this repository, and its manifests without one, and delete what may go."""
        rules, min_age_ms = self._config.rules_for(namespace), int(self._config.min_age_seconds * 1000)
        facts, problem = await self._look_at_all(namespace)
        pulls: PullTimes | None = None
        if not problem and any(rule.asks_for_pulls for rule in rules):
            pulls, problem = await self._look_at_pulls(namespace)
        if pulls is not None:
            facts = [replace(one, pulled_ms=pulls.last(one.tag, one.pushed_ms)) for one in facts]
        if problem:
            # Half of the tags would be ranked wrongly.
            await self._pass(str(namespace), problem)
            return
        now_ms = await ReadClock()
        verdicts = judge(facts, rules, now_ms, min_age_ms=min_age_ms)
        self.looked_at += len(facts)
        outcomes = await together(self._carry_out(namespace, verdict) for verdict in verdicts if verdict.goes)
        of_going = iter(outcomes)
        for verdict in verdicts:
            outcome: Outcome = next(of_going) if verdict.goes else "kept"
            self._counts[outcome] += 1
            if self._report:
                self._judged.append(Judged(namespace, verdict, outcome))
        found = len(facts)
        if self._registry is not None and rules:
            going = (
                frozenset(verdict.facts.tag for verdict in verdicts if verdict.goes) if self._dry_run else frozenset()
            )
            terms = Terms(
                rules,
                now_ms,
                min_age_ms,
                self._registry.collection_grace_seconds,
                self._registry.tag_history_seconds,
                self._suspicions,
                pulls,
            )
            found += await self._visit_untagged(namespace, terms, going)
            if pulls is not None and not self._dry_run and not self._registry.keeps_pulls_of_blobs(namespace):
                await self._forget(namespace, [one.tag for one in facts], pulls.recorded, self._registry, now_ms)
        self._namespaces += bool(found)
        await Tell(Progress(WORK, str(namespace), self.looked_at, None, self.told()))

    async def _look_at_all(self, namespace: Namespace) -> tuple[list[TagFacts], str]:
        """The tags of the repository, or the reason why they are not known."""
        try:
            newest = await newest_events(namespace)
        except EffectError as error:
            return [], str(error)
        live = [(tag, event) for tag, event in newest.items() if event.kind == "set"]
        return list(await together(self._look(namespace, tag, event) for tag, event in live)), ""

    async def _look_at_pulls(self, namespace: Namespace) -> tuple[PullTimes | None, str]:
        """The last pulls of the repository, or the reason why they are not known."""
        try:
            if self._recording_ms is None:
                since_ms = await recording_since()
                self._recording_ms = await ReadClock() if since_ms is None else since_ms
            return PullTimes(await last_pulls(namespace), self._recording_ms), ""
        except EffectError as error:
            return None, str(error) or "no answer"

    async def _forget(
        self, namespace: Namespace, tags: Sequence[Tag], pulls: LastPulls, registry: RegistryConfig, now_ms: int
    ) -> None:
        """Pulls of what has been gone for long, so that records do not pile up. What a process may still take for
        recorded is younger."""
        old_ms = now_ms - int(max(FORGET_SECONDS, 2 * registry.pull_time_granularity_seconds) * 1000)
        live = frozenset(tags)
        old_tags = any(at_ms < old_ms and tag not in live for tag, at_ms in pulls.tags.items())
        if not old_tags and all(at_ms >= old_ms for at_ms in pulls.digests.values()):
            return
        problem = ""
        try:
            await forget_pulls(namespace, {*tags, *await revisions_of(namespace)}, old_ms)
        except EffectError as error:
            problem = str(error)
        if problem:
            await self._pass(f"pulls of {namespace}", problem)

    async def _look(self, namespace: Namespace, tag: Tag, event: TagEvent) -> TagFacts:
        subject = named_subject(tag)
        if subject is None:
            return TagFacts(tag, event)
        has_subject, problem = False, ""
        try:
            has_subject = await StatKey(layout.revision_key(namespace, subject)) is not None
        except EffectError as error:
            problem = str(error)
        if problem:
            await self._pass(f"{namespace}:{tag}", problem)
            return TagFacts(tag, None)
        return TagFacts(tag, event, has_subject)

    async def _carry_out(self, namespace: Namespace, verdict: Verdict) -> Outcome:
        tag, event = verdict.facts.tag, verdict.facts.event
        assert event is not None, "what could not be read stays"
        if self._dry_run:
            return "deleted"
        problem = ""
        try:
            deleted = await unset_event(namespace, tag, event, WORK)
        except EffectError as error:
            problem = str(error)
        if problem:
            await self._pass(f"{namespace}:{tag}", problem)
            return "failed"
        if not deleted:
            return "pushed again"
        await Tell(Removed(WORK, f"{namespace}:{tag}", f"named {event.digest}, and no rule keeps it"))
        return "deleted"

    async def _visit_untagged(self, namespace: Namespace, terms: Terms, without: frozenset[Tag]) -> int:
        """How many there were."""
        if self._refusal is None:
            self._refusal = await why_not() or ""
            if self._refusal:
                await self._pass("manifests without a tag", self._refusal)
        if self._refusal:
            return 0
        fates: tuple[tuple[Fate, Outcome | None], ...] = ()
        problems: tuple[str, ...] = ()
        try:
            fates, problems = await prune_untagged(namespace, terms, without, dry_run=self._dry_run)
        except EffectError as error:
            problems = (str(error),)
        for problem in problems:
            await self._pass(f"manifests without a tag of {namespace}", problem)
        for fate, outcome in fates:
            what = f"{namespace}@{fate.digest}"
            if fate.why == "unreadable":
                await self._pass(what, fate.problem)
            if outcome == "deleted" and not self._dry_run:
                await Tell(Removed(WORK, what, "no tag names it, and no rule keeps it"))
            self._of_manifests[outcome or "kept"] += 1
            if self._report:
                self._manifests.append(JudgedManifest(namespace, fate, outcome or "kept"))
        self.looked_at += len(fates)
        return len(fates)

    async def _pass(self, what: str, problem: str) -> None:
        self._passed += 1
        await Tell(Passed(WORK, what, problem))
