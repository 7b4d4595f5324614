"""``angos prune``: delete the tags and the manifests that no rule of retention keeps, or show which those are."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, get_args

from angos.runtime.command_line import complain, printable
from angos.runtime.config.schema import Configuration
from angos.runtime.maintenance import frame
from angos.sansio.operation import Operation
from angos.sansio.prune import Judged, JudgedManifest, Outcome, Pruned, prune
from angos.sansio.retention import RetentionConfig, Verdict
from angos.sansio.untagged import Fate

RULE_WIDTH = 60
TAG_WIDTH = 40
"""What is longer is shortened in the table; JSON has all of it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument(
        "repositories",
        nargs="*",
        metavar="REPOSITORY",
        help="only this repository and those below it; can be repeated (default: all)",
    )
    frame.add_store_arguments(parser)
    parser.add_argument("--dry-run", action="store_true", help="delete nothing, show what would go")
    parser.add_argument("--json", action="store_true", help="report as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Gives the exit code: 0 done, 1 something could not be read or changed, 130 interrupted."""
    dry_run: bool = arguments.dry_run

    def begin(found: Configuration) -> Operation[Pruned]:
        retention = found.retention or RetentionConfig()
        return Operation(prune(retention, arguments.repositories, registry=found.registry, dry_run=dry_run))

    def show(done: Pruned) -> int:
        if done.busy:
            complain("another run is going on; wait for it, or look with --dry-run")
            return 1
        if arguments.repositories and not done.namespaces and not done.passed:
            complain(f"there is no tag in {' or '.join(arguments.repositories)}")
            return 1
        print(_as_json(done, dry_run) if arguments.json else "\n".join(_lines(done, dry_run)))  # noqa: T201
        return 1 if done.passed else 0

    return frame.run(arguments, begin, show, for_writing=not dry_run)


# --- for a person -----------------------------------------------------------------------------------------------------

_WORDS = {
    "young": "younger than min_age",
    "undated": "nobody knows when it was pushed",
    "belongs": "belongs to a manifest that is here",
    "unreadable": "could not be read",
    "no rules": "there are no rules",
    "no rule": "no rule keeps it",
    "used": "was pushed or needed less than gc_grace_secs ago",
    "restorable": "a tag can be set back to it",
    "part": "is part of",
    "refers": "refers to",
    "referred": "is referred to by",
}


def _lines(done: Pruned, dry_run: bool) -> Iterator[str]:
    """Without a dry run, only of what did not stay as it was."""
    everything: list[Judged | JudgedManifest] = [*done.tags, *done.manifests]
    shown = [judged for judged in everything if dry_run or judged.outcome != "kept"]
    shown.sort(key=lambda judged: judged.namespace)
    named = "TAG OR DIGEST" if any(isinstance(judged, JudgedManifest) for judged in shown) else "TAG"
    rows = [("", "REPOSITORY", named, "PUSHED (UTC)", "WHY"), *(_row(judged, dry_run) for judged in shown)]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows if shown else ():
        yield "  ".join((*(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)), row[4])).rstrip()
    deleted = sum(judged.outcome == "deleted" for judged in done.tags)
    what = f"{deleted} of {frame.counted(len(done.tags), 'tag')}"
    if done.manifests:
        deleted = sum(judged.outcome == "deleted" for judged in done.manifests)
        what += f" and {deleted} of {frame.counted(len(done.manifests), 'manifest')} without a tag"
    would = "would be" if dry_run else "were"
    where = frame.counted(done.namespaces, "repository", "repositories")
    yield f"{what} in {where} {would} deleted"


def _row(judged: Judged | JudgedManifest, dry_run: bool) -> tuple[str, str, str, str, str]:
    if isinstance(judged, Judged):
        pushed, name, why = judged.verdict.facts.pushed_ms, judged.verdict.facts.tag.name, _reason(judged.verdict)
    else:
        pushed, name, why = judged.fate.pushed_ms, str(judged.fate.digest), _reason(judged.fate)
    shown = "" if pushed is None else datetime.fromtimestamp(pushed // 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    return _word(judged, dry_run), judged.namespace, _short(name), shown, why


def _short(name: str) -> str:
    return name if len(name) <= TAG_WIDTH else f"{name[: TAG_WIDTH - 13]}...{name[-10:]}"


def _word(judged: Judged | JudgedManifest, dry_run: bool) -> str:
    return {"kept": "keep", "deleted": "delete"}[judged.outcome] if dry_run else judged.outcome


def _reason(verdict: Verdict | Fate) -> str:
    if verdict.why == "unknown":
        return printable(f"not understood: {verdict.problem}")
    if isinstance(verdict, Fate) and verdict.by is not None:
        return f"{_WORDS[verdict.why]} {_short(str(verdict.by))}"
    if verdict.rule is None:
        return _WORDS[verdict.why]
    text = " ".join(verdict.rule.text.split())
    if len(text) > RULE_WIDTH:
        text = f"{text[: RULE_WIDTH - 3]}..."
    failed = f", which failed: {verdict.problem}" if verdict.problem else ""
    return f"{verdict.rule.where.replace('.retention_policy.rules', '')}: {text}{failed}"


# --- for a program ----------------------------------------------------------------------------------------------------


def _as_json(done: Pruned, dry_run: bool) -> str:
    counts = Counter(judged.outcome for judged in done.tags)
    found = {
        "dry_run": dry_run,
        "repositories": done.namespaces,
        **{name.replace(" ", "_"): counts[name] for name in get_args(Outcome)},
        "passed_over": done.passed,
        "tags": [_tag(judged) for judged in done.tags],
        "manifests": [_manifest(judged) for judged in done.manifests],
    }
    return json.dumps(found, indent=2)


def _tag(judged: Judged) -> dict[str, Any]:
    verdict, facts = judged.verdict, judged.verdict.facts
    found: dict[str, Any] = {
        "repository": judged.namespace,
        "tag": facts.tag.name,
        "digest": None if facts.event is None else str(facts.event.digest),
        "pushed_at": None if facts.pushed_ms is None else facts.pushed_ms // 1000,
        "outcome": judged.outcome,
        "why": verdict.why,
    }
    if facts.pulled_ms is not None:
        found["last_pulled_at"] = facts.pulled_ms // 1000
    return found | _ruled(verdict)


def _manifest(judged: JudgedManifest) -> dict[str, Any]:
    fate = judged.fate
    found: dict[str, Any] = {
        "repository": judged.namespace,
        "digest": str(fate.digest),
        "pushed_at": None if fate.pushed_ms is None else fate.pushed_ms // 1000,
        "outcome": judged.outcome,
        "why": fate.why,
    }
    return found | ({} if fate.by is None else {"by": str(fate.by)}) | _ruled(fate)


def _ruled(verdict: Verdict | Fate) -> dict[str, Any]:
    found = {} if verdict.rule is None else {"rule": verdict.rule.where, "expression": verdict.rule.text}
    return found | ({"problem": verdict.problem} if verdict.problem else {})
