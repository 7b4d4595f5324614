"""One corpus of request heads, good and hostile, that every head parser must judge alike."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from angos.runtime.server import head_h11
from angos.runtime.server.framing import Head, HeadParser, HeadRefused, ParseFields
from angos.runtime.server.head_httptools import load_parse_fields
from tests.conformance.server.running import RunningServer, StartServer

WITHOUT_HTTPTOOLS = pytest.mark.skipif(find_spec("httptools") is None, reason="httptools, an option, is not installed")


@pytest.fixture(params=["h11", pytest.param("httptools", marks=WITHOUT_HTTPTOOLS)])
def parse_fields(request: pytest.FixtureRequest) -> ParseFields:
    """Each of the parsers."""
    return head_h11.parse_fields if request.param == "h11" else load_parse_fields()


def parse_head(raw: bytes, parse_fields: ParseFields) -> Head:
    parser = HeadParser(parse_fields, fields_max=256)
    head = parser.parse(raw)
    again = parser.parse(raw)  # from memory
    assert replace(again, headers=head.headers) == head
    assert again.headers.fields == head.headers.fields
    return head


def with_fields(*lines: bytes, method: bytes = b"PUT") -> bytes:
    return b"\r\n".join((method + b" /v2/ HTTP/1.1", b"Host: a", *lines, b"", b""))


REFUSED: dict[str, tuple[int, bytes]] = {
    # Where the body ends.
    "both framings": (400, with_fields(b"Content-Length: 5", b"Transfer-Encoding: chunked")),
    "both framings, other order": (400, with_fields(b"Transfer-Encoding: chunked", b"Content-Length: 5")),
    "two lengths": (400, with_fields(b"Content-Length: 5", b"Content-Length: 6")),
    "equal lengths": (400, with_fields(b"Content-Length: 5", b"content-length: 5")),
    "list of lengths": (400, with_fields(b"Content-Length: 5, 5")),
    "list of different lengths": (400, with_fields(b"Content-Length: 5, 6")),
    "empty length": (400, with_fields(b"Content-Length:")),
    "negative length": (400, with_fields(b"Content-Length: -1")),
    "signed length": (400, with_fields(b"Content-Length: +5")),
    "hexadecimal length": (400, with_fields(b"Content-Length: 0x5")),
    "length with underscore": (400, with_fields(b"Content-Length: 1_0")),
    "length with fraction": (400, with_fields(b"Content-Length: 5.0")),
    "length with words": (400, with_fields(b"Content-Length: 5 bytes")),
    "length in other digits": (400, with_fields("Content-Length: \u0665".encode())),
    "length of 2^63": (400, with_fields(b"Content-Length: 9223372036854775808")),
    "length of 2^64": (400, with_fields(b"Content-Length: 18446744073709551616")),
    "length of 400 digits": (400, with_fields(b"Content-Length: " + b"9" * 400)),
    "gzip, chunked": (400, with_fields(b"Transfer-Encoding: gzip, chunked")),
    "chunked, gzip": (400, with_fields(b"Transfer-Encoding: chunked, gzip")),
    "chunked twice": (400, with_fields(b"Transfer-Encoding: chunked, chunked")),
    "chunked in two fields": (400, with_fields(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked")),
    "identity": (400, with_fields(b"Transfer-Encoding: identity")),
    "empty coding": (400, with_fields(b"Transfer-Encoding:")),
    "coding like chunked": (400, with_fields(b"Transfer-Encoding: xchunked")),
    "quoted chunked": (400, with_fields(b'Transfer-Encoding: "chunked"')),
    "chunked with parameter": (400, with_fields(b"Transfer-Encoding: chunked;q=1")),
    "chunked in HTTP/1.0": (400, b"PUT / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"),
    # Line ends and folding.
    "space before colon": (400, with_fields(b"Content-Length : 5")),
    "tab before colon": (400, with_fields(b"Transfer-Encoding\t: chunked")),
    "folded line": (400, with_fields(b"X: a", b" b")),
    "folded line with tab": (400, with_fields(b"X: a", b"\tb")),
    "folded first line": (400, b"GET / HTTP/1.1\r\n Host: a\r\n\r\n"),
    "bare LF after a field": (400, with_fields(b"X: a\nContent-Length: 5")),
    "bare LF after the request line": (400, b"GET / HTTP/1.1\nHost: a\r\n\r\n"),
    "bare CR in a value": (400, with_fields(b"X: a\rContent-Length: 5")),
    "CR CR LF": (400, with_fields(b"X: a\r")),
    "NUL in a value": (400, with_fields(b"X: a\x00b")),
    "control character in a value": (400, with_fields(b"X: a\x01b")),
    "delete in a value": (400, with_fields(b"X: a\x7fb")),
    # Names of fields.
    "no colon": (400, with_fields(b"X")),
    "empty name": (400, with_fields(b": a")),
    "space in name": (400, with_fields(b"X Y: a")),
    "bracket in name": (400, with_fields(b"X(Y): a")),
    "latin-1 in name": (400, with_fields(b"X\xe9: a")),
    "NUL in name": (400, with_fields(b"X\x00: a")),
    # The request line.
    "two spaces": (400, b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n"),
    "space at the end": (400, b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n"),
    "space at the beginning": (400, b" GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    "tabs": (400, b"GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n"),
    "space in target": (400, b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"),
    "no version": (400, b"GET /\r\nHost: a\r\n\r\n"),
    "lower-case version": (400, b"GET / http/1.1\r\nHost: a\r\n\r\n"),
    "other protocol": (400, b"GET / HTCPCP/1.1\r\nHost: a\r\n\r\n"),
    "long version": (400, b"GET / HTTP/1.10\r\nHost: a\r\n\r\n"),
    "version 2.0": (505, b"GET / HTTP/2.0\r\nHost: a\r\n\r\n"),
    "version 1.2": (505, b"GET / HTTP/1.2\r\nHost: a\r\n\r\n"),
    "version 0.9": (505, b"GET / HTTP/0.9\r\nHost: a\r\n\r\n"),
    "preface of HTTP/2": (505, b"PRI * HTTP/2.0\r\n\r\n"),
    "unknown method": (501, b"BREW / HTTP/1.1\r\nHost: a\r\n\r\n"),
    "lower-case method": (501, b"get / HTTP/1.1\r\nHost: a\r\n\r\n"),
    "method with slash": (400, b"GE/T / HTTP/1.1\r\nHost: a\r\n\r\n"),
    "CONNECT": (501, b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n"),
    "OPTIONS *": (400, b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"),
    "relative target": (400, b"GET v2/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    "target of another scheme": (400, b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    "target without authority": (400, b"GET http:///v2/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    "target with user": (400, b"GET http://user@a/v2/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    "fragment in target": (400, b"GET /#a HTTP/1.1\r\nHost: a\r\n\r\n"),
    "latin-1 in target": (400, b"GET /\xe9 HTTP/1.1\r\nHost: a\r\n\r\n"),
    # Host.
    "no host": (400, b"GET / HTTP/1.1\r\nAccept: a\r\n\r\n"),
    "two hosts": (400, b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
    "host with space": (400, b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
    "host with slash": (400, b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
    "host with user": (400, b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n"),
    # Else.
    "unknown expectation": (417, with_fields(b"Expect: the-unexpected")),
    "300 fields": (431, with_fields(*[b"X: a"] * 300)),
}

ACCEPTED: dict[str, bytes] = {
    "nothing special": with_fields(b"Accept: */*", method=b"GET"),
    "largest length": with_fields(b"Content-Length: 9223372036854775807"),
    "length with zeros": with_fields(b"Content-Length: 0005"),
    "chunked": with_fields(b"Transfer-Encoding: chunked"),
    "CHUNKED": with_fields(b"TRANSFER-ENCODING: CHUNKED"),
    "blanks around a value": with_fields(b"Content-Length: \t 5 \t"),
    "no blank before a value": with_fields(b"Content-Length:5"),
    "empty value": with_fields(b"X:"),
    "blank value": with_fields(b"X:  \t "),
    "colons in a value": with_fields(b"X: a:b: c"),
    "latin-1 in a value": with_fields(b"X: caf\xe9"),
    "tab in a value": with_fields(b"X: a\tb"),
    "all characters of names": with_fields(b"!#$%&'*+-.^_`|~09AZaz: a"),
    "repeated field": with_fields(b"X: a", b"X: b", b"x: a"),
    "upgrade": with_fields(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk"),
    "upgrade with body": with_fields(b"Connection: upgrade", b"Upgrade: websocket", b"Content-Length: 5"),
    "proxy's connection field": with_fields(b"Proxy-Connection: keep-alive"),
    "keep-alive": with_fields(b"Connection: keep-alive", b"Keep-Alive: timeout=5"),
    "close": with_fields(b"Connection: close"),
    "close among others": with_fields(b"Connection: x", b"Connection: a, CLOSE"),
    "expectation": with_fields(b"Expect: 100-Continue", b"Content-Length: 5"),
    "expectation without body": with_fields(b"Expect: 100-continue"),
    "expectation in HTTP/1.0": b"PUT / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
    "HTTP/1.0": b"GET / HTTP/1.0\r\n\r\n",
    "HTTP/1.0 with host": b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
    "empty host": b"GET / HTTP/1.1\r\nHost:\r\n\r\n",
    "IPv6 host": b"GET / HTTP/1.1\r\nHost: [::1]:8000\r\n\r\n",
    "absolute target": b"GET https://a:1/v2/?n=1 HTTP/1.1\r\nHost: b\r\n\r\n",
    "odd characters in target": b"GET /<>\"{}|\\^`[]?' HTTP/1.1\r\nHost: a\r\n\r\n",
    "two slashes": b"GET //v2//?? HTTP/1.1\r\nHost: a\r\n\r\n",
    "long target": b"GET /" + b"a" * 15000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    **{method: f"{method} /v2/ HTTP/1.1\r\nHost: a\r\n\r\n".encode() for method in ("HEAD", "POST", "PATCH", "DELETE")},
    "OPTIONS": b"OPTIONS /v2/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "TRACE": b"TRACE /v2/ HTTP/1.1\r\nHost: a\r\n\r\n",
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_hostile_head_is_refused(case: str, parse_fields: ParseFields) -> None:
    status, raw = REFUSED[case]
    with pytest.raises(HeadRefused) as refused:
        parse_head(raw, parse_fields)
    assert refused.value.status == status
    assert refused.value.message


@pytest.mark.parametrize("case", ACCEPTED)
def test_an_unusual_but_valid_head_is_accepted(case: str, parse_fields: ParseFields) -> None:
    head = parse_head(ACCEPTED[case], parse_fields)
    assert head.target.startswith("/")
    # The same text, read naively: valid heads have one line for each field.
    lines = ACCEPTED[case].decode("latin-1").split("\r\n")[1:-2]
    naive = [(name.lower(), value.strip(" \t")) for name, _, value in (line.partition(":") for line in lines)]
    if not ACCEPTED[case].startswith(b"GET http"):
        assert [(name, value.lower()) for name, value in head.headers.fields] == [(n, v.lower()) for n, v in naive]


def test_the_end_of_the_body_is_understood(parse_fields: ParseFields) -> None:
    lengths = {case: parse_head(raw, parse_fields).content_length for case, raw in ACCEPTED.items()}
    assert lengths.pop("largest length") == (1 << 63) - 1
    chunked = {case for case, length in lengths.items() if length is None}
    assert chunked == {"chunked", "CHUNKED"}
    five = {case for case, length in lengths.items() if length == 5}
    assert five == {
        "length with zeros",
        "blanks around a value",
        "no blank before a value",
        "upgrade with body",
        "expectation",
        "expectation in HTTP/1.0",
    }
    assert all(length == 0 for case, length in lengths.items() if case not in chunked | five)


def test_what_a_client_wants_of_the_connection_is_understood(parse_fields: ParseFields) -> None:
    heads = {case: parse_head(raw, parse_fields) for case, raw in ACCEPTED.items()}
    assert {case for case, head in heads.items() if not head.keep_alive} == {
        "close",
        "close among others",
        "HTTP/1.0",
        "HTTP/1.0 with host",
        "expectation in HTTP/1.0",
    }
    assert {case for case, head in heads.items() if head.expects_continue} == {"expectation"}


PIECES = (
    b"Content-Length",
    b"Transfer-Encoding",
    b"Host",
    b"Connection",
    b"chunked",
    b"close",
    b": ",
    b":",
    b"\r\n",
    b"\n",
    b"\r",
    b" ",
    b"\t",
    b",",
    b"5",
    b"0",
    b"a",
    b"X",
    b"\x00",
    b"\xe9",
    b";",
    b"upgrade",
    b"Upgrade",
)


@WITHOUT_HTTPTOOLS
@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=14).map(b"".join))
@example(b"Content-Length: 5\r\nContent-Length: 5")
@example(b"Host:\r\n")
def test_the_parsers_judge_any_head_alike(middle: bytes) -> None:
    raw = b"PUT /v2/ HTTP/1.1\r\nHost: a\r\n" + middle + b"\r\n\r\n"
    raw = raw[: raw.index(b"\r\n\r\n") + 4]
    judgements: list[object] = []
    for parse_fields in (head_h11.parse_fields, load_parse_fields()):
        try:
            head = parse_head(raw, parse_fields)
            judgements.append((head.content_length, head.keep_alive, head.expects_continue, head.headers.fields))
        except HeadRefused as refused:
            judgements.append(refused.status)
    first, second = judgements
    if isinstance(first, tuple) and isinstance(second, tuple):
        # h11 gives some values in lower case.
        assert [(n, v.lower()) for n, v in first[3]] == [(n, v.lower()) for n, v in second[3]]
        assert first[:3] == second[:3]
    else:
        assert first == second


@pytest.mark.parametrize("case", REFUSED)
def test_a_hostile_head_gets_an_answer_and_the_end_of_the_connection(server: RunningServer, case: str) -> None:
    status, raw = REFUSED[case]
    with server.connect() as wire:
        seen = len(server.stand_in.requests)
        wire.send(raw + b"hello" + b"GET /small HTTP/1.1\r\nHost: a\r\n\r\n")
        answer = wire.answer()
        assert (answer.status, answer.closes, answer.error_code()) == (status, True, "UNSUPPORTED")
        wire.end_sending()
        assert wire.is_closed()
        assert len(server.stand_in.requests) == seen


@pytest.mark.parametrize(
    "beginning",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # a client that speaks TLS
        b"\x00" * 20,
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"GET /\r\n",
        b"GET / HTTP/1.1\nHost: a\n\n",
        b"\n\n\n",
        b"\xff\xfe\xfd\r\n",
    ],
)
def test_what_can_never_become_a_request_is_refused_at_once(start_server: StartServer, beginning: bytes) -> None:
    with start_server(head_timeout=3600).connect() as wire:
        wire.send(beginning)
        answer = wire.answer()
        assert (answer.status, answer.closes) == (400, True)


def test_a_long_request_line_is_414(server: RunningServer) -> None:
    limit = server.options.request_line_size_max
    for target, more in ((b"/" + b"a" * limit, b""), (b"/" + b"a" * limit, b" HTTP/1.1\r\nHost: a\r\n\r\n")):
        with server.connect() as wire:
            wire.send(b"GET " + target + more)
            answer = wire.answer()
            assert (answer.status, answer.closes) == (414, True)
    exact = b"GET /" + b"a" * (limit - 14) + b" HTTP/1.1"
    assert len(exact) == limit
    with server.connect() as wire:
        wire.send(exact + b"\r\nHost: a\r\n\r\n")
        assert wire.answer().status == 404


@pytest.mark.parametrize("complete", [True, False])
def test_a_large_head_is_431(server: RunningServer, complete: bool) -> None:
    limit = server.options.head_size_max
    beginning = b"GET /small HTTP/1.1\r\nHost: a\r\n"
    with server.connect() as wire:
        wire.send(beginning + b"X: " + b"a" * limit + (b"\r\n\r\n" if complete else b""))
        answer = wire.answer()
        assert (answer.status, answer.closes) == (431, True)
    with server.connect() as wire:
        wire.send(beginning + b"X: " + b"a" * (limit - len(beginning) - 7) + b"\r\n\r\n")
        assert wire.answer().status == 200


def test_a_missing_optional_parser_is_said_clearly(monkeypatch: pytest.MonkeyPatch) -> None:
    from angos.runtime.server import head_httptools

    def no_module(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(head_httptools, "import_module", no_module)
    with pytest.raises(head_httptools.ParserMissing, match="pip install httptools"):
        head_httptools.load_parse_fields()
