"""The fixtures of the contracts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conformance.contracts.store import IMPLEMENTATIONS, StoreUnderTest


@pytest.fixture(scope="module", params=sorted(IMPLEMENTATIONS))
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreUnderTest]:
    """Every implementation. Shared by the tests of a module, so that each uses keys of its own."""
    with IMPLEMENTATIONS[request.param](tmp_path_factory.mktemp("store") / "data") as store:
        yield store
