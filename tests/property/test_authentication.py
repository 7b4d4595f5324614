"""Who makes a request: every method, alone and together, and everything that can be wrong with a credential."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from angos.sansio.access.authenticate import Authentication, authenticate
from angos.sansio.access.config import AccessConfig, Provider
from angos.sansio.access.credentials import Basic, Bearer, Unreadable, parse_authorization, public_authorization
from angos.sansio.effects import BodyHandle, FetchDocument, VerifyPassword, VerifyToken
from angos.sansio.errors import RegistryError
from angos.sansio.http.message import Certificate, Headers, Peer, Request
from angos.sansio.operation import Operation
from angos.sansio.secret import Secret
from angos.simulator.registry import SimulatedRegistry
from angos.simulator.world.services import SimulatedKey

from .access_values import (
    ALICE,
    ISSUER,
    KEY,
    KEYS_URL,
    PROVIDER,
    TOKENS,
    access,
    basic,
    bearer,
    job_token,
    key_set,
    registry,
)

PEER = Peer("192.0.2.1")
CERTIFICATE = Peer("192.0.2.1", "https", Certificate(("Builders",), ("bob",)))


def identify(world: SimulatedRegistry, headers: dict[str, str] | None = None, peer: Peer = PEER) -> Authentication:
    fields = tuple((name.lower(), value) for name, value in (headers or {}).items())
    request = Request("GET", "/v2/", Headers(fields), BodyHandle(0), 0, peer)
    assert world.config.access is not None
    return world.run(Operation(authenticate(request, world.config.access)))


def asked_for(world: SimulatedRegistry, kind: type[Any]) -> int:
    return sum(isinstance(effect, kind) for effect in world.effects)


# --- the methods ------------------------------------------------------------------------------------------------------


def test_without_credentials_there_is_no_identity() -> None:
    found = identify(registry(access()))
    assert not found.identity.known
    assert found.tried == ()
    assert found.identity.variables() == {
        "id": None,
        "username": None,
        "certificate": {"organizations": [], "common_names": []},
        "oidc": None,
        "client_ip": "192.0.2.1",
    }


def test_a_password_gives_id_and_name() -> None:
    found = identify(registry(access()), ALICE)
    assert (found.identity.id, found.identity.username) == ("alice-id", "alice")
    assert found.rejected is None


def test_a_certificate_and_a_password_add_up() -> None:
    found = identify(registry(access()), ALICE, CERTIFICATE)
    assert found.identity.methods == ("mtls", "basic")
    assert found.identity.certificate == Certificate(("Builders",), ("bob",))
    assert found.identity.username == "alice"


def test_a_certificate_without_names_is_no_identity() -> None:
    found = identify(registry(access()), peer=Peer("192.0.2.1", "https", Certificate()))
    assert not found.identity.known
    assert [(attempt.method, attempt.accepted) for attempt in found.tried] == [("mtls", False)]


@pytest.mark.parametrize("carrier", ["bearer", "password"])
def test_a_token_of_a_provider_gives_its_claims(carrier: str) -> None:
    """As a bearer token, or as the password of a user named like the provider, as `docker login` can send it."""
    token = job_token(repository="acme/app", deep={"a": [1, None]})
    found = identify(registry(access()), bearer(token) if carrier == "bearer" else basic("ci", token))
    assert found.identity.oidc is not None
    assert found.identity.oidc.provider_name == "ci"
    assert found.identity.oidc.claims["deep"] == {"a": [1, None]}
    assert found.identity.username is None


def test_a_wrong_password_and_an_unknown_user_are_told_apart_by_nothing() -> None:
    """Bug class 8: the same work is done, the same sentence logged."""
    wrong, unknown = registry(access()), registry(access())
    one, other = identify(wrong, basic("alice", "wrong")), identify(unknown, basic("mallory", "wrong"))
    assert one.tried == other.tried
    assert asked_for(wrong, VerifyPassword) == asked_for(unknown, VerifyPassword) == 1
    assert not one.identity.known


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "bEaReR"])
def test_scheme_names_have_no_case(scheme: str) -> None:
    """Bug class 11."""
    assert identify(registry(access()), {"Authorization": f"{scheme} {job_token()}"}).identity.oidc is not None
    value = ALICE["Authorization"].replace("Basic", "bAsIc")
    assert identify(registry(access()), {"Authorization": value}).identity.username == "alice"


# --- tokens of providers ----------------------------------------------------------------------------------------------


def test_an_algorithm_that_is_not_allowed_is_refused_before_a_key_is_touched() -> None:
    """Bug class 1: the head of a token does not choose how it is checked."""
    for algorithm in ("none", "HS256", "RS512", "", "rs256"):
        world = registry(access())
        token = KEY.sign({"iss": ISSUER, "exp": 2**40}, algorithm=algorithm).value
        found = identify(world, bearer(token))
        assert not found.identity.known
        assert asked_for(world, FetchDocument) == asked_for(world, VerifyToken) == 0


@pytest.mark.parametrize("header", [{"kid": 7}, {"kid": None}, {"kid": ["k1"]}, {"alg": 5}, {"alg": None}])
def test_heads_of_the_wrong_types_are_refused(header: dict[str, Any]) -> None:
    token = KEY.sign({"iss": ISSUER, "exp": 2**40}, **header).value
    found = identify(registry(access()), bearer(token))
    assert found.rejected is not None
    assert not found.identity.known


@pytest.mark.parametrize("algorithms", [("RS256", "ES256"), ("ES256", "RS256"), ("ES256", "EdDSA", "RS256")])
def test_every_listed_algorithm_works_whatever_else_is_listed(algorithms: tuple[str, ...]) -> None:
    """Bug class 2."""
    kinds = {"RS256": "RSA", "ES256": "EC", "EdDSA": "OKP"}
    for algorithm in algorithms:
        key = SimulatedKey("x", kinds[algorithm])
        world = registry(access(providers=(Provider("ci", ISSUER, KEYS_URL, allowed_algorithms=algorithms),)))
        world.services.documents[KEYS_URL] = key_set(key)
        token = key.sign({"iss": ISSUER, "exp": 2**40}, algorithm=algorithm).value
        assert identify(world, bearer(token)).identity.oidc is not None


def test_a_new_key_is_found_at_once_and_unknown_names_cause_one_fetch_a_minute() -> None:
    """Bug class 3: rotation works, made-up names of keys are no way to flood the provider."""
    world = registry(access())
    assert identify(world, bearer(job_token())).identity.known
    new = SimulatedKey("k2")
    world.services.documents[KEYS_URL] = key_set(new)
    assert identify(world, bearer(job_token(new))).identity.known
    assert len(world.services.fetched) == 2
    for number in range(50):
        assert not identify(world, bearer(job_token(SimulatedKey(f"made-up-{number}")))).identity.known
    assert len(world.services.fetched) == 2
    world.services.now_ms += 61_000
    for number in range(50):
        identify(world, bearer(job_token(SimulatedKey(f"made-up-{number}"))))
    assert len(world.services.fetched) == 3


def test_a_provider_that_is_down_is_503_and_is_left_alone_for_a_moment() -> None:
    """Bug class 4: an outage is never told as a wrong credential."""
    world = registry(access())
    world.services.documents[KEYS_URL] = None
    for _ in range(5):
        with pytest.raises(RegistryError) as refused:
            identify(world, bearer(job_token()))
        assert refused.value.status == 503
    assert len(world.services.fetched) == 1
    world.services.documents[KEYS_URL] = key_set(KEY)
    world.services.now_ms += 6_000
    assert identify(world, bearer(job_token())).identity.known


@pytest.mark.parametrize("document", [b"", b"[]", b"{}", b'{"keys":{}}', b"<html>", b"\xff", b"[" * 100_000])
def test_keys_that_are_none_are_an_outage(document: bytes) -> None:
    world = registry(access())
    world.services.documents[KEYS_URL] = document
    with pytest.raises(RegistryError, match="503"):
        identify(world, bearer(job_token()))


@pytest.mark.parametrize("down", [0, 1])
def test_another_provider_of_the_same_issuer_is_asked_when_one_is_down(down: int) -> None:
    """Bug classes 4 and 5: success does not depend on the order of names."""
    urls = (f"{ISSUER}/a", f"{ISSUER}/b")
    providers = (Provider("a", ISSUER, urls[0]), Provider("b", ISSUER, urls[1]))
    world = registry(access(providers=providers))
    world.services.documents = {urls[down]: None, urls[1 - down]: key_set(KEY)}
    assert identify(world, bearer(job_token())).identity.known


def test_a_token_is_only_shown_to_providers_of_its_issuer() -> None:
    world = registry(access(providers=(Provider("other", "https://other.example", "https://other.example/keys"),)))
    found = identify(world, bearer(job_token()))
    assert found.rejected is not None
    assert world.services.fetched == []


def test_discovery_finds_the_keys_of_the_right_issuer_only() -> None:
    provider = Provider("ci", ISSUER)
    well_known = f"{ISSUER}/.well-known/openid-configuration"
    world = registry(access(providers=(provider,)))
    world.services.documents[well_known] = json.dumps({"issuer": ISSUER, "jwks_uri": KEYS_URL}).encode()
    assert identify(world, bearer(job_token())).identity.known
    for lie in ({"issuer": "https://evil.example", "jwks_uri": KEYS_URL}, {"issuer": ISSUER}, {"jwks_uri": KEYS_URL}):
        world = registry(access(providers=(provider,)))
        world.services.documents[well_known] = json.dumps(lie).encode()
        with pytest.raises(RegistryError, match="503"):
            identify(world, bearer(job_token()))


def test_keys_of_unknown_kinds_do_not_spoil_the_others() -> None:
    """Bug class 12."""
    odd: list[Any] = [{"kty": "quantum", "kid": "k1"}, "text", None, {"kty": "oct", "k": "x"}, {"kid": "k1"}]
    world = registry(access())
    world.services.documents[KEYS_URL] = json.dumps({"keys": [*odd, KEY.jwk()]}).encode()
    assert identify(world, bearer(job_token())).identity.known


def test_a_key_for_encryption_does_not_verify() -> None:
    world = registry(access())
    world.services.documents[KEYS_URL] = json.dumps({"keys": [{**KEY.jwk(), "use": "enc"}]}).encode()
    assert not identify(world, bearer(job_token())).identity.known


def test_required_claims_must_be_there_and_not_null() -> None:
    """Bug class 6: a missing one is a bad credential, not an error of ours."""
    world = registry(access(providers=(Provider("ci", ISSUER, KEYS_URL, required_claims=("repository",)),)))
    assert identify(world, bearer(job_token(repository="a"))).identity.known
    for token in (job_token(), job_token(repository=None)):
        found = identify(world, bearer(token))
        assert found.rejected is not None
        assert "repository" in found.rejected.problem


def test_a_token_without_a_key_name_needs_a_key_without_one() -> None:
    nameless = SimulatedKey(None)
    world = registry(access())
    assert not identify(world, bearer(job_token(nameless))).identity.known
    world = registry(access())
    world.services.documents[KEYS_URL] = key_set(nameless)
    assert identify(world, bearer(job_token(nameless))).identity.known


# --- garbage ----------------------------------------------------------------------------------------------------------


@given(st.text(max_size=80) | st.binary(max_size=60).map(lambda value: value.decode("latin-1")))
@example("Basic")
@example("Basic Og==")
@example("Basic YTpi YTpi")
@example("Bearer a.b.c")
@example("Bearer eyJhbGciOiJub25lIn0.e30.")
@example("Bearer ..")
@example("Basic " + "=" * 10)
def test_no_field_value_is_anything_but_nobody(value: str) -> None:
    """Never an exception, never an identity; and what a trace shows of it is safe to parse again."""
    world = registry(access(token_service=TOKENS))
    found = identify(world, {"Authorization": value})
    assert not found.identity.known
    assert isinstance(parse_authorization(value), Basic | Bearer | Unreadable)
    again = public_authorization(value)
    assert public_authorization(again) == again


@given(st.text(alphabet=st.characters(exclude_characters=":\0", exclude_categories=["Cs"])), st.text(min_size=4))
def test_a_trace_shows_the_name_but_not_the_password(username: str, password: str) -> None:
    try:
        value = basic(username, password)["Authorization"]
    except UnicodeEncodeError:
        return
    match parse_authorization(public_authorization(value)):
        case Basic(shown, kept):
            assert (shown, kept) == (username, Secret("left-out"))
        case other:
            assert "\0" in password, other


def test_a_trace_keeps_what_a_token_says_but_not_its_signature() -> None:
    token = job_token()
    shown = public_authorization(f"Bearer {token}")
    assert shown == f"Bearer {token.rpartition('.')[0]}.left-out"
    assert token.rpartition(".")[2] not in public_authorization(basic("ci", token)["Authorization"])


def test_secrets_do_not_show() -> None:
    assert "hunter2" not in f"{Secret('hunter2')} {Secret('hunter2')!r} {VerifyPassword('a', Secret('hunter2'))}"


def test_the_configuration_of_access_holds_no_secret() -> None:
    """Passwords, keys and addresses of services are the runtime's."""
    assert not any("Secret" in str(field.type) for field in AccessConfig.__dataclass_fields__.values())
    assert Provider("ci", ISSUER, KEYS_URL) == PROVIDER
