"""Who may do what, as configured: frozen, valid by construction, and without any secret.

Passwords, keys and addresses of services stay with the runtime (`angos.runtime.access.settings`); the core knows users,
providers and webhooks by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from angos.sansio.access.policy import Policy


@dataclass(frozen=True, slots=True)
class User:
    """A user with a password: ``[auth.identity.<id>]``."""

    id: str
    username: str


@dataclass(frozen=True, slots=True)
class Provider:
    """An issuer of JSON Web Tokens: ``[auth.oidc.<name>]``. Times in seconds."""

    name: str
    issuer: str
    jwks_uri: str | None = None
    """None: discovered (OpenID Connect Discovery 1.0 section 4)."""
    jwks_refresh_seconds: float = 3600.0
    required_audience: str | None = None
    clock_skew_seconds: float = 60.0
    allowed_algorithms: tuple[str, ...] = ("RS256",)
    required_claims: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TokenService:
    """``[auth.token_service]``: the registry signs tokens of its own, anonymous ones included."""

    ttl_seconds: int = 3600
    realm: str | None = None
    """The URL of ``/token`` as clients reach it; None: made from the request."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """``[auth.webhook.<name>]``: a service that is asked whether a request is allowed."""

    name: str
    cache_seconds: float = 60.0
    """0: every request is asked anew."""
    forward_headers: tuple[str, ...] = ()
    """Fields of the client's request that are passed on; lower case."""


@dataclass(frozen=True, slots=True)
class AccessConfig:
    """``[auth]`` and the parts of ``[global]`` about access."""

    policy: Policy
    users: tuple[User, ...] = ()
    providers: tuple[Provider, ...] = ()
    """By name."""
    token_service: TokenService | None = None
    webhooks: tuple[Webhook, ...] = ()
    webhook: str | None = None
    """The webhook that is asked about every request, unless its repository names another one."""
    trusted_proxies: tuple[str, ...] = ()
    """Networks, such as ``10.0.0.0/8``, whose ``X-Forwarded-For``, ``X-Real-IP`` and ``X-Forwarded-Proto`` count."""
    invalid_credentials: Literal["pass", "reject"] = "pass"
    """``pass``: a credential that no method accepts counts as none. ``reject``: it ends the request with 401."""
