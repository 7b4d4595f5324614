"""Clients that take their time. Each limit is small here; nothing is asserted about how fast anything happens."""

from __future__ import annotations

import time

import pytest

from tests.conformance.server.running import StartServer
from tests.conformance.server.stand_in import SMALL
from tests.conformance.server.wire import Wire


def test_an_idle_connection_is_closed_without_a_word(start_server: StartServer) -> None:
    server = start_server(idle_timeout=0.1)
    with server.connect() as fresh, server.connect() as used:
        assert used.get().body == SMALL
        assert fresh.is_closed()
        assert used.is_closed()


@pytest.mark.parametrize("drip", [b"", b"a"])
def test_a_head_that_does_not_end_is_408(start_server: StartServer, drip: bytes) -> None:
    server = start_server(head_timeout=0.3)
    with server.connect() as wire:
        wire.send(b"GET /small HTTP/1.1\r\nHost: a\r\nX: ")
        try:
            for _ in range(8):  # bytes do not buy time: the head has to end
                wire.send(drip)
                time.sleep(0.1)
        except ConnectionError:
            return
        answer = wire.answer()
        assert (answer.status, answer.closes, answer.error_code()) == (408, True, "UNSUPPORTED")
        assert wire.is_closed()


@pytest.mark.parametrize("framing", ["Content-Length: 1000", "Content-Length: 1000000", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("target", ["/receive", "/read"])
def test_a_body_that_stalls_is_408(start_server: StartServer, target: str, framing: str) -> None:
    server = start_server(body_stall_timeout=0.2)
    with server.connect() as wire:
        wire.ask(target, framing, method="PUT", body=b"5\r\nhello\r\n")
        answer = wire.answer()
        assert (answer.status, answer.closes, answer.error_code()) == (408, True, "UNSUPPORTED")
        assert wire.is_closed()
    server.wait_until(lambda stand_in: not stand_in.working)


def test_a_slow_body_that_never_stalls_is_received(start_server: StartServer) -> None:
    server = start_server(body_stall_timeout=1.0, transfer_threads=1)
    with server.connect() as slow:
        slow.ask("/read", "Content-Length: 100000", method="PUT")
        for _ in range(20):
            slow.send(b"a" * 5000)
            time.sleep(0.07)
            with server.connect() as other:  # the slow one holds the only thread at most for moments
                assert other.put("/receive", b"b" * 200_000).json()["whole"]
        assert slow.answer().body == b"a" * 100_000


def test_an_unwanted_body_that_does_not_come_is_not_waited_for(start_server: StartServer) -> None:
    server = start_server(body_stall_timeout=0.1, linger_seconds=0.1)
    with server.connect() as wire:
        wire.ask("/ignore", "Content-Length: 1000", method="PUT")
        assert wire.answer().status == 202
        assert wire.is_closed()


def send_for_ever(wire: Wire) -> None:
    while True:
        wire.send(b"1\r\na\r\n")
        time.sleep(0.01)


def test_a_client_that_keeps_sending_after_the_last_answer_is_cut(start_server: StartServer) -> None:
    server = start_server(linger_seconds=0.2)
    with server.connect() as wire:
        wire.ask("/ignore", "Transfer-Encoding: chunked", method="PUT")
        assert wire.answer().closes
        with pytest.raises(ConnectionError):
            send_for_ever(wire)


@pytest.mark.parametrize("target", ["/inline?size=30000000", "/file?name=content&length=30000000"])
def test_a_client_that_never_reads_is_cut(start_server: StartServer, target: str) -> None:
    server = start_server(send_stall_timeout=0.2)
    (server.stand_in.folder / "content").write_bytes(bytes(30_000_000))
    with server.connect(receive_buffer=4096) as wire:
        wire.ask(target)
        server.wait_until(lambda stand_in: bool(stand_in.requests) and not stand_in.working)
        server.begin_stop()
        # It ends although the client has not read: nothing in flight is left.
        server.ended.result(timeout=30)
        with pytest.raises((EOFError, ConnectionError)):
            wire.answer()
    assert all(opened.closed for opened in server.stand_in.opened)


def test_a_client_that_reads_slower_than_the_limit_is_served_while_it_reads(start_server: StartServer) -> None:
    # The window opens in steps of several reads: the limit has to be far above the time of one, on a busy machine too.
    server = start_server(send_stall_timeout=2)
    size = 8_000_000
    with server.connect(receive_buffer=16384) as wire:
        wire.ask(f"/inline?size={size}")
        received = 0
        # Slow enough for the socket of the server to stay full for longer than the limit.
        for _ in range(80):
            received += len(wire.socket.recv(4096))
            time.sleep(0.05)
        wire.socket.settimeout(20)
        while received < size:
            piece = wire.socket.recv(1 << 20)
            assert piece, f"cut after {received} bytes"
            received += len(piece)


def test_the_time_of_the_application_is_not_the_client_s(start_server: StartServer) -> None:
    server = start_server(idle_timeout=0.1, head_timeout=0.1, body_stall_timeout=0.1, send_stall_timeout=0.1)
    with server.connect() as wire:
        assert wire.get("/wait?seconds=0.6").body == b"waited"
