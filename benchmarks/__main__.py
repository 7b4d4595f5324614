"""`make bench`: measure the rows that are asked for and print them as a table."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks import (
    access,
    buckets,
    collection,
    images,
    large_blobs,
    listings,
    memory,
    mirrors,
    rules,
    simulation,
    small_requests,
    starting,
)
from benchmarks.client import Unexpected
from benchmarks.machine import Unfit, describe, install_missing, require_space, take_cores
from benchmarks.result import Result, markdown
from benchmarks.settings import Settings

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True)
class Family:
    """Rows that are measured together."""

    rows: tuple[str, ...]
    programs: set[str]
    measure: Callable[[Settings], list[Result]]


MODULES = (
    *(small_requests, access, large_blobs, images, memory, buckets),
    *(mirrors, starting, listings, collection, rules, simulation),
)
FAMILIES = [Family(module.ROWS, module.PROGRAMS, module.measure) for module in MODULES]


def main() -> int:
    """The exit status: 0 when every row could be measured, whatever the figures."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    parser = _parser()
    arguments = parser.parse_args()
    known = [row for family in FAMILIES for row in family.rows]
    wanted = [row for row in arguments.rows.replace(",", " ").split() if row] or known
    if unknown := [row for row in wanted if row not in known]:
        parser.error(f"no such row: {', '.join(unknown)}; the rows are {', '.join(known)}")
    families = [family for family in FAMILIES if set(family.rows) & set(wanted)]
    RESULTS.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="angos-stores-", dir=arguments.folder.absolute()))
    failures: list[str] = []
    try:
        install_missing({program for family in families for program in family.programs})
        require_space(folder, 20 * arguments.size_mib + 2000)
        cores = take_cores()
        settings = Settings(frozenset(wanted), arguments.rounds, arguments.seconds, arguments.size_mib, folder, cores)
        results = _measure(settings, families, failures)
    except Unfit as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    _report(results, settings)
    for failure in failures:
        print(f"benchmarks: {failure}", file=sys.stderr)
    return 1 if failures else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rows", default="", help="names separated by commas; all by default")
    parser.add_argument("--rounds", type=int, default=3, help="how often each figure is taken")
    parser.add_argument("--seconds", type=float, default=4.0, help="how long the load of one figure lasts")
    parser.add_argument("--folder", type=Path, default=RESULTS, help="where the stores are made, and removed again")
    parser.add_argument("--size-mib", type=int, default=1024, help="size of a large blob")
    return parser


def _measure(settings: Settings, families: list[Family], failures: list[str]) -> list[Result]:
    """Everything that can be measured. What cannot is added to `failures`, and the other rows go on."""
    results = []
    for family in families:
        names = ", ".join(row for row in family.rows if row in settings.rows)
        start = time.monotonic()
        try:
            results.extend(family.measure(settings))
        except (Unexpected, OSError, subprocess.SubprocessError) as error:
            failures.append("\n".join([f"{names}: {error}", *getattr(error, "__notes__", [])]))
        print(f"{names}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
        for path in settings.folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return results


def _report(results: list[Result], settings: Settings) -> None:
    facts = describe()
    record = {
        "machine": facts,
        "rounds": settings.rounds,
        "seconds": settings.seconds,
        "size_mib": settings.size_mib,
        "results": [result.to_json() for result in results],
    }
    path = RESULTS / f"{time.strftime('%Y-%m-%d-%H%M%S')}.json"
    path.write_text(json.dumps(record, indent=1))
    print(markdown(results))
    print(
        f"\nMedians of {settings.rounds} rounds. {facts['processor']}, one core for the server, one for the load;"
        f" Python {facts['python']}. All figures: benchmarks/results/{path.name}"
    )


if __name__ == "__main__":
    sys.exit(main())
