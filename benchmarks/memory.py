"""Row `memory`: resident memory when nothing happens, and with 16 uploads and 16 downloads of large blobs at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from benchmarks.client import Connection, close_upload, open_upload, patch_upload
from benchmarks.content import Content, ContentMaker
from benchmarks.result import Result, Target
from benchmarks.servers import Server, angos
from benchmarks.settings import Settings

ROWS = ("memory",)
PROGRAMS = {"taskset"}

_EACH = 16
_NAMESPACE = "library/memory"
_SAMPLE_SECONDS = 0.02


def measure(settings: Settings) -> list[Result]:
    """Half of the uploads are chunked, half have a length. The largest of all samples counts."""
    maker = ContentMaker(settings.size_mib << 20)
    idle, busy = [], []
    with angos(settings.cores, settings.folder / "memory-ours") as server:
        time.sleep(1)
        idle.append(server.resident_mib())
        stored = maker.make()
        with Connection(server.port) as connection:
            close_upload(connection, open_upload(connection, _NAMESPACE), stored, with_body=True)
        busy.append(_largest_while_transferring(server, maker, stored))
        server.remove_large_files()
    transfers = f"{_EACH} uploads and {_EACH} downloads of {settings.size_mib} MiB at once"
    return [
        Result("memory", "resident memory, idle", "MiB", tuple(idle), target=Target("figure", "at most", 40)),
        Result("memory", f"resident memory, {transfers}", "MiB", tuple(busy), target=Target("figure", "at most", 120)),
    ]


def _largest_while_transferring(server: Server, maker: ContentMaker, stored: Content) -> float:
    uploads = [partial(upload, server, _NAMESPACE, maker.make(), number % 2 == 0) for number in range(_EACH)]
    return largest_while(server, [*uploads, *[partial(_download, server, stored)] * _EACH])


def largest_while(server: Server, jobs: Sequence[Callable[[], None]]) -> float:
    """Resident memory in MiB, the largest of all samples while these go on, each in a thread of its own."""
    samples: list[float] = []
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(_SAMPLE_SECONDS):
            samples.append(server.resident_mib())

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        with ThreadPoolExecutor(len(jobs)) as pool:
            for running in [pool.submit(job) for job in jobs]:
                running.result()
    finally:
        ended.set()
        sampler.join()
    return max(samples)


def upload(server: Server, namespace: str, content: Content, chunked: bool) -> None:
    """All of it, in one PATCH."""
    with Connection(server.port) as connection:
        target = patch_upload(connection, open_upload(connection, namespace), content, chunked)
        close_upload(connection, target, content)


def _download(server: Server, content: Content) -> None:
    with Connection(server.port) as connection:
        connection.download(f"/v2/{_NAMESPACE}/blobs/{content.digest}")
