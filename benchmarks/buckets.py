"""Rows `s3-redirect`, `s3-upload`, `s3-memory`: a registry whose blobs and metadata lie in a bucket.

The bucket is `benchmarks.sink`, a process of its own on the core of the load, which forgets what it is sent: what is
measured is the registry. It is asked over HTTP without TLS, so each part is hashed once more for its signature.
"""

from __future__ import annotations

from functools import partial

from benchmarks.client import Connection, push_as_clients_do
from benchmarks.content import ContentMaker
from benchmarks.memory import largest_while, upload
from benchmarks.result import Result, Target
from benchmarks.servers import angos_in_bucket, s3_sink
from benchmarks.settings import Settings
from benchmarks.small_requests import requests_per_second_wrk

ROWS = ("s3-redirect", "s3-upload", "s3-memory")
PROGRAMS = {"taskset", "wrk"}

_UPLOADS = 16
_CONNECTIONS = 16
_NAMESPACE = "library/bucket"
_LAYER_BYTES = 1_000_000
_KEEP_HERE = ("[global]", "enable_blob_redirect = false")


def measure(settings: Settings) -> list[Result]:
    """Each row has a server of its own."""
    measured = {"s3-redirect": _measure_redirect, "s3-upload": _measure_upload, "s3-memory": _measure_memory}
    return [measured[row](settings) for row in ROWS if row in settings.rows]


def _measure_redirect(settings: Settings) -> Result:
    """The bucket is asked once for each: whether the repository owns the blob. That it is there is remembered."""
    content = ContentMaker(_LAYER_BYTES).make()
    figures: dict[int, list[float]] = {}
    with (
        s3_sink(settings.cores) as port,
        angos_in_bucket(settings.cores, settings.folder / "redirecting", port) as sending,
        angos_in_bucket(settings.cores, settings.folder / "relaying", port, *_KEEP_HERE) as relaying,
    ):
        with Connection(sending.port) as connection:
            push_as_clients_do(connection, _NAMESPACE, content)
        for number in range(-1, settings.rounds):
            for server in settings.alternate(number, sending, relaying):
                url = f"{server.url}/v2/{_NAMESPACE}/blobs/{content.digest}"
                seconds = settings.seconds if number >= 0 else 1.0  # warm up
                figure = requests_per_second_wrk(url, seconds, _CONNECTIONS)
                if number >= 0:
                    figures.setdefault(server.port, []).append(figure)
    return Result(
        "s3-redirect",
        "1 MB blob GET answered with a redirect to a bucket, 16 connections",
        "requests/s",
        tuple(figures[sending.port]),
        "bytes relayed",
        tuple(figures[relaying.port]),
    )


def _measure_upload(settings: Settings) -> Result:
    maker = ContentMaker(settings.size_mib << 20)
    figures = []
    with (
        s3_sink(settings.cores) as port,
        angos_in_bucket(settings.cores, settings.folder / "uploading", port) as server,
    ):
        for number in range(settings.rounds):
            content = maker.make()
            before = server.processor_seconds()
            upload(server, _NAMESPACE, content, chunked=number % 2 == 0)
            figures.append((server.processor_seconds() - before) * (1 << 30) / content.size)
    return Result("s3-upload", "processor time for each GiB that is uploaded to a bucket", "s", tuple(figures))


def _measure_memory(settings: Settings) -> Result:
    maker = ContentMaker(settings.size_mib << 20)
    with (
        s3_sink(settings.cores) as port,
        angos_in_bucket(settings.cores, settings.folder / "remembering", port) as server,
    ):
        uploads = [partial(upload, server, _NAMESPACE, maker.make(), number % 2 == 0) for number in range(_UPLOADS)]
        busy = largest_while(server, uploads)
    work = f"resident memory, {_UPLOADS} uploads of {settings.size_mib} MiB at once to a bucket"
    return Result("s3-memory", work, "MiB", (busy,), target=Target("figure", "at most", 238))  # 250 MB
