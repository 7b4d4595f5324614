"""What can go wrong, as a closed vocabulary. Each class says which promise it tests; the scheduler makes it happen.

A fault strikes one effect, at the moment when it would be applied. Not every fault can strike every effect: a read
cannot be applied late, and a disk does not apply anything late.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from angos.sansio.effects import (
    AcquireLease,
    AskWebhook,
    CopyKey,
    CreateKeys,
    DeleteKeys,
    DiscardPart,
    DiscardUpload,
    DrawId,
    Effect,
    FetchDocument,
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

WRITES = (CreateKeys, CopyKey, DeleteKeys, StageBody, PromoteParts, DiscardPart, DiscardUpload)
REPEATABLE = (CreateKeys, CopyKey, DeleteKeys, PromoteParts, DiscardPart, DiscardUpload)
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
NOT_STORAGE = (AcquireLease, ReleaseLease, DrawId, ReadBody, ReadClock, SignUrl, Sleep, Together, *SERVICES)


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong with one effect."""

    name: ClassVar[str]
    bucket_only: ClassVar[bool] = False

    @classmethod
    def strikes(cls, effect: type[Effect[Any]]) -> bool:
        """Whether it can happen to such an effect."""
        return not issubclass(effect, NOT_STORAGE)


class LostRequest(Fault):
    """The effect is not applied and nobody knows. Promise: no answer claims it; what was acknowledged stays."""

    name = "lost_request"


class LostReply(Fault):
    """The effect is applied and nobody knows. Promise: doing it again is safe, and so is leaving it at that."""

    name = "lost_reply"


class Late(Fault):
    """The effect fails with an unknown outcome and is applied later, among other effects. Promise: what comes late
    takes nothing acknowledged away."""

    name = "late"
    bucket_only = True

    @classmethod
    def strikes(cls, effect: type[Effect[Any]]) -> bool:
        """Writes whose bytes have already been sent."""
        return issubclass(effect, (CreateKeys, PromoteParts, DiscardPart, DiscardUpload))


class Twice(Fault):
    """The effect is applied, and again before the reply, as an SDK does that retries. Promise: once or twice is one."""

    name = "twice"
    bucket_only = True

    @classmethod
    def strikes(cls, effect: type[Effect[Any]]) -> bool:
        """Writes that can be repeated."""
        return issubclass(effect, REPEATABLE)


class Partial(Fault):
    """Some entries of the effect are applied, others are not, and nobody knows which; of an upload the last names are
    removed. Promise: no order is assumed among the entries of one effect, and half an upload is never an empty one."""

    name = "partial"
    bucket_only = True

    @classmethod
    def strikes(cls, effect: type[Effect[Any]]) -> bool:
        """Effects with several entries."""
        return issubclass(effect, (CreateKeys, DeleteKeys, DiscardUpload))


class Refused(Fault):
    """The disk is full, or does not allow it: nothing of the effect is there. Promise: the client is told so with a
    5xx, the request can be repeated, nothing acknowledged is lost."""

    name = "refused"

    @classmethod
    def strikes(cls, effect: type[Effect[Any]]) -> bool:
        """Writes that take space."""
        return issubclass(effect, (CreateKeys, StageBody, PromoteParts))


class Failed(Fault):
    """The disk fails in the middle of a plan. Promise: what is half done is never visible."""

    name = "failed"

    @classmethod
    def strikes(cls, effect: type[Effect[Any]]) -> bool:
        """All writes. Only a disk has a middle."""
        return issubclass(effect, WRITES)


class Stall(Fault):
    """The operation stands still until leases have expired, or for longer. Promise: no truth rests on a lease."""

    name = "stall"

    @classmethod
    def strikes(cls, effect: type[Effect[Any]]) -> bool:
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
    def strikes(cls, effect: type[Effect[Any]]) -> bool:
        """All of them."""
        return not issubclass(effect, Together)


class Cancel(Fault):
    """The operation is cancelled, as by a shutdown or a client that went away, and cleans up. Promise: no lease is
    left, nothing half-done is visible."""

    name = "cancel"

    @classmethod
    def strikes(cls, effect: type[Effect[Any]]) -> bool:
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
    def strikes(cls, effect: type[Effect[Any]]) -> bool:
        """When somebody looks at the clock."""
        return issubclass(effect, ReadClock)


class Unanswered(Fault):
    """An identity provider or a webhook gives no answer, or too many passwords are being checked. Promise: an outage is
    a 503 or a denial, never an allow, and a provider that is down is not asked again at once."""

    name = "unanswered"

    @classmethod
    def strikes(cls, effect: type[Effect[Any]]) -> bool:
        """Whatever can fail with `PeerUnavailable`."""
        return issubclass(effect, (FetchDocument, AskWebhook, VerifyPassword))


class Garbage(Fault):
    """An identity provider or a webhook answers something that means nothing. Promise: as for `Unanswered`."""

    name = "garbage"

    @classmethod
    def strikes(cls, effect: type[Effect[Any]]) -> bool:
        """What somebody else answers."""
        return issubclass(effect, (FetchDocument, AskWebhook))


class Slow(Fault):
    """An identity provider or a webhook answers at once, but the answer is long on its way. Promise: what comes late is
    as good as it was, nobody else asks meanwhile, and nobody gets in for it."""

    name = "slow"

    @classmethod
    def strikes(cls, effect: type[Effect[Any]]) -> bool:
        """What somebody else answers."""
        return issubclass(effect, (FetchDocument, AskWebhook))


class Rotated(Fault):
    """The identity provider exchanges its key and drops the old one. Promise: nobody gets in by it, keys are fetched
    once for it and not for every request."""

    name = "rotated"

    @classmethod
    def strikes(cls, effect: type[Effect[Any]]) -> bool:
        """Whatever is asked while a token is looked at."""
        return issubclass(effect, (FetchDocument, ReadCache, VerifyToken))


class Forgotten(Fault):
    """The replica's cache is emptied. Promise: what is remembered is for speed, and forgetting it lets nobody in."""

    name = "forgotten"

    @classmethod
    def strikes(cls, effect: type[Effect[Any]]) -> bool:
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

PLAN_STEPS = {
    CreateKeys: 24,
    CopyKey: 20,
    PromoteParts: 14,
    StageBody: 8,
    DeleteKeys: 4,
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
