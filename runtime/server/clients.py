"""What single clients may take: so many connections, so many requests a second."""

from __future__ import annotations

import time
from collections import OrderedDict
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import Final

REMEMBERED_MAX: Final = 10_000  # clients whose rate is known; those that were quiet for longest are forgotten first
NETWORK_BITS: Final = 64  # of an IPv6 address: what one customer gets at least, to choose addresses in as he likes


@lru_cache(1024)
def client_of(address: str | None) -> str:
    """Whom an address stands for."""
    if address is None or ":" not in address:
        return address or ""
    try:
        found = ip_address(address)
    except ValueError:
        return address
    if not isinstance(found, IPv6Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    network = int(found) >> (128 - NETWORK_BITS) << (128 - NETWORK_BITS)
    return f"{IPv6Address(network)}/{NETWORK_BITS}"


class ClientConnections:
    """How many connections each client has open."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def count(self, client: str) -> int:
        """Of this client, now."""
        return self._counts.get(client, 0)

    def enter(self, client: str) -> None:
        """A connection was opened."""
        self._counts[client] = self._counts.get(client, 0) + 1

    def leave(self, client: str) -> None:
        """A connection was closed."""
        count = self._counts[client] - 1
        if count:
            self._counts[client] = count
        else:
            del self._counts[client]


class ClientRates:
    """When each client may send its next request.

    A request costs its client ``1 / rate`` seconds of the future; a client may owe as much as a burst costs. (This is
    the generic cell rate algorithm, ITU-T I.371 annex A: a token bucket in one number.)
    """

    __slots__ = ("_owed",)

    def __init__(self) -> None:
        self._owed: OrderedDict[str, float] = OrderedDict()  # until when everything is paid

    def ask(self, client: str, rate: int, burst: int, now: float | None = None) -> float:
        """Take note of a request. 0 when it may pass, or the seconds until one may."""
        if now is None:
            now = time.monotonic()
        paid = max(self._owed.pop(client, now), now)
        wait = paid - now - (burst - 1) / rate
        allowed = wait <= 1e-9
        self._owed[client] = paid + 1 / rate if allowed else paid
        if len(self._owed) > REMEMBERED_MAX:
            self._owed.popitem(last=False)
        return 0.0 if allowed else wait

    def __len__(self) -> int:
        return len(self._owed)
