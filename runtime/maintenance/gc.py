"""``angos gc``: get the space back of what nobody needs, beside running servers."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from angos.runtime.command_line import complain
from angos.runtime.config.schema import Configuration
from angos.runtime.maintenance import frame
from angos.sansio.collection.collector import Collected, collect
from angos.sansio.collection.sweep import Swept, suspect_needless
from angos.sansio.operation import Operation


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    frame.add_store_arguments(parser)
    parser.add_argument("--dry-run", action="store_true", help="remove nothing, count what would go")
    parser.add_argument(
        "--full",
        action="store_true",
        help="look at everything that is stored, and name what nobody needs: later runs remove it. For a store from"
        " before there was a collector, and after crashes",
    )
    parser.add_argument("--json", action="store_true", help="report as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Gives the exit code: 0 done, 1 refused, or something could not be read or removed, 130 interrupted."""
    dry_run: bool = arguments.dry_run

    def begin(found: Configuration) -> Operation[Collected | Swept]:
        config = found.registry
        if arguments.full:
            return Operation(suspect_needless(config, dry_run=dry_run))
        return Operation(collect(config, dry_run=dry_run))

    def show(done: Collected | Swept) -> int:
        if arguments.json:
            print(json.dumps({"dry_run": dry_run, **asdict(done)}, indent=2))  # noqa: T201
        elif done.refused:
            complain(f"nothing was collected: {done.refused}")
        else:
            print("\n".join(_swept(done, dry_run) if isinstance(done, Swept) else _collected(done, dry_run)))  # noqa: T201
        return 1 if done.refused or done.passed_over else 0

    return frame.run(arguments, begin, show, for_writing=not dry_run)


def _collected(done: Collected, dry_run: bool) -> list[str]:
    verb = "would be removed" if dry_run else "removed"
    lines = [
        f"{verb}: {done.blobs} blobs of {frame.size_text(done.size)}, {done.names} names, {done.uploads} uploads",
        f"looked at: {done.examined} blobs, of which {done.needed} are needed;"
        f" {done.waiting} are in their grace period still",
    ]
    if done.unfinished:
        lines.append(f"{verb} from the bucket: {done.unfinished} unfinished uploads of processes that were killed")
    if done.passed_over:
        lines.append(f"passed over: {done.passed_over}, which could not be read or removed")
    return lines


def _swept(done: Swept, dry_run: bool) -> list[str]:
    verb = "would be named" if dry_run else "named"
    lines = [
        f"{verb}: {done.named} blobs; looked at: {done.examined} blobs and names of blobs",
        "runs after the grace period remove what nobody needs then",
    ]
    if done.passed_over:
        lines.append(f"passed over: {done.passed_over}, which could not be read")
    return lines
