"""The orderly end: nothing in flight is lost, nothing waits for ever."""

from __future__ import annotations

import pytest

from angos.runtime.server.limits import ServerOptions
from angos.runtime.server.listener import ListenError, bind, url_of
from tests.conformance.server.running import RunningServer, StartServer
from tests.conformance.server.stand_in import SMALL
from tests.conformance.server.wire import Wire


def wait_for_work(server: RunningServer, count: int = 1) -> None:
    server.wait_until(lambda stand_in: stand_in.working >= count)


def test_requests_in_flight_are_answered_and_closed(start_server: StartServer) -> None:
    server = start_server()
    wires = [server.connect() for _ in range(5)]
    for wire in wires:
        wire.ask("/wait?seconds=0.5")
    wait_for_work(server, 5)
    server.begin_stop()
    for wire in wires:
        answer = wire.answer()
        assert (answer.body, answer.closes) == (b"waited", True)
        assert wire.is_closed()
        wire.close()
    server.ended.result(timeout=30)


def test_uploads_and_downloads_in_flight_are_finished(start_server: StartServer) -> None:
    server = start_server()
    (server.stand_in.folder / "content").write_bytes(bytes(20_000_000))
    with server.connect() as upload, server.connect(receive_buffer=8192) as download:
        upload.ask("/receive", "Content-Length: 1000000", method="PUT", body=bytes(500_000))
        download.ask("/file?name=content&length=20000000")
        server.wait_until(lambda stand_in: bool(stand_in.opened) and stand_in.working == 1)
        server.begin_stop()
        upload.send(bytes(500_000))
        assert upload.answer().json()["whole"]
        assert download.answer().body == bytes(20_000_000)
    server.ended.result(timeout=30)


def test_idle_connections_are_closed_at_once(start_server: StartServer) -> None:
    server = start_server(drain_seconds=3600)
    with server.connect() as fresh, server.connect() as used:
        used.get()
        server.begin_stop()
        assert fresh.is_closed()
        assert used.is_closed()
        server.ended.result(timeout=30)


def test_nobody_can_connect_any_more(start_server: StartServer) -> None:
    server = start_server()
    with server.connect() as wire:
        wire.get()
    server.stop()
    with pytest.raises(ConnectionRefusedError):
        Wire(server.address)


def test_connections_that_the_system_had_accepted_are_served(start_server: StartServer) -> None:
    server = start_server()
    wires = [server.connect() for _ in range(200)]
    for wire in wires:
        wire.ask()
    server.begin_stop()
    for wire in wires:
        assert wire.answer().body == SMALL
        wire.close()


def test_what_does_not_end_in_time_is_cut(start_server: StartServer, caplog: pytest.LogCaptureFixture) -> None:
    server = start_server(drain_seconds=0.1)
    with server.connect() as waiting, server.connect() as sending:
        waiting.ask("/wait?seconds=3600")
        sending.ask("/receive", "Content-Length: 1000000", method="PUT", body=bytes(10))
        wait_for_work(server, 2)
        server.stop()
        assert waiting.is_closed()
        assert sending.is_closed()
    assert server.stand_in.working == 0
    assert any("are cut" in record.getMessage() for record in caplog.records)


def test_a_port_in_use_is_said_clearly() -> None:
    (first,) = bind(ServerOptions(port=0))
    port = first.getsockname()[1]
    with first, pytest.raises(ListenError) as refused:
        bind(ServerOptions(port=port))
    assert str(refused.value) == (
        f"cannot listen on 127.0.0.1:{port}: Address already in use;"
        " another program uses this port; stop it or choose another --port"
    )


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host", "name.invalid"])
def test_an_address_of_somebody_else_is_said_clearly(host: str) -> None:
    with pytest.raises(ListenError, match=f"cannot listen on {host}:0: .*; choose another --host|.*no such address"):
        bind(ServerOptions(host=host, port=0))


def test_a_name_with_two_families_gets_one_port_on_both() -> None:
    sockets = bind(ServerOptions(host="", port=0))
    try:
        assert len({bound.getsockname()[1] for bound in sockets}) == 1
        assert {url_of(bound).rpartition(":")[0] for bound in sockets} <= {"http://0.0.0.0", "http://[::]"}
    finally:
        for bound in sockets:
            bound.close()
