"""Tokens of identity providers (OpenID Connect Core 1.0, RFC 7519), and the keys they are checked with.

Keys are fetched once and remembered for all requests. A token that names an unknown key may mean that the provider has
changed its keys: then they are fetched anew, but not more often than `COOLDOWN_SECONDS`, because anybody can make up
names of keys. A provider that failed is left alone for `DOWN_SECONDS`, and one request at a time asks it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from angos.sansio.access.config import Provider
from angos.sansio.access.credentials import peek_token_header
from angos.sansio.compact_json import parse_json
from angos.sansio.effects import (
    FetchDocument,
    PeerUnavailable,
    ReadCache,
    ReadClock,
    TokenVerdict,
    VerifyToken,
    WriteCache,
)
from angos.sansio.scopes import leased
from angos.sansio.secret import Secret

COOLDOWN_SECONDS = 60.0
DOWN_SECONDS = 5.0
FETCH_SECONDS = 60.0  # the lease on fetching, which is of two documents; if it takes longer, two may fetch
WAIT_SECONDS = 30.0  # for somebody else's fetch

_KEY_TYPES = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}


@dataclass(frozen=True, slots=True)
class _SigningKey:
    key_id: str | None
    kind: str
    algorithm: str | None
    text: str


async def verify_claims(token: Secret, provider: Provider) -> TokenVerdict:
    """The claims of a token that this provider has signed for this registry. Fails with `PeerUnavailable`."""
    header = peek_token_header(token)
    if header is None:
        return TokenVerdict(None, "it is not a JSON Web Token")
    algorithm, key_id = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or algorithm not in provider.allowed_algorithms:
        return TokenVerdict(None, f"its algorithm is not one of {', '.join(provider.allowed_algorithms)}")
    if key_id is not None and not isinstance(key_id, str):
        return TokenVerdict(None, "the name of its key is not a text")
    key = await _find_key(provider, key_id, algorithm)
    if key is None:
        return TokenVerdict(None, "the provider has no key of the name that it gives")
    verdict = await VerifyToken(
        token, key.text, algorithm, provider.issuer, provider.required_audience, provider.clock_skew_seconds
    )
    if verdict.claims is not None and provider.required_claims:
        claims = parse_json(verdict.claims)
        missing = [name for name in provider.required_claims if claims.get(name) is None]
        if missing:
            return TokenVerdict(None, f"it lacks {', '.join(missing)}")
    return verdict


async def _find_key(provider: Provider, key_id: str | None, algorithm: str) -> _SigningKey | None:
    remembered = await ReadCache(_cache_name(provider, "keys"))
    if remembered is not None and (key := _choose(remembered, key_id, algorithm)) is not None:
        return key
    return _choose(await _fetch_keys(provider, remembered), key_id, algorithm)


def _choose(document: bytes, key_id: str | None, algorithm: str) -> _SigningKey | None:
    kind = _KEY_TYPES.get(algorithm[:2])
    for key in _parse_keys(document):
        if key.key_id == key_id and key.kind == kind and key.algorithm in (None, algorithm):
            return key
    return None


@lru_cache(maxsize=64)
def _parse_keys(document: bytes) -> tuple[_SigningKey, ...]:
    """The keys of a JSON Web Key Set (RFC 7517 section 5) that can sign; those of kinds we do not know are left out."""
    keys = []
    for value in _read_object(document)["keys"]:
        if isinstance(value, dict) and value.get("kty") in _KEY_TYPES.values() and value.get("use") in (None, "sig"):
            key_id, algorithm = value.get("kid"), value.get("alg")
            keys.append(_SigningKey(key_id, value["kty"], algorithm, json.dumps(value, sort_keys=True)))
    return tuple(keys)


# --- fetching ---------------------------------------------------------------------------------------------------------


async def _fetch_keys(provider: Provider, remembered: bytes | None) -> bytes:
    """The provider's keys, newer than `remembered` if they may be asked for again already."""
    name = _cache_name(provider, "keys")
    began_ms = await ReadClock()
    async with leased(_cache_name(provider, "fetch"), seconds=FETCH_SECONDS, wait_seconds=WAIT_SECONDS) as held:
        current = await ReadCache(name)
        if current is not None and current != remembered:
            return current  # somebody else has fetched them while we waited
        if remembered is not None:
            if await ReadCache(_cache_name(provider, "cooldown")) is not None:
                return remembered
            await WriteCache(_cache_name(provider, "cooldown"), b"1", COOLDOWN_SECONDS)
        elif await ReadCache(_cache_name(provider, "down")) is not None:
            raise PeerUnavailable(f"identity provider {provider.name} failed a moment ago")
        elif not held and await ReadClock() - began_ms > WAIT_SECONDS * 500:
            # All who waited as long would ask it now, and wait as long again. (Where leases fail, nobody waits.)
            raise PeerUnavailable(f"identity provider {provider.name} has not answered somebody else for long")
        failure: PeerUnavailable | None = None
        try:
            document = await _fetch_key_set(provider)
        except PeerUnavailable as error:
            failure = error
        if failure is None:
            await WriteCache(name, document, provider.jwks_refresh_seconds)
            return document
        if remembered is None:
            await WriteCache(_cache_name(provider, "down"), b"1", DOWN_SECONDS)
        raise failure


async def _fetch_key_set(provider: Provider) -> bytes:
    uri = provider.jwks_uri
    if uri is None:
        well_known = f"{provider.issuer.rstrip('/')}/.well-known/openid-configuration"
        discovered = _read_object(await _fetch(provider, well_known))
        uri = discovered.get("jwks_uri")
        # OpenID Connect Discovery 1.0 section 4.3: another issuer's document must not be used.
        if discovered.get("issuer") != provider.issuer or not isinstance(uri, str):
            raise PeerUnavailable(f"identity provider {provider.name}: {well_known} is not about {provider.issuer}")
        # What was found over TLS must not lead to keys that anybody on the way could exchange.
        if provider.issuer.lower().startswith("https:") and not uri.lower().startswith("https:"):
            raise PeerUnavailable(
                f"identity provider {provider.name}: the address that it names for its keys is not https"
            )
    document = await _fetch(provider, uri)
    if not isinstance(_read_object(document).get("keys"), list):
        raise PeerUnavailable(f"identity provider {provider.name}: its keys are not a JSON Web Key Set")
    return document


async def _fetch(provider: Provider, url: str) -> bytes:
    return await FetchDocument(provider.name, url)


def _read_object(document: bytes) -> dict[str, Any]:
    try:
        value = parse_json(document)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise PeerUnavailable("an identity provider sent something that is not a JSON object")
    return value


def _cache_name(provider: Provider, what: str) -> str:
    """Not shared between providers: each trusts its own certificates, and a reload may have changed the issuer."""
    source = f"{provider.issuer}\n{provider.jwks_uri or ''}"
    return f"oidc:{what}:{provider.name}:{hashlib.sha256(source.encode()).hexdigest()}"
