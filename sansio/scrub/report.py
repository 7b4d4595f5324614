"""What a scrub has found, and what it did about it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from angos.sansio.effects import Key

Action = Literal["quarantined", "created", "kept", "postponed"]
"""``kept``: nobody but a person can help. ``postponed``: it is too young to be judged."""

Problem = Literal[
    "corrupt",
    "damaged-record",
    "missing-bytes",
    "missing-catalogue",
    "missing-reference",
    "missing-referrer",
    "missing-revision",
    "orphan-referrer",
    "unknown-key",
    "unreadable",
]

FINDINGS_MAX = 10_000
"""Findings that are told one by one; the others are only counted."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be."""

    key: Key
    """Where."""
    problem: Problem
    detail: str
    """In words: what, to whom, and what to do when it is not done yet."""
    action: Action
    """What was done; of a dry run, what would be."""


@dataclass(frozen=True, slots=True)
class Scrubbed:
    """What a scrub has come to."""

    dry_run: bool
    resumed: bool
    """It went on where an earlier one had been interrupted, whose findings are among these."""
    objects: tuple[tuple[str, int], ...]
    """How many of each kind were looked at."""
    bytes_verified: int
    """That were hashed."""
    findings: tuple[Finding, ...]
    """In the order of their keys, `FINDINGS_MAX` at most."""
    problems: tuple[tuple[str, int], ...]
    """How many of each, all of them."""
    actions: tuple[tuple[str, int], ...]
    """Likewise."""
    refused: str = ""
    """Why nothing was done, in a sentence."""

    @property
    def is_sound(self) -> bool:
        """Nothing is left for a person to do."""
        if self.refused:
            return False
        if self.dry_run:
            return not self.problems
        return all(action not in ("kept", "postponed") for action, _ in self.actions)


@dataclass(slots=True)
class Tally:
    """The same while it grows."""

    objects: Counter[str] = field(default_factory=Counter)
    bytes_verified: int = 0
    findings: dict[tuple[Key, str], Finding] = field(default_factory=dict)
    problems: Counter[str] = field(default_factory=Counter)
    actions: Counter[str] = field(default_factory=Counter)

    def note(self, finding: Finding) -> None:
        """Count it, unless it is known: what many things depend on is looked at many times."""
        if (finding.key, finding.problem) in self.findings:
            return
        self.problems[finding.problem] += 1
        self.actions[finding.action] += 1
        if len(self.findings) < FINDINGS_MAX:
            self.findings[finding.key, finding.problem] = finding

    def told(self) -> tuple[tuple[str, int], ...]:
        """For whoever watches."""
        return tuple(sorted(self.actions.items()))

    def result(self, *, dry_run: bool, resumed: bool, refused: str = "") -> Scrubbed:
        """All of it."""
        return Scrubbed(
            dry_run,
            resumed,
            tuple(sorted(self.objects.items())),
            self.bytes_verified,
            tuple(sorted(self.findings.values(), key=lambda finding: (finding.key, finding.problem))),
            tuple(sorted(self.problems.items())),
            tuple(sorted(self.actions.items())),
            refused,
        )
