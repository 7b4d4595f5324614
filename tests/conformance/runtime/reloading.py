"""Waiting for what a running server makes of changed files."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from tests.conformance.registry_process import RegistryProcess

PATIENCE_SECONDS = 30.0

StartRegistry = Callable[..., RegistryProcess]


def wait_until(condition: Callable[[], bool]) -> None:
    """Fails rather than waiting for ever."""
    ends = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < ends, "it does not come to this"
        time.sleep(0.02)


def wait_for(registry: RegistryProcess, line: str, count: int = 1) -> None:
    """Until the log has this, so many times."""
    ends = time.monotonic() + PATIENCE_SECONDS
    while registry.log.count(line) < count:
        assert time.monotonic() < ends, f"{line!r} does not come; the log:\n{registry.log}"
        time.sleep(0.02)


def wait_for_generation(registry: RegistryProcess, number: int) -> None:
    wait_for(registry, f"configuration reloaded (generation {number})")


def replace_file(path: Path, content: str) -> None:
    """In one step, so that nobody reads half of it."""
    path.with_suffix(".new").write_text(content)
    path.with_suffix(".new").rename(path)


def children(process: int) -> set[int]:
    """The processes that this one has started."""
    return set(map(int, Path(f"/proc/{process}/task/{process}/children").read_text().split()))
