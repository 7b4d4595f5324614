"""Hashes of passwords as they stand in the configuration: Argon2 (RFC 9106) in PHC form.

Everything that libargon2 would refuse is found here, so that a hash which was accepted at load can be verified.
"""

from __future__ import annotations

import base64
import re
import secrets

MEMORY_KIB_MAX = 1 << 20  # 1 GiB for every login is a mistake, not caution
PASSES_MAX = 1000
LANES_MAX = 64

_NUMBER = "(0|[1-9][0-9]{0,9})"
_PHC = re.compile(rf"\$(argon2(?:id|i|d))\$v=(?:19|16)\$m={_NUMBER},t={_NUMBER},p={_NUMBER}\$([^$]+)\$([^$]+)")
_BASE64 = re.compile(r"[A-Za-z0-9+/]+")


def check_phc(text: str) -> str | None:
    """What is wrong with a hash, None if nothing is. Never quotes it."""
    found = _PHC.fullmatch(text)
    if found is None:
        return "it is not an Argon2 hash like $argon2id$v=19$m=19456,t=2,p=1$...; `angos argon` makes one"
    memory, passes, lanes = int(found[2]), int(found[3]), int(found[4])
    if not 1 <= lanes <= LANES_MAX:
        return f"its p={lanes} is not from 1 to {LANES_MAX}"
    if not 1 <= passes <= PASSES_MAX:
        return f"its t={passes} is not from 1 to {PASSES_MAX}"
    if not 8 * lanes <= memory <= MEMORY_KIB_MAX:
        return f"its m={memory} is not from {8 * lanes} (8 for each lane) to {MEMORY_KIB_MAX} KiB"
    salt, tag = _decoded_size(found[5]), _decoded_size(found[6])
    if salt is None or tag is None or not 8 <= salt <= 64 or not 16 <= tag <= 128:
        return "its salt or its hash is cut off or is not base64"
    return None


def stand_in(phc: str) -> str:
    """A hash that no password has and that costs as much to verify."""
    *parameters, salt, tag = phc.split("$")
    return "$".join((*parameters, _random_like(salt), _random_like(tag)))


def _decoded_size(text: str) -> int | None:
    """None unless it is base64 without padding and without stray bits at its end."""
    if not _BASE64.fullmatch(text) or len(text) % 4 == 1:
        return None
    decoded = base64.b64decode(text + "=" * (-len(text) % 4))
    return len(decoded) if _encode(decoded) == text else None


def _random_like(text: str) -> str:
    return _encode(secrets.token_bytes(len(text) * 3 // 4))


def _encode(value: bytes) -> str:
    return base64.b64encode(value).decode().rstrip("=")
