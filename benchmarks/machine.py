"""The machine that is measured on: its cores, its disk, the programs that have to be there."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

PACKAGES = {
    "docker-registry": "docker-registry",
    "hey": "hey",
    "nginx": "nginx-light",
    "taskset": "util-linux",
    "wrk": "wrk",
}
"""The programs that the rows need, and the Debian packages that hold them."""


class Unfit(Exception):
    """The machine cannot run the benchmarks; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Cores:
    """One core for whichever server is measured, another for the load."""

    server: int
    load: int


def take_cores() -> Cores:
    """Pin this process, and the load generators that it will start, to the load core. Raises `Unfit` with one core."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise Unfit("the benchmarks need two cores, one for the server and one for the load; this process may use one")
    os.sched_setaffinity(0, {cores[1]})
    return Cores(server=cores[0], load=cores[1])


def find_program(name: str) -> str | None:
    """Where a program lies, also when /usr/sbin is not on the path."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")


def install_missing(programs: set[str]) -> None:
    """Install the Debian packages of programs that are missing. Raises `Unfit` when that is not possible."""
    packages = sorted({PACKAGES[program] for program in programs if find_program(program) is None})
    if not packages:
        return
    by_hand = f"apt-get install {' '.join(packages)}"
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise Unfit(f"these Debian packages are missing: {' '.join(packages)}. As root: {by_hand}")
    print(f"installing {' '.join(packages)}", flush=True)
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update", "-q"], ["install", "-q", "-y", "--no-install-recommends", *packages]):
        done = subprocess.run(
            ["apt-get", *command],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise Unfit(f"apt-get {command[0]} failed; try {by_hand} by hand. It said: {done.stderr.strip()[-500:]}")


def require_space(folder: Path, mib: int) -> None:
    """Raises `Unfit` when the disk below `folder` has less than this many MiB left."""
    free_mib = shutil.disk_usage(folder).free >> 20
    if free_mib < mib:
        raise Unfit(f"{folder} has {free_mib} MiB free and the benchmarks need {mib}; --size-mib makes them smaller")


def describe() -> dict[str, str]:
    """What a reader needs to know to compare figures."""
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "processor": model,
        "cores": str(os.cpu_count()),
        "system": platform.platform(),
        "python": platform.python_version(),
    }
