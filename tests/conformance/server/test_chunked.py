"""The chunked decoder: every way to cut a good body, and every bad body that is known to have fooled somebody."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from angos.runtime.server import chunked
from angos.runtime.server.chunked import ChunkedDecoder, MalformedBody
from tests.conformance.server.running import RunningServer

GOOD: dict[str, tuple[bytes, bytes]] = {
    "empty": (b"0\r\n\r\n", b""),
    "one chunk": (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
    "several chunks": (b"1\r\na\r\n2\r\nbc\r\n0\r\n\r\n", b"abc"),
    "hexadecimal digits of both cases": (b"a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n", b"0123456789" * 2),
    "leading zeros": (b"0005\r\nhello\r\n0000\r\n\r\n", b"hello"),
    "line ends in the payload": (b"8\r\n\r\n0\r\n\r\n\n\r\n0\r\n\r\n", b"\r\n0\r\n\r\n\n"),
    "extension": (b"5;name=value\r\nhello\r\n0;last\r\n\r\n", b"hello"),
    "blanks before an extension": (b"5 \t;a\r\nhello\r\n0\r\n\r\n", b"hello"),
    "quoted extension": (b'5;a="; b"\r\nhello\r\n0\r\n\r\n', b"hello"),
    "trailers": (b"5\r\nhello\r\n0\r\nDigest: x\r\nExpires:\r\n\r\n", b"hello"),
}

BAD: dict[str, bytes] = {
    "empty size": b"\r\nhello\r\n0\r\n\r\n",
    "no number": b"hello\r\n",
    "negative size": b"-5\r\nhello\r\n0\r\n\r\n",
    "signed size": b"+5\r\nhello\r\n0\r\n\r\n",
    "prefix 0x": b"0x5\r\nhello\r\n0\r\n\r\n",
    "underscore": b"0_5\r\nhello\r\n0\r\n\r\n",
    "blank before the size": b" 5\r\nhello\r\n0\r\n\r\n",
    "blank after the size": b"5 \r\nhello\r\n0\r\n\r\n",
    "comma": b"5,5\r\nhello\r\n0\r\n\r\n",
    "other digits": "\uff15\r\nhello\r\n0\r\n\r\n".encode(),
    "NUL in the size": b"5\x00\r\nhello\r\n0\r\n\r\n",
    "size of 16 digits": b"1000000000000000\r\n",
    "size beyond 64 bits": b"10000000000000005\r\nhello\r\n0\r\n\r\n",
    "size of many digits": b"f" * 200 + b"\r\n",
    "many zeros": b"0" * 100 + b"5\r\nhello\r\n0\r\n\r\n",
    "endless size": b"1" * (chunked.LINE_SIZE_MAX + 2),
    "bare LF after the size": b"5\nhello\r\n0\r\n\r\n",
    "bare CR after the size": b"5\rhello\r\n0\r\n\r\n",
    "LF CR after the size": b"5\n\rhello\r\n0\r\n\r\n",
    "bare LF in an extension": b"5;a\nb\r\nhello\r\n0\r\n\r\n",
    "bare CR in an extension": b"5;a\rb\r\nhello\r\n0\r\n\r\n",
    "control character in an extension": b"5;a\x01\r\nhello\r\n0\r\n\r\n",
    "endless extension": b"5;" + b"a" * (chunked.LINE_SIZE_MAX + 2),
    "flood of extensions": b"".join(b"1;" + b"a" * 200 + b"\r\nx\r\n" for _ in range(200)) + b"0\r\n\r\n",
    "no CR LF after a chunk": b"5\r\nhello0\r\n\r\n",
    # CVE-2025-43859: any two bytes were taken for the CR LF.
    "other bytes for CR LF after a chunk": b"5\r\nhelloXX0\r\n\r\n",
    "bare LF after a chunk": b"5\r\nhello\n0\r\n\r\n",
    "CR and another byte after a chunk": b"5\r\nhello\rX0\r\n\r\n",
    "LF CR after a chunk": b"5\r\nhello\n\r0\r\n\r\n",
    "chunk longer than announced": b"4\r\nhello\r\n0\r\n\r\n",
    "chunk shorter than announced": b"6\r\nhello\r\n0\r\n\r\n",
    "trailer without colon": b"0\r\nhello\r\n\r\n",
    "trailer without name": b"0\r\n: a\r\n\r\n",
    "trailer with blank in its name": b"0\r\na b: c\r\n\r\n",
    "folded trailer": b"0\r\na: b\r\n c\r\n\r\n",
    "bare LF for the end": b"0\r\n\n",
    "bare LF in a trailer": b"0\r\na: b\nc: d\r\n\r\n",
    "NUL in a trailer": b"0\r\na: \x00\r\n\r\n",
    "request instead of the end": b"0\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "flood of trailers": b"0\r\n" + b"a: b\r\n" * 2000,
    "endless trailer": b"0\r\na: " + b"b" * (chunked.TRAILERS_SIZE_MAX + 2),
}


def decode(pieces: list[bytes], runs_max: int = 64) -> tuple[bytes, int, bool]:
    """Payload, number of bytes that belong to the body, and whether it ended."""
    decoder = ChunkedDecoder()
    payload: list[bytes] = []
    used = 0
    for piece in pieces:
        position = 0
        while position < len(piece) and not decoder.finished:
            runs: list[memoryview] = []
            position = decoder.decode(piece, memoryview(piece), position, len(piece), runs, runs_max)
            assert len(runs) <= runs_max
            payload += [bytes(run) for run in runs]
        used += position
    return b"".join(payload), used, decoder.finished


def bytewise(value: bytes) -> list[bytes]:
    return [value[index : index + 1] for index in range(len(value))]


@pytest.mark.parametrize("case", GOOD)
def test_a_good_body_is_decoded_however_it_is_cut(case: str) -> None:
    raw, payload = GOOD[case]
    cuts = [[raw], bytewise(raw), *([raw[:cut], raw[cut:]] for cut in range(1, len(raw)))]
    for pieces in cuts:
        assert decode(pieces) == (payload, len(raw), True)


@pytest.mark.parametrize("case", GOOD)
def test_what_follows_a_body_is_left_alone(case: str) -> None:
    raw, payload = GOOD[case]
    assert decode([raw + b"GET / HTTP/1.1\r\n"]) == (payload, len(raw), True)


@pytest.mark.parametrize("case", GOOD)
def test_a_body_is_never_finished_early(case: str) -> None:
    raw, _ = GOOD[case]
    for cut in range(len(raw)):
        assert not decode([raw[:cut]])[2]


@pytest.mark.parametrize("case", BAD)
def test_a_bad_body_is_refused_however_it_is_cut(case: str) -> None:
    raw = BAD[case]
    middle = len(raw) // 2
    for pieces in ([raw], bytewise(raw), [raw[:1], raw[1:]], [raw[:middle], raw[middle:]]):
        with pytest.raises(MalformedBody):
            decode(pieces)


def test_the_sum_of_the_sizes_is_bounded() -> None:
    decoder = ChunkedDecoder()
    decoder.announced = chunked.DECODED_SIZE_MAX - 4
    with pytest.raises(MalformedBody):
        decoder.decode(b"5\r\n", memoryview(b"5\r\n"), 0, 3, [], 64)


@st.composite
def chunkings(draw: st.DrawFn) -> tuple[bytes, bytes, list[bytes]]:
    """A payload, one of its chunked forms, and that form cut into pieces."""
    chunks = draw(st.lists(st.binary(min_size=1, max_size=60), max_size=12))
    extensions = st.sampled_from([b"", b"", b";a", b' ;a="b"'])
    raw = b"".join(b"%x%b\r\n%b\r\n" % (len(chunk), draw(extensions), chunk) for chunk in chunks)
    raw += b"0\r\n" + b"".join(draw(st.lists(st.sampled_from([b"A: b\r\n", b"c:\r\n"]), max_size=3))) + b"\r\n"
    cuts = sorted(draw(st.sets(st.integers(1, len(raw) - 1), max_size=20)))
    pieces = [raw[start:end] for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    return b"".join(chunks), raw, pieces


@settings(max_examples=300, deadline=None)
@given(chunkings(), st.integers(1, 5))
def test_any_chunking_cut_anywhere_gives_the_same_payload(
    chunking: tuple[bytes, bytes, list[bytes]], runs_max: int
) -> None:
    payload, raw, pieces = chunking
    assert decode(pieces, runs_max) == (payload, len(raw), True)


@settings(max_examples=300, deadline=None)
@given(chunkings(), st.integers(0, 10_000), st.sampled_from([b"", b"\r", b"\n", b"0", b";", b" ", b"\x00", b"g"]))
@example((b"a", b"1\r\na\r\n0\r\n\r\n", []), 4, b"X")
def test_a_damaged_body_is_judged_alike_however_it_is_cut(
    chunking: tuple[bytes, bytes, list[bytes]], where: int, instead: bytes
) -> None:
    _, raw, _ = chunking
    where %= len(raw)
    damaged = raw[:where] + instead + raw[where + 1 :]

    def judge(pieces: list[bytes]) -> object:
        try:
            return decode(pieces)
        except MalformedBody:
            return "malformed"

    assert judge([damaged]) == judge(bytewise(damaged))


@pytest.mark.parametrize("case", BAD)
def test_a_bad_body_is_answered_with_400_and_the_end_of_the_connection(server: RunningServer, case: str) -> None:
    for target in ("/receive", "/read"):
        with server.connect() as wire:
            wire.ask(target, "Transfer-Encoding: chunked", method="PUT", body=BAD[case])
            answer = wire.answer()
            assert (answer.status, answer.closes, answer.error_code()) == (400, True, "UNSUPPORTED")
            assert b"cannot be decoded" in answer.body
            wire.end_sending()
            assert wire.is_closed()


@pytest.mark.parametrize("case", GOOD)
def test_a_good_body_reaches_the_application(server: RunningServer, case: str) -> None:
    raw, payload = GOOD[case]
    with server.connect() as wire:
        for target in ("/receive", "/read"):
            wire.ask(target, "Transfer-Encoding: chunked", method="PUT", body=raw)
            answer = wire.answer()
            assert not answer.closes
            if target == "/read":
                assert answer.body == payload
            else:
                found = answer.json()
                assert (found["whole"], found["size"]) == (True, len(payload))
