"""Keys that say how much a client may send and how many may come: a small value refuses what the default takes."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.conformance.configured.configured_registry import ON_WATCHED_DISK, ConfiguredRegistry, Start
from tests.conformance.configured.coverage import changes_with
from tests.conformance.oci.content import EMPTY_DESCRIPTOR, OCI_MANIFEST, bytes_of, digest_of, manifest_of
from tests.conformance.runtime.reloading import wait_until
from tests.conformance.server.wire import Wire

pytestmark = pytest.mark.xdist_group("configured-sizes-and-counts")

RATE, BURST = 1, 20


@pytest.fixture(scope="module")
def limited(start_shared: Start) -> ConfiguredRegistry:
    """A registry with small limits."""
    server = {
        "head_size_max": "2KiB",
        "request_line_size_max": 500,
        "fields_max": 10,
        "unread_size_max": "1KiB",
        "linger_size_max": "64KiB",
        "linger_seconds": 600,
        "max_connections_per_client": 3,
        "max_requests_per_second_per_client": RATE,
        "max_request_burst_per_client": BURST,
    }
    return start_shared({"server": server, "global": {"max_manifest_size": 700, "max_blob_size": "2kB"}})


@pytest.mark.parametrize(
    ("target", "fields", "status"),
    [
        pytest.param("/v2/", ["A: " + "a" * 3000], 431, id="head_size_max"),
        pytest.param("/v2/?" + "a" * 1000, [], 414, id="request_line_size_max"),
        pytest.param("/v2/", [f"A{number}: a" for number in range(20)], 431, id="fields_max"),
    ],
)
@changes_with("server.head_size_max", "server.request_line_size_max", "server.fields_max")
def test_longer_heads_are_refused(
    limited: ConfiguredRegistry, plain: ConfiguredRegistry, target: str, fields: list[str], status: int
) -> None:
    assert plain.status(target, *fields) == 200
    assert limited.status(target, *fields) == status


@changes_with("server.unread_size_max")
def test_a_larger_body_that_nobody_wants_costs_the_connection(
    limited: ConfiguredRegistry, plain: ConfiguredRegistry
) -> None:
    for registry, closes in ((plain, False), (limited, True)):
        with registry.connect() as wire:
            answer = wire.put("/v2/", bytes(100_000))
            assert (answer.status, answer.closes) == (405, closes)


def send_on_after_the_last_answer(wire: Wire, size: int) -> None:
    wire.ask("/v2/", "Transfer-Encoding: chunked", method="PUT", body=b"%x\r\n" % (1 << 40))
    assert wire.answer().closes
    for _ in range(size >> 14):
        wire.send(bytes(1 << 14))


@changes_with("server.linger_size_max")
def test_who_sends_more_after_the_last_answer_is_cut(limited: ConfiguredRegistry, start: Start) -> None:
    lenient = start({"server": {"linger_seconds": 600}})
    with lenient.connect() as wire:
        send_on_after_the_last_answer(wire, 20_000_000)  # more than fits into the buffers of the sockets
    with limited.connect() as wire, pytest.raises(ConnectionError):
        send_on_after_the_last_answer(wire, 20_000_000)


@changes_with("server.max_connections_per_client")
def test_one_connection_more_of_the_same_client_is_refused(
    limited: ConfiguredRegistry, plain: ConfiguredRegistry
) -> None:
    for registry, status in ((plain, 200), (limited, 429)):
        with ExitStack() as stack:
            wires = [stack.enter_context(registry.connect(source="127.0.0.3")) for _ in range(4)]
            assert [wire.get("/v2/").status for wire in wires] == [200, 200, 200, status]


def statuses_of_many(registry: ConfiguredRegistry, source: str, count: int) -> list[int]:
    """Of so many requests that are sent at once, so that no time passes between them."""
    with registry.connect(source=source) as wire:
        wire.send(b"GET /v2/ HTTP/1.1\r\nHost: test\r\n\r\n" * count)
        return [wire.answer().status for _ in range(count)]


@changes_with("server.max_requests_per_second_per_client", "server.max_request_burst_per_client")
def test_a_client_has_its_burst_and_its_rate(
    limited: ConfiguredRegistry, plain: ConfiguredRegistry, start: Start
) -> None:
    assert set(statuses_of_many(plain, "127.0.0.4", 400)) == {200}
    found = statuses_of_many(limited, "127.0.0.4", 400)
    assert set(found[:BURST]) == {200}
    assert 429 in found[BURST:100]
    by_default = start({"server": {"max_requests_per_second_per_client": RATE}})
    found = statuses_of_many(by_default, "127.0.0.4", 400)
    assert set(found[:100]) == {200}
    assert 429 in found[100:]


def put_blob(registry: ConfiguredRegistry, size: int) -> int:
    content = bytes_of("blob", size)
    with registry.connect() as wire:
        target = f"/v2/a/blobs/uploads/?digest={digest_of(content)}"
        wire.ask(target, f"Content-Length: {size}", method="POST", body=content)
        return wire.answer().status


@changes_with("global.max_blob_size")
def test_a_larger_blob_is_refused(limited: ConfiguredRegistry, plain: ConfiguredRegistry) -> None:
    assert put_blob(plain, 2001) == put_blob(limited, 2000) == 201
    assert put_blob(limited, 2001) == 413


def put_manifest(registry: ConfiguredRegistry, padding: int) -> int:
    content = manifest_of(EMPTY_DESCRIPTOR, [], annotations={"a": "a" * padding})
    with registry.connect() as wire:
        fields = (f"Content-Type: {OCI_MANIFEST}", f"Content-Length: {len(content)}")
        wire.ask(f"/v2/a/manifests/{padding}", *fields, method="PUT", body=content)
        return wire.answer().status


@changes_with("global.max_manifest_size")
def test_a_larger_manifest_is_refused(limited: ConfiguredRegistry, plain: ConfiguredRegistry) -> None:
    assert put_manifest(plain, 1000) == put_manifest(limited, 100) == 201
    assert put_manifest(limited, 1000) == 413


@changes_with("server.connections_max")
def test_one_connection_more_of_anybody_is_refused(plain: ConfiguredRegistry, start: Start) -> None:
    for registry, status in ((plain, 200), (start({"server": {"connections_max": 2}}), 503)):
        with registry.connect(source="127.0.0.5") as first, registry.connect(source="127.0.0.6") as second:
            for wire in (first, second):
                wire.ask("/v2/a/blobs/uploads/?digest=sha256:" + "0" * 64, "Content-Length: 10", method="POST")
            with registry.connect(source="127.0.0.7") as third:
                assert third.get("/v2/").status == status


# --- the system below -------------------------------------------------------------------------------------------------


@contextmanager
def frozen(registry: ConfiguredRegistry) -> Iterator[None]:
    """The server does nothing in the meantime."""
    registry.interrupt(signal.SIGSTOP)
    try:
        wait_until(lambda: Path(f"/proc/{registry.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
        yield
    finally:
        registry.interrupt(signal.SIGCONT)


def is_connected(attempt: socket.socket) -> bool:
    try:
        attempt.getpeername()
    except OSError:
        return False
    return True


@changes_with("server.backlog")
def test_the_system_keeps_so_many_connections_until_they_are_accepted(start: Start) -> None:
    for backlog, kept in ((100, 8), (1, 2)):  # Linux keeps one more
        registry = start({"server": {"backlog": backlog}})
        with ExitStack() as stack, frozen(registry):
            attempts = [stack.enter_context(socket.socket()) for _ in range(8)]
            for attempt in attempts:
                attempt.setblocking(False)
                attempt.connect_ex(registry.at)
            wait_until(lambda: sum(map(is_connected, attempts)) >= kept)  # noqa: B023
            assert sum(map(is_connected, attempts)) == kept


def files_written(registry: ConfiguredRegistry) -> set[str]:
    """Those of uploads."""
    return {line for line in registry.log.splitlines() if line.startswith("written /")}


@changes_with("server.transfer_threads")
def test_large_bodies_are_moved_by_so_many_threads(start: Start) -> None:
    contents = [bytes_of(f"large {number}", 100_000) for number in range(3)]
    with ExitStack() as stack, ExitStack() as held_up:
        wires: list[Wire] = []
        for threads in (1, 2):
            registry = start({"server": {"transfer_threads": threads}}, program=ON_WATCHED_DISK)
            held_up.enter_context(registry.disk_held_up("written"))
            for content in contents:
                wires.append(wire := stack.enter_context(registry.connect()))
                target = f"/v2/a/blobs/uploads/?digest={digest_of(content)}"
                wire.ask(target, f"Content-Length: {len(content)}", "Expect: 100-continue", method="POST")
                assert wire.interim() == b"HTTP/1.1 100 Continue"  # what comes with the head needs no thread
                wire.send(content)
            wait_until(lambda: len(files_written(registry)) >= threads)  # noqa: B023
            assert registry.status("/v2/") == 200  # those that wait keep nobody else waiting
            assert len(files_written(registry)) == threads
        held_up.close()
        assert [wire.answer().status for wire in wires] == [201] * 6
