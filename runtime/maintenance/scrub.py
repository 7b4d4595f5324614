"""``angos scrub``: look at every object of both stores, mend what can be derived, move what is wrong out of the way."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import Final

from angos.runtime.command_line import complain, printable
from angos.runtime.config.schema import Configuration
from angos.runtime.maintenance import frame
from angos.sansio.layout import LOST_AND_FOUND
from angos.sansio.operation import Operation
from angos.sansio.scrub.hands import Settings
from angos.sansio.scrub.report import Finding, Scrubbed
from angos.sansio.scrub.run import scrub

FINDINGS_SHOWN = 100
"""One by one as text; JSON has more."""
MANIFEST_BYTES: Final = 8 << 20
"""Looked into at least, however large a manifest may be that is pushed today."""

_WOULD: Final = {
    "quarantined": "would be quarantined",
    "created": "would be created",
    "kept": "stays",
    "postponed": "too young",
}
NAMES: Final = {
    "blob": "blobs",
    "owner": "owners",
    "reference": "references",
    "revision": "manifests",
    "tag event": "events of tags",
    "history": "past events of tags",
    "claim": "claims on tags",
    "referrer": "referrers",
    "pull": "times of pulls",
    "catalogue": "repositories",
    "upload": "files of uploads",
    "chunk": "chunks of uploads",
    "import": "imports",
    "collector": "notes for the collector",
    "probe": "probes",
    "other registry": "of other registries",
    "unknown": "unknown",
}
"""What is looked at, for a person."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    frame.add_store_arguments(parser)
    parser.add_argument("-d", "--dry-run", action="store_true", help="report only; nothing is written")
    parser.add_argument("--json", action="store_true", help="report as JSON")
    parser.add_argument(
        "--verify-bytes",
        action="store_true",
        help="read all blobs and compare them with their digests, not only the manifests",
    )
    parser.add_argument(
        "--rate", type=_megabytes, metavar="MB", help="read at most so many megabytes of blobs a second (default: 100)"
    )
    parser.add_argument(
        "--grace",
        type=frame.duration,
        default=3600.0,
        metavar="DURATION",
        help="leave alone what is younger, since somebody may be writing it (default: 1h)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Gives the exit code: 0 the store is sound, or is now; 1 something is left to do, or another one is at work; 130
    interrupted."""

    def operation(found: Configuration) -> Operation[Scrubbed]:
        settings = Settings(
            dry_run=arguments.dry_run,
            verify_bytes=arguments.verify_bytes,
            bytes_per_second=arguments.rate or _megabytes("100"),
            grace_ms=round(arguments.grace * 1000),
            manifest_bytes_max=max(found.registry.manifest_size_max, MANIFEST_BYTES),
        )
        return Operation(scrub(settings))

    show = _show_json if arguments.json else _show
    return frame.run(arguments, operation, show, for_writing=not arguments.dry_run)


def _megabytes(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 10**6):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of megabytes from 1 to 999999")
    return int(text) * 10**6


def _show_json(done: Scrubbed) -> int:
    report = {**asdict(done), "is_sound": done.is_sound}
    for counts in ("objects", "problems", "actions"):
        report[counts] = dict(report[counts])
    print(json.dumps(report, indent=2))  # noqa: T201
    return 0 if done.is_sound else 1


def _show(done: Scrubbed) -> int:
    if done.refused:
        complain(f"nothing was looked at: {done.refused}")
        return 1
    for finding in done.findings[:FINDINGS_SHOWN]:
        print(printable(_line(finding, dry_run=done.dry_run)))  # noqa: T201
    told = sum(number for _, number in done.problems)
    if told > FINDINGS_SHOWN:
        print(f"{told - FINDINGS_SHOWN} more, which --json shows")  # noqa: T201
    if done.resumed:
        print("went on where an earlier run was interrupted; what that one found is told here too")  # noqa: T201
    looked_at = ", ".join(f"{number} {NAMES.get(kind, kind)}" for kind, number in done.objects) or "nothing"
    print(f"looked at: {looked_at}")  # noqa: T201
    if done.bytes_verified:
        print(f"verified: {frame.size_text(done.bytes_verified)}")  # noqa: T201
    actions = dict(done.actions)
    if not told:
        print("the store is sound")  # noqa: T201
    else:
        names = {action: _WOULD[action] if done.dry_run else action for action in actions}
        found = ", ".join(f"{number} {names[action]}" for action, number in done.actions)
        print(f"problems: {told}; {found}")  # noqa: T201
    if actions.get("quarantined") and not done.dry_run:
        print(f"to put something back, move it from {LOST_AND_FOUND}KEY to KEY in the same store")  # noqa: T201
    return 0 if done.is_sound else 1


def _line(finding: Finding, *, dry_run: bool) -> str:
    action = _WOULD[finding.action] if dry_run else finding.action
    return f"{action}: {finding.problem}: {finding.key}: {finding.detail}"
