"""Rows `tags`, `catalog`: milliseconds for a page of 100 names, out of few and out of many."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack

from benchmarks.client import Connection, Unexpected, push_manifest
from benchmarks.content import ContentMaker
from benchmarks.result import Result, Target
from benchmarks.servers import Server, angos
from benchmarks.settings import Settings
from benchmarks.small_requests import requests_per_second_wrk
from benchmarks.stores import SEED, make_store, repository_name, tag_name

ROWS = ("tags", "catalog")
PROGRAMS = {"taskset", "wrk"}

_TAGS_FEW, _TAGS_MANY = 1_000, 100_000
_REPOSITORIES_FEW, _REPOSITORIES_MANY = 1_000, 10_000
_PAGE = 100
_PUSHES = 10


def measure(settings: Settings) -> list[Result]:
    """Ours only: what counts is that a page costs what the page holds, wherever in the list it lies."""
    few_root, many_root = settings.folder / "listing-few", settings.folder / "listing-many"
    make_store(settings, few_root, _TAGS_FEW, _REPOSITORIES_FEW)
    make_store(settings, many_root, _TAGS_MANY, _REPOSITORIES_MANY)
    results = []
    with ExitStack() as stack:
        few = stack.enter_context(angos(settings.cores, few_root))
        many = stack.enter_context(angos(settings.cores, many_root))
        if "tags" in settings.rows:
            cold = _milliseconds_cold(many, f"/v2/{SEED}/tags/list?n={_PAGE}", "tags")
            for place, few_after, many_after in (
                ("first", "", ""),
                ("middle", f"&last={tag_name(_TAGS_FEW // 2)}", f"&last={tag_name(_TAGS_MANY // 2)}"),
            ):
                target = f"/v2/{SEED}/tags/list?n={_PAGE}"
                work = f"tags/list, {place} page of {_PAGE} out of {_TAGS_MANY:,} tags"
                results.append(_compare(settings, "tags", work, (few, target + few_after), (many, target + many_after)))
            results.append(_after_pushes(few, many))
            work = f"tags/list, first page of {_PAGE} out of {_TAGS_MANY:,} tags, first request after a start"
            results.append(Result("tags", work, "ms", (cold,)))
        if "catalog" in settings.rows:
            cold = _milliseconds_cold(many, f"/v2/_catalog?n={_PAGE}", "repositories")
            for place, few_after, many_after in (
                ("first", "", ""),
                (
                    "middle",
                    f"&last={repository_name(_REPOSITORIES_FEW // 2)}",
                    f"&last={repository_name(_REPOSITORIES_MANY // 2)}",
                ),
            ):
                target = f"/v2/_catalog?n={_PAGE}"
                work = f"_catalog, {place} page of {_PAGE} out of {_REPOSITORIES_MANY:,} repositories"
                results.append(
                    _compare(settings, "catalog", work, (few, target + few_after), (many, target + many_after))
                )
            work = f"_catalog, first page of {_PAGE} out of {_REPOSITORIES_MANY:,}, first request after a start"
            results.append(Result("catalog", work, "ms", (cold,)))
    return results


def _compare(settings: Settings, row: str, work: str, few: tuple[Server, str], many: tuple[Server, str]) -> Result:
    figures: dict[int, list[float]] = {few[0].port: [], many[0].port: []}
    for server, target in (few, many):
        _check_page(server, target, "tags" if row == "tags" else "repositories")
    for number in range(settings.rounds):
        for server in settings.alternate(number, few[0], many[0]):
            target = few[1] if server is few[0] else many[1]
            rate = requests_per_second_wrk(server.url + target, settings.seconds / 2, connections=1)
            figures[server.port].append(1000 / rate)
    return Result(
        row,
        work,
        "ms",
        tuple(figures[many[0].port]),
        f"{_TAGS_FEW if row == 'tags' else _REPOSITORIES_FEW:,}",
        tuple(figures[few[0].port]),
        Target("ratio", "at most", 2),
    )


def _after_pushes(few: Server, many: Server) -> Result:
    figures = {
        server.port: [_milliseconds_after_push(server, number) for number in range(_PUSHES)] for server in (few, many)
    }
    work = f"tags/list, first page of {_PAGE} out of {_TAGS_MANY:,} tags, right after a push of another tag"
    return Result("tags", work, "ms", tuple(figures[many.port]), f"{_TAGS_FEW:,}", tuple(figures[few.port]))


def _milliseconds_after_push(server: Server, number: int) -> float:
    config = ContentMaker(1500).make()
    with Connection(server.port) as connection:
        push_manifest(connection, SEED, f"zz-{number}", config, [])
        start = time.perf_counter()
        connection.ask("GET", f"/v2/{SEED}/tags/list?n={_PAGE}", 200)
        return (time.perf_counter() - start) * 1000


def _milliseconds_cold(server: Server, target: str, member: str) -> float:
    start = time.perf_counter()
    _check_page(server, target, member)
    return (time.perf_counter() - start) * 1000


def _check_page(server: Server, target: str, member: str) -> None:
    with Connection(server.port) as connection:
        names = json.loads(connection.ask("GET", target, 200).body)[member]
    if len(names) != _PAGE:
        raise Unexpected(f"GET {target} gave {len(names)} names, not {_PAGE}")
