"""Requests and answers that any client sends and expects, and the life of a connection."""

from __future__ import annotations

import email.utils

import pytest

from tests.conformance.server.running import RunningServer, StartServer
from tests.conformance.server.stand_in import SMALL
from tests.conformance.server.wire import Wire, chunked


def test_many_requests_are_answered_on_one_connection(server: RunningServer) -> None:
    with server.connect() as wire:
        for _ in range(50):
            answer = wire.get()
            assert (answer.status, answer.body, answer.closes) == (200, SMALL, False)


def test_every_answer_has_a_date_and_its_length(server: RunningServer) -> None:
    with server.connect() as wire:
        answer = wire.get()
    assert answer.fields["content-length"] == str(len(SMALL))
    assert answer.fields["date"].endswith(" GMT")
    assert email.utils.parsedate_to_datetime(answer.fields["date"]).year >= 2024


def test_the_application_sees_the_request_as_it_was_sent(server: RunningServer) -> None:
    with server.connect() as wire:
        wire.ask("/small/%2e%2E?a=b%20c&a=", "Accept: one", "X-Odd:\t caf\u00e9 \t", "ACCEPT: two")
        assert wire.answer().status == 200
    request = server.stand_in.requests[-1]
    assert (request.method, request.target, request.content_length) == ("GET", "/small/%2e%2E?a=b%20c&a=", 0)
    assert request.headers.all("accept") == ["one", "two"]
    assert request.headers.get("host") == "test"
    assert request.headers.get("x-odd") == "caf\u00e9".encode().decode("latin-1")


def test_a_request_may_arrive_byte_by_byte(server: RunningServer) -> None:
    with server.connect() as wire:
        for byte in b"PUT /read HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello":
            wire.send(bytes((byte,)))
        assert wire.answer().body == b"hello"


def test_pipelined_requests_are_answered_in_order(server: RunningServer) -> None:
    with server.connect() as wire:
        requests = b""
        for number in range(100):
            body = str(number).encode()
            if number % 2:
                requests += b"PUT /read HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
            else:
                requests += b"PUT /read HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(body)
        wire.send(requests)
        assert [wire.answer().body for _ in range(100)] == [str(number).encode() for number in range(100)]


def test_a_request_pipelined_behind_a_long_body_is_found(server: RunningServer) -> None:
    body = bytes(range(256)) * 2000
    with server.connect() as wire:
        wire.ask(
            "/receive", "Transfer-Encoding: chunked", method="PUT", body=chunked(body) + b"GET /small HTTP/1.1\r\n"
        )
        assert wire.answer().json()["size"] == len(body)
        wire.send(b"Host: a\r\n\r\n")
        assert wire.answer().body == SMALL


def test_an_empty_line_between_requests_is_ignored(server: RunningServer) -> None:
    with server.connect() as wire:
        wire.send(b"\r\n")
        assert wire.get().status == 200
        wire.send(b"\r\n\r\nGET /small HTTP/1.1\r\nHost: a\r\n\r\n")
        assert wire.answer().status == 200


def test_head_is_answered_with_the_length_and_without_the_body(server: RunningServer) -> None:
    with server.connect() as wire:
        answer = wire.get(method="HEAD")
        assert (answer.status, answer.fields["content-length"]) == (200, str(len(SMALL)))
        answer = wire.get("/inline?size=10", method="HEAD")
        assert (answer.status, answer.fields["content-length"]) == (200, "10")
        assert wire.get().body == SMALL


@pytest.mark.parametrize("code", [204, 304])
def test_answers_that_have_no_body_carry_neither_body_nor_length(server: RunningServer, code: int) -> None:
    with server.connect() as wire:
        answer = wire.get(f"/status?code={code}&body=forbidden")
        assert answer.status == code
        assert "content-length" not in answer.fields
        assert wire.get().body == SMALL


@pytest.mark.parametrize("code", [200, 201, 202, 206, 307, 400, 401, 404, 413, 416, 429, 503, 507])
def test_every_other_status_carries_a_length(server: RunningServer, code: int) -> None:
    with server.connect() as wire:
        assert wire.get(f"/status?code={code}").fields["content-length"] == "0"


def test_a_client_that_wants_to_close_gets_its_answer_and_the_end(server: RunningServer) -> None:
    with server.connect() as wire:
        answer = wire.get("/small", "Connection: keep-alive, Close")
        assert answer.closes
        assert wire.is_closed()


def test_http_1_0_is_answered_and_closed(server: RunningServer) -> None:
    with server.connect() as wire:
        wire.send(b"GET /small HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        answer = wire.answer()
        assert (answer.status, answer.body, answer.closes) == (200, SMALL, True)
        assert wire.is_closed()


def test_an_absolute_target_is_served_by_its_path_and_its_host_wins(server: RunningServer) -> None:
    with server.connect() as wire:
        assert wire.get("HTTP://registry.example:80/small?x=1").body == SMALL
        request = server.stand_in.requests[-1]
        assert (request.target, request.headers.all("host")) == ("/small?x=1", ["registry.example:80"])
        assert wire.get("http://registry.example?x").status == 404
        assert server.stand_in.requests[-1].target == "/?x"


def test_a_failure_of_the_application_is_a_500_without_its_secrets(
    server: RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    with server.connect() as wire:
        answer = wire.get("/fail")
        assert (answer.status, answer.error_code(), answer.closes) == (500, "INTERNAL_ERROR", True)
        assert b"secret" not in answer.body
        assert wire.is_closed()
    record = next(record for record in caplog.records if record.name == "angos.server")
    assert record.exc_info is not None
    assert "a secret" in str(record.exc_info[1])


@pytest.mark.parametrize("value", ["a%0d%0aSet-Cookie:x", "a%0ab", "a%00b", "%E2%82%AC"])
def test_a_response_field_cannot_smuggle_lines(server: RunningServer, value: str) -> None:
    with server.connect() as wire:
        answer = wire.get(f"/header?value={value}")
        assert (answer.status, answer.closes) == (500, True)
        assert wire.is_closed()


def test_an_answer_that_promises_a_body_it_does_not_have_is_a_500(server: RunningServer) -> None:
    with server.connect() as wire:
        assert wire.get("/absent").status == 500


def test_a_client_may_end_its_side_and_still_get_the_answer(server: RunningServer) -> None:
    with server.connect() as wire:
        wire.ask("/wait?seconds=0.1")
        wire.end_sending()
        assert wire.answer().body == b"waited"
        assert wire.is_closed()


@pytest.mark.parametrize(
    "beginning",
    [b"", b"GET", b"GET /small HTTP/1.1\r\nHost", b"PUT /receive HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n123"],
)
def test_clients_that_leave_at_odd_moments_disturb_nobody(
    server: RunningServer, beginning: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    for reset in (False, True):
        wire = server.connect()
        wire.send(beginning)
        if reset:
            wire.socket.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SOL_SOCKET, SO_LINGER: close with a reset
        wire.close()
    with server.connect() as wire:
        assert wire.get().body == SMALL
    assert not [record for record in caplog.records if record.levelname in ("ERROR", "WARNING")]


def test_a_client_that_leaves_while_it_is_answered_disturbs_nobody(server: RunningServer) -> None:
    for target in ("/inline?size=30000000", "/wait?seconds=0.05"):
        with server.connect() as wire:
            wire.ask(target)
    with server.connect() as wire:
        assert wire.get().body == SMALL


def test_a_long_inline_answer_arrives_whole(server: RunningServer) -> None:
    with server.connect() as wire:
        assert wire.get("/inline?size=20000000").body == b"i" * 20_000_000
        assert wire.get().body == SMALL


def test_ipv6_is_served(start_server: StartServer) -> None:
    server = start_server(host="::1")
    with Wire(server.address) as wire:
        assert wire.get().body == SMALL
