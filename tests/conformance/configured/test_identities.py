"""``[auth]``: users and their passwords, tokens of the registry itself."""

from __future__ import annotations

import base64
import re

import jwt
import pytest
from argon2 import PasswordHasher

from tests.conformance.configured.configured_registry import ConfiguredRegistry, Document, Start, merged
from tests.conformance.configured.coverage import changes_with
from tests.conformance.runtime.reloading import wait_until

pytestmark = pytest.mark.xdist_group("configured-identities")

HASHER = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
FIRST_KEY, SECOND_KEY = (base64.b64encode(bytes([number]) * 32).decode() for number in (1, 2))


def user(username: str, password: str) -> Document:
    """Somebody who may do everything; others only see what is public."""
    return {
        "auth": {"identity": {"somebody": {"username": username, "password": HASHER.hash(password)}}},
        "global": {"access_policy": {"rules": ["identity.id == 'somebody'", "request.namespace == 'public'"]}},
    }


def basic(username: str, password: str) -> str:
    return f"Authorization: Basic {base64.b64encode(f'{username}:{password}'.encode()).decode()}"


def is_known(registry: ConfiguredRegistry, credentials: str) -> bool:
    return registry.status("/v2/a/tags/list", credentials) == 404


@changes_with("auth.identity.*.username", "auth.identity.*.password")
def test_users_have_these_names_and_passwords(start: Start) -> None:
    alice, bob = start(user("alice", "open sesame")), start(user("bob", "swordfish"))
    assert is_known(alice, basic("alice", "open sesame"))
    assert is_known(bob, basic("bob", "swordfish"))
    for username, password in (("bob", "open sesame"), ("alice", "swordfish")):
        assert not is_known(alice, basic(username, password))
        assert not is_known(bob, basic(username, password))


@changes_with("auth.invalid_credentials")
def test_invalid_credentials_may_count_as_none(start: Start) -> None:
    lenient, strict = (
        start(merged(user("alice", "open sesame"), {"auth": {"invalid_credentials": word}}))
        for word in ("pass", "reject")
    )
    wrong = basic("alice", "wrong")
    public = "/v2/public/tags/list"
    assert lenient.status(public) == strict.status(public) == 404
    assert (lenient.status(public, wrong), strict.status(public, wrong)) == (404, 401)


# --- tokens -----------------------------------------------------------------------------------------------------------


def with_tokens(**service: object) -> Document:
    return merged(user("alice", "open sesame"), {"auth": {"token_service": service}})


def answered_token(registry: ConfiguredRegistry) -> dict[str, object]:
    with registry.connect() as wire:
        answer = wire.get("/token?scope=repository:a:pull", basic("alice", "open sesame"))
        assert answer.status == 200
        found: dict[str, object] = answer.json()
        return found


def challenge(registry: ConfiguredRegistry) -> str:
    with registry.connect() as wire:
        return wire.get("/v2/a/tags/list").fields["www-authenticate"]


@changes_with("auth.token_service.enabled")
def test_tokens_can_be_switched_off(start: Start) -> None:
    on, off = start(with_tokens()), start(with_tokens(enabled=False))
    assert is_known(on, f"Authorization: Bearer {answered_token(on)['token']}")
    assert challenge(on).startswith("Bearer ")
    assert off.status("/token", basic("alice", "open sesame")) == 404
    assert challenge(off).startswith("Basic ")


@changes_with("auth.token_service.secret_key")
def test_registries_with_one_key_take_each_others_tokens(start: Start) -> None:
    first, second, other = (start(with_tokens(secret_key=key)) for key in (FIRST_KEY, FIRST_KEY, SECOND_KEY))
    bearer = f"Authorization: Bearer {answered_token(first)['token']}"
    assert [is_known(registry, bearer) for registry in (first, second, other)] == [True, True, False]


@changes_with("auth.token_service.realm", "auth.token_service.ttl_secs")
def test_tokens_are_had_at_this_address_and_for_this_time(start: Start) -> None:
    plain = start(with_tokens())
    registry = start(with_tokens(realm="https://registry.example/angos/token", ttl_secs=1))
    assert re.match(r'Bearer realm="http://test/token"', challenge(plain))
    assert re.match(r'Bearer realm="https://registry.example/angos/token"', challenge(registry))
    lasting, brief = answered_token(plain), answered_token(registry)
    for found, seconds in ((lasting, 3600), (brief, 1)):
        claims = jwt.decode(str(found["token"]), options={"verify_signature": False})
        assert claims["exp"] - claims["iat"] == found["expires_in"] == seconds
    wait_until(lambda: not is_known(registry, f"Authorization: Bearer {brief['token']}"))
    assert is_known(plain, f"Authorization: Bearer {lasting['token']}")
