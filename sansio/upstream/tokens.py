"""Challenges of upstreams, and tokens that answer them (RFC 9110 section 11.6.1; distribution, Token Authentication).

A token is remembered by host, realm, service, scope and user: one that is good for one repository is not tried on
another one. One request at a time asks for it; those that wait find it remembered.
"""

from __future__ import annotations

import json
import math

from angos.sansio.secret import Secret
from angos.sansio.upstream.effects import TokenAnswer

SECONDS_DEFAULT = 60.0  # distribution, Token Authentication: without expires_in, and at least
SECONDS_MAX = 3600.0 * 24


def read_token(status: int, headers: tuple[tuple[str, str], ...], body: bytes) -> TokenAnswer:
    """What a token server answered. For drivers: nobody else gets to see the body."""
    token: str | None = None
    seconds = SECONDS_DEFAULT
    if status == 200:
        try:
            value = json.loads(body)
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, dict):
            found = value.get("token") or value.get("access_token")
            # It goes into a header field.
            if isinstance(found, str) and found.isascii() and found.isprintable() and " " not in found:
                token = found
            expires = value.get("expires_in")
            if isinstance(expires, int | float) and math.isfinite(expires) and expires > 0:
                seconds = min(float(expires), SECONDS_MAX)
    return TokenAnswer(status, None if token is None else Secret(token), seconds, headers)
