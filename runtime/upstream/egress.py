"""Where the registry may connect to on the word of an upstream: a rule that is asked on every connect.

An upstream decides, by redirects and by the token server that it names, where the next request goes, and the name of a
host says nothing about where it leads. So the address counts, after the name has been resolved, on the very connection
that is made. Loopback, link-local and private addresses are what an attacker would want to reach from here.
"""

from __future__ import annotations

from ipaddress import ip_address

from angos.runtime.client.connection import NotPermitted
from angos.runtime.client.url import Url
from angos.runtime.upstream.settings import UpstreamEndpoint
from angos.sansio.upstream.origin import is_public, origin_of


class EgressRule:
    """Of one upstream."""

    def __init__(self, endpoint: UpstreamEndpoint) -> None:
        configured = (endpoint.url.origin, *endpoint.token_realms)
        self._configured = frozenset(map(origin_of, configured))
        self._networks = endpoint.private_networks

    def check(self, url: Url, address: str) -> None:
        """Raises `NotPermitted` when this URL must not be asked at this address."""
        if is_public(address) or any(ip_address(address.partition("%")[0]) in network for network in self._networks):
            return
        if origin_of(url.origin) in self._configured and _says_so(url.host, address):
            return
        raise NotPermitted(
            f"{url.origin} is at {address}, which is not of the Internet; if it is meant, list it in private_networks"
        )


def _says_so(host: str, address: str) -> bool:
    """Whether whoever configured this host can have meant nothing but this address."""
    if host == "localhost":
        return ip_address(address.partition("%")[0]).is_loopback
    try:
        return ip_address(host) == ip_address(address)
    except ValueError:
        return False
