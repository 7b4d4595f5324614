"""Mirrors on directories and in a bucket, on both loops; each test has a repository of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conformance.configured.configured_registry import ConfiguredRegistry
from tests.conformance.registry_process import RegistryProcess
from tests.conformance.runtime.example_configuration import file_with, written
from tests.conformance.s3_process import GivenPlace, S3Process
from tests.conformance.upstream.scripted_upstream import Case, Upstream, mirrors

CASES_MAX = 60


@pytest.fixture(scope="session")
def upstream() -> Iterator[Upstream]:
    """What all mirrors ask."""
    upstream = Upstream.made()
    with upstream.server:
        yield upstream


@pytest.fixture(scope="session", params=["asyncio", "trio", "bucket"])
def mirror(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, upstream: Upstream
) -> Iterator[tuple[RegistryProcess, Iterator[str]]]:
    """A registry, and names of repositories in it that nobody has used."""
    kind = request.param
    names = [f"{kind}{number}" for number in range(CASES_MAX)]
    document = mirrors(upstream.server.origin, names)
    folder = tmp_path_factory.mktemp(f"mirror-{kind}")
    if kind == "bucket":
        s3: S3Process | GivenPlace = request.getfixturevalue("s3")
        bucket = s3.bucket(folder.name)
        bucket.make()
        document["blob_store"] = {"s3": bucket.table()}
        document["global"] = {"enable_blob_redirect": False, "enable_manifest_redirect": False}
        registry: RegistryProcess = ConfiguredRegistry.configured(folder, document)
    else:
        file = file_with(folder, written(document))
        registry = RegistryProcess.start(folder / "data", loop=kind, arguments=("-c", str(file)))
    yield registry, iter(names)
    registry.stop()


@pytest.fixture
def case(mirror: tuple[RegistryProcess, Iterator[str]], upstream: Upstream) -> Case:
    """A repository whose upstream has nothing yet."""
    registry, names = mirror
    case = Case(next(names), registry)
    upstream.cases[case.name] = case
    return case
