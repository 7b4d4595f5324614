"""Chunks received around their framing: the same bytes, the same verdict as decoding them one after the other."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from angos.runtime.server import chunked, scatter
from angos.runtime.server.chunked import ChunkedDecoder, MalformedBody
from angos.runtime.server.scatter import SCRATCH_BYTES
from tests.conformance.server import wire
from tests.conformance.server.running import RunningServer
from tests.conformance.server.stand_in import SMALL

LARGE = random.Random(3).randbytes(3_000_000)
Verdict = tuple[bytes, int, bool] | str
"""Payload, length of the body, whether it ended; or `malformed`."""


@pytest.fixture
def certain_of_small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two chunks of a few bytes are enough to expect a third."""
    monkeypatch.setattr(chunked, "SIZE_MIN", 1)
    monkeypatch.setattr(chunked, "REPEATS_MIN", 1)


def decode(raw: bytes) -> Verdict:
    decoder = ChunkedDecoder()
    runs: list[memoryview] = []
    try:
        used = decoder.decode(raw, memoryview(raw), 0, len(raw), runs, len(raw) + 1)
    except MalformedBody:  # what exactly is wrong depends on where the bytes were cut, that something is does not
        return "malformed"
    return b"".join(runs), used, decoder.finished


class Receiver:
    """Receives a stream in portions, as scattered as the decoder allows."""

    def __init__(self, stream: bytes) -> None:
        self.decoder = ChunkedDecoder()
        self.payload = b""
        self.scattered = 0
        """Receiving calls that were scattered."""
        self._stream = stream
        self._position = 0
        self._rest = b""

    def receive(self, count: int, room_size: int, size_max: int | None = None) -> None:
        room = bytearray(room_size)
        scattered = self.decoder.scatter(memoryview(room), bytearray(SCRATCH_BYTES), size_max)
        if scattered is None:
            self._decode(self._take(count))
            return
        self.scattered += 1
        received = 0
        for view in scattered.views:
            portion = self._take(min(count - received, len(view)))
            view[: len(portion)] = portion
            received += len(portion)
        size, chunks, left, rest = scattered.sort_out(received)
        self.decoder.skip(chunks, left)
        self.payload += room[:size]
        self._decode(rest)

    def verdict(self, counts: list[int], room_size: int) -> Verdict:
        try:
            for count in counts:
                if self._position < len(self._stream) and not self.decoder.finished:
                    self.receive(count, room_size)
            while self._position < len(self._stream) and not self.decoder.finished:
                self.receive(len(self._stream), room_size)
        except MalformedBody:
            return "malformed"
        return self.payload, self._position - len(self._rest), self.decoder.finished

    def _take(self, count: int) -> bytes:
        portion = self._stream[self._position : self._position + count]
        self._position += len(portion)
        return portion

    def _decode(self, raw: bytes) -> None:
        runs: list[memoryview] = []
        position = self.decoder.decode(raw, memoryview(raw), 0, len(raw), runs, len(raw) + 1)
        self.payload += b"".join(runs)
        self._rest = raw[position:]


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """Chunked bodies whose chunks mostly are of one size, with another request behind; perhaps damaged."""
    raw = b""
    for _ in range(draw(st.integers(1, 3))):
        size, line = draw(st.sampled_from([(1, b"1"), (3, b"3"), (7, b"07"), (12, b"c"), (12, b"C"), (60, b"3c")]))
        for _ in range(draw(st.integers(1, 12))):
            raw += line + b"\r\n" + LARGE[len(raw) : len(raw) + size] + b"\r\n"
        raw += draw(st.sampled_from([b"", b"1\r\nx\r\n", b"3;a=b\r\nxyz\r\n"]))
    raw += draw(st.sampled_from([b"0\r\n\r\n", b"0\r\nA: b\r\n\r\n", b""])) + b"GET /small HTTP/1.1\r\n"
    where = draw(st.integers(0, len(raw) - 1))
    if (damage := draw(st.sampled_from([None, None, b"", b"\r", b"\n", b"0", b"3", b";"]))) is not None:
        raw = raw[:where] + damage + raw[where + 1 :]
    return raw


@pytest.mark.usefixtures("certain_of_small_chunks")
@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bodies(), st.lists(st.integers(1, 200), max_size=12), st.integers(1, 150))
def test_any_body_is_understood_as_by_plain_decoding(raw: bytes, counts: list[int], room_size: int) -> None:
    assert Receiver(raw).verdict(counts, room_size) == decode(raw)


def test_regular_chunks_are_received_scattered_and_others_are_not() -> None:
    size = 2 * scatter.SIZE_MIN
    regular = wire.chunked(*[LARGE[:size]] * 20)
    receiver = Receiver(regular)
    receiver.verdict([10 * size], 5 * size)
    assert receiver.scattered >= 2

    for chunks in ([LARGE[:100]] * 1000, [LARGE[: size + number] for number in range(20)]):
        receiver = Receiver(wire.chunked(*chunks))
        assert receiver.verdict([10 * size], 5 * size) == (b"".join(chunks), len(wire.chunked(*chunks)), True)
        assert receiver.scattered == 0


def test_what_could_exceed_the_bound_is_not_expected() -> None:
    size = scatter.SIZE_MIN
    regular = wire.chunked(*[LARGE[:size]] * 30)
    receiver = Receiver(regular)
    receiver.receive(20 * size, size, size_max=30 * size)
    room, scratch = memoryview(bytearray(4 * size)), bytearray(SCRATCH_BYTES)
    announced = receiver.decoder.announced
    assert receiver.decoder.scatter(room, scratch, None) is not None
    assert receiver.decoder.scatter(room, scratch, announced + 4 * size) is not None
    assert receiver.decoder.scatter(room, scratch, announced + size) is None


@pytest.mark.parametrize("chunk_size", [4096, 5000, 32_768, 65_524, 1_000_000])
@pytest.mark.parametrize("room_size", [1 << 20, 300_001])
def test_a_body_of_regular_chunks_is_received_where_the_sink_wants_it(
    server: RunningServer, chunk_size: int, room_size: int
) -> None:
    body = wire.chunked(*(LARGE[start : start + chunk_size] for start in range(0, len(LARGE), chunk_size)))
    with server.connect() as connection:
        connection.ask(f"/lend?size={room_size}", "Transfer-Encoding: chunked", method="PUT", body=body)
        answer = connection.answer()
        assert answer.body == LARGE
        if chunk_size < 100_000:
            assert int(answer.fields["x-received-there"]) > 0
        assert connection.get().body == SMALL


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_body_whose_rhythm_changes_arrives_identical(server: RunningServer, data: st.DataObject) -> None:
    chunks, position = [], 0
    for _ in range(data.draw(st.integers(1, 4))):
        size = data.draw(st.sampled_from([4096, 4100, 10_000, 32_768]))
        for _ in range(data.draw(st.integers(1, 25))):
            chunks.append(LARGE[position : position + size])
            position += size
        chunks.append(b"odd")
    head = b"PUT /lend?size=50000 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    stream = head + wire.chunked(*chunks) + b"GET /small HTTP/1.1\r\nHost: a\r\n\r\n"
    cuts = sorted(data.draw(st.sets(st.integers(1, len(stream) - 1), max_size=8)))
    with server.connect() as connection:
        for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
            connection.send(stream[start:end])
        assert connection.answer().body == b"".join(chunks)
        assert connection.answer().body == SMALL


def test_framing_that_is_wrong_after_many_good_chunks_is_refused(server: RunningServer) -> None:
    good = b"2000\r\n" + LARGE[:8192] + b"\r\n"
    for bad in (b"2000\r\n" + LARGE[:8192] + b"XX", b"2000\n" + LARGE[:8192] + b"\r\n", b"\r\n", b"-2000\r\n"):
        with server.connect() as connection:
            body = good * 200 + bad + good * 20 + b"0\r\n\r\n"
            connection.ask("/lend?size=100000", "Transfer-Encoding: chunked", method="PUT", body=body)
            answer = connection.answer()
            assert (answer.status, answer.closes) == (400, True)
