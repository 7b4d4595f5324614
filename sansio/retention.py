"""Retention: which tags of a repository may go, as its rules have it. Decides, and touches nothing.

Rules say what to keep. Those of ``[global]`` and those of the repository are one list, and the first that is true keeps
the tag; another rule can only keep more. Whatever is not known keeps, too: a rule that fails or gives anything but true
or false, a push at an unknown time, a tag that could not be read. Without any rule everything stays.

Some tags stay whatever the rules say, and take no place among the newest:

* what was pushed a moment ago, because somebody is at work on it;
* signatures, attestations and lists of referrers under a tag made from the digest of a manifest
  (``sha256-<hex>``, ``sha256-<hex>.sig``), for as long as that manifest is in the repository.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from angos.sansio.access.expression import EvaluationError, Expression, compile_expression
from angos.sansio.access.expression_nodes import Call, Constant, Has, Index, Select, walk
from angos.sansio.layout import TagEvent
from angos.sansio.oci.digest import HEX_LENGTH, Digest
from angos.sansio.oci.reference import Namespace, Tag

MIN_AGE_SECONDS: Final = 3600.0

PREFIXES_MAX: Final = 100
"""For how many beginnings of tags the rules of a run may ask. Counting for each of them takes a look at every tag."""

NOW: Final = "now()"
RANKING: Final = "top_pushed()"
PULL_RANKING: Final = "top_pulled()"
"""Variables that no rule can name; the functions read them."""


def _seconds(name: str, factor: int) -> Callable[..., Any]:
    def run(_variables: Mapping[str, Any], count: Any) -> int:
        if type(count) is not int:
            raise EvaluationError(f"{name} takes a whole number")
        return _bounded(count * factor)

    return run


def _bounded(value: int) -> int:
    if not -(2**63) <= value < 2**63:
        raise EvaluationError("a number is out of range of an int")
    return value


def _top(name: str, ranking: str) -> Callable[..., Any]:
    def run(variables: Mapping[str, Any], count: Any) -> bool:
        if type(count) is not int:
            raise EvaluationError(f"{name} takes a whole number")
        return _is_among_the_first(variables, ranking, count, "")

    return run


def _top_with_prefix(name: str, ranking: str) -> Callable[..., Any]:
    def run(variables: Mapping[str, Any], prefix: Any, count: Any) -> bool:
        if type(prefix) is not str or type(count) is not int:
            raise EvaluationError(f"{name} takes a text and a whole number")
        return _is_among_the_first(variables, ranking, count, prefix)

    return run


def _is_among_the_first(variables: Mapping[str, Any], ranking: str, count: int, prefix: str) -> bool:
    ranked: _Ranking = variables[ranking]
    rank = ranked.ranks(prefix).get(variables["image"]["tag"])
    return rank is not None and rank < count


FUNCTIONS: Final[Mapping[str, Callable[..., Any]]] = {
    "now": lambda variables: variables[NOW],
    "days": _seconds("days", 86400),
    "hours": _seconds("hours", 3600),
    "minutes": _seconds("minutes", 60),
    "top_pushed": _top("top_pushed", RANKING),
    "top_pushed_with_prefix": _top_with_prefix("top_pushed_with_prefix", RANKING),
    "top_pulled": _top("top_pulled", PULL_RANKING),
    "top_pulled_with_prefix": _top_with_prefix("top_pulled_with_prefix", PULL_RANKING),
}
"""What rules can call beside the functions of the language."""


def about_pulls(expression: Expression) -> str | None:
    """What in a rule has to do with pulls, for a person; None when nothing has."""
    for node in walk(expression):
        match node:
            case Call("top_pulled" | "top_pulled_with_prefix" as name):
                return name
            case (
                Select(_, "last_pulled_at") | Has(_, "last_pulled_at") | Index(_, Constant("string", "last_pulled_at"))
            ):
                return "image.last_pulled_at"
            case _:
                pass
    return None


@dataclass(frozen=True, slots=True)
class RetentionRule:
    """One expression that says what to keep."""

    text: str
    where: str
    """The key in the configuration: ``global.retention_policy.rules[2]``."""
    expression: Expression
    evaluate: Callable[[Mapping[str, Any]], Any] = field(default=None, compare=False, repr=False)  # type: ignore[assignment]
    """Made from the expression unless given."""
    asks_for_pulls: bool = field(default=False, init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "asks_for_pulls", about_pulls(self.expression) is not None)
        if self.evaluate is None:
            object.__setattr__(self, "evaluate", compile_expression(self.expression, functions=FUNCTIONS))


@dataclass(frozen=True, slots=True)
class RetentionConfig:
    """``[global.retention_policy]`` and those of repositories."""

    rules: tuple[RetentionRule, ...] = ()
    repositories: tuple[tuple[str, tuple[RetentionRule, ...]], ...] = ()
    """Further rules for a namespace and everything below it. None lies inside another one."""
    min_age_seconds: float = MIN_AGE_SECONDS
    """What is younger stays."""

    def rules_for(self, namespace: Namespace) -> tuple[RetentionRule, ...]:
        """The rules that decide about a namespace."""
        for declared, rules in self.repositories:
            if namespace == declared or namespace.startswith(f"{declared}/"):
                return (*self.rules, *rules)
        return self.rules


# --- what is known about a tag ----------------------------------------------------------------------------------------

_COMPANION = re.compile(r"(sha256|sha512)-([0-9a-f]{64,128})(?:\.[a-zA-Z0-9._-]+)?")


def named_subject(tag: Tag) -> Digest | None:
    """The manifest that a tag of this form belongs to; None for other tags."""
    match = _COMPANION.fullmatch(tag.name)
    if match is None or len(match[2]) != HEX_LENGTH[match[1]]:
        return None
    return Digest(match[1], match[2])


@dataclass(frozen=True, slots=True)
class TagFacts:
    """A tag as it is at this moment."""

    tag: Tag
    event: TagEvent | None
    """What set it. None: that could not be read."""
    has_subject: bool = False
    """It belongs to a manifest of the repository."""
    pulled_ms: int | None = None
    """When something was pulled by it for the last time, or may have been; None: never, or nobody wants to know."""

    @property
    def pushed_ms(self) -> int | None:
        """When it was pushed; None when that is not known, as of stores that were not written here."""
        return self.event.at_ms if self.event is not None and self.event.at_ms >= 0 else None


Ruled = Literal["rule", "rule failed", "no rule"]
"""What rules come to."""
Why = Literal[Ruled, "young", "undated", "belongs", "unreadable", "no rules"]
"""What decided. ``no rule`` is why a tag goes, everything else keeps it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to become of a tag, and why."""

    facts: TagFacts
    why: Why
    rule: RetentionRule | None = None
    problem: str = ""
    """Of the rule that failed."""

    @property
    def goes(self) -> bool:
        """Whether it may be deleted."""
        return self.why == "no rule"


def judge(
    tags: Sequence[TagFacts], rules: Sequence[RetentionRule], now_ms: int, *, min_age_ms: int = 0
) -> tuple[Verdict, ...]:
    """The verdict on each tag of one repository, all of which are given, in their order."""
    if not rules:
        return tuple(Verdict(facts, "no rules") for facts in tags)
    rankings = {RANKING: _Ranking(tags), PULL_RANKING: _Ranking(tags, by_pull=True)}
    return tuple(_judge(facts, rankings, rules, now_ms, min_age_ms) for facts in tags)


class _Ranking:
    """How many tags were pushed later, or pulled later, of those that are ranked. Tags that were pushed at one moment
    are ranked by name, so that two runs agree. Times of pulls are rounded, so of equal ones nobody knows which is
    later: all of them have the rank of the first."""

    def __init__(self, tags: Iterable[TagFacts], *, by_pull: bool = False) -> None:
        dated = [
            (facts.pulled_ms if by_pull else facts.pushed_ms, facts.tag.name) for facts in tags if not facts.has_subject
        ]
        self._newest_first = sorted((-at_ms, name) for at_ms, name in dated if at_ms is not None)
        self._share = by_pull
        self._known: dict[str, dict[str, int]] = {}

    def ranks(self, prefix: str) -> dict[str, int]:
        """Of the tags that begin with this, counted among them."""
        known = self._known.get(prefix)
        if known is None:
            if len(self._known) >= PREFIXES_MAX:
                raise EvaluationError(f"rules ask for more than {PREFIXES_MAX} beginnings of tags")
            known = self._known[prefix] = {}
            rank, before_ms = 0, None
            for at_ms, name in self._newest_first:
                if name.startswith(prefix):
                    rank = rank if self._share and at_ms == before_ms else len(known)
                    known[name], before_ms = rank, at_ms
        return known


def _judge(
    facts: TagFacts, rankings: Mapping[str, _Ranking], rules: Sequence[RetentionRule], now_ms: int, min_age_ms: int
) -> Verdict:
    if facts.event is None:
        return Verdict(facts, "unreadable")
    if facts.has_subject:
        return Verdict(facts, "belongs")
    pushed_ms = facts.pushed_ms
    if pushed_ms is None:
        return Verdict(facts, "undated")
    if now_ms - pushed_ms < min_age_ms:
        return Verdict(facts, "young")
    why, rule, problem = apply_rules(rules, facts.tag.name, pushed_ms, now_ms, facts.pulled_ms, rankings)
    return Verdict(facts, why, rule, problem)


def apply_rules(
    rules: Sequence[RetentionRule],
    tag: str | None,
    pushed_ms: int,
    now_ms: int,
    pulled_ms: int | None,
    rankings: Mapping[str, _Ranking] | None = None,
) -> tuple[Ruled, RetentionRule | None, str]:
    """What rules say about a tag, or about a manifest without one; which of them decided; and how it failed."""
    variables = {
        "image": {"tag": tag, "pushed_at": pushed_ms // 1000, "last_pulled_at": (pulled_ms or 0) // 1000},
        NOW: now_ms // 1000,
        **(rankings or {RANKING: _Ranking(()), PULL_RANKING: _Ranking(())}),
    }
    for rule in rules:
        try:
            value = rule.evaluate(variables)
        except EvaluationError as error:
            return "rule failed", rule, str(error)
        if value is True:
            return "rule", rule, ""
        if value is not False:
            problem = f"gave a value of type {type(value).__name__} instead of true or false"
            return "rule failed", rule, problem
    return "no rule", None, ""
