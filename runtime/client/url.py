"""Addresses that the registry asks, as somebody configured them or another server named them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Literal

_URL = re.compile(r"(https?)://([^/?#]*)([^#]*)", re.IGNORECASE)
_AUTHORITY = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::([0-9]{1,5}))?")
_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_VISIBLE = re.compile(r"[\x21-\x7e]+")

_DEFAULT_PORTS = {"http": 80, "https": 443}
_HOST_LENGTH_MAX = 253


class UrlInvalid(ValueError):
    """Not an address that can be asked. Says why, without the address: a query may hold a secret."""


@dataclass(frozen=True, slots=True)
class Url:
    """An ``http`` or ``https`` URL (RFC 9110 section 4.2), taken apart."""

    scheme: Literal["http", "https"]
    host: str
    """In lower case; an IPv6 address without its brackets."""
    port: int
    target: str
    """Path and query."""

    @property
    def authority(self) -> str:
        """The value of the ``Host`` field."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        """Two URLs of the same origin are answered by the same server (RFC 6454 section 4)."""
        return f"{self.scheme}://{self.authority}"


def parse_url(text: str) -> Url:
    """Takes what can be asked without guessing and refuses the rest with `UrlInvalid`."""
    if not _VISIBLE.fullmatch(text) or "\\" in text:
        raise UrlInvalid("an address has only visible ASCII characters and no backslash; others are percent-encoded")
    found = _URL.fullmatch(text)
    if found is None:
        raise UrlInvalid("an address begins with http:// or https:// and has no #fragment")
    scheme: Literal["http", "https"] = "https" if found[1].lower() == "https" else "http"
    if "@" in found[2]:
        raise UrlInvalid("an address has no user name or password in it")
    authority = _AUTHORITY.fullmatch(found[2])
    if authority is None:
        raise UrlInvalid("an address names a host and perhaps a port; host names that are not ASCII begin with xn--")
    port = int(authority[3] or _DEFAULT_PORTS[scheme])
    if not 0 < port < 65536:
        raise UrlInvalid("a port is a number from 1 to 65535")
    host = authority[2] or authority[1]
    if authority[1] is not None:
        try:
            IPv6Address(host)
        except ValueError:
            raise UrlInvalid("what is in brackets is not an IPv6 address") from None
    elif len(host) > _HOST_LENGTH_MAX or not all(_LABEL.fullmatch(label) for label in host.split(".")):
        raise UrlInvalid("the host is neither a host name nor an IP address")
    target = found[3] if found[3].startswith("/") else f"/{found[3]}"
    return Url(scheme, host.lower(), port, target)
