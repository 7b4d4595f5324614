"""``angos prune``: delete the tags that no rule of retention keeps, or show which those are."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, get_args

from angos.runtime.command_line import complain
from angos.runtime.config.schema import Configuration
from angos.runtime.maintenance import frame
from angos.sansio.operation import Operation
from angos.sansio.prune import Judged, Outcome, Pruned, prune
from angos.sansio.retention import RetentionConfig, Verdict

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
        return Operation(prune(found.retention or RetentionConfig(), arguments.repositories, dry_run=dry_run))

    def show(done: Pruned) -> int:
        if done.busy:
            complain("another run is going on; wait for it, or look with --dry-run")
            return 1
        if arguments.repositories and not done.namespaces and not done.passed:
            complain(f"there is no tag in {' or '.join(arguments.repositories)}")
            return 1
        print(_as_json(done, dry_run) if arguments.json else "\n".join(_lines(done, dry_run)))  # noqa: T201
        return 1 if done.passed else 0

    return frame.run(arguments, begin, show)


# --- for a person -----------------------------------------------------------------------------------------------------

_WORDS = {
    "young": "younger than min_age",
    "undated": "nobody knows when it was pushed",
    "belongs": "belongs to a manifest that is here",
    "unreadable": "could not be read",
    "no rules": "there are no rules",
    "no rule": "no rule keeps it",
}


def _lines(done: Pruned, dry_run: bool) -> Iterator[str]:
    """Without a dry run, only of what did not stay as it was."""
    shown = [judged for judged in done.tags if dry_run or judged.outcome != "kept"]
    rows = [("", "REPOSITORY", "TAG", "PUSHED (UTC)", "WHY"), *(_row(judged, dry_run) for judged in shown)]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows if shown else ():
        yield "  ".join((*(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)), row[4])).rstrip()
    deleted = sum(judged.outcome == "deleted" for judged in done.tags)
    would = "would be" if dry_run else "were"
    where = frame.counted(done.namespaces, "repository", "repositories")
    yield f"{deleted} of {frame.counted(len(done.tags), 'tag')} in {where} {would} deleted"


def _row(judged: Judged, dry_run: bool) -> tuple[str, str, str, str, str]:
    verdict = judged.verdict
    pushed = verdict.facts.pushed_ms
    shown = "" if pushed is None else datetime.fromtimestamp(pushed // 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    tag = verdict.facts.tag.name
    if len(tag) > TAG_WIDTH:
        tag = f"{tag[: TAG_WIDTH - 13]}...{tag[-10:]}"
    return _word(judged, dry_run), judged.namespace, tag, shown, _reason(verdict)


def _word(judged: Judged, dry_run: bool) -> str:
    return {"kept": "keep", "deleted": "delete"}[judged.outcome] if dry_run else judged.outcome


def _reason(verdict: Verdict) -> str:
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
    if verdict.rule is not None:
        found |= {"rule": verdict.rule.where, "expression": verdict.rule.text}
    return found | ({"problem": verdict.problem} if verdict.problem else {})
