"""What clients did and what they were told, as operations on registers.

The registry is seen as many small registers, each of them holding one value or None: a tag holds a digest; a blob or a
manifest of a namespace, and a referrer of a subject, hold "here". Every register must be linearizable by itself
(`linearizable`): then what was acknowledged is there, what was never written is not, and nothing comes back.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

Register = tuple[str, ...]
"""``("tag", namespace, tag)``, ``("blob", namespace, digest)``, ``("manifest", namespace, digest)`` or
``("referrer", namespace, subject, digest)``; and, where tags are immutable, ``("claim", namespace, tag)``: the manifest
that has the tag. It may be gone for a moment while a deletion of it crosses its push: then readers find nothing, and
others are refused all the same, as the push goes on."""

HERE = "here"

DELETES = {"manifest": "drop", "tag": "drop if", "claim": "drop if", "referrer": "drop if"}
"""For each kind of register what the deletion of a manifest means for it."""

SETS = ("set", "set once")
COLLECTOR = "collector"

_NAMED = re.compile(rb"is immutable and names (sha(?:256|512):[0-9a-f]+)")


def claim_on(register: Register) -> Register:
    """The register that says which manifest has a tag; any other register itself."""
    return ("claim", *register[1:]) if register[0] == "tag" else register


@dataclass(frozen=True, slots=True)
class Intent:
    """What a request means for one register, if it succeeds."""

    kind: Literal["set", "drop", "drop if", "keep", "read"]
    register: Register
    value: str | None = None
    """What is set, or what has to be there for ``drop if``. A ``keep`` gives back what it found and somebody else took
    away meanwhile; it never gives what was not there before."""


@dataclass(slots=True)
class Event:
    """An operation on a register that happened, or may have. Never changed, and not frozen only because that costs."""

    kind: Literal["set", "set once", "drop", "drop if", "read"]
    """``set once`` can only happen to what holds nothing or the same value already."""
    value: str | None
    """What was set or read."""
    called: int
    returned: float
    """Infinity when nobody was told: it may still take effect."""
    required: bool
    """False: it may not have happened at all."""
    who: str


@dataclass(slots=True)
class Answer:
    """What a client got. Not frozen, for the same reason."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class History:
    """Collects events."""

    def __init__(self, *, immutable_tags: bool = False) -> None:
        self.registers: dict[Register, list[Event]] = {}
        self._immutable_tags = immutable_tags

    def add(
        self,
        intents: tuple[Intent, ...],
        called: int,
        returned: int,
        answer: Answer | None,
        who: str,
        *,
        again: bool = False,
    ) -> None:
        """A request has ended with this answer; None: the client was never told. With `again`, an attempt to create
        what it creates is still on its way: what has no time in its name may be there once more."""
        for intent in intents:
            if intent.kind == "keep":
                if self.wanted(intent.register, ("set",)):
                    event = Event("set", HERE, called, returned if answer is not None else math.inf, False, who)
                    self.registers[intent.register].append(event)
                continue
            events = _events(intent, called, returned, answer, who)
            if self._immutable_tags and intent.register[0] == "tag":
                events = self._add_claims(intent, events, answer)
            if again and intent.kind == "set" and intent.register[0] != "tag":
                events = [*events, Event("set", intent.value, called, math.inf, False, who)]
            for event in events:
                self.registers.setdefault(intent.register, []).append(event)

    def _add_claims(self, intent: Intent, events: list[Event], answer: Answer | None) -> list[Event]:
        """Note what the events say about who may set the tag. The rest, about what readers find, is given back."""
        for event in events:
            if event.kind == "set":
                event.kind = "set once"
        refused = answer is not None and answer.status == 409
        if refused or intent.kind != "read" or any(event.value for event in events):
            self.registers.setdefault(claim_on(intent.register), []).extend(events)
        return [] if refused else events

    def collected(self, register: Register, step: int) -> None:
        """A collector or a pruner takes away what nobody has needed for long, or perhaps does."""
        self.registers.setdefault(register, []).append(Event("drop", None, step, step, False, COLLECTOR))

    def power_cut(self, unanswered: list[tuple[Intent, ...]], now: int) -> None:
        """The power is cut while these requests are unanswered.

        On a disk a name can be read before it is durable. Who read what nobody had acknowledged yet may find the value
        of before again: a read is not a promise, a 201 is. So registers with a write whose outcome nobody was told may
        go back, but never behind what had been acknowledged.
        """
        writes = (intent for intents in unanswered for intent in intents if intent.kind not in ("read", "keep"))
        open_now = {intent.register for intent in writes}
        if self._immutable_tags:
            open_now |= {claim_on(register) for register in open_now}
        for register in sorted({*self.registers, *open_now}):
            events = self.registers.setdefault(register, [])
            if register not in open_now and all(event.required for event in events):
                continue
            certain = [event for event in events if event.required and event.kind != "read"]
            before: dict[str | None, None] = {event.value if event.kind in SETS else None: None for event in certain}
            if not certain:
                before[None] = None
            events += [Event("set", value, now, now, False, "power cut") for value in before]

    def of(self, register: Register) -> list[Event]:
        """The events of a register, for judging.

        A push that is crossed by a delete of the same manifest writes it again before it answers. Who saw the first
        writing, and deleted it, finds the second one: such a push may take effect twice, before its answer.
        """
        events = self.registers[register]
        kind = DELETES.get(register[0])
        # A push that finds its bytes collected puts them there once more.
        deletes = [event for event in events if event.kind == kind or event.who == COLLECTOR]
        if not deletes:
            return events
        repeated = [
            replace(event, required=False)
            for event in events
            if event.kind in SETS and any(_overlap(event, other) for other in deletes)
        ]
        return events + repeated

    def wanted(self, register: Register, kinds: tuple[str, ...]) -> bool:
        """Whether somebody did, or tried, one of these."""
        return any(event.kind in kinds for event in self.registers.get(register, ()))

    def is_acknowledged(self, register: Register) -> bool:
        """Whether somebody was told that a value was set."""
        return any(event.kind == "set" and event.required for event in self.registers.get(register, ()))


def _overlap(one: Event, other: Event) -> bool:
    return one.called <= other.returned and other.called <= one.returned


def named_instead(answer: Answer) -> str | None:
    """The manifest that an immutable tag names, when that is why a push was refused."""
    found = _NAMED.search(answer.body) if answer.status == 409 else None
    return None if found is None else found[1].decode()


def _events(intent: Intent, called: int, returned: int, answer: Answer | None, who: str) -> list[Event]:
    status = 0 if answer is None else answer.status
    assert intent.kind != "keep", "seen to by the history"
    unknown = answer is None or status >= 500
    if intent.kind == "read":
        if answer is None or status not in (200, 206, 404):
            return []
        seen = None if status == 404 else HERE
        if seen and intent.register[0] == "tag":
            seen = answer.headers.get("docker-content-digest", "a digest that was not told")
        elif seen and intent.register[0] == "referrer":
            seen = HERE if intent.register[-1].encode() in answer.body else None
        return [Event("read", seen, called, returned, True, who)]
    if unknown:
        return [Event(intent.kind, intent.value, called, math.inf, False, who)]
    if status == 201 or (intent.kind != "set" and status in (202, 204)):
        return [Event(intent.kind, intent.value, called, returned, True, who)]
    if intent.kind == "set" and answer is not None and (named := named_instead(answer)) is not None:
        # The push came too late for its tag, and what it wrote before that may be there.
        if intent.register[0] == "tag":
            return [Event("read", named, called, returned, True, who)]
        return [Event("set", intent.value, called, returned, False, who)]
    if intent.kind == "drop" and status == 404:
        return [Event("read", None, called, returned, True, who)]
    if intent.kind == "drop" and status == 405:
        # A blob that turned out to be needed is given back: for a moment it may have been away.
        return [
            Event("drop", None, called, returned, False, who),
            Event("set", HERE, called, returned, False, who),
        ]
    return []
