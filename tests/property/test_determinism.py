"""A run is a function of its seed: in every process, whatever the hashes of strings are."""

from __future__ import annotations

import os
import subprocess
import sys

PROGRAM = """
import hashlib
from angos.simulator.report import Report
from angos.simulator.workload import draw
for number in range(0, 60):
    seed = draw(number)
    trace = Report(seed.scenario, seed.choices()).trace()
    print(number, hashlib.sha256(trace.encode()).hexdigest())
"""


def _traces(hash_seed: str) -> list[str]:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True, timeout=300
    )
    return done.stdout.splitlines()


def test_the_same_seeds_give_the_same_traces_in_two_processes() -> None:
    """Every line of sixty traces, with two different seeds of Python's string hashing."""
    first, second = _traces("1"), _traces("2")
    assert len(first) == 60
    for one, other in zip(first, second, strict=True):
        assert one == other, f"seed {one.split()[0]} is another run in another process"
