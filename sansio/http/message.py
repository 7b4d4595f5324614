"""A parsed request, and a response whose body is a description."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from angos.sansio.effects import BodyHandle, Key
from angos.sansio.secret import Secret

if TYPE_CHECKING:
    from angos.sansio.upstream.effects import FillHandle, UpstreamStream

Header = tuple[str, str]


class Headers:
    """Header fields: names in lower case, repeated fields kept, values as they came (latin-1)."""

    __slots__ = ("fields",)

    def __init__(self, fields: tuple[Header, ...] = ()) -> None:
        self.fields = fields

    def get(self, name: str) -> str | None:
        """The value of the first field of this lower-case name."""
        for key, value in self.fields:
            if key == name:
                return value
        return None

    def all(self, name: str) -> list[str]:
        """The values of all fields of this lower-case name, in order."""
        return [value for key, value in self.fields if key == name]

    def joined(self, name: str) -> str | None:
        """All values of a list field as one (RFC 9110 section 5.3), None when there is none."""
        values = self.all(name)
        return ", ".join(values) if values else None

    def __repr__(self) -> str:
        # Values may be credentials: names only.
        return f"Headers({', '.join(key for key, _ in self.fields)})"


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a verified client certificate says about its subject (RFC 5280 section 4.1.2.6)."""

    organizations: tuple[str, ...] = ()
    common_names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end of the connection, as far as the connection tells."""

    address: str | None = None
    """The IP address of the socket; a proxy's when there is one in between."""
    scheme: Literal["http", "https"] = "http"
    certificate: Certificate | None = None
    """Of the client, verified; None without one."""


UNKNOWN_PEER = Peer()


@dataclass(frozen=True, slots=True)
class Request:
    """One request. The driver has checked the framing; everything else is checked here, in the core."""

    method: str
    target: str
    """Path and query as sent: still percent-encoded, origin form (RFC 9112 section 3.2.1)."""
    headers: Headers
    body: BodyHandle
    """Always given; a request without a body has one of no bytes."""
    content_length: int | None
    """0 without a body, None when the body is chunked."""
    peer: Peer = UNKNOWN_PEER


@dataclass(frozen=True, slots=True)
class Inline:
    """The body itself. Small."""

    value: bytes
    private: bool = False
    """It holds a secret, which no trace may show."""


@dataclass(frozen=True, slots=True)
class FromKey:
    """A slice of a stored value. The driver must send exactly this or cut the connection."""

    key: Key
    start: int
    length: int


@dataclass(frozen=True, slots=True)
class Slices:
    """Several slices of a stored value, each after a few bytes of its own: ``multipart/byteranges``."""

    key: Key
    slices: tuple[tuple[bytes, int, int], ...]
    """For each slice what precedes it (boundary and part header), where it starts, and its length."""
    closing: bytes

    @property
    def length(self) -> int:
        """Bytes of the whole body."""
        return sum(len(before) + length for before, _, length in self.slices) + len(self.closing)


@dataclass(frozen=True, slots=True)
class Absent:
    """No body, but the length that it would have (the answer to HEAD)."""

    length: int


@dataclass(frozen=True, slots=True)
class FromFill:
    """A slice of the bytes that a fill brings, as they come (`angos.sansio.upstream.effects`).

    At least its last byte waits until the fill is released. The driver must send exactly this or cut the connection;
    while nothing has been sent yet it answers with 502 instead."""

    fill: FillHandle
    start: int
    length: int
    """At least 1."""


@dataclass(frozen=True, slots=True)
class FromUpstream:
    """The whole body of an opened answer, passed on without being stored.

    The driver hashes it on the way and holds at least the last byte back until the digest has been found right."""

    stream: UpstreamStream
    length: int
    """At least 1."""
    algorithm: str
    hex: str


@dataclass(frozen=True, slots=True)
class Redirect:
    """No body, but the URL where the client finds one. The driver adds the `header`: only the client may see it."""

    address: str
    query: Secret

    @property
    def header(self) -> Header:
        """``Location``, with the signature in it."""
        return ("Location", f"{self.address}?{self.query.value}")


Body = Inline | FromKey | Slices | Absent | FromFill | FromUpstream | Redirect


@dataclass(frozen=True, slots=True)
class Response:
    """Status, headers and a description of the body. ``Content-Length`` follows from the body and is not listed."""

    status: int
    headers: tuple[Header, ...] = ()
    body: Body = Inline(b"")

    @property
    def content_length(self) -> int | None:
        """The value of ``Content-Length``; None where a response must not carry one (204, 304; RFC 9110 8.6)."""
        if self.status in (204, 304):
            return None
        match self.body:
            case Inline(value):
                return len(value)
            case FromKey(_, _, length) | Absent(length) | FromFill(_, _, length) | FromUpstream(_, length):
                return length
            case Slices():
                return self.body.length
            case Redirect():
                return 0
