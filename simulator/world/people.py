"""The private registry of a scenario: who there is, and the configuration that says what they may do.

Everybody is told apart by what they show. Namespace ``a`` is governed by the global policy; ``a/b`` has a policy of its
own and a webhook. The rules are nodes, so that a trace can hold them. What all of it amounts to is written down once
more, in another way, in `angos.simulator.oracle.access`.
"""

from __future__ import annotations

from angos.sansio.access.config import AccessConfig, Provider, TokenService, User, Webhook
from angos.sansio.access.expression_nodes import Binary, Constant, Expression, ListOf, Logical, Select, Variable
from angos.sansio.access.policy import Policy, Rule
from angos.sansio.config import RepositoryConfig
from angos.sansio.http.message import Header

PEOPLE = ("alice", "bob", "carol", "job", "reader", "nobody", "mallory", "stranger", "forger")
"""Alice, Bob and Carol have passwords. A job shows a token of the provider, a reader a token of the registry that Alice
got for pulling from ``a``. Nobody shows nothing, Mallory a wrong password of Alice, a stranger a token of a key that
the provider never had, another one each time, and a forger one of the right key whose signature is wrong."""

PASSWORDS = {"alice": "wonderland", "bob": "builder", "carol": "carillon"}
PROVIDER = Provider("ci", "https://issuer.example")
DISCOVERY_URL = f"{PROVIDER.issuer}/.well-known/openid-configuration"
KEYS_URL = f"{PROVIDER.issuer}/keys"
WEBHOOK = Webhook("gate")

_READING = ("get-blob", "get-manifest", "get-referrers", "list-tags")
_PUSHING = (
    "start-upload",
    "mount-blob",
    "get-upload",
    "update-upload",
    "complete-upload",
    "cancel-upload",
    "put-manifest",
)
_USERNAME = Select(Variable("identity"), "username")
_PROVIDER_NAME = Select(Select(Variable("identity"), "oidc"), "provider_name")  # an error for whoever has no token
_ACTION = Select(Variable("request"), "action")
_NAMESPACE = Select(Variable("request"), "namespace")


def _is(left: Expression, text: str) -> Expression:
    return Binary("==", left, Constant("string", text))


def _is_among(left: Expression, texts: tuple[str, ...]) -> Expression:
    return Binary("in", left, ListOf(tuple(Constant("string", text) for text in texts)))


def _all(*operands: Expression) -> Expression:
    return Logical("&&", operands)


def _policy(where: str, *expressions: Expression) -> Policy:
    rules = [Rule("", f"{where}.rules[{place}]", expression) for place, expression in enumerate(expressions)]
    return Policy("deny", tuple(rules))


ACCESS = AccessConfig(
    policy=_policy(
        "global.access_policy",
        _is(_USERNAME, "alice"),
        _all(_is(_USERNAME, "carol"), _is_among(_ACTION, _READING + _PUSHING)),
        _all(_is(_USERNAME, "bob"), _is(_NAMESPACE, "a"), _is_among(_ACTION, _READING)),
        _all(_is(_PROVIDER_NAME, "ci"), _is(_NAMESPACE, "a"), _is_among(_ACTION, _READING + _PUSHING)),
    ),
    users=tuple(User(f"{name}-id", name) for name in PASSWORDS),
    providers=(PROVIDER,),
    token_service=TokenService(),
    webhooks=(WEBHOOK,),
)

REPOSITORIES = (
    RepositoryConfig(
        "a/b",
        policy=_policy('repository."a/b".access_policy', _is_among(_USERNAME, ("alice", "carol"))),
        webhook=WEBHOOK.name,
    ),
)


def gate(headers: tuple[Header, ...]) -> int:
    """The status that the webhook answers with: Alice may do anything, others may read."""
    fields = dict(headers)
    if fields.get("X-Registry-Username") == "alice" or fields["X-Registry-Action"] in _READING:
        return 200
    return 403
