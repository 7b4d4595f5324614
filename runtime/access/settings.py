"""What the runtime needs to check credentials and to ask services: secrets and addresses, which the core never sees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from angos.sansio.secret import Secret


@dataclass(frozen=True, slots=True)
class ClientTls:
    """How the registry, as a client, trusts a service and shows itself to it."""

    server_ca_bundle: Path | None = None
    """PEM; None: what the system trusts."""
    client_certificate_bundle: Path | None = None
    """PEM, leaf first; with `client_private_key` or not at all."""
    client_private_key: Path | None = None


@dataclass(frozen=True, slots=True)
class ProviderEndpoint:
    """How an identity provider is reached. Times in seconds."""

    name: str
    issuer: str
    tls: ClientTls = field(default_factory=ClientTls)
    bearer_token_file: Path | None = None
    """Read for every request to the provider; its content is sent to the origin of the issuer only."""
    request_seconds: float = 30.0
    """For one document in all."""


@dataclass(frozen=True, slots=True)
class WebhookEndpoint:
    """How an authorization webhook is reached."""

    name: str
    url: str = field(repr=False)  # its query may hold a secret
    timeout_seconds: float
    authorization: Secret | None = None
    """The value of the ``Authorization`` field that it is asked with."""
    tls: ClientTls = field(default_factory=ClientTls)


@dataclass(frozen=True, slots=True)
class AccessSettings:
    """All of it."""

    passwords: Mapping[str, Secret] = field(default_factory=dict)
    """By user name: the Argon2 hash in PHC form."""
    providers: tuple[ProviderEndpoint, ...] = ()
    webhooks: tuple[WebhookEndpoint, ...] = ()
    token_secret: Secret | None = None
    """What the registry's own tokens are signed with, base64, at least 32 bytes; None without a token service."""
