"""Tokens of the registry itself: what docker and podman do before they pull or push."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

import pytest

from angos.sansio.access.config import Provider, TokenService, User
from angos.sansio.access.events import AccessDenied
from angos.sansio.access.policy import Policy
from angos.sansio.effects import VerifyPassword
from angos.sansio.http.message import Inline, Peer, Response
from angos.sansio.trace import encode
from angos.simulator.registry import Answer, SimulatedRegistry
from angos.simulator.world.services import OWN_KEY, sign

from .access_values import ALICE, TOKENS, access, basic, bearer, job_token, policy, pulling, registry, somebody

HOST = {"Host": "r.example:5000"}
MANIFEST = "/v2/team/app/manifests/v1"
UPLOADS = "/v2/team/app/blobs/uploads/"


def shop(*rules: Any, **more: Any) -> SimulatedRegistry:
    """Anybody may pull, somebody may push, and there is a token service."""
    return registry(access(policy("deny", *(rules or (pulling, somebody))), token_service=TOKENS, **more))


def ask(world: SimulatedRegistry, scope: str | None = None, headers: dict[str, str] | None = None) -> Answer:
    query = "" if scope is None else f"&scope={quote(scope)}"
    return world.send("GET", f"/token?service=r.example{query}", {**HOST, **(headers or {})})


def token_of(answer: Answer) -> str:
    assert answer.status == 200, answer
    return str(json.loads(answer.body)["token"])


def challenge_of(answer: Answer) -> dict[str, str]:
    assert answer.status == 401
    scheme, _, parameters = (answer.header("WWW-Authenticate") or "").partition(" ")
    assert scheme == "Bearer"
    return dict(re.findall(r'(\w+)="([^"]*)"', parameters))


# --- the whole walk ---------------------------------------------------------------------------------------------------


def test_anybody_pulls_and_somebody_pushes_on_one_registry() -> None:
    """ARCHITECTURE 3.5: each step as the clients take it."""
    world = shop()
    challenge = challenge_of(world.send("GET", "/v2/", HOST))
    assert challenge["realm"] == "http://r.example:5000/token"
    assert challenge["service"] == "r.example:5000"
    anonymous = token_of(ask(world, "repository:team/app:pull"))
    assert world.send("GET", "/v2/", bearer(anonymous)).status == 200
    assert world.send("GET", MANIFEST, bearer(anonymous)).status == 404
    refused = challenge_of(world.send("POST", UPLOADS, {**HOST, **bearer(anonymous)}))
    assert refused["scope"] == "repository:team/app:pull,push"
    mine = token_of(ask(world, "repository:team/app:pull,push", ALICE))
    assert world.send("POST", UPLOADS, bearer(mine)).status == 202


def test_asking_how_to_log_in_is_no_denial() -> None:
    """Every client does it before everything else; the log is for those who may not do what they want."""
    world = shop()
    assert world.send("GET", "/v2/", HOST).status == 401
    assert world.services.told == []
    assert world.send("GET", "/v2/", basic("alice", "wrong")).status == 401
    assert any(isinstance(event, AccessDenied) for event in world.services.told)


def test_a_challenge_names_the_scope_that_is_missing() -> None:
    world = shop()
    answer = world.send("POST", UPLOADS, {**HOST, **bearer(token_of(ask(world)))})
    header = answer.header("WWW-Authenticate") or ""
    assert 'scope="repository:team/app:pull,push"' in header
    assert 'error="insufficient_scope"' in header


@pytest.mark.parametrize(
    ("scope", "pulls", "pushes"),
    [
        ("repository:team/app:pull", 404, 401),
        ("repository:team/app:pull,push", 404, 202),
        ("repository:team/app:push", 401, 202),
        ("repository:team/app:*", 404, 202),
        ("repository:team/other:pull,push", 401, 401),
        ("repository:team/ap:pull,push", 401, 401),
        ("repository:other:pull repository:team/app:pull,push", 404, 202),
        ("registry:catalog:*", 401, 401),
        ("", 401, 401),
    ],
)
def test_a_token_is_good_for_its_scope_and_nothing_else(scope: str, pulls: int, pushes: int) -> None:
    world = shop()
    token = token_of(ask(world, scope, ALICE))
    assert world.send("GET", MANIFEST, bearer(token)).status == pulls
    assert world.send("POST", UPLOADS, bearer(token)).status == pushes


def test_the_catalogue_has_a_scope_of_its_own() -> None:
    world = shop()
    assert world.send("GET", "/v2/_catalog", bearer(token_of(ask(world, "registry:catalog:*")))).status == 200
    answer = world.send("GET", "/v2/_catalog", {**HOST, **bearer(token_of(ask(world, "repository:a:pull")))})
    assert 'scope="registry:catalog:*"' in (answer.header("WWW-Authenticate") or "")


def test_a_token_grants_nothing_that_the_policy_denies() -> None:
    """Policies are asked at every use: changing them takes effect at once, whatever tokens are out."""
    world = shop()
    token = token_of(ask(world, "repository:team/app:pull,push", ALICE))
    world.config = registry(access(Policy("deny"), token_service=TOKENS)).config
    assert world.send("GET", MANIFEST, bearer(token)).status == 403


def test_a_token_keeps_its_identity() -> None:
    seen: list[Any] = []

    def remember(variables: Mapping[str, Any]) -> bool:
        seen.append(variables["identity"])
        return True

    world = shop(remember)
    token = token_of(ask(world, "repository:team/app:pull", ALICE))
    world.send("GET", MANIFEST, bearer(token), peer=Peer("192.0.2.1"))
    assert (seen[-1]["id"], seen[-1]["username"], seen[-1]["client_ip"]) == ("alice-id", "alice", "192.0.2.1")
    token = token_of(ask(world, "repository:team/app:pull", bearer(job_token(repository="x"))))
    world.send("GET", MANIFEST, bearer(token))
    assert seen[-1]["oidc"]["provider_name"] == "ci"
    assert seen[-1]["oidc"]["claims"]["repository"] == "x"


# --- asking for tokens ------------------------------------------------------------------------------------------------


def test_wrong_credentials_get_no_token_not_even_an_anonymous_one() -> None:
    """Otherwise `docker login` would succeed with any password."""
    answer = ask(shop(), headers=basic("alice", "wrong"))
    assert answer.status == 401
    assert (answer.header("WWW-Authenticate") or "").startswith("Basic ")
    assert ask(shop(), headers=basic("alice", "secret")).status == 200


def test_a_token_is_not_renewed_with_itself() -> None:
    world = shop()
    assert ask(world, headers=bearer(token_of(ask(world, headers=ALICE)))).status == 401


def test_a_form_asks_for_a_token() -> None:
    """What containerd sends: OAuth2, grant type password."""
    world = shop()
    form = "grant_type=password&client_id=containerd&username=alice&password=secret&scope=repository%3Aa%3Apull%2Cpush"
    answer = world.send("POST", "/token", HOST, form.encode())
    fields = json.loads(answer.body)
    assert fields["access_token"] == fields["token"]
    assert fields["scope"] == "repository:a:pull,push"
    assert world.send("POST", "/v2/a/blobs/uploads/", bearer(fields["access_token"])).status == 202
    assert world.send("POST", "/token", HOST, form.replace("secret", "wrong").encode()).status == 401


@pytest.mark.parametrize(
    "form", [b"grant_type=refresh_token&refresh_token=x", b"grant_type=", b"\xff\xfe", b"a=b&" * 200, b"x" * 70_000]
)
def test_a_form_that_makes_no_sense_is_refused(form: bytes) -> None:
    answer = shop().send("POST", "/token", HOST, form)
    assert answer.status == 400
    assert b"errors" in answer.body


def test_the_answer_is_what_clients_read_and_is_not_kept_by_caches() -> None:
    world = shop()
    answer = ask(world, "repository:team/app:pull")
    fields = json.loads(answer.body)
    assert fields["expires_in"] == 3600
    assert fields["issued_at"].endswith("Z")
    assert answer.header("cache-control") == "no-store"


def test_blanks_in_a_query_may_be_written_as_plus() -> None:
    """As Go's url.Values does."""
    scope = "repository:a:pull+repository:b:pull"
    answer = shop().send("GET", f"/token?scope={scope}", HOST)
    assert json.loads(answer.body)["scope"] == "repository:a:pull repository:b:pull"


# --- tokens that must not work ----------------------------------------------------------------------------------------


def test_a_token_ends() -> None:
    world = shop()
    token = token_of(ask(world, "repository:team/app:pull,push", ALICE))
    issued_ms = world.world.clock.now_ms
    world.services.now_ms = issued_ms + 3_599_000
    assert world.send("POST", UPLOADS, bearer(token)).status == 202
    world.services.now_ms = issued_ms + 3_601_000
    answer = world.send("POST", UPLOADS, {**HOST, **bearer(token)})
    assert challenge_of(answer)["error"] == "invalid_token"


def test_a_forged_token_is_nobody() -> None:
    claims = {"id": "alice-id", "exp": 2**40, "scope": ["repository:team/app:pull,push"]}
    for key, header in [
        ("another key", {"alg": "RS256", "typ": "angos+jwt"}),
        (OWN_KEY, {"alg": "none", "typ": "angos+jwt"}),
        (OWN_KEY, {"alg": "RS256"}),
        (OWN_KEY, {"alg": "RS256", "typ": "JWT"}),
    ]:
        token = sign(key, header, claims).value
        assert shop().send("POST", UPLOADS, bearer(token)).status == 401


def test_a_removed_user_or_provider_ends_its_tokens() -> None:
    world = shop()
    tokens = [
        token_of(ask(world, "repository:team/app:pull,push", headers)) for headers in (ALICE, bearer(job_token()))
    ]
    other = access(policy("deny", somebody), token_service=TOKENS, users=(User("b", "bob"),), providers=())
    world.config = registry(other).config
    for token in tokens:
        assert world.send("POST", UPLOADS, bearer(token)).status == 401


def test_tokens_of_a_provider_cannot_pose_as_ours() -> None:
    """A provider that signs `angos+jwt` is not us."""
    world = shop(providers=(Provider("ci", "https://issuer.example", "https://issuer.example/keys"),))
    from .access_values import KEY

    token = KEY.sign({"iss": "https://issuer.example", "exp": 2**40, "id": "alice-id"}, typ="angos+jwt").value
    assert world.send("POST", UPLOADS, bearer(token)).status == 401


# --- the challenge ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("r.example", "http://r.example/token"),
        ("[2001:db8::1]:5000", "http://[2001:db8::1]:5000/token"),
        ('evil"quote', None),
        ("a/b", None),
        ("user@host", None),
        ("", None),
    ],
)
def test_the_realm_is_made_of_a_sane_host_only(host: str, expected: str | None) -> None:
    header = shop().send("GET", "/v2/", {"Host": host}).header("WWW-Authenticate") or ""
    if expected is None:
        assert header.startswith("Basic ")
    else:
        assert f'realm="{expected}"' in header


def test_the_realm_may_be_configured_and_follows_trusted_proxies() -> None:
    configured = TokenService(realm="https://auth.example/token")
    world = registry(access(Policy("deny"), token_service=configured))
    assert challenge_of(world.send("GET", "/v2/", HOST))["realm"] == "https://auth.example/token"
    world = registry(access(Policy("deny"), token_service=TOKENS, trusted_proxies=("10.0.0.0/8",)))
    headers = {**HOST, "X-Forwarded-Proto": "https"}
    assert challenge_of(world.send("GET", "/v2/", headers, peer=Peer("10.0.0.1")))["realm"].startswith("https://")
    assert challenge_of(world.send("GET", "/v2/", headers, peer=Peer("192.0.2.1")))["realm"].startswith("http://")


def test_without_a_token_service_a_password_is_asked_for() -> None:
    answer = registry(access(Policy("deny"))).send("GET", MANIFEST, HOST)
    assert (answer.header("WWW-Authenticate") or "").startswith("Basic realm=")


def test_a_token_is_not_hashed_again_and_again() -> None:
    """A burst of pulls with a token asks for no password at all."""
    world = shop()
    token = token_of(ask(world, "repository:team/app:pull", ALICE))
    world.effects.clear()
    for _ in range(10):
        world.send("GET", MANIFEST, bearer(token))
    assert not any(isinstance(effect, VerifyPassword) for effect in world.effects)


def test_no_trace_shows_a_token() -> None:
    world = shop()
    answer = ask(world, headers=ALICE)
    response = Response(answer.status, answer.headers, Inline(answer.body, private=True))
    assert token_of(answer) not in json.dumps(encode(response))
    assert dict(parse_qsl(urlsplit("/token?service=r").query)) == {"service": "r"}
