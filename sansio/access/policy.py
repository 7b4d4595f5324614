"""Policies: rules over the identity and the request, and what a list of them decides."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

from angos.sansio.access.action import Action
from angos.sansio.access.expression import EvaluationError, Expression, compile_expression
from angos.sansio.access.expression_nodes import Select, Variable, walk
from angos.sansio.access.identity import Identity

Evaluate = Callable[[Mapping[str, Any]], Any]

HAS_REPOSITORY_POLICY: Final = "has_repository_policy()"
"""A variable that no rule can name; the function of this name reads it."""

FUNCTIONS: Final[Mapping[str, Callable[..., Any]]] = {
    "has_repository_policy": lambda variables: variables[HAS_REPOSITORY_POLICY],
}
"""What rules can call beside the functions of the language."""

REMEMBERED_MAX: Final = 1024  # decisions of one policy; a few hundred bytes each, more where requests say more


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
    reads_client_ip: bool = field(init=False, compare=False, repr=False)
    """False: no rule can tell one address from another."""
    remembered: dict[Any, Decision] = field(default_factory=dict, init=False, compare=False, repr=False)
    """Of `decide_about`, as a function of all that the rules can read: it changes nothing but the time."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "reads_client_ip", any(_reads_client_ip(rule.expression) for rule in self.rules))


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


def _reads_client_ip(expression: Expression) -> bool:
    """Whether it may. Only ``identity.<another field>`` certainly does not."""
    nodes = list(walk(expression))
    whole = sum(isinstance(node, Variable) and node.name == "identity" for node in nodes)
    others = sum(
        isinstance(node, Select) and node.operand == Variable("identity") and node.field != "client_ip"
        for node in nodes
    )
    return whole > others


def decide_about(policy: Policy, identity: Identity, action: Action, *, has_repository_policy: bool) -> Decision:
    """What the policy says when this client wants to do this.

    Clients ask for the same things again and again, so decisions are remembered: under everything that the rules can
    read, or not at all where that includes the claims of a token.
    """
    key = None
    if identity.oidc is None:
        client_ip = identity.client_ip if policy.reads_client_ip else None
        key = (action, identity.id, identity.username, identity.certificate, client_ip, has_repository_policy)
        remembered = policy.remembered.get(key)
        if remembered is not None:
            return remembered
    variables = {
        "identity": identity.variables(),
        "request": action.variables(),
        HAS_REPOSITORY_POLICY: has_repository_policy,
    }
    decision = decide(policy, variables)
    if key is not None:
        if len(policy.remembered) >= REMEMBERED_MAX:
            policy.remembered.clear()
        policy.remembered[key] = decision
    return decision


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
