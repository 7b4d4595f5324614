"""Who makes a request, as policies and webhooks see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from angos.sansio.access.events import Method, Who
from angos.sansio.access.scope import Scope
from angos.sansio.http.message import Certificate

NO_CERTIFICATE = Certificate()
NAME_LENGTH_MAX = 300


@dataclass(frozen=True, slots=True)
class OidcIdentity:
    """What an identity provider says about the client."""

    provider_name: str
    claims: Mapping[str, Any]
    """All of them, as they were in the token."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Everything that is known about a client. Methods add up: a request may carry a certificate and a password."""

    id: str | None = None
    """The key of the user in the configuration."""
    username: str | None = None
    certificate: Certificate = NO_CERTIFICATE
    oidc: OidcIdentity | None = None
    client_ip: str | None = None
    methods: tuple[Method, ...] = ()
    """By which the client was recognised; with an anonymous token of the registry, that one."""
    scopes: tuple[Scope, ...] | None = None
    """What the token of the registry is good for; None when no such token was shown."""

    @property
    def known(self) -> bool:
        """True when it is somebody, not just anybody."""
        return self.id is not None or self.oidc is not None or self.certificate != NO_CERTIFICATE

    @property
    def name(self) -> str | None:
        """What the history of a tag calls somebody, None for just anybody: the key of the user, else the provider and
        the subject of a token, else the common name of a certificate."""
        if self.id is not None:
            return self.id
        if self.oidc is not None:
            return f"{self.oidc.provider_name}:{self.oidc.claims.get('sub')}"[:NAME_LENGTH_MAX]
        names = self.certificate.common_names
        return f"certificate:{names[0]}"[:NAME_LENGTH_MAX] if names else None

    def variables(self) -> dict[str, Any]:
        """The variable ``identity`` of policies. Everything is always there; what is not known is null."""
        oidc = self.oidc
        return {
            "id": self.id,
            "username": self.username,
            "certificate": {
                "organizations": list(self.certificate.organizations),
                "common_names": list(self.certificate.common_names),
            },
            "oidc": None if oidc is None else {"provider_name": oidc.provider_name, "claims": oidc.claims},
            "client_ip": self.client_ip,
        }

    def who(self) -> Who:
        """What a log may show of it."""
        return Who(
            self.id,
            self.username,
            None if self.oidc is None else self.oidc.provider_name,
            self.certificate.organizations,
            self.certificate.common_names,
            self.client_ip,
        )
