"""``cache.max_size``: a cache that has become too large lets go of what was not pulled for longest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.configured.configured_registry import ConfiguredRegistry, Start
from tests.conformance.configured.coverage import changes_with
from tests.conformance.upstream.scripted_upstream import Case, Upstream

pytestmark = pytest.mark.xdist_group("configured-mirrors")

LAYER_BYTES = 20_000


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    upstream = Upstream.made()
    with upstream.server:
        yield upstream


def small_cache(start: Start, upstream: Upstream, interval: int) -> Case:
    """A cache for two images, and three that are there upstream."""
    cache = {"fresh_secs": 0, "max_size": 2 * LAYER_BYTES + 10_000, "keep_percent": 60}
    registry = start(
        {
            "repository": {"hub": {"cache": cache, "upstream": [{"url": f"{upstream.server.origin}/hub"}]}},
            "global": {"eviction_interval_secs": interval},
            "observability": {"metrics": {"enabled": True}},
        }
    )
    case = upstream.cases["hub"] = Case("hub", registry)
    for tag in ("v1", "v2", "v3"):
        case.image(tag, LAYER_BYTES)
    return case


def pull(case: Case, tag: str) -> str:
    """The manifest and what it names; gives its digest."""
    answer = case.get(f"manifests/{tag}")
    assert answer.status == 200
    for layer in json.loads(answer.body)["layers"]:
        assert case.get(f"blobs/{layer['digest']}").status == 200
    return answer["docker-content-digest"]


def revision(case: Case, digest: str) -> Path:
    """What says that the manifest is there."""
    algorithm, _, encoded = digest.partition(":")
    assert isinstance(case.registry, ConfiguredRegistry)
    root = case.registry.log_path.parent / "data"
    return root / f"v2/ns/hub/image!rev/{algorithm}/{encoded[:2]}/{encoded}"


def let_time_pass(case: Case, hours: dict[str, int]) -> None:
    """So long ago these manifests were stored, and nobody has noted a pull."""
    for digest, since in hours.items():
        then = time.time() - since * 3600
        os.utime(revision(case, digest), (then, then))


def metrics_with(case: Case, wanted: str) -> list[str]:
    """All lines, once this one is among them."""
    assert isinstance(case.registry, ConfiguredRegistry)
    until = time.monotonic() + 10
    while True:
        with case.registry.connect() as wire:
            lines = wire.get("/metrics").body.decode().splitlines()
        if wanted in lines:
            return lines
        assert time.monotonic() < until, "\n".join(lines)
        time.sleep(0.05)


def run_evict(case: Case, *arguments: str) -> subprocess.CompletedProcess[str]:
    """``angos evict``, on the configuration of this server."""
    assert isinstance(case.registry, ConfiguredRegistry)
    file = next(case.registry.log_path.parent.glob("*.toml"))
    command = [sys.executable, "-m", "angos.runtime", "evict", *arguments, "-c", str(file)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd=file.parent)


@changes_with("repository.*.cache.max_size", "repository.*.cache.keep_percent", "global.eviction_interval_secs")
def test_a_server_evicts_by_itself_what_was_not_pulled_for_longest(start: Start, upstream: Upstream) -> None:
    """One that was told not to leaves it to the command. What went is fetched again by whoever asks for it."""
    quick = small_cache(start, upstream, 1)
    digests = [pull(quick, tag) for tag in ("v1", "v2", "v3")]
    let_time_pass(quick, dict(zip(digests, (9, 10, 8), strict=True)))
    quick.wait_for_log(f"eviction: removed hub/image@{digests[0]}")
    assert [revision(quick, digest).exists() for digest in digests] == [False, False, True], "60 percent are one image"
    assert pull(quick, "v1") == digests[0]
    assert quick.lines().count("GET manifests/v1") == 2
    lines = metrics_with(quick, 'angos_maintained_total{what="evicted",work="eviction"} 2.0')
    (size,) = [line for line in lines if line.startswith('angos_cache_bytes{repository="hub"}')]
    assert LAYER_BYTES < float(size.split()[1]) < 3 * LAYER_BYTES


def test_the_command_shows_first_and_then_evicts(start: Start, upstream: Upstream) -> None:
    told_not_to = small_cache(start, upstream, 0)
    digests = [pull(told_not_to, tag) for tag in ("v1", "v2", "v3")]
    let_time_pass(told_not_to, dict(zip(digests, (9, 10, 8), strict=True)))
    shown = json.loads(run_evict(told_not_to, "--dry-run", "--json").stdout)
    (hub,) = shown["repositories"]
    assert (shown["dry_run"], hub["repository"], hub["manifests"]) == (True, "hub", 3)
    assert [one["digest"] for one in hub["evicted"]] == [digests[1], digests[0]]
    assert hub["size"] - hub["left"] == sum(one["size"] for one in hub["evicted"]) > 2 * LAYER_BYTES
    assert all(revision(told_not_to, digest).exists() for digest in digests)
    done = run_evict(told_not_to, "hub")
    assert done.returncode == 0, done.stderr
    assert "hub: evicted: 2 manifests; " in done.stdout
    assert [revision(told_not_to, digest).exists() for digest in digests] == [False, False, True]
    assert told_not_to.get("manifests/v3").status == 200
    unlimited = run_evict(told_not_to, "elsewhere")
    assert unlimited.returncode == 1
    assert "no cache.max_size for elsewhere" in unlimited.stderr


def test_what_was_pulled_a_moment_ago_stays(start: Start, upstream: Upstream) -> None:
    """Also when it was stored long ago: a server notes each pull, and writes it down when it ends at the latest."""
    case = small_cache(start, upstream, 0)
    digests = [pull(case, tag) for tag in ("v1", "v2", "v3")]
    let_time_pass(case, dict.fromkeys(digests, 10))
    case.registry.stop()
    done = run_evict(case)
    assert "hub: evicted: 0 manifests; " in done.stdout, done.stderr
    assert "what is left is in use" in done.stdout
    assert all(revision(case, digest).exists() for digest in digests)
