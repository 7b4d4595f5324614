"""``angos prune``: delete the tags that no rule of retention keeps, or show which those are."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from angos.runtime.command_line import complain
from angos.runtime.config.schema import Configuration
from angos.runtime.maintenance import frame
from angos.sansio.operation import Operation
from angos.sansio.prune import Judged, Pruned, prune
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
    parser.add_argument("--dry-run", action="store_true", required=True, help="delete nothing, show what would go")
    parser.add_argument("--json", action="store_true", help="report as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Gives the exit code: 0 done, 1 something could not be read, 130 interrupted."""

    def begin(found: Configuration) -> Operation[Pruned]:
        return Operation(prune(found.retention or RetentionConfig(), arguments.repositories))

    def show(done: Pruned) -> int:
        if arguments.repositories and not done.namespaces and not done.passed:
            complain(f"there is no tag in {' or '.join(arguments.repositories)}")
            return 1
        print(_as_json(done) if arguments.json else "\n".join(_lines(done)))  # noqa: T201
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


def _lines(done: Pruned) -> Iterator[str]:
    rows = [("", "REPOSITORY", "TAG", "PUSHED (UTC)", "WHY"), *map(_row, done.tags)]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        yield "  ".join((*(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)), row[4])).rstrip()
    going = sum(judged.verdict.goes for judged in done.tags)
    yield f"{going} of {len(done.tags)} tags in {done.namespaces} repositories would be deleted"


def _row(judged: Judged) -> tuple[str, str, str, str, str]:
    verdict = judged.verdict
    pushed = verdict.facts.pushed_ms
    shown = "" if pushed is None else datetime.fromtimestamp(pushed // 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    tag = verdict.facts.tag.name
    if len(tag) > TAG_WIDTH:
        tag = f"{tag[: TAG_WIDTH - 13]}...{tag[-10:]}"
    return "delete" if verdict.goes else "keep", judged.namespace, tag, shown, _reason(verdict)


def _reason(verdict: Verdict) -> str:
    if verdict.rule is None:
        return _WORDS[verdict.why]
    text = " ".join(verdict.rule.text.split())
    if len(text) > RULE_WIDTH:
        text = f"{text[: RULE_WIDTH - 3]}..."
    failed = f", which failed: {verdict.problem}" if verdict.problem else ""
    return f"{verdict.rule.where.replace('.retention_policy.rules', '')}: {text}{failed}"


# --- for a program ----------------------------------------------------------------------------------------------------


def _as_json(done: Pruned) -> str:
    counts = Counter("delete" if judged.verdict.goes else "keep" for judged in done.tags)
    totals = {"repositories": done.namespaces, "delete": counts["delete"], "keep": counts["keep"]}
    return json.dumps({**totals, "passed_over": done.passed, "tags": _tags(done.tags)}, indent=2)


def _tags(tags: Sequence[Judged]) -> list[dict[str, Any]]:
    return [_tag(judged) for judged in tags]


def _tag(judged: Judged) -> dict[str, Any]:
    verdict, facts = judged.verdict, judged.verdict.facts
    found: dict[str, Any] = {
        "repository": judged.namespace,
        "tag": facts.tag.name,
        "digest": None if facts.event is None else str(facts.event.digest),
        "pushed_at": None if facts.pushed_ms is None else facts.pushed_ms // 1000,
        "verdict": "delete" if verdict.goes else "keep",
        "why": verdict.why,
    }
    if verdict.rule is not None:
        found |= {"rule": verdict.rule.where, "expression": verdict.rule.text}
    return found | ({"problem": verdict.problem} if verdict.problem else {})
