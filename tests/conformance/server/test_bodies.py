"""Request bodies over real sockets: small and large, counted and chunked, wanted and unwanted."""

from __future__ import annotations

import hashlib
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conformance.server.running import RunningServer, StartServer
from tests.conformance.server.stand_in import SMALL
from tests.conformance.server.wire import chunked

SIZES = (0, 1, 65_535, 65_536, 65_537, 262_144, 262_145, 5_000_000)
LARGE = random.Random(2).randbytes(SIZES[-1])


def digest_of(value: bytes) -> str:
    return hashlib.sha256(value).hexdigest()


@pytest.mark.parametrize("size", SIZES)
def test_a_counted_body_arrives_identical(server: RunningServer, size: int) -> None:
    body = LARGE[:size]
    with server.connect() as wire:
        found = wire.put("/receive", body).json()
        assert (found["whole"], found["size"], found["sha256"]) == (True, size, digest_of(body))
        assert wire.put("/read", body).body == body
        assert wire.get().body == SMALL


@pytest.mark.parametrize("chunk_size", [1000, 32_768, 1_000_000])
def test_a_chunked_body_arrives_identical(server: RunningServer, chunk_size: int) -> None:
    chunks = [LARGE[start : start + chunk_size] for start in range(0, len(LARGE), chunk_size)]
    with server.connect() as wire:
        found = wire.put_chunked("/receive", *chunks).json()
        assert (found["whole"], found["size"], found["sha256"]) == (True, len(LARGE), digest_of(LARGE))
        assert wire.put_chunked("/read", *chunks).body == LARGE
        assert wire.get().body == SMALL


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_body_sent_in_any_pieces_arrives_identical(server: RunningServer, data: st.DataObject) -> None:
    payload = LARGE[: data.draw(st.sampled_from([10, 3000, 70_000, 400_000]))]
    if data.draw(st.booleans(), label="chunked"):
        places = sorted(data.draw(st.sets(st.integers(1, len(payload) - 1), max_size=8)))
        raw = chunked(*(payload[a:b] for a, b in zip([0, *places], [*places, len(payload)], strict=True)))
        head = b"PUT /read HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    else:
        raw = payload
        head = b"PUT /read HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(payload)
    stream = head + raw + b"GET /small HTTP/1.1\r\nHost: a\r\n\r\n"
    cuts = sorted(data.draw(st.sets(st.integers(1, len(stream) - 1), max_size=8)))
    with server.connect() as wire:
        for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
            wire.send(stream[start:end])
        assert wire.answer().body == payload
        assert wire.answer().body == SMALL


def test_bodies_are_received_side_by_side(start_server: StartServer) -> None:
    server = start_server(transfer_threads=2)
    wires = [server.connect() for _ in range(8)]
    half = len(LARGE) // 2
    for wire in wires:
        wire.ask("/receive", f"Content-Length: {len(LARGE)}", method="PUT", body=LARGE[:half])
    # All of them wait for their client now, with two threads between them.
    with server.connect() as other:
        assert other.put("/receive", LARGE).json()["whole"]
    for wire in wires:
        wire.send(LARGE[half:])
    for wire in wires:
        assert wire.answer().json()["sha256"] == digest_of(LARGE)
        wire.close()


def test_continue_is_sent_once_the_body_is_wanted(server: RunningServer) -> None:
    for framing, body in (("Content-Length: 5", b"hello"), ("Transfer-Encoding: chunked", chunked(b"hello"))):
        with server.connect() as wire:
            wire.ask("/read", framing, "Expect: 100-continue", method="PUT")
            assert wire.interim() == b"HTTP/1.1 100 Continue"
            wire.send(body)
            answer = wire.answer()
            assert (answer.body, answer.closes) == (b"hello", False)
            assert wire.get().body == SMALL


@pytest.mark.parametrize("target", ["/ignore", "/read?max=2", "/receive?max=2", "/status?code=401", "/fail"])
def test_continue_is_not_sent_when_the_answer_is_known(server: RunningServer, target: str) -> None:
    with server.connect() as wire:
        wire.ask(target, "Content-Length: 5", "Expect: 100-continue", method="PUT")
        answer = wire.answer()
        assert answer.status >= 202
        assert answer.closes  # nobody can know whether the client sends the body now
        wire.end_sending()
        assert wire.is_closed()


def test_continue_is_not_sent_to_a_client_that_did_not_wait(server: RunningServer) -> None:
    with server.connect() as wire:
        wire.ask("/read", "Content-Length: 5", "Expect: 100-continue", method="PUT", body=b"hello")
        assert wire.answer().body == b"hello"
        assert wire.get().body == SMALL


def test_continue_is_not_sent_to_http_1_0(server: RunningServer) -> None:
    with server.connect() as wire:
        wire.send(b"PUT /read HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        wire.send(b"hello")
        assert wire.answer().body == b"hello"


def test_a_small_unread_body_is_skipped(server: RunningServer) -> None:
    with server.connect() as wire:
        for size in (5, 100_000, server.options.unread_size_max):
            answer = wire.put("/ignore", LARGE[:size])
            assert (answer.status, answer.closes) == (202, False)
        assert wire.get().body == SMALL


def test_a_small_unread_body_may_arrive_after_the_answer(server: RunningServer) -> None:
    with server.connect() as wire:
        wire.ask("/ignore", "Content-Length: 100", method="PUT")
        assert not wire.answer().closes
        wire.send(b"a" * 100)
        assert wire.get().body == SMALL


def test_an_unread_chunked_body_that_is_there_is_skipped(server: RunningServer) -> None:
    with server.connect() as wire:
        for chunks in ((), (b"hello",)):
            answer = wire.put_chunked("/ignore", *chunks)
            assert (answer.status, answer.closes) == (202, False)
        assert wire.get().body == SMALL


@pytest.mark.parametrize("framing", ["Content-Length: 30000000", "Transfer-Encoding: chunked"])
def test_a_client_that_sends_a_large_unwanted_body_sees_the_answer(server: RunningServer, framing: str) -> None:
    with server.connect() as wire:
        body = b"a" * 30_000_000
        wire.ask("/ignore", framing, method="PUT", body=body if "Length" in framing else chunked(body))
        answer = wire.answer()
        assert (answer.status, answer.closes) == (202, True)
        wire.end_sending()
        assert wire.is_closed()


@pytest.mark.parametrize("target", ["/receive", "/read"])
def test_a_body_that_is_too_large_is_refused_unread_when_its_length_is_known(
    server: RunningServer, target: str
) -> None:
    with server.connect() as wire:
        wire.ask(f"{target}?max=4", "Content-Length: 5", method="PUT", body=b"hello")
        answer = wire.answer()
        assert (answer.status, answer.closes) == (413, False)
        assert wire.put(f"{target}?max=5", b"hello").status in (200, 201)


@pytest.mark.parametrize("target", ["/receive", "/read"])
def test_a_chunked_body_that_is_too_large_is_refused(server: RunningServer, target: str) -> None:
    with server.connect() as wire:
        answer = wire.put_chunked(f"{target}?max=9", b"hello", b"world")
        assert (answer.status, answer.closes) == (413, True)
    with server.connect() as wire:
        # Known from the size of the chunk, before its bytes are there.
        wire.ask(f"{target}?max=1000000", "Transfer-Encoding: chunked", method="PUT", body=b"f4241\r\n")
        assert wire.answer().status == 413
    with server.connect() as wire:
        assert wire.put_chunked(f"{target}?max=10", b"hello", b"world").status in (200, 201)


@pytest.mark.parametrize("size", [1000, 3_000_000])
def test_a_sink_that_fails_ends_the_transfer(server: RunningServer, size: int) -> None:
    for framing, body in (
        (f"Content-Length: {size}", LARGE[:size]),
        ("Transfer-Encoding: chunked", chunked(LARGE[:size])),
    ):
        with server.connect() as wire:
            wire.ask(f"/receive?fail={size // 2}", framing, method="PUT", body=body)
            answer = wire.answer()
            assert (answer.status, answer.body) == (507, b"no space left")


@pytest.mark.parametrize("size", [1000, 3_000_000])
def test_after_a_sink_that_failed_on_the_last_byte_the_connection_goes_on(server: RunningServer, size: int) -> None:
    """A disk that was full at the very end of a body: the client's next request was dropped without an answer."""
    with server.connect() as wire:
        wire.ask(f"/receive?fail={size}", f"Content-Length: {size}", method="PUT", body=LARGE[:size])
        answer = wire.answer()
        assert (answer.status, answer.closes) == (507, False)
        wire.ask("/receive", "Content-Length: 2", method="PUT", body=b"ok")
        assert wire.answer().json()["size"] == 2


@pytest.mark.parametrize("size", [10, 3_000_000])
def test_what_arrived_before_the_client_left_is_kept(server: RunningServer, size: int) -> None:
    sent = LARGE[: size // 2]
    for framing, body in (
        (f"Content-Length: {size}", sent),
        ("Transfer-Encoding: chunked", b"%x\r\n" % size + sent),
    ):
        with server.connect() as wire:
            wire.ask("/receive", framing, method="PUT", body=body)
            wire.end_sending()
            answer = wire.answer()
            found = answer.json()
            assert (found["whole"], found["size"], found["sha256"]) == (False, len(sent), digest_of(sent))
            assert answer.closes


def test_an_interrupted_body_is_never_read_as_a_whole_one(server: RunningServer) -> None:
    with server.connect() as wire:
        wire.ask("/read", "Content-Length: 10", method="PUT", body=b"hello")
        wire.end_sending()
        assert wire.answer().status == 400


def test_a_request_without_framing_has_no_body(server: RunningServer) -> None:
    with server.connect() as wire:
        answer = wire.get("/read", method="POST")
        assert (answer.status, answer.body) == (200, b"")
        assert wire.get("/receive", method="POST").json()["whole"]
