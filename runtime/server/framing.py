"""Where a request ends and what it is about: the strict rules that every head goes through, whatever parses it.

Disagreement between two programs about the end of a request is request smuggling. So nothing here is lenient: what
RFC 9112 lets a server reject is rejected (sections 2.2, 3, 5.1, 5.2, 6.1, 6.3, 11.2), and the connection is closed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from angos.sansio.errors import Code
from angos.sansio.http.message import Header, Headers

Field = tuple[bytes, bytes]
ParseFields = Callable[[bytes], Sequence[Field]]
"""Takes one complete head with its blank line, whose request line is good; gives the header fields with lower-case
names, in order. Raises `HeadRefused` for what is not HTTP."""

REMEMBERED_MAX = 256  # blocks of fields
REMEMBERED_SIZE_MAX = 4 << 10
CONTENT_LENGTH_MAX = (1 << 63) - 1

_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"))
_REQUEST_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([\x21\x22\x24-\x7e]+) HTTP/([0-9])\.([0-9])\r\n")
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")
# Bare CR or LF (2.2), folded lines (5.2), and control characters other than tab.
_FORBIDDEN = re.compile(rb"\r(?!\n)|(?<!\r)\n|\r\n[ \t]|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_HOPELESS = re.compile(rb"(?<!\r)\n|\r[^\n]|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_DIGITS = re.compile(rb"[0-9]{1,19}")
_HOST = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=%:\[\]-]*")
_ABSOLUTE = re.compile(r"https?://([^/?]*)(.*)", re.IGNORECASE)


class HeadRefused(Exception):
    """The head is answered with this status and the connection is closed."""

    def __init__(self, status: int, message: str, code: Code = "UNSUPPORTED") -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code


@dataclass(frozen=True, slots=True)
class _Fields:
    headers: Headers
    content_length: int | None
    keep_alive: bool
    expects_continue: bool


@dataclass(frozen=True, slots=True)
class Head:
    """Everything about a request but its body."""

    method: str
    target: str
    """Origin form."""
    headers: Headers
    content_length: int | None
    """0 without a body, None when it is chunked."""
    keep_alive: bool
    """The client is ready to send another request after this one."""
    expects_continue: bool
    """The client waits for ``100 Continue`` before it sends the body."""


def check_beginning(received: bytes) -> None:
    """Refuse an incomplete head as soon as it can never become a good one."""
    if _HOPELESS.search(received) is not None:
        raise HeadRefused(400, "the request has a control character, or a line that ends without CR LF")
    if b"\r\n" in received and _REQUEST_LINE.match(received) is None:
        raise HeadRefused(400, "the request line is not of the form: method target HTTP/1.1")


class HeadParser:
    """Gives the meaning of heads, by one of the parsers and the rules of this file.

    A client sends nearly the same fields with every request, so what they mean is remembered for the latest ones.
    """

    def __init__(self, parse_fields: ParseFields, fields_max: int) -> None:
        self._parse_fields = parse_fields
        self._fields_max = fields_max
        self._understand = lru_cache(REMEMBERED_MAX)(self._understand_fields)

    def parse(self, raw: bytes) -> Head:
        """The meaning of one complete head, from its request line to its blank line. Raises `HeadRefused`."""
        line = _REQUEST_LINE.match(raw)
        if line is None:
            raise HeadRefused(400, "the request line is not of the form: method target HTTP/1.1")
        if line[3] != b"1" or line[4] not in (b"0", b"1"):
            raise HeadRefused(505, "only HTTP/1.1 and HTTP/1.0 are understood")
        method, modern = line[1].decode("ascii"), line[4] == b"1"
        if method == "CONNECT":
            raise HeadRefused(501, "this is a registry, not a proxy")
        if method not in _METHODS:
            raise HeadRefused(501, f"the method {method[:40]} is not known")
        target, authority = _origin_form(line[2].decode("ascii"))
        block = raw[line.end() - 2 :]
        understand = self._understand if len(block) <= REMEMBERED_SIZE_MAX else self._understand_fields
        fields = understand(block, modern)
        headers = fields.headers
        if authority is not None:
            # The target wins over the field (RFC 9112 section 3.2.2).
            headers = Headers(
                tuple((name, authority if name == "host" else value) for name, value in fields.headers.fields)
            )
        return Head(method, target, headers, fields.content_length, fields.keep_alive, fields.expects_continue)

    def _understand_fields(self, block: bytes, modern: bool) -> _Fields:
        """`block` goes from the line break of the request line to the blank line."""
        if (found := _FORBIDDEN.search(block)) is not None:
            raise HeadRefused(400, f"the header has a forbidden character or line break at byte {found.start()}")
        if block.count(b"\n") > self._fields_max + 2:
            raise HeadRefused(431, f"the request has more than {self._fields_max} header fields")
        lengths: list[bytes] = []
        codings: list[bytes] = []
        hosts: list[bytes] = []
        connection = expect = b""
        headers: list[Header] = []
        for name, value in self._parse_fields((b"POST / HTTP/1.1" if modern else b"POST / HTTP/1.0") + block):
            # Field names are ASCII: the parsers have checked them, so this cannot fail.
            headers.append((name.decode("ascii"), value.decode("latin-1")))
            if name == b"host":
                hosts.append(value)
            elif name == b"content-length":
                lengths.append(value)
            elif name == b"transfer-encoding":
                codings.append(value)
            elif name == b"connection":
                connection += b"," + value.lower()
            elif name == b"expect":
                expect += b"," + value.lower()
        _check_host(hosts, modern)
        content_length = _body_length(lengths, codings, modern)
        if expect and expect != b",100-continue" and modern:
            raise HeadRefused(417, "only Expect: 100-continue is understood")
        return _Fields(
            Headers(tuple(headers)),
            content_length,
            keep_alive=modern and not (connection and _lists(connection, b"close")),
            expects_continue=modern and bool(expect) and content_length != 0,
        )


def check_field(name: bytes) -> None:
    """For parsers that are more generous about field names than RFC 9110 section 5.1."""
    if _TOKEN.fullmatch(name) is None:
        raise HeadRefused(400, "the name of a header field has a forbidden character")


def _origin_form(target: str) -> tuple[str, str | None]:
    if target.startswith("/"):
        return target, None
    if target == "*":
        raise HeadRefused(400, "the server has no options of its own; ask about a path")
    if (absolute := _ABSOLUTE.fullmatch(target)) is None:
        raise HeadRefused(400, "the request target is not a path")
    authority, rest = absolute[1], absolute[2]
    if not authority or _HOST.fullmatch(authority.encode("ascii")) is None:
        raise HeadRefused(400, "the request target names no valid host")
    return rest if rest.startswith("/") else "/" + rest, authority


def _check_host(hosts: list[bytes], modern: bool) -> None:
    if len(hosts) > 1:
        raise HeadRefused(400, "the request has more than one Host field")
    if not hosts and modern:
        raise HeadRefused(400, "the request has no Host field")
    if hosts and _HOST.fullmatch(hosts[0]) is None:
        raise HeadRefused(400, "the Host field is not a host")


def _body_length(lengths: list[bytes], codings: list[bytes], modern: bool) -> int | None:
    if codings:
        if lengths:
            raise HeadRefused(400, "the request has both Transfer-Encoding and Content-Length")
        if not modern:
            raise HeadRefused(400, "HTTP/1.0 has no Transfer-Encoding")
        if len(codings) > 1 or codings[0].lower() != b"chunked":
            raise HeadRefused(400, "the only Transfer-Encoding understood is: chunked")
        return None
    if not lengths:
        return 0
    if len(lengths) > 1:
        raise HeadRefused(400, "the request has more than one Content-Length")
    if _DIGITS.fullmatch(lengths[0]) is None or (length := int(lengths[0])) > CONTENT_LENGTH_MAX:
        raise HeadRefused(400, "the Content-Length is not a number of bytes")
    return length


def _lists(value: bytes, option: bytes) -> bool:
    return option in [item.strip(b" \t") for item in value.split(b",")]
