"""A mirror that is stopped, reloaded or recorded in the middle of its work, and one that serves over TLS."""

from __future__ import annotations

import os
import signal
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from angos.simulator.outcomes import replay_outcomes
from tests.conformance.certificates import Authority
from tests.conformance.configured.configured_registry import ConfiguredRegistry
from tests.conformance.http_client import Closed, refused
from tests.conformance.redis_process import RedisProcess
from tests.conformance.registry_process import RegistryProcess
from tests.conformance.runtime.example_configuration import file_with, written
from tests.conformance.scripted_server import Asked, Said, said
from tests.conformance.upstream.scripted_upstream import Case, Held, Upstream, mirrors

pytestmark = pytest.mark.xdist_group("mirror")


@contextmanager
def running(folder: Path, upstream: Upstream, name: str, **more: Any) -> Iterator[Case]:
    """A registry with one mirror."""
    registry = ConfiguredRegistry.configured(folder, {**mirrors(upstream.server.origin, [name]), **more})
    case = upstream.cases[name] = Case(name, registry)
    try:
        yield case
        registry.stop()
    finally:
        if not registry.ended:
            registry.kill()


def test_a_server_that_is_stopped_gives_its_fills_up_and_leaves_nothing(tmp_path: Path, upstream: Upstream) -> None:
    with running(tmp_path, upstream, "stopped", server={"drain_seconds": 0.3}) as case:
        content, path = case.blob(300_000)
        held = Held(content, 100_000)
        case.script = held.script(path)
        with case.client().connect().socket as client:
            client.sendall(f"GET {case.target(path)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert client.recv(10)
            case.registry.stop()
        held.go.set()
        assert case.leaves_nothing()


def test_a_reload_changes_what_the_next_request_shows_and_ends_no_fill(tmp_path: Path, upstream: Upstream) -> None:
    patient = {"read_timeout_secs": 20}  # a reload takes its time
    before = mirrors(upstream.server.origin, ["reloaded"], **patient)
    with running(tmp_path, upstream, "reloaded", **before) as case:
        content, path = case.blob(300_000)
        case.manifest("v1")
        case.manifest("v2")
        held = Held(content, 100_000)

        def guarded(asked: Asked) -> Said | None:
            if path in asked.target:
                return held.said()
            if asked.values("authorization"):
                return None
            return said(b"", "401 Unauthorized", 'WWW-Authenticate: Basic realm="x"')

        case.script = guarded
        following = case.client().connect()
        following.send(f"GET {case.target(path)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        following.answer("GET", head_only=True)
        refused(case.get("manifests/v1"), 502, "UNAVAILABLE")
        document = mirrors(upstream.server.origin, ["reloaded"], username="mirror", password="canary", **patient)
        stores = {"blob_store": {"fs": {"root_dir": "data", "sync_to_disk": False}}, "server": {"port": 0}}
        file_with(tmp_path, written({**document, **stores}))
        case.wait_for_log("configuration reloaded")
        assert case.get("manifests/v2").status == 200
        held.go.set()
        assert following.receive(len(content)) == content
        following.finish()


def test_what_a_mirror_does_is_recorded_without_secrets_and_replays(tmp_path: Path, upstream: Upstream) -> None:
    name = "recorded"
    document = mirrors(upstream.server.origin, [name], username="mirror", password="canary-password")
    file = file_with(tmp_path, written(document))
    records = tmp_path / "records"
    registry = RegistryProcess.start(tmp_path / "data", arguments=("-c", str(file), "--record", str(records)))
    case = upstream.cases[name] = Case(name, registry)
    content, path = case.blob(5000)
    case.manifest("v1")

    def guarded(asked: Asked) -> Said | None:
        if "/token" in asked.target:
            return said(b'{"token": "canary-token"}')
        if asked.values("authorization") == ["Bearer canary-token"]:
            return None
        realm = f"{upstream.server.origin}/{name}/token"
        return said(b"", "401 Unauthorized", f'WWW-Authenticate: Bearer realm="{realm}",service="x"')

    case.script = guarded
    try:
        assert case.get("manifests/v1").status == 200
        assert case.get(path).body == content
        assert case.get(path).status == 200
    finally:
        registry.stop()
    texts = [record.read_text() for record in sorted(records.iterdir())]
    assert len(texts) == 3
    for text in texts:
        assert "canary" not in text
        assert replay_outcomes(text) is None


def test_a_blob_is_followed_over_tls(tmp_path: Path, upstream: Upstream) -> None:
    issued = Authority(tmp_path).issue("127.0.0.1")
    tls = {"server_certificate_bundle": str(issued.certificate), "server_private_key": str(issued.key)}
    with running(tmp_path, upstream, "encrypted", server={"tls": tls}) as case:
        content, path = case.blob(2_000_000)
        held = Held(content, 1_000_000)
        case.script = held.script(path)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        host, _, port = case.registry.address.rpartition(":")
        with socket.create_connection((host, int(port)), 30) as plain, context.wrap_socket(plain) as client:
            client.sendall(f"GET {case.target(path)} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            received = b""
            while len(received) < 900_000:
                received += client.recv(65536)
            held.go.set()
            while data := client.recv(65536):
                received += data
        assert received.partition(b"\r\n\r\n")[2] == content


def test_two_workers_serve_what_either_has_fetched(tmp_path: Path, upstream: Upstream) -> None:
    with running(tmp_path, upstream, "workers", server={"workers": 2}) as case:
        content, path = case.blob(5000)
        case.manifest("v1")
        for _ in range(6):
            assert case.get(path).body == content
            assert case.get("manifests/v1").status == 200
        assert case.lines().count(f"GET {path}") <= 2


def test_workers_without_a_redis_fetch_a_blob_once(tmp_path: Path, upstream: Upstream) -> None:
    """And clients of all workers get its bytes while they come."""
    with running(tmp_path, upstream, "together", server={"workers": 3}) as case:
        content, path = case.blob(300_000)
        held = Held(content, 100_000)
        case.script = held.script(path)
        clients = [case.client().connect() for _ in range(16)]
        for client in clients:
            client.send(f"GET {case.target(path)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        for client in clients:
            client.answer("GET", head_only=True)
            assert client.receive(90_000) == content[:90_000]
        held.go.set()
        for client in clients:
            assert client.receive(len(content) - 90_000) == content[90_000:]
            client.finish()
        assert case.lines().count(f"GET {path}") == 1


def test_when_a_worker_dies_that_others_follow_the_blob_is_fetched_again(tmp_path: Path, upstream: Upstream) -> None:
    with running(tmp_path, upstream, "killed", server={"workers": 2}) as case:
        content, path = case.blob(300_000)
        held = Held(content, 100_000)
        case.script = held.script(path)
        clients = [case.client().connect() for _ in range(8)]
        for client in clients:
            client.send(f"GET {case.target(path)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            client.answer("GET", head_only=True)
        case.script = lambda _: None
        parent = case.registry.pid
        worker = int(Path(f"/proc/{parent}/task/{parent}/children").read_text().split()[0])
        os.kill(worker, signal.SIGKILL)  # the one that fetches, or the other one
        case.wait_for_log(f"(process {worker}) ended unexpectedly")
        held.go.set()
        for client in clients:
            with suppress(Closed, OSError):  # of those that were cut off nobody has got anything wrong
                assert client.receive(len(content)) == content
            client.socket.close()
        assert case.get(path).body == content


def test_two_replicas_with_a_redis_fetch_a_blob_once(tmp_path: Path, upstream: Upstream) -> None:
    """The second one waits for the first, and then serves what that has stored."""
    (tmp_path / "redis").mkdir()
    with ExitStack() as stack:
        redis = stack.enter_context(RedisProcess(tmp_path / "redis"))
        shared = {
            "blob_store": {"fs": {"root_dir": str(tmp_path / "shared"), "sync_to_disk": False}},
            "leases": {"redis": {"url": redis.url}},
        }
        cases = []
        for number in range(2):
            folder = tmp_path / str(number)
            folder.mkdir()
            cases.append(stack.enter_context(running(folder, upstream, "replicas", **shared)))
        first, second = cases
        content, path = second.blob(300_000)
        held = Held(content, 100_000)
        second.script = held.script(path)  # the case that was made last answers for the upstream
        clients = [case.client().connect() for case in cases]
        clients[0].send(f"GET {first.target(path)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        clients[0].answer("GET", head_only=True)
        clients[1].send(f"GET {second.target(path)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert second.get("manifests/none").status == 404  # answered after that request has begun
        held.go.set()
        assert clients[0].receive(len(content)) == content
        assert clients[1].answer("GET").body == content
        for client in clients:
            client.finish()
        assert second.lines().count(f"GET {path}") == 1
