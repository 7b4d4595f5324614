"""Keys about the process: where it listens and stores, what it says about itself."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.conformance.configured.configured_registry import (
    ON_WATCHED_DISK,
    ConfiguredRegistry,
    Document,
    Start,
    merged,
    refusal,
)
from tests.conformance.configured.coverage import changes_with
from tests.conformance.local_process import free_port
from tests.conformance.oci.repository import Repository
from tests.conformance.registry_process import stored_files
from tests.conformance.runtime.observed import Scrape, ask
from tests.conformance.runtime.reloading import children
from tests.conformance.server.wire import Wire

pytestmark = pytest.mark.xdist_group("configured-process")

# --- where ------------------------------------------------------------------------------------------------------------


@changes_with("server.port", "server.workers")
def test_several_processes_listen_on_the_port(start: Start, plain: ConfiguredRegistry, tmp_path: Path) -> None:
    port = free_port()
    registry = start({"server": {"port": port, "workers": 2}})
    assert registry.at == ("127.0.0.1", port)
    assert registry.status("/v2/") == 200
    assert len(children(registry.pid)) == 2
    assert len(children(plain.pid)) == 0
    said = refusal(tmp_path, {"server": {"port": port}})
    assert f"cannot listen on 127.0.0.1:{port}" in said
    assert "another program uses this port" in said


@changes_with("server.bind_address")
def test_the_server_listens_on_this_address_alone(start: Start, plain: ConfiguredRegistry) -> None:
    assert plain.at[0] == "127.0.0.1"
    registry = start({"server": {"bind_address": "127.0.0.2"}})
    assert registry.at[0] == "127.0.0.2"
    assert registry.status("/v2/") == 200
    with pytest.raises(ConnectionRefusedError):
        Wire(("127.0.0.1", registry.at[1]))


@changes_with("server.head_parser")
def test_the_parser_in_c_is_loaded_when_it_is_chosen(start: Start, plain: ConfiguredRegistry) -> None:
    registry = start({"server": {"head_parser": "httptools"}})
    for found, loaded in ((registry, True), (plain, False)):
        assert found.status("/v2/") == 200
        assert ("httptools" in Path(f"/proc/{found.pid}/maps").read_text()) is loaded


# --- stores -----------------------------------------------------------------------------------------------------------


def push(registry: ConfiguredRegistry) -> None:
    with registry.client() as client:
        Repository(client, "a").push_image("1")


@changes_with("blob_store.fs.root_dir", "metadata_store.fs.root_dir")
def test_blobs_and_metadata_lie_in_the_folders_of_their_stores(start: Start, tmp_path: Path) -> None:
    blobs, metadata, together = (tmp_path / name for name in ("blobs", "metadata", "together"))
    apart = {"blob_store": {"fs": {"root_dir": str(blobs)}}, "metadata_store": {"fs": {"root_dir": str(metadata)}}}
    push(start(apart))
    push(start({"blob_store": {"fs": {"root_dir": str(together)}}}))
    assert any(name.endswith("/data") for name in names(blobs))
    assert names(metadata)
    assert not names(blobs) & names(metadata)
    assert names(together) == names(blobs) | names(metadata)


def names(root: Path) -> set[str]:
    """Of all stored files; what says when a tag was pushed, or a blob suspected, is left out of them."""
    stored = (name for name in stored_files(root) if not name.startswith(".tmp/"))
    return {re.sub(r"/[0-9a-f]{16}\.|\.[0-9a-f]{16}\.[0-9a-f]{8}$", "/", name) for name in stored}


@pytest.mark.parametrize("synced", ["blob_store", "metadata_store"])
@changes_with("blob_store.fs.sync_to_disk", "metadata_store.fs.sync_to_disk")
def test_a_store_waits_for_the_disk_only_if_it_is_told_to(start: Start, tmp_path: Path, synced: str) -> None:
    stores = ("blob_store", "metadata_store")
    registry = start(
        {name: {"fs": {"root_dir": str(tmp_path / name), "sync_to_disk": name == synced}} for name in stores},
        program=ON_WATCHED_DISK,
    )
    push(registry)
    for name in stores:
        assert (f"synced {tmp_path / name}/" in registry.log) is (name == synced)


# --- metrics ----------------------------------------------------------------------------------------------------------


@changes_with("observability.metrics.enabled", "observability.metrics.listen")
def test_metrics_are_beside_the_registry_or_where_they_are_wanted(start: Start, plain: ConfiguredRegistry) -> None:
    assert plain.status("/metrics") == 404
    beside = start({"observability": {"metrics": {"enabled": True}}})
    elsewhere = start({"observability": {"metrics": {"enabled": True, "listen": "127.0.0.1:0"}}})
    assert elsewhere.status("/metrics") == 404
    (address,) = re.findall(r"metrics on (\S+)", elsewhere.said)
    for url in (f"{beside.url}/metrics", address):
        status, _, body = ask("GET", url)
        assert status == 200
        assert "angos_connections_accepted_total" in Scrape(body.decode()).text


# --- logs -------------------------------------------------------------------------------------------------------------

GUARDED: Document = {"server": {"access_log": True}, "global": {"access_policy": {"default": "deny"}}}
"""Denies everything, which is worth a line at level ``info``; that a request was answered is another one."""


def logged(start: Start, document: Document) -> str:
    """All that a server says about a request that is denied."""
    registry = start(merged(GUARDED, document))
    assert registry.status("/v2/a/tags/list") == 401
    registry.stop()
    return registry.log


DENIED, ANSWERED = "denied list-tags in a", "GET /v2/a/tags/list 401"


@changes_with("server.access_log")
def test_each_request_has_a_line_if_that_is_wanted(start: Start) -> None:
    assert ANSWERED in logged(start, {})
    assert ANSWERED not in logged(start, {"server": {"access_log": False}})


@changes_with("observability.log.level", "observability.log.modules.*")
def test_lines_below_the_level_are_not_written(start: Start) -> None:
    log = logged(start, {"observability": {"log": {"level": "error"}}})
    assert DENIED not in log
    assert ANSWERED not in log
    log = logged(start, {"observability": {"log": {"level": "error", "modules": {"angos.authorization": "info"}}}})
    assert DENIED in log
    assert ANSWERED not in log
    log = logged(start, {"observability": {"log": {"modules": {"angos.authorization": "error"}}}})
    assert DENIED not in log
    assert ANSWERED in log


@changes_with("observability.log.format")
def test_lines_are_for_people_or_for_machines(start: Start) -> None:
    assert f"angos: INFO: {DENIED}" in logged(start, {"observability": {"log": {"format": "text"}}})
    entries = [json.loads(line) for line in logged(start, {"observability": {"log": {"format": "json"}}}).splitlines()]
    assert {"angos.authorization", "angos.access"} <= {entry["logger"] for entry in entries}
