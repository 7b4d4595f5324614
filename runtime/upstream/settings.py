"""How upstreams are reached: what the core never sees. Times in seconds."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING

from angos.runtime.access.settings import ClientTls
from angos.sansio.secret import Secret

if TYPE_CHECKING:
    from angos.runtime.client.url import Url


@dataclass(frozen=True, slots=True)
class UpstreamEndpoint:
    """One of them."""

    name: str
    """As in `angos.sansio.upstream.config.Upstream`."""
    url: Url
    username: str | None = None
    password: Secret | None = None
    """With `username` or not at all."""
    token_realms: tuple[str, ...] = ()
    """Origins, beside its own, that may be shown the password."""
    private_networks: tuple[IPv4Network | IPv6Network, ...] = ()
    """Where it, and what it leads to, may be besides the public Internet."""
    redirects_max: int = 5
    connect_seconds: float = 10.0
    read_seconds: float = 60.0
    """The longest silence in a large answer; a small one in all."""
    tls: ClientTls = field(default_factory=ClientTls)
