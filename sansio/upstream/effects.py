"""What the core can ask of other registries, and of transfers that outlive the request that began them.

Who decides what:

* the core picks the upstream, the URL and what is shown to it; it judges every answer, remembers who is well, what is
  fresh and what is missing, and writes the keys;
* the driver connects. It holds the passwords and attaches one only to requests to the origin (scheme, host, port) of
  that upstream or of a realm that is allowed for it, whatever the effect says. It follows redirects, at most as many as
  configured, never from https to http, and shows no credential of any kind to another origin than the one that the URL
  of the effect names (`angos.sansio.upstream.origin` has these rules as functions). On every connect, redirects
  included, it asks the egress rule of the upstream after the name has been resolved: no loopback, link-local or private
  address, unless that upstream may have one.

**A fill** brings one blob from an upstream. It is an operation that runs under a name, apart from every request, so
that nobody who leaves stops it. While `StageFill` receives the bytes into a part of an upload, any number of responses
follow (`FromFill`); so bytes cross the link once. Invariants that the simulator watches:

1. Of every response that follows a fill at least the last byte is held back until `ReleaseFill`, which the core awaits
   after the digest of all bytes has been found right. A fill that ends without it cuts its followers off, so a wrong
   digest, a short or a long body is never served as complete.
2. Nothing is promoted before that either, and the owner key comes after the promotion, as with a push.
3. In a process there is one fill of a name at a time, in all replicas as a rule (by a lease, on which nothing rests).
4. When a fill has ended, in whatever way but a crash, its upload, its lease and its place are gone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NewType

from angos.sansio.effects import Effect, EffectError, HashState, PeerUnavailable, Prefix, Staged
from angos.sansio.operation import Operation
from angos.sansio.secret import Secret

UpstreamStream = NewType("UpstreamStream", int)
"""Stands for an opened answer whose body is still to come. It is closed when the operation that opened it, and the
response that it gave, have ended, if not before."""

FillHandle = NewType("FillHandle", int)
"""Stands for the bytes of a fill, for whoever was given it: until the response of that request has been sent, or the
request has ended without one that follows the fill. The end of the fill does not end it."""

ANSWER_FIELDS = frozenset(
    {
        "content-length",
        "content-range",
        "content-type",
        "docker-content-digest",
        "docker-ratelimit-source",
        "link",
        "location",
        "oci-filters-applied",
        "ratelimit-limit",
        "ratelimit-remaining",
        "retry-after",
        "www-authenticate",
    }
)
"""The header fields of an upstream's answer that the core gets to see; all others stay with the driver."""


# --- asking -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class UpstreamAnswer:
    """A small answer, whatever its status."""

    status: int
    headers: tuple[tuple[str, str], ...]
    """Names in lower case, those of `ANSWER_FIELDS` only, in order, repeated fields kept."""
    body: bytes = b""

    def get(self, name: str) -> str | None:
        """The value of the first field of this lower-case name."""
        return next((value for key, value in self.headers if key == name), None)


@dataclass(frozen=True, slots=True)
class AskUpstream(Effect[UpstreamAnswer]):
    """One request to an upstream, and its answer, after redirects.

    Fails with `UpstreamUnavailable` or one of its kinds: no connection, no answer, one that is no HTTP, a body that is
    cut short. A body of status 200 that is longer than `size_max` fails with `UpstreamUnusable`; of other statuses the
    first `size_max` bytes are given.
    """

    upstream: str
    """Its name in the configuration."""
    method: Literal["GET", "HEAD"]
    url: str
    """At the upstream's origin."""
    accept: str = "*/*"
    token: Secret | None = None
    """Shown as a bearer token."""
    password: bool = False
    """Show the configured user and password (Basic). Not together with a token."""
    size_max: int = 64 << 10


@dataclass(frozen=True, slots=True)
class TokenAnswer:
    """What a token server answered."""

    status: int
    token: Secret | None
    """None when there is none in the answer."""
    seconds: float
    """How long it is valid from now on."""
    headers: tuple[tuple[str, str], ...] = ()
    """As in `UpstreamAnswer`."""


@dataclass(frozen=True, slots=True)
class AskForToken(Effect[TokenAnswer]):
    """GET a token (distribution, Token Authentication). The driver reads the answer with
    `angos.sansio.upstream.tokens.read_token`, so that no trace holds it. No redirects. Fails as `AskUpstream`."""

    upstream: str
    url: str
    password: bool
    """Show the configured user and password."""


@dataclass(frozen=True, slots=True)
class ReadSecret(Effect["Secret | None"]):
    """What was remembered under this name in this process, None when it is not or no longer."""

    name: str


@dataclass(frozen=True, slots=True)
class WriteSecret(Effect[None]):
    """Remember a secret in the memory of this process, for a while."""

    name: str
    value: Secret
    seconds: float


# --- bodies -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Opened:
    """The beginning of a large answer."""

    status: int
    headers: tuple[tuple[str, str], ...]
    """As in `UpstreamAnswer`."""
    stream: UpstreamStream | None
    """The body; None unless the status is 200 or 206."""
    size: int | None
    """Bytes of the body; None when the upstream does not say."""

    def get(self, name: str) -> str | None:
        """The value of the first field of this lower-case name."""
        return next((value for key, value in self.headers if key == name), None)


@dataclass(frozen=True, slots=True)
class OpenUpstream(Effect[Opened]):
    """GET whose body is to be staged or passed on, after redirects. Fails as `AskUpstream`."""

    upstream: str
    url: str
    token: Secret | None = None
    password: bool = False
    start: int = 0
    """Ask for the bytes from here on (``Range: bytes=<start>-``); 0: for all of them, without ``Range``."""


@dataclass(frozen=True, slots=True)
class CloseUpstream(Effect[None]):
    """Do without the rest of an opened answer."""

    stream: UpstreamStream


# --- fills ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FillEnd:
    """How a fill ended: with the blob in the store, or with what its followers are to be told."""

    status: int = 200
    """200: stored; anything else: the status of the refusal."""
    message: str = ""
    retry_seconds: int = 0
    stored: bool = True
    """False: it could not be stored, but may be had from the upstream (a full disk, a blob beyond the limit)."""


@dataclass(frozen=True, slots=True)
class Filling:
    """A fill that can be followed."""

    fill: FillHandle
    size: int
    """Of the whole blob, in bytes."""


@dataclass(frozen=True, slots=True, eq=False)
class FollowFill(Effect["Filling | FillEnd"]):
    """Join the fill of this name in this process, or begin it with `operation`, which is dropped if there is one.

    Reply: `Filling` as soon as there is something to follow, which is when the fill awaits its first `StageFill` with a
    `size`; how it ended if it did so before. Fails with `UpstreamUnavailable` when the process ends.
    """

    name: str
    operation: Operation[FillEnd]


@dataclass(frozen=True, slots=True)
class TakeFillPlace(Effect[bool]):
    """For a fill: be one of at most `running_max` that have a place in this process, until it ends.

    Reply: False when the others kept all places for `wait_seconds`.
    """

    fill: str
    """The name under which it runs."""
    running_max: int
    wait_seconds: float


@dataclass(frozen=True, slots=True)
class StageFill(Effect[Staged]):
    """Receive an opened answer into a new part of an upload, hashing on the way, while others follow.

    As `StageBody`: the part holds what arrived; `whole` is False when the upstream stopped in the middle, or before the
    length that it had promised; longer than `size_max` fails with `BodyTooLarge`; after a failure no part is left.
    A full disk fails with `StorageFull`, and whoever follows is cut off when the fill ends.
    """

    fill: str
    """The name under which it runs."""
    upload: Prefix
    part: str
    stream: UpstreamStream
    start: int
    """Where in the blob the first byte belongs: 0, or where the part before ended."""
    size: int | None
    """Of the whole blob. None: not known, nobody can follow."""
    hashes: tuple[HashState, ...]
    size_max: int


@dataclass(frozen=True, slots=True)
class ReleaseFill(Effect[None]):
    """Let those who follow have the last bytes: all of them together have the right digest."""

    fill: str


# --- how these may fail -----------------------------------------------------------------------------------------------


class UpstreamUnavailable(PeerUnavailable):
    """An upstream could not be reached, or broke off."""


class UpstreamSilent(UpstreamUnavailable):
    """An upstream did not answer, or go on, in time."""


class UpstreamForbidden(UpstreamUnavailable):
    """The egress rule does not allow to connect to where this leads; nothing was sent there."""


class UpstreamUnusable(UpstreamUnavailable):
    """An upstream answered with something that cannot be used."""


UPSTREAM_ERRORS: tuple[type[EffectError], ...] = (
    UpstreamUnavailable,
    UpstreamSilent,
    UpstreamForbidden,
    UpstreamUnusable,
)
