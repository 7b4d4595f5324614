"""Row `simulator`: effects per second of the simulator in a scenario of three concurrent image pushes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from benchmarks.client import Unexpected
from benchmarks.result import Result, Target
from benchmarks.settings import Settings

ROWS = ("simulator",)
PROGRAMS: set[str] = set()


def measure(settings: Settings) -> list[Result]:
    """Runs `simulator_speed.py`, which prints its figure as ``... effects/s``."""
    figures = tuple(_effects_per_second() for _ in range(settings.rounds))
    work = "simulator, three concurrent image pushes, one core"
    return [Result("simulator", work, "effects/s", figures, target=Target("figure", "at least", 50_000))]


def _effects_per_second() -> float:
    command = [sys.executable, str(Path(__file__).with_name("simulator_speed.py"))]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"([0-9][0-9,]*(?:\.[0-9]+)?) effects/s", printed)
    if found is None:
        raise Unexpected(f"simulator_speed.py printed {printed!r}")
    return float(found[1].replace(",", ""))
