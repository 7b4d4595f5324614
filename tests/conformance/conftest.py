"""One server for each loop and test session; every test has repositories of its own in it."""

from __future__ import annotations

import itertools
import re
import zlib
from collections.abc import Iterator

import pytest

from tests.conformance.http_client import Client
from tests.conformance.oci.repository import Repository
from tests.conformance.registry_process import RegistryProcess

_counter = itertools.count()


@pytest.fixture(scope="session", params=["asyncio", "trio"])
def registry(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryProcess]:
    """A running registry that all tests of the session share."""
    registry = RegistryProcess.start(tmp_path_factory.mktemp("registry") / "data", loop=request.param)
    yield registry
    registry.stop()


@pytest.fixture
def client(registry: RegistryProcess) -> Iterator[Client]:
    """A client whose answers are checked against everything that holds for all answers."""
    with registry.client() as client:
        yield client


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A repository name that nobody else uses."""
    words = re.sub(r"[^a-z0-9]+", "-", request.function.__name__.removeprefix("test_").lower()).strip("-")
    unique = zlib.crc32(request.node.nodeid.encode())
    return f"{words[:60].strip('-')}/{unique:08x}-{next(_counter)}"


@pytest.fixture
def repository(client: Client, name: str) -> Repository:
    """A repository that does not exist yet."""
    return Repository(client, name)


@pytest.fixture
def other(client: Client, name: str) -> Repository:
    """Another repository that does not exist yet."""
    return Repository(client, f"other/{name}")
