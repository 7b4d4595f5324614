"""Where a request really came from, when proxies stand in between."""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Literal

from angos.sansio.http.message import Headers, Peer

_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,253})|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")


def client_address(peer: Peer, headers: Headers, trusted_proxies: tuple[str, ...]) -> str | None:
    """The address of the client: of the socket, unless that belongs to a trusted proxy which names another one.

    Of ``X-Forwarded-For`` the right-most entry counts that is not a trusted proxy itself: those further left are
    whatever the client wrote. An entry that is no address makes the whole field count for nothing.
    """
    if not trusted_proxies or not is_trusted(peer.address, trusted_proxies):
        return peer.address
    forwarded = headers.joined("x-forwarded-for")
    if forwarded is not None:
        for entry in reversed(forwarded.split(",")):
            address = _address(entry)
            if address is None:
                return peer.address
            if not is_trusted(address, trusted_proxies):
                return address
    real = headers.all("x-real-ip")
    # It is not a list: of several, all but one may be the client's.
    return (_address(real[0]) if len(real) == 1 else None) or peer.address


def client_scheme(peer: Peer, headers: Headers, trusted_proxies: tuple[str, ...]) -> Literal["http", "https"]:
    """How the client speaks to the registry, or to the trusted proxy in front of it."""
    if trusted_proxies and is_trusted(peer.address, trusted_proxies):
        forwarded = (headers.get("x-forwarded-proto") or "").strip().lower()
        if forwarded == "http":
            return "http"
        if forwarded == "https":
            return "https"
    return peer.scheme


def client_host(headers: Headers) -> str | None:
    """The ``Host`` that the client asked for, None when it is missing or could not stand in a URL."""
    host = headers.get("host")
    return host if host is not None and _HOST.fullmatch(host) else None


def _address(entry: str) -> str | None:
    text = entry.strip()
    if text.startswith("["):  # [2001:db8::1]:443
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:  # 192.0.2.1:443
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])  # whatever follows a % is any text, and of no use here
    except ValueError:
        return None
    # One client, one text: rules compare it.
    return str(getattr(address, "ipv4_mapped", None) or address)


def is_trusted(address: str | None, trusted_proxies: tuple[str, ...]) -> bool:
    """Whether this is the address of a proxy whose word about its clients counts."""
    if address is None:
        return False
    try:
        found = ip_address(address)
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return any((mapped or found) in network for network in _networks(trusted_proxies))


@lru_cache(maxsize=16)
def _networks(texts: tuple[str, ...]) -> tuple[IPv4Network | IPv6Network, ...]:
    return tuple(ip_network(text, strict=False) for text in texts)
