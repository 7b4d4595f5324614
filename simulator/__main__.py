"""The command line: ``python -m angos.simulator search | replay | minimise | exhaust | coverage``."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from angos.sansio.trace import TraceInvalid
from angos.simulator.choices import Diverged, Tape
from angos.simulator.coverage import Coverage
from angos.simulator.exhaust import OPERATIONS, exhaust
from angos.simulator.minimise import Minimiser
from angos.simulator.outcomes import replay_outcomes
from angos.simulator.report import Report, read_trace, replay
from angos.simulator.scenario import STORES
from angos.simulator.search import explain, search_in_parallel
from angos.simulator.workload import draw

EXPLAINED_MAX = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """0: nothing was found. 1: something was, or nobody waited to hear it. 2: the request makes no sense."""
    parser = argparse.ArgumentParser(prog="python -m angos.simulator", description=__doc__)
    commands = parser.add_subparsers(required=True)

    command = commands.add_parser("search", help="run many seeds; write a minimised trace of what was found")
    command.add_argument("--seeds", type=_seeds, default=(0, 10_000), metavar="A..B", help="from A to B, B excluded")
    command.add_argument("--minutes", type=float, help="stop after so long")
    command.add_argument("--store", choices=STORES, help="all runs on this store; see docs/explanation/simulation.md")
    command.add_argument("--jobs", type=int, default=1, help="processes")
    command.add_argument("--out", type=Path, default=Path("."), help="folder for the traces")
    command.set_defaults(run=_search)

    command = commands.add_parser("replay", help="play a trace again, of either kind")
    command.add_argument("file", type=Path)
    command.add_argument("--until", type=int, metavar="N", help="stop before step N and look around")
    command.add_argument("--diff", action="store_true", help="show what is stored at the end")
    command.set_defaults(run=_replay)

    command = commands.add_parser("minimise", help="make a trace smaller; writes it beside the original")
    command.add_argument("file", type=Path)
    command.set_defaults(run=_minimise)

    command = commands.add_parser("exhaust", help="every run of one operation with at most so many faults")
    command.add_argument("operation", choices=[*OPERATIONS, "all"])
    command.add_argument("--faults", type=int, default=1)
    command.set_defaults(run=_exhaust)

    command = commands.add_parser("coverage", help="which suspension points were struck by which faults")
    command.add_argument("--seeds", type=_seeds, default=(0, 3000), metavar="A..B")
    command.add_argument("--store", choices=STORES)
    command.set_defaults(run=_coverage)

    chosen = parser.parse_args(arguments)
    try:
        code: int = chosen.run(chosen)
        sys.stdout.flush()
    except BrokenPipeError:  # as in ``search | head``
        # Python flushes once more when it ends, which must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (TraceInvalid, OSError) as error:
        _say(f"error: {error}")
        return 2
    return code


def _search(chosen: argparse.Namespace) -> int:
    start, end = chosen.seeds
    began = time.monotonic()
    seconds = None if chosen.minutes is None else chosen.minutes * 60
    draw_seed = partial(draw, store=chosen.store)
    tally = search_in_parallel(start, end, jobs=chosen.jobs, seconds=seconds, draw_seed=draw_seed)
    took = time.monotonic() - began
    fired = ", ".join(f"{name} {count}" for name, count in tally.fired.most_common())
    _say(f"{tally.runs} runs, {tally.effects} effects, {tally.switches} interruptions in {took:.1f} s; faults: {fired}")
    seen: set[str] = set()
    for found in tally.found:
        if found.kind in seen or len(seen) == EXPLAINED_MAX:
            continue
        seen.add(found.kind)
        report = explain(found, draw_seed=draw_seed)
        file = chosen.out / f"seed-{found.seed}.jsonl"
        file.write_text(report.trace())
        _say(report.text(replay=str(file)))
    if tally.found:
        _say(f"{len(tally.found)} seeds violate something: {', '.join(str(found.seed) for found in tally.found)}")
        return 1
    for reason in tally.shortcomings():
        _say(f"this search proves nothing: {reason}")
        return 1
    return 0


def _replay(chosen: argparse.Namespace) -> int:
    text = chosen.file.read_text()
    if '"outcomes"' in text.partition("\n")[0]:
        divergence = replay_outcomes(text)
        _say(divergence or "the operation issues the same effects and gives the same response")
        return 1 if divergence else 0
    try:
        report = replay(text, until=chosen.until)
    except Diverged as divergence:
        _say(f"the run is another one now: {divergence}")
        return 1
    _say(report.text(diff=chosen.diff or chosen.until is not None))
    return 1 if report.violation is not None else 0


def _minimise(chosen: argparse.Namespace) -> int:
    scenario, picks, kind = read_trace(chosen.file.read_text())
    if kind is None:
        _say("the trace violates nothing, so there is nothing to keep")
        return 2
    smaller, tape = Minimiser(scenario, picks, kind).run()
    report = Report(smaller, Tape([pick.value for pick in tape]), found_by=str(chosen.file.name))
    if report.violation is None:
        _say("the trace no longer violates anything")
        return 0
    file = chosen.file.with_suffix(".min.jsonl")
    file.write_text(report.trace())
    _say(report.text(replay=str(file)))
    return 1


def _exhaust(chosen: argparse.Namespace) -> int:
    code = 0
    for operation in OPERATIONS if chosen.operation == "all" else (chosen.operation,):
        seen = exhaust(operation, faults=chosen.faults)
        _say(f"{operation}: {seen.runs} runs, {sum(seen.fired.values())} faults")
        for _, scenario, recording in seen.violations[:1]:
            _say(Report(scenario, Tape([pick.value for pick in recording.picks])).text())
            code = 1
    return code


def _coverage(chosen: argparse.Namespace) -> int:
    coverage = Coverage()
    for number in range(*chosen.seeds):
        coverage.add(draw(number, store=chosen.store))
    _say(coverage.table())
    return 0


def _seeds(text: str) -> tuple[int, int]:
    start, dots, end = text.partition("..")
    if not dots:
        return int(start), int(start) + 1
    return int(start), int(end)


def _say(text: str) -> None:
    sys.stdout.write(text.rstrip("\n") + "\n")


if __name__ == "__main__":
    sys.exit(main())
