"""Stored content on its way to the client."""

from __future__ import annotations

import random

import pytest

from tests.conformance.server.running import RunningServer, StartServer
from tests.conformance.server.stand_in import SMALL, StandIn

CONTENT = random.Random(3).randbytes(6_000_000)


@pytest.fixture(autouse=True)
def _content(server: RunningServer) -> None:
    (server.stand_in.folder / "content").write_bytes(CONTENT)
    (server.stand_in.folder / "empty").write_bytes(b"")


SPANS = [(0, 1), (0, 65_536), (0, 65_537), (7, 100_000), (0, len(CONTENT)), (len(CONTENT) - 1, 1), (5, 0)]


@pytest.mark.parametrize(("start", "length"), SPANS)
def test_a_slice_of_a_value_arrives_identical(server: RunningServer, start: int, length: int) -> None:
    with server.connect() as wire:
        for _ in range(2):
            answer = wire.get(f"/file?name=content&start={start}&length={length}")
            assert answer.status == 200
            assert answer.body == CONTENT[start : start + length]
    server.wait_until(StandIn.all_closed)


def test_several_slices_arrive_between_their_boundaries(server: RunningServer) -> None:
    spans = [(0, 10), (100, 300_000), (5_000_000, 1_000_000), (3, 1)]
    expected = b"".join(f"<{start}>".encode() + CONTENT[start : start + length] for start, length in spans) + b"end"
    listed = ",".join(f"{start}-{length}" for start, length in spans)
    with server.connect() as wire:
        assert wire.get(f"/slices?name=content&spans={listed}&closing=end").body == expected
        assert wire.get("/slices?name=content&spans=1-2,3-4").body == b"<1>" + CONTENT[1:3] + b"<3>" + CONTENT[3:7]
        assert wire.get().body == SMALL


def test_head_of_a_value_has_its_length_only(server: RunningServer) -> None:
    with server.connect() as wire:
        answer = wire.get(f"/file?name=content&length={len(CONTENT)}", method="HEAD")
        assert answer.fields["content-length"] == str(len(CONTENT))
        assert wire.get("/slices?name=content&spans=0-100", method="HEAD").fields["content-length"] == "103"
        assert wire.get().body == SMALL


def test_an_empty_value_is_served(server: RunningServer) -> None:
    with server.connect() as wire:
        assert wire.get("/file?name=empty&length=0").body == b""
        assert wire.get().body == SMALL


@pytest.mark.parametrize(
    "target",
    [
        "/file?name=broken&length=5",
        f"/file?name=content&length={len(CONTENT) + 1}",
        f"/file?name=content&start={len(CONTENT)}&length=1",
        f"/slices?name=content&spans=0-1,5-{len(CONTENT)}",
    ],
)
def test_content_that_is_not_as_described_is_a_500(
    server: RunningServer, target: str, caplog: pytest.LogCaptureFixture
) -> None:
    with server.connect() as wire:
        answer = wire.get(target)
        assert (answer.status, answer.error_code(), answer.closes) == (500, "INTERNAL_ERROR", True)
    assert any(record.levelname == "ERROR" for record in caplog.records)
    server.wait_until(StandIn.all_closed)


def test_content_that_was_removed_this_moment_is_to_be_asked_for_again(server: RunningServer) -> None:
    with server.connect() as wire:
        answer = wire.get("/file?name=missing&length=5")
        assert (answer.status, answer.error_code(), answer.closes) == (503, "UNAVAILABLE", True)
        assert answer.fields["retry-after"]
    server.wait_until(StandIn.all_closed)


@pytest.mark.parametrize("length", [1000, 3_000_000])
def test_content_that_ends_early_cuts_the_connection_and_is_never_padded(
    start_server: StartServer, length: int, caplog: pytest.LogCaptureFixture
) -> None:
    server = start_server()
    (server.stand_in.folder / "short").write_bytes(CONTENT[: length - 1])
    server.stand_in.claimed_size = length
    with server.connect() as wire:
        wire.ask(f"/file?name=short&length={length}")
        with pytest.raises((EOFError, ConnectionError)):
            wire.answer()
    assert any("1 bytes early" in record.getMessage() for record in caplog.records)
    server.wait_until(StandIn.all_closed)


def test_a_client_that_reads_slowly_gets_everything(server: RunningServer) -> None:
    wires = [server.connect(receive_buffer=8192) for _ in range(20)]
    for wire in wires:
        wire.ask(f"/file?name=content&length={len(CONTENT)}")
    # More clients than threads are being served and none of them reads: others are answered.
    with server.connect() as other:
        assert other.get(f"/file?name=content&length={len(CONTENT)}").body == CONTENT
    for wire in wires:
        assert wire.answer().body == CONTENT
        wire.close()


def test_a_client_that_leaves_in_the_middle_of_a_download_frees_it(server: RunningServer) -> None:
    for _ in range(5):
        with server.connect(receive_buffer=8192) as wire:
            wire.ask(f"/file?name=content&length={len(CONTENT)}")
            assert wire.socket.recv(100).startswith(b"HTTP/1.1 200 OK\r\n")
    with server.connect() as wire:
        assert wire.get().body == SMALL
    server.wait_until(StandIn.all_closed)
