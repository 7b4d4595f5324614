"""What the tests of access share: people, policies, and a registry that knows them."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any, Literal

from angos.sansio.access.config import AccessConfig, Provider, TokenService, User, Webhook
from angos.sansio.access.expression_nodes import Constant
from angos.sansio.access.policy import OPEN, Policy, Rule
from angos.sansio.config import RegistryConfig, RepositoryConfig
from angos.simulator.registry import SimulatedRegistry
from angos.simulator.world.services import SimulatedKey, SimulatedServices

Test = Callable[[Mapping[str, Any]], Any]

ISSUER = "https://issuer.example"
KEYS_URL = f"{ISSUER}/keys"
PROVIDER = Provider("ci", ISSUER, KEYS_URL)
KEY = SimulatedKey("k1")
EXPIRES = 1_900_000_000


def rule(test: Test, where: str = "global.access_policy.rules[0]") -> Rule:
    """A rule written in Python."""
    return Rule("(in Python)", where, Constant("bool", False), test)


def policy(default: Literal["deny", "allow"], *tests: Test) -> Policy:
    """A policy of such rules."""
    rules = [rule(test, f"global.access_policy.rules[{index}]") for index, test in enumerate(tests)]
    return Policy(default, tuple(rules))


def somebody(variables: Mapping[str, Any]) -> bool:
    """A rule: whoever has said who they are."""
    identity = variables["identity"]
    return identity["id"] is not None or identity["oidc"] is not None


def pulling(variables: Mapping[str, Any]) -> bool:
    """A rule: whatever only reads."""
    return str(variables["request"]["action"]).startswith(("get-", "list-"))


def access(policy_: Policy = OPEN, **more: Any) -> AccessConfig:
    """Alice has the password ``secret``; the provider ``ci`` has one key."""
    defaults: dict[str, Any] = {"users": (User("alice-id", "alice"),), "providers": (PROVIDER,)}
    return AccessConfig(policy_, **(defaults | more))


def registry(config: AccessConfig, *repositories: RepositoryConfig, **more: Any) -> SimulatedRegistry:
    """One that knows Alice and the provider."""
    services = SimulatedServices(passwords={"alice": "secret"}, documents={KEYS_URL: key_set(KEY)})
    return SimulatedRegistry(RegistryConfig(access=config, repositories=repositories, **more), services)


def key_set(*keys: SimulatedKey, **more: Any) -> bytes:
    """A JSON Web Key Set."""
    return json.dumps({"keys": [key.jwk() for key in keys], **more}).encode()


def basic(username: str, password: str) -> dict[str, str]:
    """A header."""
    return {"Authorization": "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()}


def bearer(token: str) -> dict[str, str]:
    """A header."""
    return {"Authorization": f"Bearer {token}"}


def job_token(key: SimulatedKey = KEY, **claims: Any) -> str:
    """A token that the provider signed."""
    return key.sign({"iss": ISSUER, "exp": EXPIRES, "sub": "job", **claims}).value


ALICE = basic("alice", "secret")
TOKENS = TokenService()
HOOK = Webhook("acl")
