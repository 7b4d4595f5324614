"""Finding out who makes a request: client certificate, token of this registry, identity providers, password.

Methods are tried in this order and add up. A credential that no method accepts counts as none (ARCHITECTURE 3.1); what
was tried and why it failed is kept, for the operator's log, for ``angos explain``, and for the version check, which
must not tell a person with a mistyped password that all is well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from angos.sansio.access.config import AccessConfig, Provider
from angos.sansio.access.credentials import (
    Basic,
    Bearer,
    Credentials,
    Unreadable,
    parse_authorization,
    peek_token_claims,
    peek_token_header,
)
from angos.sansio.access.events import CredentialTried, Method
from angos.sansio.access.identity import Identity, OidcIdentity
from angos.sansio.access.oidc import verify_claims
from angos.sansio.access.peer import client_address
from angos.sansio.access.scope import parse_scopes
from angos.sansio.compact_json import parse_json
from angos.sansio.effects import PeerUnavailable, VerifyOwnToken, VerifyPassword
from angos.sansio.errors import RegistryError
from angos.sansio.http.message import Request
from angos.sansio.secret import Secret

BASIC_ACCEPTED = CredentialTried("basic", True)
OWN_TOKEN_TYPE = "angos+jwt"


class Authentication(NamedTuple):
    """Who it is, and what was tried to find out."""

    identity: Identity
    tried: tuple[CredentialTried, ...] = ()

    @property
    def rejected(self) -> CredentialTried | None:
        """The first credential of the ``Authorization`` field that failed, when none of that field was accepted."""
        first: CredentialTried | None = None
        for attempt in self.tried:
            if attempt.method != "mtls":
                if attempt.accepted:
                    return None
                first = first or attempt
        return first


async def authenticate(request: Request, access: AccessConfig) -> Authentication:
    """Try all that the request shows. Raises a 503 when that takes a provider that cannot be asked now."""
    identity, tried = _by_certificate(request, access)
    values = request.headers.all("authorization")
    if not values:
        return Authentication(identity, tried)
    if len(values) > 1:
        # Not a list (RFC 9110 section 5.3): a proxy may have looked at another one of them than we would.
        return await _by_credentials(Unreadable("there is more than one Authorization field"), identity, tried, access)
    return await _by_credentials(parse_authorization(values[0]), identity, tried, access)


async def authenticate_with(credentials: Credentials, request: Request, access: AccessConfig) -> Authentication:
    """As `authenticate`, with credentials that came in another way than in the ``Authorization`` field."""
    identity, tried = _by_certificate(request, access)
    return await _by_credentials(credentials, identity, tried, access)


def _by_certificate(request: Request, access: AccessConfig) -> tuple[Identity, tuple[CredentialTried, ...]]:
    identity = Identity(client_ip=client_address(request.peer, request.headers, access.trusted_proxies))
    certificate = request.peer.certificate
    if certificate is None:
        return identity, ()
    if not (certificate.organizations or certificate.common_names):
        return identity, (CredentialTried("mtls", False, "its subject has neither an organization nor a common name"),)
    return replace(identity, certificate=certificate, methods=("mtls",)), (CredentialTried("mtls", True),)


async def _by_credentials(
    credentials: Credentials, identity: Identity, tried: tuple[CredentialTried, ...], access: AccessConfig
) -> Authentication:
    match credentials:
        case Basic(username, password):
            provider = next((provider for provider in access.providers if provider.name == username), None)
            if provider is None:
                return await _by_password(username, password, identity, tried, access)
            return await _by_providers(password, (provider,), identity, tried)
        case Bearer(token):
            header = peek_token_header(token)
            if access.token_service is not None and header is not None and header.get("typ") == OWN_TOKEN_TYPE:
                return await _by_own_token(token, identity, tried, access)
            return await _by_providers(token, access.providers, identity, tried)
        case Unreadable(problem):
            return Authentication(identity, (*tried, CredentialTried("basic", False, problem)))


async def _by_password(
    username: str, password: Secret, identity: Identity, tried: tuple[CredentialTried, ...], access: AccessConfig
) -> Authentication:
    if not access.users:
        return Authentication(identity, (*tried, CredentialTried("basic", False, "no users are configured")))
    try:
        right = await VerifyPassword(username, password)
    except PeerUnavailable:
        raise _unavailable("too many passwords are being checked at this moment") from None
    user = next((user for user in access.users if user.username == username), None)
    if not right or user is None:
        # One sentence for both: the log, too, must not say which user names exist.
        attempt = CredentialTried("basic", False, "there is no user of this name with this password")
        return Authentication(identity, (*tried, attempt))
    methods: tuple[Method, ...] = (*identity.methods, "basic")
    # Not by `replace`, which takes three times as long: this is the way of every request with a password.
    found = Identity(user.id, username, identity.certificate, None, identity.client_ip, methods)
    return Authentication(found, (*tried, BASIC_ACCEPTED))


async def _by_own_token(
    token: Secret, identity: Identity, tried: tuple[CredentialTried, ...], access: AccessConfig
) -> Authentication:
    verdict = await VerifyOwnToken(token)
    if verdict.claims is None:
        return Authentication(identity, (*tried, CredentialTried("token", False, verdict.problem)))
    found = _from_own_claims(parse_json(verdict.claims), identity, access)
    if found is None:
        problem = "its user or identity provider is not configured any more"
        return Authentication(identity, (*tried, CredentialTried("token", False, problem)))
    return Authentication(found, (*tried, CredentialTried("token", True)))


def _from_own_claims(claims: Mapping[str, Any], identity: Identity, access: AccessConfig) -> Identity | None:
    user_id, oidc = claims.get("id"), claims.get("oidc")
    username = None
    if user_id is not None:
        username = next((user.username for user in access.users if user.id == user_id), None)
        if username is None:
            return None
    provider = None
    if oidc is not None:
        if not any(known.name == oidc["provider_name"] for known in access.providers):
            return None
        provider = OidcIdentity(oidc["provider_name"], oidc["claims"])
    scopes = parse_scopes(claims.get("scope", ()))
    methods = (*identity.methods, "token")
    return replace(identity, id=user_id, username=username, oidc=provider, methods=methods, scopes=scopes)


async def _by_providers(
    token: Secret, providers: tuple[Provider, ...], identity: Identity, tried: tuple[CredentialTried, ...]
) -> Authentication:
    issuer = (peek_token_claims(token) or {}).get("iss")
    asked = [provider for provider in providers if provider.issuer == issuer]
    if not asked:
        problem = "no identity provider is configured for its issuer" if issuer else "it is not a JSON Web Token"
        return Authentication(identity, (*tried, CredentialTried("oidc", False, problem)))
    unavailable, problems = False, []
    for provider in asked:
        try:
            verdict = await verify_claims(token, provider)
        except PeerUnavailable:
            unavailable = True
            continue
        if verdict.claims is not None:
            found = OidcIdentity(provider.name, parse_json(verdict.claims))
            identity = replace(identity, oidc=found, methods=(*identity.methods, "oidc"))
            return Authentication(identity, (*tried, CredentialTried("oidc", True)))
        problems.append(f"{provider.name}: {verdict.problem}")
    if unavailable:
        raise _unavailable("the identity provider of this token cannot be asked now")
    return Authentication(identity, (*tried, CredentialTried("oidc", False, "; ".join(problems))))


def _unavailable(message: str) -> RegistryError:
    return RegistryError(503, "UNAVAILABLE", f"{message}; try again soon", headers={"Retry-After": "2"})
