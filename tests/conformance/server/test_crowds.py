"""More clients than anybody wished for."""

from __future__ import annotations

import errno
import json
import resource
import socket
from collections.abc import Iterator

import pytest

from angos.runtime.server import acceptor, limits
from angos.runtime.server.limits import ServerOptions, connections_allowed, raise_descriptor_limit
from tests.conformance.server.running import StartServer
from tests.conformance.server.stand_in import SMALL
from tests.conformance.server.wire import Wire


def test_thousands_of_idle_connections_disturb_nobody(start_server: StartServer) -> None:
    server = start_server(backlog=4096)
    # Client and server share this process and its descriptors.
    count = min(3000, (raise_descriptor_limit() - 500) // 2)
    wires: list[Wire] = []
    try:
        for _ in range(count):
            wires.append(server.connect())  # noqa: PERF401  (what was opened is closed even if one fails)
        with server.connect() as other:
            assert other.get().body == SMALL
        assert wires[0].get().body == SMALL
        assert wires[-1].get().body == SMALL
    finally:
        for wire in wires:
            wire.close()


def test_connections_beyond_the_limit_get_503(start_server: StartServer, caplog: pytest.LogCaptureFixture) -> None:
    server = start_server(connections_max=3)
    wires = [server.connect() for _ in range(3)]
    for wire in wires:
        wire.ask("/read", "Content-Length: 5", method="PUT")
    server.wait_until(lambda stand_in: stand_in.working == 3)
    for _ in range(100):
        with server.connect() as refused:
            refused.ask()
            answer = refused.answer()
            assert (answer.status, answer.fields["retry-after"], answer.closes) == (503, "1", True)
            assert answer.error_code() == "UNAVAILABLE"
    assert sum("refused" in record.getMessage() for record in caplog.records) == 1
    for wire in wires:
        wire.send(b"hello")
        assert wire.answer().body == b"hello"
    wires.pop().close()
    while True:  # the server may take a moment to see that one has left
        with server.connect() as another:
            another.ask()
            if another.answer().status == 200:
                break
    for wire in wires:
        assert wire.get().body == SMALL
        wire.close()


def test_idle_connections_make_room_for_others(start_server: StartServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acceptor, "EVICTABLE_SECONDS", 0.0)
    server = start_server(connections_max=3)
    with server.connect() as busy, server.connect() as fresh, server.connect() as used:
        busy.ask("/read", "Content-Length: 5", method="PUT")
        assert used.get().body == SMALL
        for _ in range(200):
            with server.connect() as another:
                assert another.get().body == SMALL
        assert fresh.is_closed()
        assert used.is_closed()
        busy.send(b"hello")
        assert busy.answer().body == b"hello"


class FlakyListener(socket.socket):
    """Accepts as a system does that is out of descriptors, now and then."""

    failures: Iterator[int]

    def accept(self) -> tuple[socket.socket, object]:
        if (number := next(self.failures, 0)) != 0:
            raise OSError(number, "simulated")
        return super().accept()


def test_accepting_goes_on_after_failures(
    start_server: StartServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    FlakyListener.failures = iter([errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ECONNABORTED, errno.EPERM])
    with monkeypatch.context() as patch:
        patch.setattr(socket, "socket", FlakyListener)
        server = start_server()
    with server.connect() as wire:
        assert wire.get().body == SMALL
    assert next(FlakyListener.failures, None) is None
    pauses = [record.getMessage() for record in caplog.records if "trying again" in record.getMessage()]
    assert [pause.split("again in ")[1].split(" s:")[0] for pause in pauses] == ["0.05", "0.1", "0.2", "0.4"]


def test_the_limit_follows_from_the_open_files_allowed() -> None:
    assert connections_allowed(ServerOptions(), 20_000) > 10_000
    assert connections_allowed(ServerOptions(), 100) == 16
    assert connections_allowed(ServerOptions(connections_max=5), 20_000) == 5


def test_the_soft_limit_on_open_files_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "setrlimit", lambda _, pair: asked.append(pair))
    for hard, wanted in ((4096, 4096), (resource.RLIM_INFINITY, limits.DESCRIPTORS_WANTED_MAX)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, hard=hard: (1024, hard))
        assert raise_descriptor_limit() == wanted
        assert asked.pop() == (wanted, hard)

    def refuse(_: int, pair: tuple[int, int]) -> None:
        raise ValueError(json.dumps(pair))

    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert raise_descriptor_limit() == 1024
