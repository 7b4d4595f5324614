"""Stopping and starting: SIGTERM lets requests finish, and a new process goes on where the old one stopped."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conformance.http_client import request_head
from tests.conformance.oci.content import artifact_of, digest_of
from tests.conformance.oci.repository import Repository, pieces_of
from tests.conformance.registry_process import RegistryProcess

Start = Callable[..., RegistryProcess]


@pytest.fixture(params=["asyncio", "trio"])
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Start]:
    """Starts registries over the same data, one after the other."""
    started: list[RegistryProcess] = []

    def start_one(**options: int) -> RegistryProcess:
        started.append(RegistryProcess.start(tmp_path / "data", loop=request.param, **options))  # type: ignore[arg-type]
        return started[-1]

    yield start_one
    for registry in started:
        registry.kill()


def _wait_until_refused(registry: RegistryProcess) -> None:
    client = registry.client()
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        try:
            socket.create_connection((client.host, client.port), 5).close()
        except ConnectionRefusedError:
            return
        time.sleep(0.01)
    raise AssertionError("still accepting connections after SIGTERM")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("workers", [1, 2])
def test_an_idle_server_stops_at_once(start: Start, number: int, workers: int) -> None:
    registry = start(workers=workers)
    with registry.client() as client:
        assert client.get("/v2/").status == 200
        registry.interrupt(number)
        assert registry.wait() == 0
    assert "Traceback" not in registry.log


def test_an_upload_in_flight_is_finished_before_the_end(start: Start) -> None:
    registry = start()
    client = registry.client()
    repository = Repository(client, "in/flight")
    content = repository.fresh_bytes(500_000)
    digest = digest_of(content)
    location = repository.start_upload()
    connection = client.connect()
    head = request_head("PUT", f"{location}?digest={digest}", [("Host", "x"), ("Content-Length", "500000")])
    connection.send(head + content[:200_000])
    _wait_until_range_or_busy(repository, location)
    registry.interrupt()
    _wait_until_refused(registry)
    connection.send(content[200_000:])
    answer = connection.answer("PUT", location)
    assert answer.status == 201
    assert connection.closed_by_server()
    connection.close()
    client.close()
    assert registry.wait() == 0
    assert Repository(start().client(), "in/flight").pull_blob(digest) == content


def _wait_until_range_or_busy(repository: Repository, location: str) -> None:
    # The server has taken the request when its bytes have begun to be received; there is nothing to see from outside,
    # so other requests are made until they are certainly later than it.
    for _ in range(5):
        assert repository.client.get("/v2/").status == 200
        time.sleep(0.02)
    assert location


def test_a_download_in_flight_is_finished_before_the_end(start: Start) -> None:
    registry = start()
    client = registry.client()
    repository = Repository(client, "in/flight")
    content = repository.fresh_bytes(30_000_000)
    target = repository.blob(repository.push_blob(content))
    connection = client.connect()
    connection.send(request_head("GET", target, [("Host", "x")]))
    assert connection.answer("GET", target, head_only=True).status == 200
    received = connection.receive(1_000_000)
    registry.interrupt()
    _wait_until_refused(registry)
    received += connection.receive(len(content) - len(received))
    assert received == content
    connection.close()
    client.close()
    assert registry.wait() == 0


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("ending", ["terminate", "kill"])
def test_an_upload_goes_on_after_a_restart(start: Start, algorithm: str, ending: str) -> None:
    location, sent = None, 0
    for number in range(4):
        registry = start()
        with registry.client() as client:
            repository = Repository(client, "restarted/upload")
            content = repository.fresh_bytes(100_000)
            location = location or repository.start_upload()
            if sent:
                assert client.get(location)["range"] == f"0-{sent - 1}"
            piece = pieces_of(content, 30_000)[number]
            assert repository.append(location, piece, sent).status == 202
            sent += len(piece)
        getattr(registry, ending)()
    repository = Repository(start().client(), "restarted/upload")
    assert repository.complete(location or "", digest_of(content, algorithm)).status == 201
    assert repository.pull_blob(digest_of(content, algorithm)) == content


def test_everything_is_there_after_a_restart(start: Start) -> None:
    first = start()
    repository = Repository(first.client(), "restarted/data")
    manifest, pushed = repository.push_image("a", "b")
    referrer = repository.push_manifest(artifact_of("application/x", pushed), "c")
    deleted, _ = repository.push_image("d")
    assert repository.client.delete(repository.manifest("d")).status == 202
    first.stop()
    again = Repository(start().client(), "restarted/data")
    assert again.pull_manifest("a").body == again.pull_manifest("b").body == manifest
    assert again.tags() == ["a", "b", "c"]
    assert [each["digest"] for each in again.referrers(pushed["digest"])] == [referrer]
    assert again.pull_manifest(digest_of(deleted)).body == deleted
    assert again.client.get("/v2/_catalog").json == {"repositories": ["restarted/data"]}


def test_several_workers_serve_one_upload_together(start: Start) -> None:
    registry = start(workers=2)
    content = Repository(registry.client(), "many/workers").fresh_bytes(640_000)
    location, sent = "", 0
    for piece in pieces_of(content, 40_000):
        # Each on a connection of its own, so that the workers take turns.
        with registry.client() as client:
            repository = Repository(client, "many/workers")
            location = location or repository.start_upload()
            answer = repository.append(location, piece, sent)
            sent += len(piece)
            assert (answer.status, answer["range"]) == (202, f"0-{sent - 1}")
    for number in range(8):
        with registry.client() as client:
            repository = Repository(client, "many/workers")
            if number == 0:
                assert repository.complete(location, digest_of(content)).status == 201
            assert repository.pull_blob(digest_of(content)) == content
            repository.push_manifest(artifact_of(f"application/x{number}"), "latest")
        with registry.client() as client:
            latest = Repository(client, "many/workers").pull_manifest("latest")
            assert latest.json["artifactType"] == f"application/x{number}"
    registry.stop()
