"""Content that comes from another machine while it is sent."""

from __future__ import annotations

import random

import pytest

from tests.conformance.server.running import RunningServer
from tests.conformance.server.stand_in import SMALL

CONTENT = random.Random(5).randbytes(3_000_000)


@pytest.fixture(autouse=True)
def _content(server: RunningServer) -> None:
    (server.stand_in.folder / "content").write_bytes(CONTENT)


@pytest.mark.parametrize(("start", "length"), [(0, 1), (0, len(CONTENT)), (7, 100_000), (len(CONTENT) - 1, 1), (5, 0)])
def test_a_slice_arrives_identical(server: RunningServer, start: int, length: int) -> None:
    with server.connect() as wire:
        for _ in range(2):
            answer = wire.get(f"/file?name=fetched/content&start={start}&length={length}")
            assert (answer.status, answer.body) == (200, CONTENT[start : start + length])


def test_several_slices_arrive_between_their_boundaries(server: RunningServer) -> None:
    spans = [(0, 10), (100, 300_000), (3, 1)]
    expected = b"".join(f"<{start}>".encode() + CONTENT[start : start + length] for start, length in spans) + b"end"
    listed = ",".join(f"{start}-{length}" for start, length in spans)
    with server.connect() as wire:
        assert wire.get(f"/slices?name=fetched/content&spans={listed}&closing=end").body == expected
        assert wire.get().body == SMALL


def test_head_fetches_nothing(server: RunningServer) -> None:
    server.stand_in.fails_after = 0
    with server.connect() as wire:
        answer = wire.get(f"/file?name=fetched/content&length={len(CONTENT)}", method="HEAD")
        assert (answer.status, answer.fields["content-length"]) == (200, str(len(CONTENT)))
        assert wire.get().body == SMALL


def test_a_store_that_is_away_is_a_503_as_long_as_nothing_was_sent(
    server: RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.stand_in.fails_after = 0
    with server.connect() as wire:
        answer = wire.get("/file?name=fetched/content&length=1000")
        assert (answer.status, answer.error_code(), answer.closes) == (503, "UNAVAILABLE", True)
        assert answer.fields["retry-after"]
    assert any("the store is away" in record.getMessage() for record in caplog.records)


def test_content_that_was_removed_this_moment_is_to_be_asked_for_again(server: RunningServer) -> None:
    with server.connect() as wire:
        answer = wire.get("/file?name=fetched/missing&length=1000")
        assert (answer.status, answer.error_code()) == (503, "UNAVAILABLE")
        assert answer.fields["retry-after"]


def test_a_store_that_goes_away_in_the_middle_cuts_the_connection(
    server: RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.stand_in.fails_after = 131_072
    with server.connect() as wire:
        wire.ask("/file?name=fetched/content&length=3000000")
        with pytest.raises((EOFError, ConnectionError)):
            wire.answer()
    assert any("not sent whole" in record.getMessage() for record in caplog.records)
