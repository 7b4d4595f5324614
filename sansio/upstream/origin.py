"""Where a URL leads, and what may go along: the rules by which credentials never reach anybody but their owner.

An *origin* is scheme, host and port (RFC 6454 section 4). A redirect, a token realm or anything else that an upstream
says can lead elsewhere; whatever is shown to it is decided here, by origin and by nothing else.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urljoin, urlsplit

PORTS = {"http": 80, "https": 443}


@lru_cache(maxsize=1024)
def origin_of(url: str) -> str | None:
    """``https://host:port`` in lower case with the port always given; None for what is no plain http or https URL.

    One with a user or password in it is not plain, nor is one with a character that some parser reads in another way.
    """
    if any(character <= " " or character in '\\"<>^`{|}\x7f' or character > "~" for character in url):
        return None
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    scheme, host = parts.scheme.lower(), parts.hostname
    if scheme not in PORTS or not host or "@" in parts.netloc or "%" in parts.netloc:
        return None
    shown = f"[{host}]" if ":" in host else host.rstrip(".")
    return f"{scheme}://{shown}:{PORTS[scheme] if port is None else port}" if shown else None


def redirect_target(url: str, location: str | None) -> str | None:
    """Where a redirect from `url` leads; None when it must not be followed: no address, or from https to http."""
    if location is None:
        return None
    try:
        target = urljoin(url, location).partition("#")[0]
    except ValueError:
        return None
    before, after = origin_of(url), origin_of(target)
    if before is None or after is None or (before.startswith("https:") and not after.startswith("https:")):
        return None
    return target


def keeps_credentials(url: str, target: str) -> bool:
    """Whether what was shown to `url` may be shown to `target`: the same origin, and nothing else."""
    origin = origin_of(url)
    return origin is not None and origin == origin_of(target)


def may_show_password(url: str, upstream_url: str, token_realms: tuple[str, ...]) -> bool:
    """Whether the configured password of an upstream may be sent to `url`: at its own origin, or at that of a realm
    which is allowed for it. What it was told over https is never sent over http."""
    origin, own = origin_of(url), origin_of(upstream_url)
    if origin is None or own is None:
        return False
    if own.startswith("https:") and not origin.startswith("https:"):
        return False
    return origin == own or any(origin == origin_of(realm) for realm in token_realms)


def is_public(address: str) -> bool:
    """Whether an IP address, of a resolved name, belongs to the public internet. What is no address does not."""
    try:
        found: IPv4Address | IPv6Address = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, IPv6Address):
        # Ways to write an IPv4 address: what counts is where the packets go.
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo[1] if found.teredo else None)
        if inner is None and found in _NAT64:
            inner = IPv4Address(int(found) & 0xFFFFFFFF)
        if inner is not None:
            return inner.is_global and not inner.is_multicast
    return found.is_global and not found.is_multicast


class _Nat64:
    def __contains__(self, address: IPv6Address) -> bool:
        return int(address) >> 32 == 0x0064_FF9B << 64


_NAT64 = _Nat64()  # 64:ff9b::/96, RFC 6052
