"""Row `images`: images of one layer of 1 MB pushed per second, eight clients at once."""

from __future__ import annotations

import multiprocessing
import multiprocessing.sharedctypes
import multiprocessing.synchronize
import os
import time
from contextlib import ExitStack

from benchmarks.client import Connection, Unexpected, push_as_clients_do, push_manifest
from benchmarks.content import ContentMaker
from benchmarks.result import Result, Target
from benchmarks.servers import Server, angos, docker_registry
from benchmarks.settings import Settings

ROWS = ("images",)
PROGRAMS = {"docker-registry", "taskset"}

_CLIENTS = 8
_fork = multiprocessing.get_context("fork")


def measure(settings: Settings) -> list[Result]:
    """Every image is new: nine requests, as docker, podman and skopeo send them."""
    figures: dict[str, list[float]] = {"angos": [], "docker-registry": []}
    with ExitStack() as stack:
        ours = stack.enter_context(angos(settings.cores, settings.folder / "images-ours"))
        theirs = stack.enter_context(docker_registry(settings.cores, settings.folder / "images-theirs"))
        for server in (ours, theirs):
            _images_per_second(server, 1.0, "warm-up")
        for number in range(settings.rounds):
            for server in settings.alternate(number, ours, theirs):
                os.sync()
                figures[server.name].append(_images_per_second(server, settings.seconds, f"round{number}"))
    work = "1 MB images pushed (layer, config, manifest), 8 clients"
    target = Target("ratio", "at least", 3)
    theirs_figures = tuple(figures["docker-registry"])
    return [Result("images", work, "images/s", tuple(figures["angos"]), "docker-registry", theirs_figures, target)]


def _images_per_second(server: Server, seconds: float, name: str) -> float:
    """Each client is a process, so that they do not wait for each other's interpreter lock."""
    ready = _fork.Barrier(_CLIENTS + 1, timeout=60)
    counts = [_fork.Value("q", -1) for _ in range(_CLIENTS)]
    clients = [
        _fork.Process(target=_client, args=(server.port, f"bench/{name}-{number}", seconds, ready, count), daemon=True)
        for number, count in enumerate(counts)
    ]
    for client in clients:
        client.start()
    ready.wait()
    start = time.perf_counter()
    for client in clients:
        client.join()
    elapsed = time.perf_counter() - start
    pushed: list[int] = [count.value for count in counts]
    if min(pushed) < 0:
        raise Unexpected(f"a client that pushed images to {server.name} failed")
    return sum(pushed) / elapsed


def _client(
    port: int,
    namespace: str,
    seconds: float,
    ready: multiprocessing.synchronize.Barrier,
    count: multiprocessing.sharedctypes.Synchronized[int],
) -> None:
    layers, configs = ContentMaker(1_000_000), ContentMaker(1500)
    with Connection(port) as connection:
        ready.wait()
        pushed = 0
        deadline = time.perf_counter() + seconds
        while time.perf_counter() < deadline:
            layer, config = layers.make(), configs.make()
            push_as_clients_do(connection, namespace, layer)
            push_as_clients_do(connection, namespace, config)
            push_manifest(connection, namespace, f"v{pushed}", config, [layer])
            pushed += 1
    count.value = pushed
