"""Rows `get`, `push-patch`, `push-put`: megabytes per second of one large blob."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack

from angos.sansio.layout import blob_key
from angos.sansio.oci.digest import Digest
from benchmarks.client import Connection, close_upload, open_upload, patch_upload
from benchmarks.content import Content, ContentMaker
from benchmarks.result import Result, Target
from benchmarks.servers import Server, angos, docker_registry, nginx
from benchmarks.settings import Settings

ROWS = ("get", "push-patch", "push-put")
PROGRAMS = {"docker-registry", "nginx", "taskset"}

_NAMESPACE = "library/large"
_DOWNLOADS = 5  # for each round: one takes half a second, in which anything else on the machine shows


def measure(settings: Settings) -> list[Result]:
    """The download is compared with nginx, which serves the very file; the pushes with docker-registry."""
    maker = ContentMaker(settings.size_mib << 20)
    results = []
    if "get" in settings.rows:
        results.append(_measure_get(settings, maker))
    pushes = [row for row in ("push-patch", "push-put") if row in settings.rows]
    if pushes:
        with ExitStack() as stack:
            ours = stack.enter_context(angos(settings.cores, settings.folder / "large-ours"))
            theirs = stack.enter_context(docker_registry(settings.cores, settings.folder / "large-theirs"))
            results.extend(_measure_push(settings, row, ours, theirs, maker) for row in pushes)
        results.append(_measure_disk(settings, pushes[0], maker))
    return results


def _measure_get(settings: Settings, maker: ContentMaker) -> Result:
    content = maker.make()
    figures: dict[str, list[float]] = {"angos": [], "nginx": []}
    with ExitStack() as stack:
        ours = stack.enter_context(angos(settings.cores, settings.folder / "get-ours"))
        with Connection(ours.port) as connection:
            target = open_upload(connection, _NAMESPACE)
            close_upload(connection, target, content, with_body=True)
        theirs = stack.enter_context(nginx(settings.cores, ours.root, settings.folder / "nginx"))
        targets = {
            ours.name: f"/v2/{_NAMESPACE}/blobs/{content.digest}",
            theirs.name: f"/{blob_key(Digest.parse(content.digest))}",
        }
        os.sync()
        for server in (ours, theirs):
            _get(server, targets[server.name])  # warm up
        for number in range(settings.rounds * _DOWNLOADS):
            for server in settings.alternate(number, ours, theirs):
                figures[server.name].append(_get(server, targets[server.name]))
        ours.remove_large_files()
    work = f"{settings.size_mib} MiB blob GET"
    target_ratio = Target("ratio", "at least", 0.9)
    return Result("get", work, "MB/s", tuple(figures["angos"]), "nginx", tuple(figures["nginx"]), target_ratio)


def _get(server: Server, target: str) -> float:
    with Connection(server.port) as connection:
        start = time.perf_counter()
        size = connection.download(target)
        return size / 1e6 / (time.perf_counter() - start)


def _measure_push(settings: Settings, row: str, ours: Server, theirs: Server, maker: ContentMaker) -> Result:
    figures: dict[str, list[float]] = {ours.name: [], theirs.name: []}
    for number in range(settings.rounds):
        for server in settings.alternate(number, ours, theirs):
            os.sync()
            figures[server.name].append(_push(server, row, maker.make()))
            server.remove_large_files()
    form = "stream PATCH, chunked" if row == "push-patch" else "PUT with a length"
    work = f"{settings.size_mib} MiB push, {form}"
    target = Target("ratio", "at least", 4)
    return Result(row, work, "MB/s", tuple(figures[ours.name]), theirs.name, tuple(figures[theirs.name]), target)


def _push(server: Server, row: str, content: Content) -> float:
    with Connection(server.port) as connection:
        start = time.perf_counter()
        target = open_upload(connection, _NAMESPACE)
        if row == "push-patch":
            target = patch_upload(connection, target, content, chunked=True)
            close_upload(connection, target, content)
        else:
            close_upload(connection, target, content, with_body=True)
        return content.size / 1e6 / (time.perf_counter() - start)


def _measure_disk(settings: Settings, row: str, maker: ContentMaker) -> Result:
    """What no push can exceed: the same bytes, written to a file and synced."""
    figures = []
    path = settings.folder / "disk"
    for _ in range(settings.rounds):
        content = maker.make()
        os.sync()
        start = time.perf_counter()
        with path.open("wb", buffering=0) as file:
            for piece in content.pieces():
                file.write(piece)
            os.fsync(file.fileno())
        figures.append(content.size / 1e6 / (time.perf_counter() - start))
        path.unlink()
    return Result(row, f"{settings.size_mib} MiB written to a file and synced, no server", "MB/s", tuple(figures))
