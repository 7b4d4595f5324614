"""An identity provider over HTTPS that changes its keys while tokens come in: the core and the services together."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from angos.runtime.access.documents import Documents
from angos.runtime.access.settings import ClientTls, ProviderEndpoint
from angos.runtime.access.tokens import Tokens
from angos.runtime.cache.local import LocalCache
from angos.runtime.clock import SystemClock
from angos.runtime.driver import drive
from angos.runtime.leases.local import LocalLeases
from angos.sansio.access import oidc
from angos.sansio.access.config import Provider
from angos.sansio.access.oidc import verify_claims
from angos.sansio.effects import (
    AcquireLease,
    Effect,
    FetchDocument,
    PeerUnavailable,
    ReadCache,
    ReadClock,
    ReleaseLease,
    TokenVerdict,
    VerifyToken,
    WriteCache,
)
from angos.sansio.operation import Operation
from angos.sansio.secret import Secret
from tests.conformance.certificates import Authority
from tests.conformance.runtime.loops import LOOPS, Run, runner
from tests.conformance.scripted_server import SILENT, Asked, Said, ScriptedServer, said


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Run:
    return runner(request.param)


class Services:
    """The real ones, for one provider."""

    def __init__(self, endpoint: ProviderEndpoint) -> None:
        documents, tokens, cache, leases = Documents([endpoint]), Tokens(None), LocalCache(), LocalLeases()
        self._table: dict[type[Effect[Any]], Callable[[Any], Any]] = {
            FetchDocument: documents.fetch_document,
            VerifyToken: tokens.verify_token,
            ReadCache: cache.read_cache,
            ReadClock: SystemClock().read,
            WriteCache: cache.write_cache,
            AcquireLease: leases.acquire,
            ReleaseLease: leases.release,
        }

    def perform(self, effect: Effect[Any]) -> Any:
        """The reply, or a coroutine that ends with it."""
        return self._table[type(effect)](effect)


class IssuingServer:
    """A provider whose keys the test changes."""

    def __init__(self, authority: Authority) -> None:
        self.keys: dict[str, ec.EllipticCurvePrivateKey] = {}
        self.away = False
        self.named_origin: str | None = None
        """Where discovery says that the keys are, when it is not here."""
        self.server = ScriptedServer(self._answer, authority.server_context("127.0.0.1"))
        self.provider = Provider("ci", self.server.origin, required_audience="registry", allowed_algorithms=("ES256",))

    def add_key(self, name: str) -> None:
        self.keys[name] = ec.generate_private_key(ec.SECP256R1())

    def token(self, key: str, signed_with: str | None = None, **claims: object) -> Secret:
        """Valid for five minutes."""
        claims = {"iss": self.server.origin, "aud": "registry", "exp": int(time.time()) + 300, "sub": "job", **claims}
        return Secret(jwt.encode(claims, self.keys[signed_with or key], "ES256", headers={"kid": key}))

    def fetches(self) -> list[str]:
        """What was asked for so far."""
        return [asked.target for asked in self.server.asked]

    def _answer(self, asked: Asked) -> Said:
        if self.away:
            return said(b"", "503 Service Unavailable")
        if asked.target == "/.well-known/openid-configuration":
            found: object = {
                "issuer": self.server.origin,
                "jwks_uri": f"{self.named_origin or self.server.origin}/keys",
            }
        else:
            keys = [
                {**ECAlgorithm.to_jwk(key.public_key(), as_dict=True), "kid": name} for name, key in self.keys.items()
            ]
            found = {"keys": [{"kty": "unheard of", "kid": "odd"}, *keys]}
        return said(json.dumps(found).encode())


@pytest.fixture
def issuer(tmp_path: Path) -> IssuingServer:
    return IssuingServer(Authority(tmp_path))


@pytest.fixture
def services(issuer: IssuingServer, tmp_path: Path) -> Services:
    tls = ClientTls(server_ca_bundle=tmp_path / "test-authority.pem")
    return Services(ProviderEndpoint("ci", issuer.server.origin, tls))


def verdict_on(token: Secret, issuer: IssuingServer, services: Services) -> Awaitable[TokenVerdict]:
    return drive(Operation(verify_claims(token, issuer.provider)), services)


def test_a_new_key_is_picked_up_and_an_old_one_dropped(run: Run, issuer: IssuingServer, services: Services) -> None:
    async def main() -> None:
        issuer.add_key("old")
        old = issuer.token("old")
        for _ in range(3):
            assert (await verdict_on(old, issuer, services)).claims is not None
        assert issuer.fetches() == ["/.well-known/openid-configuration", "/keys"]
        issuer.add_key("new")
        new = issuer.token("new")
        another_old = issuer.token("old", number=2)
        del issuer.keys["old"]
        assert (await verdict_on(new, issuer, services)).claims is not None
        assert len(issuer.fetches()) == 4
        for token in (old, another_old):
            verdict = await verdict_on(token, issuer, services)
            assert verdict == TokenVerdict(None, "the provider has no key of the name that it gives")
        assert len(issuer.fetches()) == 4

    with issuer.server:
        run(main)


def test_made_up_names_of_keys_cause_one_fetch(run: Run, issuer: IssuingServer, services: Services) -> None:
    async def main() -> None:
        issuer.add_key("real")
        assert (await verdict_on(issuer.token("real"), issuer, services)).claims is not None
        before = len(issuer.fetches())
        for number in range(20):
            issuer.add_key(f"made up {number}")
            token = issuer.token(f"made up {number}")
            del issuer.keys[f"made up {number}"]
            assert (await verdict_on(token, issuer, services)).claims is None
        assert len(issuer.fetches()) == before + 2  # discovery and keys

    with issuer.server:
        run(main)


def test_a_key_under_the_name_of_another_does_not_count(run: Run, issuer: IssuingServer, services: Services) -> None:
    async def main() -> None:
        issuer.add_key("real")
        issuer.add_key("unpublished")
        token = issuer.token("real", signed_with="unpublished")
        del issuer.keys["unpublished"]
        verdict = await verdict_on(token, issuer, services)
        assert verdict == TokenVerdict(None, "its signature is not that of its key")

    with issuer.server:
        run(main)


def test_a_provider_that_is_away_is_not_a_wrong_token(run: Run, issuer: IssuingServer, services: Services) -> None:
    async def main() -> None:
        issuer.add_key("real")
        issuer.away = True
        for _ in range(5):
            with pytest.raises(PeerUnavailable):
                await verdict_on(issuer.token("real"), issuer, services)
        assert len(issuer.fetches()) == 1  # and is not pestered

    with issuer.server:
        run(main)


def test_discovery_over_tls_does_not_lead_to_keys_without_it(
    run: Run, issuer: IssuingServer, services: Services
) -> None:
    async def main() -> None:
        issuer.add_key("real")
        with pytest.raises(PeerUnavailable, match="the address that it names for its keys is not https"):
            await verdict_on(issuer.token("real"), issuer, services)

    with issuer.server, ScriptedServer(lambda asked: said(b'{"keys": []}')) as plain:
        issuer.named_origin = plain.origin
        run(main)
    assert plain.asked == []


def test_those_who_wait_for_a_provider_that_stalls_do_not_all_ask_it_afterwards(
    run: Run, issuer: IssuingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred requests wait for one fetch. When they give up, it is not for a hundred fetches."""
    monkeypatch.setattr(oidc, "WAIT_SECONDS", 0.3)
    tls = ClientTls(server_ca_bundle=tmp_path / "test-authority.pem")
    failures: list[PeerUnavailable] = []

    async def fail(services: Services) -> None:
        with pytest.raises(PeerUnavailable) as raised:
            await verdict_on(issuer.token("real"), issuer, services)
        failures.append(raised.value)

    async def main() -> None:
        issuer.add_key("real")
        services = Services(ProviderEndpoint("ci", stalling.origin, tls, request_seconds=1))
        async with anyio.create_task_group() as group:
            for _ in range(100):
                group.start_soon(fail, services)

    with issuer.server, ScriptedServer(lambda asked: SILENT) as stalling:
        issuer.named_origin = stalling.origin
        issuer.provider = replace(issuer.provider, jwks_uri=f"{stalling.origin}/keys")
        run(main)
    assert len(failures) == 100
    assert len(stalling.asked) == 1
