"""Rows `version`, `manifest`, `head`: requests per second of the small requests that every client sends."""

from __future__ import annotations

import re
import subprocess
from contextlib import ExitStack

from benchmarks.client import MANIFEST_TYPE, Connection, Unexpected, push_as_clients_do, push_manifest
from benchmarks.content import Content, ContentMaker
from benchmarks.result import Result, Target
from benchmarks.servers import Server, angos, docker_registry
from benchmarks.settings import Settings

ROWS = ("version", "manifest", "head")
PROGRAMS = {"docker-registry", "hey", "taskset", "wrk"}

_CONNECTIONS = 16
_NAMESPACE = "library/image"


def measure(settings: Settings) -> list[Result]:
    """Both servers hold the same image of a config and ten layers."""
    config = ContentMaker(1500).make()
    layers = [ContentMaker(50_000 + 1000 * number).make() for number in range(10)]
    with ExitStack() as stack:
        ours = stack.enter_context(angos(settings.cores, settings.folder / "small-ours"))
        theirs = stack.enter_context(docker_registry(settings.cores, settings.folder / "small-theirs"))
        for server in (ours, theirs):
            _push(server, config, layers)
        return [_measure_row(settings, row, ours, theirs, layers[0]) for row in ROWS if row in settings.rows]


def _push(server: Server, config: Content, layers: list[Content]) -> None:
    with Connection(server.port) as connection:
        for content in (config, *layers):
            push_as_clients_do(connection, _NAMESPACE, content)
        push_manifest(connection, _NAMESPACE, "1.0", config, layers)


def _measure_row(settings: Settings, row: str, ours: Server, theirs: Server, layer: Content) -> Result:
    figures: dict[str, list[float]] = {ours.name: [], theirs.name: []}
    for server in (ours, theirs):
        _load(row, server, 1.0, layer)  # warm up
    for number in range(settings.rounds):
        for server in settings.alternate(number, ours, theirs):
            figures[server.name].append(_load(row, server, settings.seconds, layer))
    work, target = {
        "version": ("GET /v2/, 16 connections", None),
        "manifest": ("manifest GET by tag, 16 connections", Target("ratio", "at least", 4)),
        "head": ("blob HEAD, 16 connections", Target("ratio", "at least", 4)),
    }[row]
    return Result(row, work, "requests/s", tuple(figures[ours.name]), theirs.name, tuple(figures[theirs.name]), target)


def _load(row: str, server: Server, seconds: float, layer: Content) -> float:
    match row:
        case "version":
            return requests_per_second_wrk(f"{server.url}/v2/", seconds, _CONNECTIONS)
        case "manifest":
            url = f"{server.url}/v2/{_NAMESPACE}/manifests/1.0"
            return requests_per_second_wrk(url, seconds, _CONNECTIONS, f"Accept: {MANIFEST_TYPE}")
        case _:
            return _requests_per_second_hey(f"{server.url}/v2/{_NAMESPACE}/blobs/{layer.digest}", seconds)


def requests_per_second_wrk(url: str, seconds: float, connections: int, *headers: str) -> float:
    """One thread of wrk. Raises `Unexpected` when an answer was not a success."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s"]
    for header in headers:
        command += ["-H", header]
    printed = subprocess.run([*command, url], capture_output=True, text=True, check=True).stdout
    found = re.search(r"Requests/sec: +([0-9.]+)", printed)
    if found is None or "Non-2xx" in printed or "Socket errors" in printed:
        raise Unexpected(f"wrk on {url} printed {printed!r}")
    return float(found[1])


def _requests_per_second_hey(url: str, seconds: float) -> float:
    command = ["hey", "-m", "HEAD", "-c", str(_CONNECTIONS), "-z", f"{max(1, round(seconds))}s", url]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"Requests/sec:\s+([0-9.]+)", printed)
    statuses = re.findall(r"\[(\d+)\]\s+\d+ responses", printed)
    if found is None or statuses != ["200"] or "Error distribution" in printed:
        raise Unexpected(f"hey on {url} printed {printed!r}")
    return float(found[1])
