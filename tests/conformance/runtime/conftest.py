"""Servers with configuration files of a test's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.registry_process import RegistryProcess
from tests.conformance.runtime.reloading import StartRegistry


@pytest.fixture
def start(tmp_path: Path) -> Iterator[StartRegistry]:
    """Starts registries with these configuration files; all are stopped at the end, and must have been well."""
    started: list[RegistryProcess] = []

    def start(*files: Path | str, **options: object) -> RegistryProcess:
        arguments = [argument for file in files for argument in ("-c", str(file))]
        registry = RegistryProcess.start(tmp_path / "data", arguments=arguments, **options)  # type: ignore[arg-type]
        started.append(registry)
        return registry

    yield start
    for registry in started:
        registry.stop()
