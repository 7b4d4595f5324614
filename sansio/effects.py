"""What the core can ask of the world.

Every operation of the registry is an ``async def`` that awaits the values below and nothing else. Awaiting an effect
hands it to whoever drives the operation (the runtime, the simulator, your own transport) and gives back its reply.
Nothing in this file performs anything: it is the vocabulary, and the first file to read.

Two words used throughout:

* *durable* means that a power cut right after the reply does not undo the effect;
* an effect *fails* with one of the `EffectError` kinds at the end of this file. Absence is never a failure: it is a
  reply of ``None``, ``False`` or an empty page.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, NewType, Self, TypeVar

from angos.sansio.secret import Secret

if TYPE_CHECKING:
    from angos.sansio.access.events import Event
    from angos.sansio.operation import Operation
    from angos.sansio.upstream.events import UpstreamEvent

Reply = TypeVar("Reply", covariant=True)
T = TypeVar("T")

Key = NewType("Key", str)
"""The name of a stored value, as `angos.sansio.layout` spells it. Keys are compared and sorted by code point."""

Prefix = NewType("Prefix", str)
"""The beginning shared by a family of keys; ends with ``/`` or, for an upload, with ``.``"""

BodyHandle = NewType("BodyHandle", int)
"""Stands for the body of a request. The bytes stay with the driver; the core never sees a large body."""


@dataclass(frozen=True, slots=True)
class Effect(Generic[Reply]):
    """A request to the world. ``await effect`` evaluates to its reply."""

    def __await__(self) -> Generator[Effect[Any], Any, Reply]:
        reply: Reply = yield self
        return reply

    def via(self, performer: Callable[[Self], Awaitable[Reply]]) -> Awaitable[Reply]:
        """Call `performer` on this effect; the type checker compares its parameter and its reply with ours."""
        return performer(self)


# --- keys: small values under write-once names ------------------------------------------------------------------------
#
# There is deliberately no effect that overwrites a key. Whatever changes is expressed by new names (see layout.py), so
# replicas cannot lose each other's updates.


@dataclass(frozen=True, slots=True)
class ReadKey(Effect["bytes | None"]):
    """The whole value, or None when the key is absent. Only for values of a few megabytes at most."""

    key: Key


@dataclass(frozen=True, slots=True)
class Stat:
    """Facts about a stored value."""

    size: int
    """In bytes."""
    modified_ms: int
    """Wall clock of the store, in milliseconds since 1970. A directory may show empty values up to a minute younger
    than they are, never older."""


@dataclass(frozen=True, slots=True)
class StatKey(Effect["Stat | None"]):
    """Size and age of a value without reading it, or None when the key is absent."""

    key: Key
    lately: bool = field(default=False, compare=False)
    """What was found within the last minute will do; what was not found then is looked for all the same. For a value
    that is there as long as another one, which was looked for right now."""


@dataclass(frozen=True, slots=True)
class SignedUrl:
    """Where anybody can GET a stored value for a while."""

    address: str
    """Up to the query; nothing in it is secret."""
    query: Secret
    """Whoever has it needs no other credentials."""


@dataclass(frozen=True, slots=True)
class SignUrl(Effect["SignedUrl | None"]):
    """A URL under which the store itself gives the value away, as of this media type. None where there is none: a
    directory has no address.

    Nobody is asked for it, so it says nothing about whether the value is there.
    """

    key: Key
    media_type: str


PAGE_NAMES = 999
"""In a page of keys, unless another number is asked for: with the one more that tells whether there are more, a bucket
gives them in one answer."""


@dataclass(frozen=True, slots=True)
class Page:
    """One page of names, sorted by code point, without duplicates."""

    names: tuple[str, ...]
    """Relative to the prefix that was listed."""
    more: bool
    """True when names after the last one exist."""

    @property
    def last(self) -> str:
        """What the next page comes after; empty when this page is."""
        return self.names[-1] if self.names else ""


@dataclass(frozen=True, slots=True)
class ListKeys(Effect[Page]):
    """The keys anywhere below `prefix`, those after the name `after` only, at most `limit` of them.

    Names contain ``/`` where the keys do. A key that exists during the whole call is in its page, once.
    """

    prefix: Prefix
    after: str = ""
    limit: int = PAGE_NAMES


@dataclass(frozen=True, slots=True)
class ListFolders(Effect[Page]):
    """The distinct first components (without ``/``) of the keys below `prefix`, which ends with ``/``, that have more
    than one component."""

    prefix: Prefix
    after: str = ""
    limit: int = 1000


@dataclass(frozen=True, slots=True)
class StatPage:
    """One page of names with the facts about their values, in the order of `Page`."""

    entries: tuple[tuple[str, Stat], ...]
    """Names relative to the prefix that was listed."""
    last: str
    """What the next page comes after."""
    more: bool


@dataclass(frozen=True, slots=True)
class ListStats(Effect[StatPage]):
    """As `ListKeys`, with size and age of every value. A key that goes while it is listed may be left out, so that a
    page can be shorter than asked for although there are more."""

    prefix: Prefix
    after: str = ""
    limit: int = 1000


@dataclass(frozen=True, slots=True)
class StatKeys(Effect["tuple[Stat | None, ...]"]):
    """As `StatKey`, for each of many keys of one store, in their order: not all at the same moment."""

    keys: tuple[Key, ...]


@dataclass(frozen=True, slots=True)
class StatsBelow(Effect[tuple[tuple[tuple[str, Stat], ...], ...]]):
    """For each of many prefixes of one store all that `ListStats` would show, whole: for prefixes below which there is
    little. Not all at the same moment."""

    prefixes: tuple[Prefix, ...]


@dataclass(frozen=True, slots=True)
class CreateKeys(Effect[tuple[bool, ...]]):
    """Write each value under its key unless the key exists; all of them, new or old, are durable on reply.

    Reply: for each entry, True if this call created it. There is no order among the entries: after a failure or a
    crash any subset may be there, each of them whole. An order that matters is two effects.
    """

    entries: tuple[tuple[Key, bytes], ...]
    durable: bool = True
    """False: a power cut may take those that were new, unless a later key beside them is durable. Saves the waiting."""
    definite: bool = False
    """On reply nothing of this can happen any more: a key that is deleted then does not come back. When that cannot be
    said, since a request before the one that was answered had no answer, it fails with `StorageUnavailable`."""


@dataclass(frozen=True, slots=True)
class DeleteKeys(Effect[None]):
    """Remove the keys, durably. Removing an absent key is no error."""

    keys: tuple[Key, ...]


# --- maintenance: values of any size, which the core never sees -------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HashKey(Effect["str | None"]):
    """Read the whole value and give the hex digest of its bytes, whatever they are; None when the key is absent."""

    key: Key
    algorithm: str
    bytes_per_second: int | None = None
    """Read no faster than that, so that others get their share. None: as fast as it goes."""


@dataclass(frozen=True, slots=True)
class CopyKey(Effect["bool | None"]):
    """Make the bytes of `key` the value of `copy` too, durably and all at once.

    Both belong to one store. Reply: False when `copy` had a value already, which stays; None when `key` is absent.
    """

    key: Key
    copy: Key


@dataclass(frozen=True, slots=True)
class DeleteKeysWithin(Effect[None]):
    """Remove the keys, none of them later than so many seconds after it was asked for: whatever is left then stays, and
    the effect fails with `StorageUnavailable`. Not necessarily durable: a power cut may bring some of them back.

    For whoever may remove only as long as nobody else has a say in it.
    """

    keys: tuple[Key, ...]
    within_seconds: float


# --- bodies and uploads: bytes that the core never touches ------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ReadBody(Effect[bytes]):
    """The whole request body. Fails with `BodyTooLarge` or `BodyInterrupted`. Manifests only: layers are staged."""

    body: BodyHandle
    size_max: int
    private: bool = False
    """It is a form with credentials in it, which no trace shows."""


@dataclass(frozen=True, slots=True)
class HashState:
    """A digest that can be continued: of all bytes of an upload up to some offset.

    `state` is opaque to the core, safe to store and to restore on another machine, and None where the driver cannot
    export its state (the digest must then be computed again from the stored bytes).
    """

    algorithm: str
    hex: str
    """The digest of the bytes so far."""
    state: bytes | None


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes of an upload at rest, written by exactly one `StageBody` and never changed afterwards."""

    name: str
    size: int


@dataclass(frozen=True, slots=True)
class Staged:
    """What arrived of a body."""

    part: Part
    hashes: tuple[HashState, ...]
    """One for each algorithm that was asked for: the digest of everything up to the end of this part."""
    whole: bool
    """False when the client stopped in the middle; the part then holds what arrived before."""


@dataclass(frozen=True, slots=True)
class StageBody(Effect[Staged]):
    """Receive a body into a new part of an upload, hashing on the way; the part holds whatever arrived.

    `hashes` are the digests to continue, each with the state reached at the end of the previous part; a state of None
    starts afresh. A body longer than `size_max` fails with `BodyTooLarge`; after any failure no part is left.
    Nothing refers to the part yet, and a crash may take it; it is durable as soon as a chunk key that is created
    afterwards in the same upload is, and so is the blob that it is promoted to.
    """

    upload: Prefix
    part: str
    body: BodyHandle
    hashes: tuple[HashState, ...]
    size_max: int | None = None


@dataclass(frozen=True, slots=True)
class HashParts(Effect["str | None"]):
    """Read stored parts again, in order, and give the hex digest of all their bytes; None when a part is missing."""

    upload: Prefix
    parts: tuple[Part, ...]
    algorithm: str


@dataclass(frozen=True, slots=True)
class PromoteParts(Effect[bool]):
    """Make the bytes of the parts, in order, the value of `key`, durably and all at once; the parts stay.

    Whatever the key held is replaced. Reply: False when a part is missing (then nothing happened).
    """

    upload: Prefix
    parts: tuple[Part, ...]
    key: Key


@dataclass(frozen=True, slots=True)
class DiscardPart(Effect[None]):
    """Remove one part that no chunk key refers to."""

    upload: Prefix
    part: str


@dataclass(frozen=True, slots=True)
class DiscardUpload(Effect[None]):
    """Remove an upload with all its keys and parts. Not necessarily durable: a crash may bring remains back.

    The last of its names goes first. That is the key of the session, so a process that is killed in the middle leaves
    nothing that looks like an upload without bytes.
    """

    upload: Prefix


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A value that somebody began to send in pieces. No key leads to it, and it takes space until it is completed or
    discarded: for ever when its process was killed."""

    key: Key
    """What it was to become."""
    id: str
    began_ms: int | None
    """Wall clock of the store, in milliseconds since 1970; None when the store does not tell."""


@dataclass(frozen=True, slots=True)
class ListUnfinished(Effect[tuple[Unfinished, ...]]):
    """All of them whose keys are below `prefix`. A directory has none: what it leaves lies beside its keys."""

    prefix: Prefix


@dataclass(frozen=True, slots=True)
class DiscardUnfinished(Effect[None]):
    """Give one up, with its pieces; whoever still sends some is refused. One that is gone or completed is no error."""

    key: Key
    id: str


# --- leases, time, entropy --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AcquireLease(Effect["str | None"]):
    """Ask to be the only holder of `name` for a while, waiting for at most `wait_seconds`.

    Reply: a token, or None when others held it all that time. Leases are for politeness, never for truth: a lease may
    lapse, be forgotten, or be granted twice, and every promise of the registry must still hold.
    """

    name: str
    seconds: float
    wait_seconds: float


@dataclass(frozen=True, slots=True)
class ReleaseLease(Effect[None]):
    """Give a lease back. One that already lapsed is no error."""

    name: str
    token: str


@dataclass(frozen=True, slots=True)
class ReadClock(Effect[int]):
    """The replica's wall clock in milliseconds since 1970. Clocks of replicas differ and may step backwards."""


@dataclass(frozen=True, slots=True)
class Sleep(Effect[None]):
    """Let time pass."""

    seconds: float


@dataclass(frozen=True, slots=True)
class DrawId(Effect[str]):
    """A fresh random UUID (RFC 9562 version 4) in canonical lower-case text, never drawn before."""


# --- who is asking: credentials, identity providers, webhooks ---------------------------------------------------------


@dataclass(frozen=True, slots=True)
class VerifyPassword(Effect[bool]):
    """True when the configuration has a user of this name with this password.

    Costs the same whether or not there is such a user. Fails with `PeerUnavailable` when too many wait for theirs.
    """

    username: str
    password: Secret


@dataclass(frozen=True, slots=True)
class TokenVerdict:
    """What became of a token."""

    claims: str | None
    """The claims as a JSON object; None when the token is not valid."""
    problem: str = ""
    """Why it is not valid, in a few words without anything of the token in them."""


@dataclass(frozen=True, slots=True)
class VerifyToken(Effect[TokenVerdict]):
    """Check the signature of a JSON Web Token against one key, and its registered claims (RFC 7519 section 4.1)."""

    token: Secret
    key: str
    """One JSON Web Key (RFC 7517), as JSON."""
    algorithm: str
    """The only algorithm that is accepted (RFC 7518 section 3.1)."""
    issuer: str
    audience: str | None
    """None: any, or none at all."""
    leeway_seconds: float


@dataclass(frozen=True, slots=True)
class FetchDocument(Effect[bytes]):
    """GET a small document from an identity provider, the way this provider is configured.

    Whatever is not an answer with status 200 and a bounded body, in time, fails with `PeerUnavailable`.
    """

    provider: str
    url: str


@dataclass(frozen=True, slots=True)
class SignToken(Effect[Secret]):
    """A token of this registry with these claims."""

    claims: str
    """A JSON object, ``exp`` among it."""


@dataclass(frozen=True, slots=True)
class VerifyOwnToken(Effect[TokenVerdict]):
    """Check a token that this registry may have signed: signature and expiry."""

    token: Secret


@dataclass(frozen=True, slots=True)
class AskWebhook(Effect[int]):
    """Ask an authorization webhook with these header fields and no others of the request. Reply: the status.

    Fails with `PeerUnavailable` when there is no answer in time.
    """

    webhook: str
    headers: tuple[tuple[str, str], ...]


NO_VARIANT = Secret("")


@dataclass(frozen=True, slots=True)
class ReadCache(Effect["bytes | None"]):
    """What was remembered under this name, None when it is not or no longer. A cache that is away remembers nothing."""

    name: str
    variant: Secret = NO_VARIANT
    """Tells apart what is remembered under one name; made from credentials, perhaps."""


@dataclass(frozen=True, slots=True)
class WriteCache(Effect[None]):
    """Remember a value for a while, or forget it earlier."""

    name: str
    value: bytes
    seconds: float
    variant: Secret = NO_VARIANT


@dataclass(frozen=True, slots=True)
class Tell(Effect[None]):
    """Let the operator know: a line in the log, a count in the metrics. Never fails."""

    event: Event | UpstreamEvent


@dataclass(frozen=True, slots=True)
class NotePull(Effect[None]):
    """Remember that these were pulled now, to be written down later, outside of any request: `angos.sansio.pulls`.
    Never fails; a crash takes what has not been written."""

    pulls: tuple[Prefix, ...]
    """Where the times of their pulls lie: `angos.sansio.layout.tag_pulls_prefix` and its like."""


# --- control ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Together(Effect[tuple[T, ...]], Generic[T]):
    """Run operations side by side, at most `limit` at a time. Reply: their results, in order.

    When some fail, the failure of the first of them in order is raised after all have ended. Use
    `angos.sansio.together.together`, which builds this from coroutines.
    """

    operations: tuple[Operation[T], ...]
    limit: int


# --- how an effect may fail -------------------------------------------------------------------------------------------


class EffectError(Exception):
    """An effect failed in a way that the core is expected to handle or to pass on."""

    behind = ""
    """Of a listing of a whole store that fails at one folder: the name behind which it can go on. For those who report
    what they pass over; a trace does not keep it."""


class StorageUnavailable(EffectError):
    """No answer, or an answer that settles nothing: a write may have been applied, may not, or may yet be."""


class StorageFull(EffectError):
    """Refused for lack of space, definitely: nothing of this effect is there."""


class StorageRefused(EffectError):
    """Refused, definitely and not for lack of space (permissions, read-only): nothing of this effect is there."""


class StorageCorrupt(EffectError):
    """The stored bytes are not what they must be. Asking again will not help; deciding on absence would be wrong."""


class BodyTooLarge(EffectError):
    """The request body is longer than allowed."""

    def __init__(self, size_max: int) -> None:
        super().__init__(f"the request body is longer than {size_max} bytes")
        self.size_max = size_max


class BodyInterrupted(EffectError):
    """The client stopped sending in the middle of the body, or sent one that cannot be decoded."""


class PeerUnavailable(EffectError):
    """An identity provider, a webhook or another service that was asked gave no usable answer."""


class OperationCancelled(BaseException):
    """The driver gives this operation up (shutdown, a sibling failed). Only clean-up effects may follow."""
