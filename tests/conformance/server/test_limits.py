"""Limits on work, on time in all, and on single clients. Each is small here; nothing is asserted about speed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import fields, replace
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from angos.runtime.server import clients
from angos.runtime.server.admission import RequestSlots
from angos.runtime.server.clients import ClientRates, client_of
from angos.runtime.server.counters import ServerCounters
from angos.runtime.server.limits import RESTART_ONLY, ServerOptions
from angos.runtime.server.surroundings import Surroundings
from angos.sansio.http.message import Request, Response
from tests.conformance.server.running import RunningServer, StartServer
from tests.conformance.server.stand_in import SMALL, StandIn
from tests.conformance.server.wire import Answer, Wire


@contextmanager
def working(server: RunningServer, count: int) -> Iterator[list[Wire]]:
    """So many requests that are worked on until `StandIn.go` is set."""
    with ExitStack() as stack:
        wires = [stack.enter_context(server.connect()) for _ in range(count)]
        for wire in wires:
            wire.ask("/hold")
        server.wait_until(lambda stand_in: stand_in.working >= count)
        yield wires


def counters(server: RunningServer) -> ServerCounters:
    return server.surroundings.counters


def set_options(server: RunningServer, **changes: Any) -> None:
    """As a reload does."""

    def change(surroundings: Surroundings) -> None:
        surroundings.options = replace(surroundings.options, **changes)

    server.change(change)


# --- concurrent requests ----------------------------------------------------------------------------------------------


def test_requests_up_to_the_limit_are_worked_on_side_by_side(start_server: StartServer) -> None:
    server = start_server(max_concurrent_requests=3)
    with working(server, 3) as wires:
        assert counters(server).requests_working == 3
        server.release()
        assert [wire.answer().body for wire in wires] == [b"held"] * 3
    assert counters(server).requests_queued == 0


def test_requests_beyond_the_limit_wait_for_their_turn(start_server: StartServer) -> None:
    server = start_server(max_concurrent_requests=1, queue_timeout=60.0)
    with working(server, 1) as (busy,), server.connect() as second, server.connect() as third:
        second.ask("/status?code=201")
        server.wait_until(lambda _: counters(server).requests_waiting == 1)
        third.ask("/status?code=202")
        server.wait_until(lambda _: counters(server).requests_waiting == 2)
        assert server.stand_in.working == 1
        server.release()
        assert busy.answer().body == b"held"
        assert second.answer().status == 201
        assert third.answer().status == 202
    targets = [request.target for request in server.stand_in.requests]
    assert targets == ["/hold", "/status?code=201", "/status?code=202"]
    assert (counters(server).requests_queued, counters(server).requests_working) == (2, 0)


def test_a_request_that_waits_for_too_long_is_503(start_server: StartServer) -> None:
    server = start_server(max_concurrent_requests=1, queue_timeout=0.05)
    with working(server, 1) as (busy,), server.connect() as refused:
        for number in range(1, 3):
            answer = refused.put("/receive", b"unwanted")
            assert (answer.status, answer.error_code(), answer.closes) == (503, "UNAVAILABLE", False)
            assert int(answer.fields["retry-after"]) >= 1
            assert counters(server).requests_rejected == {"concurrency": number, "rate": 0}
        server.release()
        assert busy.answer().body == b"held"
        assert refused.get().body == SMALL
    assert [request.target for request in server.stand_in.requests] == ["/hold", "/small"]


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/healthz?verbose=1"])
def test_whoever_looks_after_the_server_is_never_made_to_wait(start_server: StartServer, path: str) -> None:
    server = start_server(max_concurrent_requests=1, queue_timeout=60.0, max_requests_per_second_per_client=1)
    set_options(server, max_request_burst_per_client=1)
    with working(server, 1) as (busy,), server.connect() as probe:
        for _ in range(3):
            assert probe.get(path).status == 404  # from the stand-in, which has no such path
        server.release()
        assert busy.answer().body == b"held"


def test_slow_uploads_and_downloads_keep_nobody_waiting(start_server: StartServer) -> None:
    server = start_server(max_concurrent_requests=1, queue_timeout=60.0)
    (server.stand_in.folder / "content").write_bytes(bytes(20_000_000))
    with server.connect() as upload, server.connect(receive_buffer=8192) as download, server.connect() as other:
        upload.ask("/receive", "Content-Length: 1000000", method="PUT", body=bytes(10))
        server.wait_until(lambda stand_in: stand_in.working == 1)
        download.ask("/file?name=content&length=20000000")
        server.wait_until(lambda stand_in: bool(stand_in.opened))
        assert other.get().body == SMALL
        with working(server, 1) as (busy,):
            upload.send(bytes(999_990))
            assert upload.answer().json()["whole"]  # although there is no slot: nobody has to wait twice
            server.release()
            assert busy.answer().body == b"held"
        assert download.answer().body == bytes(20_000_000)
    assert counters(server).requests_working == 0


def test_clients_that_leave_give_their_slots_back(start_server: StartServer) -> None:
    server = start_server(max_concurrent_requests=1, queue_timeout=0.05)
    for _ in range(5):
        with server.connect() as wire:
            wire.ask("/receive", "Transfer-Encoding: chunked", method="PUT", body=b"5\r\nhello\r\n")
            server.wait_until(lambda stand_in: stand_in.working == 1)
        server.wait_until(lambda stand_in: stand_in.working == 0)
    with server.connect() as wire:
        assert wire.get("/fail").status == 500
    server.wait_until(lambda _: counters(server).requests_in_flight == 0)
    assert counters(server).requests_working == 0


def test_a_raised_limit_lets_those_in_who_wait(start_server: StartServer) -> None:
    server = start_server(max_concurrent_requests=1, queue_timeout=60.0)
    with working(server, 1) as (busy,), server.connect() as other, server.connect() as new:
        other.ask()
        server.wait_until(lambda _: counters(server).requests_waiting == 1)
        set_options(server, max_concurrent_requests=3)
        assert new.get().body == SMALL  # somebody has to come or go for it to be noticed
        assert other.answer().body == SMALL
        server.release()
        assert busy.answer().body == b"held"


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_slot_that_comes_as_somebody_leaves_is_passed_on(backend: str) -> None:
    async def scene() -> None:
        found = ServerCounters()
        slots = RequestSlots(found)
        assert slots.take_now(1)
        taken: list[str] = []

        async def wait(name: str) -> None:
            assert await slots.take(1, 60.0)
            taken.append(name)
            slots.give_back(1)

        async with anyio.create_task_group() as group, anyio.create_task_group() as leaving:
            leaving.start_soon(wait, "leaves")
            await anyio.wait_all_tasks_blocked()
            group.start_soon(wait, "stays")
            await anyio.wait_all_tasks_blocked()
            slots.give_back(1)
            leaving.cancel_scope.cancel()
        assert taken[-1] == "stays"
        assert (found.requests_waiting, found.requests_working) == (0, 0)

    anyio.run(scene, backend=backend)


# --- time in all ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_request_that_takes_too_long_is_given_up(start_server: StartServer, method: str) -> None:
    server = start_server(query_timeout=0.2)
    with server.connect() as wire:
        answer = wire.get("/wait?seconds=3600", method=method)
        assert (answer.status, answer.closes) == (503, True)
        assert answer.fields["retry-after"]
        if method == "GET":
            assert answer.error_code() == "UNAVAILABLE"
        assert wire.is_closed()
    assert server.stand_in.cleaned_up == 1
    assert server.stand_in.working == 0
    assert counters(server).timeouts["request"] == 1
    assert counters(server).requests_working == counters(server).requests_in_flight == 0


@pytest.mark.parametrize("framing", ["Content-Length: 1000", "Content-Length: 10000000", "Transfer-Encoding: chunked"])
def test_an_upload_that_takes_too_long_is_given_up_although_it_goes_on(start_server: StartServer, framing: str) -> None:
    server = start_server(query_timeout=0.3, linger_seconds=0.1)
    with server.connect() as wire:
        wire.ask("/receive", framing, method="PUT")
        server.wait_until(lambda stand_in: stand_in.working == 1)
        while server.stand_in.working:
            try:
                wire.send(b"1\r\na\r\n")
            except ConnectionError:
                break
            time.sleep(0.02)
        answer = wire.answer()
        assert (answer.status, answer.error_code(), answer.closes) == (503, "UNAVAILABLE", True)
    assert counters(server).requests_working == 0


def test_requests_in_time_are_not_disturbed_by_those_before_them(start_server: StartServer) -> None:
    server = start_server(query_timeout=1.5)
    with server.connect() as wire:
        for _ in range(4):
            assert wire.get("/wait?seconds=0.5").body == b"waited"
    assert counters(server).timeouts["request"] == 0


def read_slowly(wire: Wire) -> None:
    """But never so slowly that it stalls."""
    while wire.receive(4096):
        time.sleep(0.01)
    raise EOFError("the connection ended")


@pytest.mark.parametrize("target", ["/inline?size=30000000", "/file?name=content&length=30000000"])
def test_an_answer_that_has_begun_is_cut_after_the_grace_period(start_server: StartServer, target: str) -> None:
    server = start_server(query_timeout=0.1, query_timeout_grace_period=0.1)
    (server.stand_in.folder / "content").write_bytes(bytes(30_000_000))
    with server.connect(receive_buffer=4096) as wire:
        wire.ask(target)
        with pytest.raises((EOFError, ConnectionError)):
            read_slowly(wire)
    server.wait_until(lambda stand_in: stand_in.all_closed())
    server.wait_until(lambda _: counters(server).connections_open == 0)


def test_an_answer_that_has_begun_may_end_within_the_grace_period(start_server: StartServer) -> None:
    server = start_server(query_timeout=0.1, query_timeout_grace_period=60.0)
    (server.stand_in.folder / "content").write_bytes(bytes(30_000_000))
    with server.connect(receive_buffer=4096) as wire:
        wire.ask("/file?name=content&length=30000000")
        server.wait_until(lambda _: counters(server).timeouts["request"] == 1)
        assert wire.answer().body == bytes(30_000_000)
        assert wire.get().body == SMALL


# --- single clients ---------------------------------------------------------------------------------------------------


def test_a_client_with_too_many_connections_is_told_so(start_server: StartServer) -> None:
    server = start_server(max_connections_per_client=2)
    with server.connect() as first, server.connect() as second:
        assert first.get().body == second.get().body == SMALL
        with server.connect() as third:
            third.ask()
            answer = third.answer()
            assert (answer.status, answer.error_code(), answer.closes) == (429, "TOOMANYREQUESTS", True)
            assert answer.fields["retry-after"]
        other = Wire(server.address, source="127.0.0.2")
        with other:
            assert other.get().body == SMALL
        second.close()
        server.wait_until(lambda _: counters(server).connections_open == 1)
        with server.connect() as again:
            assert again.get().body == SMALL
    assert counters(server).connections_refused == {"total": 0, "client": 1}


def test_a_trusted_proxy_may_have_as_many_connections_as_it_needs(start_server: StartServer) -> None:
    server = start_server(max_connections_per_client=1)
    server.change(lambda surroundings: setattr(surroundings, "trusted_proxies", ("127.0.0.1/32",)))
    with ExitStack() as stack:
        for wire in [stack.enter_context(server.connect()) for _ in range(5)]:
            assert wire.get().body == SMALL


def limited(wire: Wire, *fields: str) -> Answer:
    """Ask until it was too often."""
    answers = (wire.get("/small", *fields) for _ in range(1000))
    return next(answer for answer in answers if answer.status == 429)


def test_a_client_that_asks_too_often_gets_429_and_keeps_its_connection(start_server: StartServer) -> None:
    server = start_server(max_requests_per_second_per_client=1, max_request_burst_per_client=3)
    with server.connect() as wire:
        statuses = [wire.put("/receive", b"body").status for _ in range(8)]
        assert statuses[:3] == [201] * 3
        assert 429 in statuses
        server.change(lambda surroundings: setattr(surroundings, "rates", ClientRates()))
        set_options(server, max_request_burst_per_client=1)
        assert wire.get().status == 200
        answer = limited(wire)
        assert (answer.error_code(), answer.closes) == ("TOOMANYREQUESTS", False)
        assert int(answer.fields["retry-after"]) >= 1
        with Wire(server.address, source="127.0.0.2") as other:
            assert other.get().status == 200
        set_options(server, max_requests_per_second_per_client=None)
        assert [wire.get().status for _ in range(20)] == [200] * 20
    assert counters(server).requests_rejected["rate"] == statuses.count(429) + 1


def test_behind_a_trusted_proxy_the_clients_of_the_proxy_count(start_server: StartServer) -> None:
    server = start_server(max_requests_per_second_per_client=1, max_request_burst_per_client=1)
    forged = "X-Forwarded-For: 192.0.2.{}"
    with server.connect() as wire:
        assert wire.get("/small", forged.format(1)).status == 200
        assert limited(wire, forged.format(2))  # who is nobody's proxy is not believed
        server.change(lambda surroundings: setattr(surroundings, "trusted_proxies", ("127.0.0.0/8",)))
        for number in range(3, 8):
            assert wire.get("/small", forged.format(number)).status == 200
        assert limited(wire, forged.format(3))


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("::1", "::/64"),
        (None, ""),
        ("not:an:address", "not:an:address"),
    ],
)
def test_addresses_of_one_customer_are_one_client(address: str | None, client: str) -> None:
    assert client_of(address) == client


@given(st.integers(1, 1000), st.integers(1, 50), st.lists(st.floats(0, 0.2), max_size=200))
def test_a_client_gets_its_burst_and_its_rate_and_no_more(rate: int, burst: int, pauses: list[float]) -> None:
    rates, now, allowed = ClientRates(), 1000.0, 0
    for pause in pauses:
        now += pause
        wait = rates.ask("a", rate, burst, now)
        allowed += not wait
        assert allowed <= burst + rate * (now - 1000.0) + 1e-6
        if wait:
            assert wait <= 1 / rate + 1e-6
            assert not rates.ask("a", rate, burst, now + wait + 1e-6)
            allowed, now = allowed + 1, now + wait + 1e-6
    assert allowed >= min(len(pauses), burst)


def test_the_rates_of_many_clients_take_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "REMEMBERED_MAX", 10)
    rates = ClientRates()
    for number in range(1000):
        assert rates.ask(str(number), 1, 1, 0.0) == 0
        assert len(rates) <= 10
    assert rates.ask("999", 1, 1, 0.0) > 0  # the latest ones are known


# --- what is told and what is changed ---------------------------------------------------------------------------------


def test_every_answer_is_told_with_its_sizes(start_server: StartServer) -> None:
    server = start_server(max_concurrent_requests=1, queue_timeout=0.01)
    told: list[tuple[str, int, float, int]] = []

    def note(request: Request, response: Response, seconds: float, received: int) -> None:
        told.append((request.target, response.status, seconds, received))

    server.change(lambda surroundings: setattr(surroundings, "on_answer", note))
    with server.connect() as wire:
        wire.get()
        wire.put("/receive", bytes(100_000))
        wire.put_chunked("/receive", b"abc", b"defg")
        wire.put("/ignore", b"unread")
        wire.get("/fail")
    with working(server, 1), server.connect() as refused:
        refused.get("/refused")
        server.release()
    server.wait_until(lambda _: len(told) == 7)
    assert [(target, status, received) for target, status, _, received in told] == [
        ("/small", 200, 0),
        ("/receive", 201, 100_000),
        ("/receive", 201, 7),
        ("/ignore", 202, 0),
        ("/fail", 500, 0),
        ("/refused", 503, 0),
        ("/hold", 200, 0),
    ]
    assert all(seconds > 0 for _, _, seconds, _ in told)


def test_an_answer_that_nobody_took_is_told_too(start_server: StartServer) -> None:
    server = start_server(query_timeout=0.2)
    told: list[tuple[str, int]] = []
    server.change(
        lambda surroundings: setattr(
            surroundings, "on_answer", lambda request, response, *_: told.append((request.target, response.status))
        )
    )
    with server.connect() as late:
        late.get("/wait?seconds=3600")
    (server.stand_in.folder / "content").write_bytes(bytes(30_000_000))
    with server.connect(receive_buffer=4096) as wire:
        wire.ask("/file?name=content&length=30000000")
        server.wait_until(lambda stand_in: bool(stand_in.opened))
    server.wait_until(lambda _: len(told) == 2)
    assert told == [("/wait?seconds=3600", 503), ("/file?name=content&length=30000000", 200)]


def test_timeouts_and_connections_are_counted(start_server: StartServer) -> None:
    server = start_server(idle_timeout=0.5, head_timeout=0.5, body_stall_timeout=0.5)
    with server.connect() as idle, server.connect() as head, server.connect() as body:
        head.send(b"GET /")
        body.ask("/read", "Content-Length: 5", method="PUT")
        assert idle.is_closed()
        assert head.answer().status == body.answer().status == 408
        assert head.is_closed()
    server.wait_until(lambda _: counters(server).connections_open == 0)
    assert counters(server).connections_accepted == 3
    assert {kind: count for kind, count in counters(server).timeouts.items() if count} == {
        "idle": 1,
        "head": 1,
        "body": 1,
    }
    assert counters(server).heads_refused == 1


def test_requests_in_flight_end_with_the_application_they_began_with(start_server: StartServer) -> None:
    server = start_server()
    (server.stand_in.folder / "content").write_bytes(b"old content")
    folder = server.stand_in.folder / "new"
    folder.mkdir()
    (folder / "content").write_bytes(b"new content")
    with server.connect() as wire, server.connect() as held:
        held.ask("/hold?name=content&length=11")
        server.wait_until(lambda stand_in: stand_in.working == 1)
        server.change(lambda surroundings: setattr(surroundings, "application", StandIn(folder)))
        assert wire.get("/file?name=content&length=11").body == b"new content"
        server.release()
        assert held.answer().body == b"old content"
        assert held.get("/file?name=content&length=11").body == b"new content"


def test_changed_options_hold_for_open_connections(start_server: StartServer) -> None:
    server = start_server()
    with server.connect() as wire:
        assert wire.get("/" + "a" * 1000).status == 404
        set_options(server, request_line_size_max=500)
        assert wire.get("/" + "a" * 1000).status == 414


def test_options_that_need_a_restart_exist() -> None:
    assert {option.name for option in fields(ServerOptions)} >= RESTART_ONLY
