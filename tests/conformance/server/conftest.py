"""Servers for these tests, on both loops."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conformance.server.running import RunningServer, StartServer, starting_servers


@pytest.fixture(scope="module", params=["asyncio", "trio"])
def loop(request: pytest.FixtureRequest) -> str:
    """The loops that the server runs on."""
    return str(request.param)


@pytest.fixture(scope="module")
def server(loop: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with the default limits that the tests of a module share."""
    with starting_servers(loop, tmp_path_factory.mktemp("contents")) as start:
        yield start()


@pytest.fixture
def start_server(loop: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartServer]:
    """Starts servers of this test's own, with limits of its choice."""
    with starting_servers(loop, tmp_path_factory.mktemp("contents")) as start:
        yield start
