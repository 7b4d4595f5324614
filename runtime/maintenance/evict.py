"""``angos evict``: let go of what was not pulled for longest from caches that are larger than they may be."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from angos.runtime.command_line import complain
from angos.runtime.config.schema import Configuration
from angos.runtime.maintenance import frame
from angos.sansio.operation import Operation
from angos.sansio.upstream.eviction import Evicted, Eviction, Measured, evict


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument(
        "repositories",
        nargs="*",
        metavar="REPOSITORY",
        help="only this repository, as the configuration names it; can be repeated (default: all that have a limit)",
    )
    frame.add_store_arguments(parser)
    parser.add_argument("--dry-run", action="store_true", help="change nothing, show what would go")
    parser.add_argument("--json", action="store_true", help="report as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Gives the exit code: 0 done, 1 something could not be read or changed, 130 interrupted."""
    dry_run: bool = arguments.dry_run

    def begin(found: Configuration) -> Operation[Eviction]:
        return Operation(evict(found.registry, arguments.repositories, dry_run=dry_run))

    def show(done: Eviction) -> int:
        if done.busy:
            complain("another run is going on; wait for it, or look with --dry-run")
            return 1
        known = {measured.repository for measured in done.repositories}
        missing = [name for name in arguments.repositories if name not in known]
        if missing or not known:
            where = " or ".join(missing) or "any repository"
            complain(f"there is no cache.max_size for {where} in the configuration; nothing is evicted there")
            return 1
        if arguments.json:
            print(_as_json(done, dry_run))  # noqa: T201
        else:
            for measured in done.repositories:
                print("\n".join(_lines(measured, dry_run)))  # noqa: T201
        return 1 if any(measured.passed_over for measured in done.repositories) else 0

    return frame.run(arguments, begin, show, for_writing=not dry_run)


def _lines(measured: Measured, dry_run: bool) -> Iterator[str]:
    rows = [("REPOSITORY", "MANIFEST", "USED (UTC)", "SIZE"), *(_row(one) for one in measured.evicted)]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows if measured.evicted else ():
        yield "  ".join((*(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)), row[3]))
    size, limit, left = (frame.size_text(number) for number in (measured.size, measured.size_max, measured.left))
    evicted, are = ("would be evicted", "would be") if dry_run else ("evicted", "are")
    manifests, gone = (frame.counted(number, "manifest") for number in (measured.manifests, len(measured.evicted)))
    yield f"{measured.repository}: {manifests} of {size}, where {limit} are allowed"
    yield f"{measured.repository}: {evicted}: {gone}; {left} {are} left"
    if measured.left > measured.size_max:
        yield f"{measured.repository}: what is left is in use; it can go an hour or two after it was pulled"
    if measured.passed_over:
        yield f"{measured.repository}: passed over: {measured.passed_over}, which could not be read or deleted"


def _row(one: Evicted) -> tuple[str, str, str, str]:
    used = datetime.fromtimestamp(one.used_ms // 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    return one.namespace, str(one.digest)[:19], used, frame.size_text(one.size)


def _as_json(done: Eviction, dry_run: bool) -> str:
    return json.dumps({"dry_run": dry_run, "repositories": [_measured(each) for each in done.repositories]}, indent=2)


def _measured(measured: Measured) -> dict[str, Any]:
    return {
        "repository": measured.repository,
        "max_size": measured.size_max,
        "size": measured.size,
        "left": measured.left,
        "manifests": measured.manifests,
        "passed_over": measured.passed_over,
        "evicted": [
            {
                "repository": one.namespace,
                "digest": str(one.digest),
                "used_at": one.used_ms // 1000,
                "size": one.size,
            }
            for one in measured.evicted
        ],
    }
