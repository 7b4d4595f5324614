"""``[auth.oidc]``: whose tokens count, and how their issuers are asked for keys."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.conformance.certificates import Authority
from tests.conformance.configured.configured_registry import ConfiguredRegistry, Document, Start, is_silent
from tests.conformance.configured.coverage import changes_with
from tests.conformance.scripted_server import SILENT, Asked, Said, ScriptedServer, said

pytestmark = pytest.mark.xdist_group("configured-providers")

TOKEN = "token-of-the-registry"


class Issuers:
    """All on one server with TLS, each below a path of its own; another one demands a certificate of whoever asks."""

    def __init__(self, authority: Authority) -> None:
        self.rsa = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.ec = ec.generate_private_key(ec.SECP256R1())
        keys: list[dict[str, Any]] = [
            jwt.algorithms.RSAAlgorithm.to_jwk(self.rsa.public_key(), as_dict=True) | {"kid": "RS256"},
            jwt.algorithms.ECAlgorithm.to_jwk(self.ec.public_key(), as_dict=True) | {"kid": "ES256"},
        ]
        self._key_set = json.dumps({"keys": keys}).encode()
        self.opened = threading.Event()
        """Until it is set, ``slow`` does not answer."""
        self.common = ScriptedServer(self._answer, authority.server_context("127.0.0.1"))
        self.demanding = ScriptedServer(self._answer, authority.server_context("127.0.0.1", clients=authority))

    def _answer(self, asked: Asked) -> Said:
        _, name, rest = asked.target.split("/", 2)
        if name == "hasty":
            return SILENT
        if name == "slow":
            self.opened.wait()
        if rest.startswith(".well-known/"):
            issuer = f"https://{asked.values('Host')[0]}/{name}"
            return said(json.dumps({"issuer": issuer, "jwks_uri": f"{issuer}/keys"}).encode(), then="close")
        return said(self._key_set, then="close")

    def issuer(self, name: str) -> str:
        return f"{(self.demanding if name in ('known', 'stranger') else self.common).origin}/{name}"

    def asked(self, name: str) -> list[Asked]:
        """What an issuer of the common server was asked."""
        return [asked for asked in self.common.asked if asked.target.startswith(f"/{name}/")]

    def token(self, name: str, algorithm: str = "RS256", **claims: Any) -> str:
        """Of this issuer; good for an hour unless it says otherwise."""
        claims = {"iss": self.issuer(name), "exp": int(time.time()) + 3600, "sub": "job", **claims}
        key = self.rsa if algorithm == "RS256" else self.ec
        return f"Authorization: Bearer {jwt.encode(claims, key, algorithm, {'kid': algorithm})}"


@pytest.fixture(scope="module")
def issuers(authority: Authority) -> Iterator[Issuers]:
    issuers = Issuers(authority)
    with issuers.common, issuers.demanding:
        yield issuers
        issuers.opened.set()


@pytest.fixture(scope="module")
def registry(
    start_shared: Start, issuers: Issuers, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> ConfiguredRegistry:
    """Lets everybody in whose credentials are valid, or who has none."""
    token_file = tmp_path_factory.mktemp("token") / "token"
    token_file.write_text(TOKEN)
    issued = authority.issue(common_names=("registry",))
    trust = {"server_ca_bundle": str(authority.bundle)}
    shown = {"client_certificate_bundle": str(issued.certificate), "client_private_key": str(issued.key)}
    providers: dict[str, Document] = {
        "plain": {},
        "elsewhere": {"jwks_uri": f"{issuers.common.origin}/elsewhere/other-keys"},
        "refreshed": {"jwks_refresh_interval": 0.05},
        "particular": {"required_audience": "registry"},
        "lenient": {"clock_skew_tolerance": 3600},
        "exact": {"clock_skew_tolerance": 0},
        "elliptic": {"allowed_algorithms": ["ES256"]},
        "curious": {"required_claims": ["repository"]},
        "hasty": {"http_request_timeout_secs": 0.2},
        "slow": {"http_request_timeout_secs": 3600},
        "careful": {"bearer_token_file": str(token_file)},
        "known": shown,
        "stranger": {},
    }
    settings = {name: {"issuer": issuers.issuer(name), **trust, **more} for name, more in providers.items()}
    settings["distrusted"] = {"issuer": issuers.issuer("distrusted")}
    return start_shared(
        {
            "auth": {"oidc": settings, "invalid_credentials": "reject"},
            "global": {"access_policy": {"default": "allow"}},
        }
    )


@changes_with("auth.oidc.*.issuer")
def test_tokens_count_when_their_issuer_does(registry: ConfiguredRegistry, issuers: Issuers) -> None:
    assert registry.status("/v2/", issuers.token("plain")) == 200
    assert registry.status("/v2/", issuers.token("unknown")) == 401


@changes_with("auth.oidc.*.jwks_uri")
def test_keys_are_where_they_are_said_to_be(registry: ConfiguredRegistry, issuers: Issuers) -> None:
    for name, paths in (
        ("plain", ["/plain/.well-known/openid-configuration", "/plain/keys"]),
        ("elsewhere", ["/elsewhere/other-keys"]),
    ):
        assert registry.status("/v2/", issuers.token(name)) == 200
        assert [asked.target for asked in issuers.asked(name)] == paths


@changes_with("auth.oidc.*.jwks_refresh_interval")
def test_keys_are_fetched_again_after_a_while(registry: ConfiguredRegistry, issuers: Issuers) -> None:
    for _ in range(1000):
        assert registry.status("/v2/", issuers.token("plain")) == 200
        assert registry.status("/v2/", issuers.token("refreshed")) == 200
        if len(issuers.asked("refreshed")) >= 6:
            break
    assert len(issuers.asked("refreshed")) >= 6
    assert len(issuers.asked("plain")) == 2


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        pytest.param("particular", {"aud": "registry"}, {"aud": "another"}, id="required_audience"),
        pytest.param("curious", {"repository": "a"}, {"repository": None}, id="required_claims"),
    ],
)
@changes_with("auth.oidc.*.required_audience", "auth.oidc.*.required_claims")
def test_tokens_have_to_say_this(
    registry: ConfiguredRegistry, issuers: Issuers, name: str, good: dict[str, Any], bad: dict[str, Any]
) -> None:
    assert registry.status("/v2/", issuers.token(name, **good)) == 200
    assert registry.status("/v2/", issuers.token(name, **bad)) == 401
    assert registry.status("/v2/", issuers.token("plain", **bad)) == 200


@changes_with("auth.oidc.*.clock_skew_tolerance")
def test_clocks_may_be_apart(registry: ConfiguredRegistry, issuers: Issuers) -> None:
    def status(name: str, seconds_ago: int) -> int:
        return registry.status("/v2/", issuers.token(name, exp=int(time.time()) - seconds_ago))

    assert [status(name, 1800) for name in ("lenient", "plain", "exact")] == [200, 401, 401]
    assert status("exact", 1) == 401


@changes_with("auth.oidc.*.allowed_algorithms")
def test_tokens_have_to_be_signed_like_this(registry: ConfiguredRegistry, issuers: Issuers) -> None:
    for name, algorithm, status in (
        ("plain", "RS256", 200),
        ("plain", "ES256", 401),
        ("elliptic", "RS256", 401),
        ("elliptic", "ES256", 200),
    ):
        assert registry.status("/v2/", issuers.token(name, algorithm)) == status


@changes_with("auth.oidc.*.http_request_timeout_secs")
def test_keys_have_to_come_in_time(registry: ConfiguredRegistry, issuers: Issuers) -> None:
    with registry.connect() as wire:
        wire.ask("/v2/", issuers.token("slow"))
        assert registry.status("/v2/", issuers.token("hasty")) == 503
        assert is_silent(wire)
        issuers.opened.set()
        assert wire.answer().status == 200


@changes_with("auth.oidc.*.bearer_token_file")
def test_keys_are_asked_for_with_a_token(registry: ConfiguredRegistry, issuers: Issuers) -> None:
    for name, values in (("careful", [f"Bearer {TOKEN}"]), ("plain", [])):
        assert registry.status("/v2/", issuers.token(name)) == 200
        assert [asked.values("Authorization") for asked in issuers.asked(name)] == [values] * 2


@changes_with("auth.oidc.*.server_ca_bundle", "auth.oidc.*.client_certificate_bundle", "auth.oidc.*.client_private_key")
def test_both_sides_know_each_other_by_certificates(registry: ConfiguredRegistry, issuers: Issuers) -> None:
    statuses = [registry.status("/v2/", issuers.token(name)) for name in ("known", "stranger", "distrusted")]
    assert statuses == [200, 503, 503]
