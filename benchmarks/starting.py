"""Row `start`: seconds from starting the process to its first answer."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.client import wait_until_answering
from benchmarks.result import Result, Target
from benchmarks.servers import angos_command, docker_registry_command, environment, free_port, pinned
from benchmarks.settings import Settings
from benchmarks.stores import make_store

ROWS = ("start",)
PROGRAMS = {"docker-registry", "taskset"}

_TAGS = 10_000

Command = Callable[[Path, int], list[str]]


def measure(settings: Settings) -> list[Result]:
    """One start more than rounds, the first of which is not counted: it may have to compile modules."""
    empty, full = settings.folder / "start-empty", settings.folder / "start-full"
    theirs = settings.folder / "start-theirs"
    make_store(settings, full, _TAGS, 1)
    figures: dict[str, list[float]] = {"empty": [], "full": [], "theirs": []}
    for number in range(settings.rounds + 1):
        taken = {
            "empty": _seconds_to_answer(settings, empty, angos_command),
            "full": _seconds_to_answer(settings, full, angos_command),
            "theirs": _seconds_to_answer(settings, theirs, docker_registry_command),
        }
        if number:
            for name, seconds in taken.items():
                figures[name].append(seconds)
    target = Target("figure", "at most", 0.35)
    return [
        Result(
            "start",
            "start to first answer, empty store",
            "s",
            tuple(figures["empty"]),
            "docker-registry",
            tuple(figures["theirs"]),
            target,
        ),
        Result("start", f"start to first answer, {_TAGS:,} tags", "s", tuple(figures["full"]), target=target),
    ]


def _seconds_to_answer(settings: Settings, root: Path, command: Command) -> float:
    port = free_port()
    arguments = pinned(settings.cores.server, command(root, port))
    start = time.perf_counter()
    process = subprocess.Popen(arguments, env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        wait_until_answering(port, process)
        return time.perf_counter() - start
    finally:
        process.terminate()
        process.wait()
