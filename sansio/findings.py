"""What trying a store out has found: one line for each thing that the registry relies on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["works", "fails", "unknown", "not tried"]
"""``unknown``: there was no usable answer. ``not tried``: what it takes does not work."""


class Fails(Exception):
    """What is tried out does not do this. Says why."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Whether a store does one thing that the registry relies on."""

    need: str
    """What it has to do, as the end of a sentence that begins with the store."""
    verdict: Verdict
    reason: str = ""
    """Why not; or what is worth knowing although it does."""
    without: str = ""
    """How the registry gets along when it does not; empty: not at all."""

    @property
    def consequence(self) -> str:
        """The reason, and what follows from it."""
        follows = ""
        if self.verdict == "fails":
            follows = f"so {self.without}" if self.without else "so the registry does not start"
        return ", ".join(text for text in (self.reason, follows) if text)


def faults(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """What makes the store unusable."""
    return tuple(each for each in findings if each.verdict == "fails" and not each.without)


def doubts(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """What was not found out."""
    return tuple(each for each in findings if each.verdict == "unknown")


def table(findings: Sequence[Finding]) -> tuple[str, ...]:
    """The findings for a person, one line each: what, the verdict, the consequence."""
    needs = max(len(each.need) for each in findings)
    verdicts = max(len(each.verdict) for each in findings)
    return tuple(f"{each.need:<{needs}}  {each.verdict:<{verdicts}}  {each.consequence}".rstrip() for each in findings)
