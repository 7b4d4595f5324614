"""Row `collection`: how fast the collector gets space back, and that it costs what has changed.

Each run of the collector is a process of its own on the core of servers, so that nothing is remembered from the one
before; the seconds are those of the run, without the start of the process. Stores are made file by file, as pushes and
the deletion of their manifests leave them: `benchmarks.garbage`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import anyio

from angos.runtime.config.schema import Configuration, load_configuration
from angos.runtime.driver import drive
from angos.runtime.opening import opened_services
from angos.runtime.performer import RequestPerformer
from angos.sansio.collection.collector import collect
from angos.sansio.effects import Tell
from angos.sansio.operation import Operation
from benchmarks.client import Unexpected
from benchmarks.garbage import make_needed, make_needless
from benchmarks.result import Result, Target
from benchmarks.servers import IN_BUCKET, environment, pinned, s3_sink
from benchmarks.settings import Settings

ROWS = ("collection",)
PROGRAMS = {"taskset"}

_ON_DISK, _IN_BUCKET = 10_000, 5_000
_FEW, _MANY = 1_000, 100_000
_CHANGED = 100


def measure(settings: Settings) -> list[Result]:
    """A directory, a bucket, and few blobs out of many."""
    return [_on_disk(settings), _in_bucket(settings), _changed(settings)]


def _on_disk(settings: Settings) -> Result:
    rates = []
    for number in range(settings.rounds):
        root = settings.folder / f"collected-{number}"
        make_needless(root, _ON_DISK)
        rates.append(60 * _ON_DISK / _seconds(settings, _directory(root), _ON_DISK))
    target = Target("figure", "at least", 100_000)
    return Result("collection", "blobs collected in a directory", "per minute", tuple(rates), target=target)


def _in_bucket(settings: Settings) -> Result:
    root = settings.folder / "bucket"
    make_needless(root, _IN_BUCKET)
    rates = []
    for _ in range(settings.rounds):
        with s3_sink(settings.cores, root) as port:
            rates.append(60 * _IN_BUCKET / _seconds(settings, IN_BUCKET.format(port=port), _IN_BUCKET))
    target = Target("figure", "at least", 10_000)
    return Result("collection", "blobs collected in a bucket", "per minute", tuple(rates), target=target)


def _changed(settings: Settings) -> Result:
    figures: dict[int, list[float]] = {_FEW: [], _MANY: []}
    for stored in figures:
        make_needed(settings.folder / f"stored-{stored}", stored)
    for _ in range(settings.rounds):
        for stored, taken in figures.items():
            root = settings.folder / f"stored-{stored}"
            make_needless(root, _CHANGED)
            taken.append(1000 * _seconds(settings, _directory(root), _CHANGED))
    return Result(
        "collection",
        f"collection of {_CHANGED} blobs in a store of {_MANY:,}",
        "ms",
        tuple(figures[_MANY]),
        f"{_FEW:,}",
        tuple(figures[_FEW]),
        Target("ratio", "at most", 2),
    )


def _directory(root: Path) -> str:
    return f'[blob_store.fs]\nroot_dir = "{root}"\n'


def _seconds(settings: Settings, configuration: str, blobs: int) -> float:
    """Of a run that has to remove so many blobs."""
    file = settings.folder / "collecting.toml"
    file.write_text(configuration)
    command = pinned(settings.cores.server, [sys.executable, "-m", "benchmarks.collection", str(file)])
    folder = Path(__file__).parents[1]
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unexpected(f"the collector failed: {done.stderr[-2000:]}")
    found = json.loads(done.stdout)
    if found["blobs"] != blobs:
        raise Unexpected(f"the collector removed {found['blobs']} blobs of {blobs}")
    seconds: float = found["seconds"]
    return seconds


async def _collect(configuration: Configuration) -> dict[str, float]:
    async with opened_services(configuration, {Tell: lambda effect: None}) as services:
        start = time.perf_counter()
        done = await drive(Operation(collect(configuration.registry)), RequestPerformer(services, {}))
        return {"seconds": time.perf_counter() - start, "blobs": done.blobs}


if __name__ == "__main__":
    print(json.dumps(anyio.run(_collect, load_configuration([Path(sys.argv[1])]))))
