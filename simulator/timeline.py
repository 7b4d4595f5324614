"""What happened in a run, step by step: for the trace file and for people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from angos.sansio.effects import Effect
from angos.sansio.steps import Step
from angos.sansio.trace import encode_effect, encode_outcome
from angos.simulator.oracle.history import Answer
from angos.simulator.world.client import Call
from angos.simulator.world.clock import START_MS


@dataclass(slots=True)
class Entry:
    """One line. `what` is one of: sent, issue, ask, fault, apply, fail, answer, note."""

    step: int
    at_ms: int
    task: str
    what: str
    facts: dict[str, Any]


class Timeline:
    """Collects entries. A run without one is faster."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self._step = 0
        self._now_ms = 0

    def sent(self, step: int, now_ms: int, client: str, call: Call, replica: str) -> None:
        """A client sent a request."""
        size = len(call.body.content) if call.body.cut_at is None else call.body.cut_at
        facts = {"request": f"{call.method} {call.target}", "body": size, "replica": replica}
        self._add(step, now_ms, client, "sent", facts)

    def issued(self, step: int, now_ms: int, task: str, effect: Effect[Any], where: str) -> None:
        """An operation issued an effect."""
        self._add(step, now_ms, task, "issue", {"effect": encode_effect(effect), "at": where})

    def struck(self, task: str, fault: str) -> None:
        """A fault struck the effect of a task."""
        self._add(self._step, None, task, "fault", {"fault": fault})

    def applied(self, task: str, reply: object) -> None:
        """An effect was applied and answered."""
        self._add(self._step, None, task, "apply", {"reply": encode_outcome(reply)})

    def asked(self, step: int, now_ms: int, task: str, request: Step[Any], told: str) -> None:
        """A request was sent to a bucket, and this is what came of it."""
        key = getattr(request, "key", getattr(request, "prefix", ""))
        self._add(step, now_ms, task, "ask", {"request": type(request).__name__, "told": told, "of": key})

    def failed(self, task: str, error: BaseException) -> None:
        """An effect failed."""
        self._add(self._step, None, task, "fail", {"error": type(error).__name__})

    def answered(self, step: int, now_ms: int, client: str, call: Call, answer: Answer | None) -> None:
        """A client got an answer, or learned that there will be none."""
        facts = {"request": f"{call.method} {call.target}", "status": None if answer is None else answer.status}
        self._add(step, now_ms, client, "answer", facts)

    def note(self, step: int, now_ms: int, text: str) -> None:
        """Something that is no task's doing."""
        self._add(step, now_ms, "", "note", {"note": text})

    def _add(self, step: int, now_ms: int | None, task: str, what: str, facts: dict[str, Any]) -> None:
        self._step = step
        self._now_ms = self._now_ms if now_ms is None else now_ms - START_MS
        self.entries.append(Entry(step, self._now_ms, task, what, facts))
