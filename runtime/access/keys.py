"""Public keys of identity providers, and whether one of them has signed something (RFC 7517, RFC 7518, RFC 8037)."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

RSA_BITS_MIN, RSA_BITS_MAX = 2048, 16384  # below, NIST SP 800-131A; above, one check takes longer than a request may

Verify = Callable[[bytes, bytes], bool]
"""Whether the second is a signature of the first."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """What a key must be to fit an algorithm."""

    type: str
    """``kty``"""
    members: tuple[str, ...]
    """The public ones."""
    curves: tuple[str, ...] = ()
    """``crv``"""


_RSA = _Kind("RSA", ("n", "e"))
_KINDS = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), _RSA),
    "ES256": _Kind("EC", ("crv", "x", "y"), ("P-256",)),
    "ES384": _Kind("EC", ("crv", "x", "y"), ("P-384",)),
    "ES512": _Kind("EC", ("crv", "x", "y"), ("P-521",)),
    "EdDSA": _Kind("OKP", ("crv", "x"), ("Ed25519", "Ed448")),
}

ALGORITHMS = tuple(_KINDS)
"""All that a token may be signed with. No ``none``, and nothing with a shared secret."""


class KeyUnusable(ValueError):
    """A key cannot be used with an algorithm. Says why, without the key."""


@lru_cache(maxsize=256)
def load_key(text: str, algorithm: str) -> Verify:
    """The check that this key, a JSON Web Key, stands for. Raises `KeyUnusable`."""
    kind = _KINDS.get(algorithm)
    if kind is None:
        raise KeyUnusable(f"{algorithm[:20]!r} is not an algorithm for the keys of identity providers")
    members = _public_members(text, kind)

    import jwt  # 23 MB, so only where an identity provider is configured
    from jwt.algorithms import get_default_algorithms

    checker = get_default_algorithms()[algorithm]
    try:
        key = checker.prepare_key(checker.from_jwk(members))
    except (jwt.InvalidKeyError, ValueError, TypeError):  # cryptography's complaint, too, is a ValueError
        raise KeyUnusable("its numbers are not a key") from None
    if kind is _RSA and not RSA_BITS_MIN <= key.key_size <= RSA_BITS_MAX:
        raise KeyUnusable(f"it has {key.key_size} bits; {RSA_BITS_MIN} to {RSA_BITS_MAX} are accepted")

    def verify(signed: bytes, signature: bytes) -> bool:
        return checker.verify(signed, key, signature)

    return verify


def _public_members(text: str, kind: _Kind) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise KeyUnusable("it is not a JSON object")
    if value.get("kty") != kind.type:
        raise KeyUnusable(f"it is not an {kind.type} key, as its algorithm needs")
    if "d" in value:
        raise KeyUnusable("its private part was published, so anybody may have signed with it")
    if kind.curves and value.get("crv") not in kind.curves:
        raise KeyUnusable(f"it is not on the curve {' or '.join(kind.curves)}, as its algorithm needs")
    if not all(isinstance(value.get(member), str) for member in kind.members):
        raise KeyUnusable(f"it lacks one of {', '.join(kind.members)}")
    return {"kty": kind.type, **{member: value[member] for member in kind.members}}
