"""One server for each loop, each kind of store and each test session; every test has repositories of its own in it."""

from __future__ import annotations

import itertools
import os
import re
import signal
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.configured.configured_registry import ConfiguredRegistry
from tests.conformance.http_client import Client
from tests.conformance.oci.repository import Repository
from tests.conformance.registry_process import RegistryProcess
from tests.conformance.runtime.example_configuration import file_with, written
from tests.conformance.s3_process import GivenPlace, S3Process, given_place
from tests.nightly import NIGHTLY

_counter = itertools.count()

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As in the background of a shell. Processes inherit that, and some of them are to be interrupted.
    signal.signal(signal.SIGINT, signal.default_int_handler)

EVERY_STORE = "ANGOS_TEST_EVERY_STORE"
"""When it is set, every test runs with each of `ON_BUCKETS`, which takes three minutes more of one core. Those with
other people's clients do so in nightly runs only: programs are slow, and see nothing of a store that others do not."""
ON_DIRECTORIES = ("asyncio", "trio")
ON_BUCKETS = ("all-in-a-bucket", "blobs-in-a-bucket", "metadata-in-a-bucket")
_ON_EACH = {"test_chunked_uploads", "test_data_sets", "test_mounts"}
"""Files whose tests run with all three always: there it matters most what lies where."""
_LONG = {"test_a_page_has_a_thousand_tags_unless_asked_otherwise"}  # half a minute on a bucket


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """An emulator of S3 answers slowly: unless more is asked for, each test runs with one of `ON_BUCKETS`."""
    left_out = [item for item in items if not _runs_always(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if _runs_always(item)]


def _runs_always(item: pytest.Item) -> bool:
    call: Any = getattr(item, "callspec", None)
    store = "" if call is None else call.params.get("registry")
    if store not in ON_BUCKETS or item.path.stem in _ON_EACH:
        return True
    if os.environ.get(EVERY_STORE) and (NIGHTLY or item.path.parent.name != "clients"):
        return True
    test = item.nodeid.replace(store, "")
    return ON_BUCKETS[zlib.crc32(test.encode()) % 3] == store and getattr(item, "originalname", "") not in _LONG


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Process | GivenPlace]:
    """For all registries on buckets."""
    with given_place() as place:
        if place is not None:
            yield place
            return
    with S3Process(tmp_path_factory.mktemp("s3"), keeps=False) as s3:
        yield s3


@pytest.fixture(scope="session", params=[*ON_DIRECTORIES, *ON_BUCKETS])
def registry(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryProcess]:
    """A running registry that all tests of the session share. Only one on a directory waits for the disk, as usual."""
    if request.param in ON_BUCKETS:
        s3: S3Process | GivenPlace = request.getfixturevalue("s3")
        registry = _on_buckets(request.param, tmp_path_factory.mktemp("buckets"), s3)
    else:
        folder = tmp_path_factory.mktemp("registry")
        arguments: tuple[str, ...] = ()
        if request.param == "trio":
            hasty = {"blob_store": {"fs": {"root_dir": str(folder / "data"), "sync_to_disk": False}}}
            arguments = ("-c", str(file_with(folder, written(hasty))))
        registry = RegistryProcess.start(folder / "data", loop=request.param, arguments=arguments)
    yield registry
    registry.stop()


def _on_buckets(what: str, folder: Path, s3: S3Process | GivenPlace) -> RegistryProcess:
    stores: dict[str, Any] = {
        name: {"fs": {"root_dir": str(folder / name), "sync_to_disk": False}}
        for name in ("blob_store", "metadata_store")
    }
    for name in stores:
        if what.startswith(("all", name.partition("_")[0])):
            bucket = s3.bucket(f"{folder.name}-{name.replace('_', '-')}")
            bucket.make()
            stores[name] = {"s3": bucket.table()}
    # Every byte through the registry: redirects have tests of their own.
    plain = {"enable_blob_redirect": False, "enable_manifest_redirect": False}
    return ConfiguredRegistry.configured(folder, {"global": plain, **stores})


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
