"""Servers with a configuration of a test's own."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest

from angos.runtime.client.url import Url
from angos.runtime.stores.s3.options import S3Options
from tests.conformance.certificates import Authority
from tests.conformance.configured.configured_registry import REGISTRY, ConfiguredRegistry, Document, Start
from tests.conformance.contracts.s3 import s3_server
from tests.conformance.contracts.s3_proxy import S3Proxy
from tests.conformance.s3_process import KEYS, make_bucket


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


@pytest.fixture(scope="module")
def server() -> Iterator[Url]:
    """A server of S3 with three buckets."""
    with s3_server() as url:
        for bucket, region in (("images", "us-east-1"), ("names", "us-east-1"), ("far", "eu-central-1")):
            anyio.run(make_bucket, S3Options(url, bucket, region, "", KEYS))
        yield url


@pytest.fixture
def proxy(server: Url) -> Iterator[S3Proxy]:
    """Before `server`, for a test that ill-treats it."""
    with S3Proxy(server) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def shared_proxy(server: Url) -> Iterator[S3Proxy]:
    """The same, for the tests of a module that share a registry."""
    with S3Proxy(server) as proxy:
        yield proxy
