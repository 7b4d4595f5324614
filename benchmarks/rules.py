"""Row `rules`: microseconds to evaluate one rule of an access policy."""

from __future__ import annotations

import timeit

from angos.runtime.config.cel import parse_rule
from angos.runtime.config.cel_patterns import re2_matcher
from angos.sansio.access.expression import compile_expression
from benchmarks.result import Result, Target
from benchmarks.settings import Settings

ROWS = ("rules",)
PROGRAMS: set[str] = set()

_RULES = {
    "a user": 'identity.username == "alice"',
    "a user, an action, a namespace": (
        'identity.username == "alice" && request.action in ["get-manifest", "get-blob"]'
        ' && request.namespace.startsWith("acme/")'
    ),
    "two claims of a token": (
        'identity.oidc != null && identity.oidc.claims["repository"] == "acme/api"'
        ' && identity.oidc.claims["ref"].startsWith("refs/heads/")'
    ),
    "a pattern": 'has(request.namespace) && request.namespace.matches("^acme/(api|web)$")',
    "one of three groups": 'identity.certificate.organizations.exists(group, group == "admins")',
}
_ACTIVATION = {
    "identity": {
        "id": "alice",
        "username": "alice",
        "certificate": {"organizations": ["builders", "testers", "admins"], "common_names": []},
        "oidc": {"provider_name": "forge", "claims": {"repository": "acme/api", "ref": "refs/heads/main"}},
        "client_ip": "192.0.2.1",
    },
    "request": {"action": "get-manifest", "namespace": "acme/api", "reference": "latest"},
}
_EVALUATIONS = 100_000


def measure(settings: Settings) -> list[Result]:
    """All of them are true, so that every operand is evaluated."""
    target = Target("figure", "at most", 5)
    return [
        Result("rules", f"one rule: {what}", "µs", _microseconds(text, settings.rounds), target=target)
        for what, text in _RULES.items()
    ]


def _microseconds(text: str, rounds: int) -> tuple[float, ...]:
    evaluate = compile_expression(parse_rule(text, variables=_ACTIVATION.keys()), matcher=re2_matcher())
    assert evaluate(_ACTIVATION) is True, text
    timer = timeit.Timer(lambda: evaluate(_ACTIVATION))
    return tuple(timer.timeit(_EVALUATIONS) / _EVALUATIONS * 1e6 for _ in range(rounds))
