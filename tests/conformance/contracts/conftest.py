"""The fixtures of the contracts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.contracts.directory import left_behind, open_files
from tests.conformance.contracts.store import IMPLEMENTATIONS, StoreUnderTest


@pytest.fixture(scope="module", params=sorted(IMPLEMENTATIONS))
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreUnderTest]:
    """Every implementation. Shared by the tests of a module, so that each uses keys of its own."""
    with IMPLEMENTATIONS[request.param](tmp_path_factory.mktemp("store") / "data") as store:
        yield store


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A folder for a store. Whatever the test did, nothing is open in it afterwards and no temporary file is left."""
    root = tmp_path / "data"
    root.mkdir()
    before = open_files()
    yield root
    assert open_files() == before
    assert not left_behind(root)
