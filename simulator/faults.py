"""What can go wrong, as a closed vocabulary. Each class says which promise it tests; the scheduler makes it happen.

A fault strikes one effect, at the moment when it would be applied, or, in S3, one attempt of one request to the bucket.
Not every fault can strike everything: a read cannot be applied late, and a disk does not apply anything late.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from angos.sansio.bucket.requests import (
    AbortPieces,
    BeginPieces,
    CompletePieces,
    Copy,
    CopyPiece,
    Delete,
    DeleteMany,
    List,
    ListUploads,
    Put,
    PutPiece,
)
from angos.sansio.effects import (
    AcquireLease,
    AskWebhook,
    CopyKey,
    CreateKeys,
    DeleteKeys,
    DeleteKeysWithin,
    DiscardPart,
    DiscardUpload,
    DrawId,
    Effect,
    FetchDocument,
    NotePull,
    PromoteParts,
    ReadBody,
    ReadCache,
    ReadClock,
    ReleaseLease,
    SignToken,
    SignUrl,
    Sleep,
    StageBody,
    Tell,
    Together,
    VerifyOwnToken,
    VerifyPassword,
    VerifyToken,
    WriteCache,
)

WRITES = (CreateKeys, CopyKey, DeleteKeys, DeleteKeysWithin, StageBody, PromoteParts, DiscardPart, DiscardUpload)
REPEATABLE = (CreateKeys, CopyKey, DeleteKeys, DeleteKeysWithin, PromoteParts, DiscardPart, DiscardUpload)
MAKING = (Put, Copy, BeginPieces, PutPiece, CopyPiece, CompletePieces)
"""Requests that take space."""
CHANGING = (*MAKING, AbortPieces, Delete, DeleteMany)
IDEMPOTENT = (Put, Copy, PutPiece, CopyPiece, AbortPieces, Delete)
"""Those by PUT and DELETE, which something on the way may send again by itself (RFC 9110 section 9.2.2)."""
NEVER_MADE_AGAIN = (DiscardPart, DiscardUpload)
"""Effects that delete what has a name of its own, which nobody else ever makes."""
SERVICES = (
    AskWebhook,
    FetchDocument,
    ReadCache,
    SignToken,
    Tell,
    VerifyOwnToken,
    VerifyPassword,
    VerifyToken,
    WriteCache,
)
NOT_STORAGE = (AcquireLease, ReleaseLease, DrawId, NotePull, ReadBody, ReadClock, SignUrl, Sleep, Together, *SERVICES)


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong with one effect."""

    name: ClassVar[str]
    bucket_only: ClassVar[bool] = False

    @classmethod
    def strikes(cls, effect: type[Any]) -> bool:
        """Whether it can happen to such an effect, or to such a request."""
        return not issubclass(effect, NOT_STORAGE)


class LostRequest(Fault):
    """The effect is not applied and nobody knows. Promise: no answer claims it; what was acknowledged stays. A single
    request to a bucket is sent again, and no client notices."""

    name = "lost_request"


class LostReply(Fault):
    """The effect is applied and nobody knows. Promise: doing it again is safe, and so is leaving it at that. What a
    request to a bucket has created is known again, when the next attempt finds it in its way, as the writer's own."""

    name = "lost_reply"


class Late(Fault):
    """The effect fails with an unknown outcome and is applied later, among other effects. Promise: what comes late
    takes nothing acknowledged away. Of a request to a bucket an attempt comes late, also when another one was answered
    long ago: then a blob or a manifest that was deleted meanwhile may be there again, a deleted tag never.

    What deletes a name that can be made again never comes late. No store without versions could be told to leave the
    new one alone, and none is known to delete something after it has answered a later request for the same.
    """

    name = "late"
    bucket_only = True

    @classmethod
    def strikes(cls, effect: type[Any]) -> bool:
        """Writes whose bytes have already been sent."""
        return issubclass(effect, (CreateKeys, DeleteKeysWithin, PromoteParts, *NEVER_MADE_AGAIN, *MAKING, AbortPieces))


class Twice(Fault):
    """The effect is applied, and again before the reply, as an SDK does that retries. Promise: once or twice is one.
    A request to a bucket is sent again by something on the way, and the answer may be that of the second one."""

    name = "twice"
    bucket_only = True

    @classmethod
    def strikes(cls, effect: type[Any]) -> bool:
        """Writes that can be repeated."""
        return issubclass(effect, (*REPEATABLE, *IDEMPOTENT))


class Partial(Fault):
    """Some entries of the effect are applied, others are not, and nobody knows which; of an upload the last names are
    removed. Promise: no order is assumed among the entries of one effect, and half an upload is never an empty one."""

    name = "partial"
    bucket_only = True

    @classmethod
    def strikes(cls, effect: type[Any]) -> bool:
        """Effects with several entries."""
        return issubclass(effect, (CreateKeys, DeleteKeys, DeleteKeysWithin, DiscardUpload, DeleteMany))


class Refused(Fault):
    """The disk is full, or does not allow it: nothing of the effect is there. Promise: the client is told so with a
    5xx, the request can be repeated, nothing acknowledged is lost."""

    name = "refused"

    @classmethod
    def strikes(cls, effect: type[Any]) -> bool:
        """Writes that take space. A bucket refuses reads and deletions too."""
        return issubclass(effect, (CreateKeys, StageBody, PromoteParts)) or not issubclass(effect, Effect)


class Failed(Fault):
    """The disk fails in the middle of a plan. Promise: what is half done is never visible."""

    name = "failed"

    @classmethod
    def strikes(cls, effect: type[Any]) -> bool:
        """All writes. Only a disk has a middle."""
        return issubclass(effect, WRITES)


class Stall(Fault):
    """The operation stands still until leases have expired, or for longer. Promise: no truth rests on a lease."""

    name = "stall"

    @classmethod
    def strikes(cls, effect: type[Any]) -> bool:
        """All of them but waiting itself."""
        return not issubclass(effect, (Sleep, Together))


class Crash(Fault):
    """The power is cut: every process ends, and what was not durable is kept, lost or torn. Promise: what was
    acknowledged is there, nothing half-written is visible, unfinished uploads resume or are unknown."""

    name = "crash"


class Kill(Fault):
    """One process is killed: its operations end between two effects and clean nothing up, its memory is gone. Promise:
    as for `Crash`, and the other processes go on."""

    name = "kill"

    @classmethod
    def strikes(cls, effect: type[Any]) -> bool:
        """All of them."""
        return not issubclass(effect, Together)


class Cancel(Fault):
    """The operation is cancelled, as by a shutdown or a client that went away, and cleans up. Promise: no lease is
    left, nothing half-done is visible."""

    name = "cancel"

    @classmethod
    def strikes(cls, effect: type[Any]) -> bool:
        """Whatever an operation can be waiting for."""
        return not issubclass(effect, (Together, ReleaseLease))


class Lapse(Fault):
    """All leases are forgotten by a fail-over, so that several operations hold the same one. Promise: leases are for
    politeness."""

    name = "lapse"


class Skew(Fault):
    """The wall clock of the replica jumps, backwards or forwards. Promise: what begins later wins all the same."""

    name = "skew"

    @classmethod
    def strikes(cls, effect: type[Any]) -> bool:
        """When somebody looks at the clock."""
        return issubclass(effect, ReadClock)


class Throttled(Fault):
    """The bucket is asked too much: 503 SlowDown, and nothing is applied. Promise: it is asked again, and no client
    notices; who is throttled again and again is told 5xx, never 404."""

    name = "throttled"
    bucket_only = True

    @classmethod
    def strikes(cls, effect: type[Any]) -> bool:
        """Requests."""
        return not issubclass(effect, Effect)


class ShortPage(Fault):
    """A page of a listing has fewer names than it could, or none, and more are to come. Promise: a listing ends when
    the bucket says so, and not before: nothing is missed."""

    name = "short_page"
    bucket_only = True

    @classmethod
    def strikes(cls, effect: type[Any]) -> bool:
        """Listings."""
        return issubclass(effect, (List, ListUploads))


class Expired(Fault):
    """A lifecycle rule of the bucket ends a multipart upload under the one who sends its pieces. Promise: no object
    appears that is not whole, the client is told 5xx and can repeat it."""

    name = "expired"
    bucket_only = True

    @classmethod
    def strikes(cls, effect: type[Any]) -> bool:
        """What belongs to a multipart upload."""
        return issubclass(effect, (PutPiece, CopyPiece, CompletePieces))


class Unanswered(Fault):
    """An identity provider or a webhook gives no answer, or too many passwords are being checked. Promise: an outage is
    a 503 or a denial, never an allow, and a provider that is down is not asked again at once."""

    name = "unanswered"

    @classmethod
    def strikes(cls, effect: type[Any]) -> bool:
        """Whatever can fail with `PeerUnavailable`."""
        return issubclass(effect, (FetchDocument, AskWebhook, VerifyPassword))


class Garbage(Fault):
    """An identity provider or a webhook answers something that means nothing. Promise: as for `Unanswered`."""

    name = "garbage"

    @classmethod
    def strikes(cls, effect: type[Any]) -> bool:
        """What somebody else answers."""
        return issubclass(effect, (FetchDocument, AskWebhook))


class Slow(Fault):
    """An identity provider or a webhook answers at once, but the answer is long on its way. Promise: what comes late is
    as good as it was, nobody else asks meanwhile, and nobody gets in for it."""

    name = "slow"

    @classmethod
    def strikes(cls, effect: type[Any]) -> bool:
        """What somebody else answers."""
        return issubclass(effect, (FetchDocument, AskWebhook))


class Rotated(Fault):
    """The identity provider exchanges its key and drops the old one. Promise: nobody gets in by it, keys are fetched
    once for it and not for every request."""

    name = "rotated"

    @classmethod
    def strikes(cls, effect: type[Any]) -> bool:
        """Whatever is asked while a token is looked at."""
        return issubclass(effect, (FetchDocument, ReadCache, VerifyToken))


class Forgotten(Fault):
    """The replica's cache is emptied. Promise: what is remembered is for speed, and forgetting it lets nobody in."""

    name = "forgotten"

    @classmethod
    def strikes(cls, effect: type[Any]) -> bool:
        """When somebody looks into it."""
        return issubclass(effect, ReadCache)


FAULTS: dict[str, type[Fault]] = {
    fault.name: fault
    for fault in (
        LostRequest,
        LostReply,
        Refused,
        Failed,
        Late,
        Twice,
        Partial,
        Stall,
        Crash,
        Kill,
        Cancel,
        Lapse,
        Skew,
        Throttled,
        ShortPage,
        Expired,
        Unanswered,
        Garbage,
        Slow,
        Rotated,
        Forgotten,
    )
}
"""By name. `none`, the calm option, is not a fault."""

ACCESS_FAULTS = ("unanswered", "garbage", "slow", "rotated", "forgotten")
"""Those that only happen in private worlds."""

REQUEST_FAULTS = ("throttled", "short_page", "expired")
"""Those that only happen to requests to a bucket."""

ABSORBED = frozenset({"lost_request", "lost_reply", "late", "twice", "partial", "throttled", "short_page"})
"""Those of a single attempt of a request that no client notices, as long as another attempt is made."""

PLAN_STEPS = {
    CreateKeys: 24,
    CopyKey: 20,
    PromoteParts: 14,
    StageBody: 8,
    DeleteKeys: 4,
    DeleteKeysWithin: 6,
    DiscardPart: 2,
    DiscardUpload: 12,
}
"""How many steps the plan of an effect has at most, in worlds as small as these: where a fault in its middle can be."""

STALLS_MS = (6_000, 61_000, 3_600_000)  # longer than the wait for a lease, than a lease, than most patience
SLOW_MS = (3_000, 9_000)  # three times the longer one is less than the lease on fetching keys
SKEWS_MS = (-1, 1, -3_600_000, 3_600_000)


_POSSIBLE: dict[tuple[type[Any], tuple[str, ...], bool], tuple[str, ...]] = {}


def possible(effect: type[Any], enabled: tuple[str, ...], *, bucket: bool) -> tuple[str, ...]:
    """What can happen to such an effect in a scenario, the calm option first."""
    if (known := _POSSIBLE.get((effect, enabled, bucket))) is not None:
        return known
    chosen = [name for name in enabled if FAULTS[name].strikes(effect)]
    chosen = [name for name in chosen if bucket or not FAULTS[name].bucket_only]
    names = ("none", *(name for name in chosen if not (bucket and name == "failed")))
    _POSSIBLE[effect, enabled, bucket] = names
    return names


_POSSIBLE_TO_REQUESTS: dict[tuple[type[Any], bool, tuple[str, ...]], tuple[str, tuple[str, ...]]] = {}


def possible_to(request: type[Any], effect: type[Any], enabled: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """What can happen to such a request to a bucket, sent for such an effect, the calm option first; and before it the
    label of this choice."""
    lasting = issubclass(effect, (*NEVER_MADE_AGAIN, DeleteKeysWithin))
    if (known := _POSSIBLE_TO_REQUESTS.get((request, lasting, enabled))) is not None:
        return known
    late = lasting and issubclass(request, CHANGING)
    names = ("none", *(name for name in enabled if FAULTS[name].strikes(request) or (late and name == "late")))
    _POSSIBLE_TO_REQUESTS[request, lasting, enabled] = found = (f"fault:{request.__name__}", names)
    return found
