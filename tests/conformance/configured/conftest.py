"""Servers with a configuration of a test's own."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conformance.certificates import Authority
from tests.conformance.configured.configured_registry import REGISTRY, ConfiguredRegistry, Document, Start


@contextmanager
def _starting(folder: Path) -> Iterator[Start]:
    started: list[ConfiguredRegistry] = []
    numbers = itertools.count()

    def start(document: Document | None = None, program: Sequence[str] = REGISTRY) -> ConfiguredRegistry:
        own = folder / str(next(numbers))
        own.mkdir()
        registry = ConfiguredRegistry.configured(own, document or {}, program)
        started.append(registry)
        return registry

    try:
        yield start
        for registry in started:
            registry.stop()
    finally:
        for registry in started:
            if not registry.ended:
                registry.kill()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts registries with these configurations; all are stopped at the end, and must have been well."""
    with _starting(tmp_path) as start:
        yield start


@pytest.fixture(scope="module")
def start_shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """The same, for registries that the tests of a module share."""
    with _starting(tmp_path_factory.mktemp("shared")) as start:
        yield start


@pytest.fixture(scope="module")
def plain(start_shared: Start) -> ConfiguredRegistry:
    """A registry with the defaults, to compare with."""
    return start_shared()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Nobody trusts it who is not told to."""
    return Authority(tmp_path_factory.mktemp("authority"))
