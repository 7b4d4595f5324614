"""Who may do what in a private scenario, written down a second time; and what must hold of every answer.

The configuration (`angos.simulator.world.people`) says it in rules, policies, token scopes and a webhook. Here it is a
table, and nothing of the core has a part in it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from angos.simulator.oracle.history import Answer
from angos.simulator.oracle.violation import Violation
from angos.simulator.world.client import Call
from angos.simulator.world.private import Fetch

COOLDOWN_MS = 60_000  # between two fetches of keys by a replica that has some
DOWN_MS = 5_000  # between two by one that has none, after one that failed

MAY: dict[str, dict[str, tuple[str, ...]]] = {
    "alice": {"": ("list",), "a": ("read", "push", "delete"), "a/b": ("read", "push", "delete")},
    "bob": {"a": ("read",)},
    "carol": {"a": ("read", "push"), "a/b": ("read",)},
    "job": {"a": ("read", "push")},
    "reader": {"a": ("read",)},
}
"""By person and namespace; whoever or whatever is missing may not."""

KNOWN = ("alice", "bob", "carol", "job")
"""Who is told 403. A reader is told to get another token, and the others are nobody."""


def may(person: str, what: str, namespace: str) -> bool:
    """Whether they may do such a thing there."""
    return what in MAY.get(person, {}).get(namespace, ())


class AccessOracle:
    """Watches the requests of one run."""

    def __init__(self) -> None:
        self._brought: set[tuple[str, str]] = set()
        """Namespaces and blobs that somebody entitled to it may have put there."""

    def sent(self, person: str, call: Call) -> None:
        """Somebody asks for something."""
        what, namespace = _asked(call)
        source = _source_of(call)
        if may(person, what, namespace) and (source is None or may(person, "read", source)):
            for intent in call.intents:
                if intent.kind == "set" and intent.register[0] == "blob":
                    self._brought.add((namespace, intent.register[2]))

    def answered(self, person: str, call: Call, answer: Answer, *, faulty: bool) -> None:
        """The registry has decided on an answer."""
        what, namespace = _asked(call)
        status = answer.status
        if not may(person, what, namespace):
            if status not in (401, 403, 503):
                raise Violation(
                    "let in", f"{person} may not {what} {namespace}, and {_name(call)} was answered {status}"
                )
            if not faulty and status != (403 if person in KNOWN else 401):
                raise Violation("wrong refusal", f"{person} was answered {status} to {_name(call)}")
        elif status in (401, 403) and not faulty:
            raise Violation("kept out", f"{person} may {what} {namespace}, and {_name(call)} was answered {status}")
        if status == 201 and (source := _source_of(call)) is not None and not may(person, "read", source):
            for intent in call.intents:
                if intent.register[0] == "blob" and (namespace, intent.register[2]) not in self._brought:
                    what = f"{person} may not read {source}, and {_name(call)} gave its blob to {namespace}"
                    raise Violation("seen across namespaces", what)

    def judge_fetches(self, fetches: Iterable[Fetch]) -> None:
        """Each replica asks its provider once, and then again when a key is unknown and the last time is long ago, or
        when it failed and that was not just now. Only leases keep two requests from asking at the same time."""
        seen: Counter[tuple[int, bool]] = Counter()
        for fetch in fetches:
            kind = (fetch.life, fetch.renewing)
            seen[kind] += 1
            if seen[kind] > 1 + (fetch.at_ms - fetch.since_ms) // (COOLDOWN_MS if fetch.renewing else DOWN_MS):
                seconds = (fetch.at_ms - fetch.since_ms) / 1000
                what = f"{fetch.replica} fetched keys {seen[kind]} times within {seconds:g} s"
                raise Violation("provider flooded", what)


def _asked(call: Call) -> tuple[str, str]:
    """What a request is, and in which namespace."""
    path = call.target.removeprefix("/v2/").partition("?")[0]
    if path == "_catalog":
        return "list", ""
    if "/blobs/uploads/" in path:
        return "push", path.partition("/blobs/uploads/")[0]
    if path.endswith("/_restore"):
        return "push", path.removeprefix("_ext/").removesuffix("/_restore")
    namespace = path.rpartition("/")[0].rpartition("/")[0]
    return {"PUT": "push", "DELETE": "delete"}.get(call.method, "read"), namespace


def _source_of(call: Call) -> str | None:
    """Where a mount takes its blob from; None for what is no mount."""
    return call.target.partition("&from=")[2] if "?mount=" in call.target else None


def _name(call: Call) -> str:
    return f"{call.method} {call.target}"
