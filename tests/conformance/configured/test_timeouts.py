"""Keys that say how long: what a short value ends goes on with a long one, which was begun before and outlives it."""

from __future__ import annotations

import select
import socket
import ssl
import time
from contextlib import ExitStack

import pytest

from tests.conformance.certificates import Authority
from tests.conformance.configured.configured_registry import (
    ON_WATCHED_DISK,
    ConfiguredRegistry,
    Start,
    is_silent,
    merged,
)
from tests.conformance.configured.coverage import changes_with
from tests.conformance.oci.content import bytes_of, digest_of
from tests.conformance.oci.repository import Repository
from tests.conformance.runtime.observed import Scrape, ask
from tests.conformance.runtime.reloading import wait_until
from tests.conformance.server.wire import PATIENCE_SECONDS, Wire

pytestmark = pytest.mark.xdist_group("configured-timeouts")

SHORT, LONG = 0.2, 3600
SOON = {"server": {"sweep_seconds": 0.05}}
"""So that tests need not wait."""
LARGE = bytes_of("large", 12_000_000)
"""More than the buffers of two sockets hold."""
UPLOADED = bytes_of("uploaded", 100)


@pytest.fixture(scope="module")
def patient(start_shared: Start) -> ConfiguredRegistry:
    """Waits for everything; stores a large blob."""
    keys = ("head_timeout", "idle_timeout", "body_stall_timeout", "send_stall_timeout", "query_timeout")
    registry = start_shared({"server": {**dict.fromkeys(keys, LONG), "linger_seconds": LONG, "sweep_seconds": 0.05}})
    with registry.client() as client:
        Repository(client, "large").push_blob(LARGE)
    return registry


@pytest.fixture
def start_hasty(start: Start, patient: ConfiguredRegistry) -> Start:
    """Registries that store the same, and look around often."""

    def start_hasty(**server: object) -> ConfiguredRegistry:
        return start(merged(SOON, {"server": server, "blob_store": {"fs": {"root_dir": str(patient.root)}}}))

    return start_hasty


def begin_upload(wire: Wire, *fields: str) -> None:
    """All but its last byte."""
    target = f"/v2/a/blobs/uploads/?digest={digest_of(UPLOADED)}"
    wire.ask(target, f"Content-Length: {len(UPLOADED)}", *fields, method="POST", body=UPLOADED[:-1])


def end_upload(wire: Wire) -> None:
    wire.send(UPLOADED[-1:])
    assert wire.answer().status == 201


def begin_download(wire: Wire) -> None:
    wire.ask(f"/v2/large/blobs/{digest_of(LARGE)}")


def end_download(wire: Wire) -> None:
    assert wire.answer().body == LARGE


def wait_for_reset(wire: Wire) -> None:
    """Without taking anything of what has come."""
    poll = select.poll()
    poll.register(wire.socket, 0)  # what is told in any case: errors, and the end of both directions
    assert poll.poll(PATIENCE_SECONDS * 1000), "the connection is not cut"


# --- one connection ---------------------------------------------------------------------------------------------------


@changes_with("server.head_timeout")
def test_a_head_has_to_end_in_time(start_hasty: Start, patient: ConfiguredRegistry) -> None:
    hasty = start_hasty(head_timeout=SHORT)
    with patient.connect() as long:
        long.send(b"GET /v2/ HTTP/1.1\r\n")
        for _ in range(2):  # if all had the same time, that of the first would be over before that of the last
            with hasty.connect() as short:
                short.send(b"GET /v2/ HTTP/1.1\r\n")
                assert short.answer().status == 408
        long.send(b"Host: test\r\n\r\n")
        assert long.answer().status == 200


@changes_with("server.idle_timeout")
def test_a_connection_without_requests_ends(start_hasty: Start, patient: ConfiguredRegistry) -> None:
    hasty = start_hasty(idle_timeout=SHORT)
    with patient.connect() as long, hasty.connect() as short:
        assert short.is_closed()
        assert long.get("/v2/").status == 200


@changes_with("server.sweep_seconds")
def test_timeouts_strike_when_they_are_looked_for(start: Start, start_hasty: Start) -> None:
    sluggish = start({"server": {"idle_timeout": SHORT, "sweep_seconds": LONG}})
    hasty = start_hasty(idle_timeout=SHORT)
    with sluggish.connect() as late, hasty.connect() as soon:
        assert soon.is_closed()
        assert late.get("/v2/").status == 200


@changes_with("server.body_stall_timeout")
def test_a_body_has_to_go_on_in_time(start_hasty: Start, patient: ConfiguredRegistry) -> None:
    hasty = start_hasty(body_stall_timeout=SHORT)
    with patient.connect() as long, hasty.connect() as short:
        begin_upload(long)
        begin_upload(short)
        assert short.answer().status == 408
        end_upload(long)


@changes_with("server.send_stall_timeout")
def test_an_answer_has_to_be_taken_in_time(start_hasty: Start, patient: ConfiguredRegistry) -> None:
    hasty = start_hasty(send_stall_timeout=SHORT)
    with patient.connect(receive_buffer=4096) as long, hasty.connect(receive_buffer=4096) as short:
        begin_download(long)
        begin_download(short)
        wait_for_reset(short)
        end_download(long)


def begin_lingering(wire: Wire) -> None:
    wire.ask("/v2/", "Transfer-Encoding: chunked", method="PUT")
    assert wire.answer().closes


def send_until_cut(wire: Wire) -> None:
    while True:
        wire.send(b"1\r\na\r\n")
        time.sleep(0.01)


@changes_with("server.linger_seconds")
def test_a_client_is_listened_to_after_the_last_answer(start_hasty: Start, patient: ConfiguredRegistry) -> None:
    hasty = start_hasty(linger_seconds=SHORT)
    with patient.connect() as long:
        begin_lingering(long)
        for _ in range(2):
            with hasty.connect() as short:
                begin_lingering(short)
                with pytest.raises(ConnectionError):
                    send_until_cut(short)
        for _ in range(3):
            long.send(b"1\r\na\r\n")


@changes_with("server.handshake_timeout")
def test_a_handshake_has_to_end_in_time(start: Start, authority: Authority) -> None:
    issued = authority.issue("127.0.0.1")
    files = {"server_certificate_bundle": str(issued.certificate), "server_private_key": str(issued.key)}
    patient, hasty = (
        start(merged(SOON, {"server": {"handshake_timeout": seconds, "tls": files}})) for seconds in (LONG, SHORT)
    )
    context = ssl.create_default_context(cafile=str(authority.bundle))
    with socket.create_connection(patient.at) as long:
        for _ in range(2):
            with hasty.connect() as short:
                assert short.is_closed()
        with context.wrap_socket(long, server_hostname="127.0.0.1") as encrypted:
            encrypted.sendall(b"GET /v2/ HTTP/1.1\r\nHost: test\r\n\r\n")
            assert encrypted.recv(12) == b"HTTP/1.1 200"


# --- one request ------------------------------------------------------------------------------------------------------


@changes_with("server.query_timeout")
def test_a_request_has_to_be_answered_in_time(start_hasty: Start, patient: ConfiguredRegistry) -> None:
    hasty = start_hasty(query_timeout=SHORT)
    with patient.connect() as long, hasty.connect() as short:
        begin_upload(long)
        begin_upload(short)
        answer = short.answer()
        assert (answer.status, answer.error_code()) == (503, "UNAVAILABLE")
        assert b"within 0.2 seconds" in answer.body
        end_upload(long)


@changes_with("server.query_timeout_grace_period")
def test_an_answer_that_has_begun_may_end_within_the_grace_period(start: Start, patient: ConfiguredRegistry) -> None:
    def start_with(grace: float) -> ConfiguredRegistry:
        server = {"query_timeout": 2, "query_timeout_grace_period": grace, "sweep_seconds": 0.05}
        store = {"fs": {"root_dir": str(patient.root)}}
        return start({"server": server, "blob_store": store, "observability": {"metrics": {"enabled": True}}})

    generous, strict = start_with(LONG), start_with(0.01)
    with generous.connect(receive_buffer=4096) as long, strict.connect(receive_buffer=4096) as short:
        begin_download(long)
        begin_download(short)
        wait_for_reset(short)
        wait_until(lambda: _timeouts(generous) == 1)
        end_download(long)


def _timeouts(registry: ConfiguredRegistry) -> float:
    scrape = Scrape(ask("GET", f"{registry.url}/metrics")[2].decode())
    return scrape.value("angos_timeouts_total", wait="request")


@changes_with("global.max_concurrent_requests", "server.queue_timeout")
def test_further_requests_wait_for_their_turn_and_not_for_ever(start: Start) -> None:
    def start_with(requests: int, seconds: float) -> ConfiguredRegistry:
        limits = {"server": {"queue_timeout": seconds}, "global": {"max_concurrent_requests": requests}}
        return start(merged(limits, {"blob_store": {"fs": {"sync_to_disk": True}}}), program=ON_WATCHED_DISK)

    roomy, strict, lenient = started = start_with(2, SHORT), start_with(1, SHORT), start_with(1, LONG)
    with ExitStack() as stack:
        with ExitStack() as held_up:
            wires = [stack.enter_context(registry.connect()) for registry in started]
            for registry, wire in zip(started, wires, strict=True):
                held_up.enter_context(registry.disk_held_up("synced"))
                begin_upload(wire)
                wire.send(UPLOADED[-1:])
                wait_until(lambda: "synced" in registry.log)  # noqa: B023
            waiting = stack.enter_context(lenient.connect())
            waiting.ask("/v2/")
            assert roomy.status("/v2/") == 200
            assert strict.status("/v2/") == 503
            assert is_silent(waiting)
        assert waiting.answer().status == 200
        assert [wire.answer().status for wire in wires] == [201] * 3


# --- the process ------------------------------------------------------------------------------------------------------


@changes_with("server.drain_seconds")
def test_requests_in_flight_may_go_on_after_the_server_was_told_to_stop(start: Start) -> None:
    patient, hasty = (start({"server": {"drain_seconds": seconds}}) for seconds in (LONG, SHORT))
    with patient.connect() as long, hasty.connect() as short:
        for registry, wire in ((patient, long), (hasty, short)):
            begin_upload(wire, "Expect: 100-continue")
            assert wire.interim() == b"HTTP/1.1 100 Continue"  # so it is in flight
            registry.interrupt()
        hasty.stop()
        assert patient.is_running
        end_upload(long)
    patient.stop()
