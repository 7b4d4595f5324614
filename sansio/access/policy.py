"""Policies: rules over the identity and the request, and what a list of them decides."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

from angos.sansio.access.expression import EvaluationError, Expression, compile_expression

Evaluate = Callable[[Mapping[str, Any]], Any]

HAS_REPOSITORY_POLICY: Final = "has_repository_policy()"
"""A variable that no rule can name; the function of this name reads it."""

FUNCTIONS: Final[Mapping[str, Callable[..., Any]]] = {
    "has_repository_policy": lambda variables: variables[HAS_REPOSITORY_POLICY],
}
"""What rules can call beside the functions of the language."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One expression of a policy."""

    text: str
    where: str
    """The key in the configuration: ``global.access_policy.rules[2]``."""
    expression: Expression
    evaluate: Evaluate = field(default=None, compare=False, repr=False)  # type: ignore[assignment]
    """Made from the expression unless given; whoever has a better regular expression engine gives it."""

    def __post_init__(self) -> None:
        if self.evaluate is None:
            object.__setattr__(self, "evaluate", compile_expression(self.expression, functions=FUNCTIONS))


@dataclass(frozen=True, slots=True)
class Policy:
    """Denies what no rule allows, or allows what no rule denies."""

    default: Literal["deny", "allow"] = "deny"
    rules: tuple[Rule, ...] = ()


OPEN = Policy("allow")


class RuleOutcome(NamedTuple):
    """What a rule said about one request."""

    rule: Rule
    value: bool | None
    """None: it failed."""
    problem: str = ""
    denies: bool = False
    """It is a rule of a policy that allows what no rule denies."""


class Decision(NamedTuple):
    """What a policy said about one request, and the rules that were looked at to find out, in order."""

    allowed: bool
    outcomes: tuple[RuleOutcome, ...]


def decide(policy: Policy, variables: Mapping[str, Any]) -> Decision:
    """The first rule that is true decides, otherwise the default.

    A rule that fails, or gives anything but true or false, can never let a request in: where rules allow it is passed
    over, where rules deny it denies.
    """
    denies = policy.default == "allow"
    outcomes: list[RuleOutcome] = []
    for rule in policy.rules:
        try:
            value = rule.evaluate(variables)
        except EvaluationError as error:
            outcomes.append(RuleOutcome(rule, None, str(error), denies))
        else:
            if value is False:
                outcomes.append(RuleOutcome(rule, False))
                continue
            if value is True:
                outcomes.append(RuleOutcome(rule, True))
                return Decision(not denies, tuple(outcomes))
            problem = f"gave a value of type {type(value).__name__} instead of true or false"
            outcomes.append(RuleOutcome(rule, None, problem, denies))
        if denies:
            return Decision(False, tuple(outcomes))
    return Decision(denies, tuple(outcomes))
