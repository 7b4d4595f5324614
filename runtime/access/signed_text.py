"""JSON Web Signatures in compact form (RFC 7515 section 7.1), taken apart strictly.

Where RFC 7515 and RFC 8259 leave a choice, the stricter one is taken: what two programs could read differently is
refused.
"""

from __future__ import annotations

import base64
import json
import math
import re
from dataclasses import dataclass
from typing import Any, NoReturn

LENGTH_MAX = 16 << 10
DEPTH_MAX = 32  # whoever works with the claims later may do so recursively

_SEGMENTS = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")
_EXTENSIONS = ("crit", "b64")


class TextInvalid(ValueError):
    """Not a signed JSON object. Says why, with nothing of it."""


@dataclass(frozen=True, slots=True, repr=False)
class SignedText:
    """What it says, and what its signature is about. Nothing in it has been verified."""

    header: dict[str, Any]
    claims: dict[str, Any]
    signed: bytes
    signature: bytes


def parse_signed_text(text: str) -> SignedText:
    """Raises `TextInvalid`."""
    if len(text) > LENGTH_MAX:
        raise TextInvalid(f"it is longer than {LENGTH_MAX} characters")
    segments = _SEGMENTS.fullmatch(text)
    if segments is None:
        raise TextInvalid("it is not a JSON Web Token")
    header = _object(segments[1])
    if any(name in header for name in _EXTENSIONS):
        # RFC 7515 section 4.1.11: what is critical must be understood, and we understand nothing of the kind.
        raise TextInvalid("it needs an extension that is not supported")
    return SignedText(header, _object(segments[2]), text[: segments.end(2)].encode("ascii"), _decode(segments[3]))


def _object(segment: str) -> dict[str, Any]:
    try:
        text = _decode(segment).decode("utf-8")
        value = json.loads(text, object_pairs_hook=_unambiguous, parse_float=_finite, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise TextInvalid("a part of it is not JSON, or ambiguous") from None
    if not isinstance(value, dict):
        raise TextInvalid("a part of it is not a JSON object")
    if _is_deeper(value, DEPTH_MAX):
        raise TextInvalid(f"a part of it is nested deeper than {DEPTH_MAX} levels")
    return value


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a name is there twice")
    return value


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError("a number is too large")
    return number


def _refuse(constant: str) -> NoReturn:
    raise ValueError("NaN and Infinity are not JSON")


def _is_deeper(value: object, levels: int) -> bool:
    if isinstance(value, dict):
        value = list(value.values())
    return isinstance(value, list) and (levels == 0 or any(_is_deeper(part, levels - 1) for part in value))


def _decode(segment: str) -> bytes:
    try:
        decoded = base64.b64decode(segment + "=" * (-len(segment) % 4), altchars=b"-_", validate=True)
    except ValueError:
        raise TextInvalid("a part of it is not base64url") from None
    if encode_segment(decoded) != segment:
        raise TextInvalid("a part of it has stray bits at its end")
    return decoded


def encode_segment(value: bytes) -> str:
    """Base64url without padding (RFC 7515 section 2)."""
    return base64.urlsafe_b64encode(value).decode("ascii").rstrip("=")
