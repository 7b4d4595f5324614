"""JSON Web Tokens (RFC 7519): those of identity providers, and the registry's own.

A token that was valid is remembered until it expires, under a keyed hash of everything that was checked, so that a
client that sends it with every request costs one verification. Nobody is told more than a few fixed words about a token
that is not valid: what is in it may be a secret, and came from anybody.
"""

from __future__ import annotations

import base64
import hmac
import json
import math
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from hashlib import blake2b
from typing import Any

from angos.runtime.access.keys import KeyUnusable, load_key
from angos.runtime.access.signed_text import SignedText, TextInvalid, encode_segment, parse_signed_text
from angos.sansio.effects import SignToken, TokenVerdict, VerifyOwnToken, VerifyToken
from angos.sansio.secret import Secret

OWN_TYPE = "angos+jwt"
SECRET_BYTES_MIN = 32  # as long as the digest (RFC 7518 section 3.2)
REMEMBERED_MAX = 1024

_OWN_HEADER = encode_segment(json.dumps({"alg": "HS256", "typ": OWN_TYPE}, separators=(",", ":")).encode())


class TokenInvalid(ValueError):
    """A claim that is missing or does not hold. Says which, without its value."""


def check_token_secret(text: str) -> str | None:
    """What is wrong with ``auth.token_service.secret_key``, None if nothing is. Never quotes it."""
    try:
        decoded = base64.b64decode(text, validate=True)
    except ValueError:
        return "it is not base64"
    if len(decoded) < SECRET_BYTES_MIN:
        return f"it has {len(decoded)} bytes when decoded and needs at least {SECRET_BYTES_MIN}"
    return None


class Tokens:
    """Verifies and signs."""

    def __init__(
        self, secret: Secret | None, *, of_providers: bool = False, now: Callable[[], float] = time.time
    ) -> None:
        """With the secret of the token service, one that `check_token_secret` has nothing against; None without one.

        `of_providers` says that tokens of identity providers will come; what they need is imported now rather than when
        the first one waits for it. `now` gives the seconds since 1970.
        """
        if of_providers:
            import jwt.algorithms  # noqa: F401
        self._secret = None if secret is None else base64.b64decode(secret.value, validate=True)
        self._now = now
        self._remembered: OrderedDict[bytes, tuple[TokenVerdict, float]] = OrderedDict()
        self._fingerprint_key = secrets.token_bytes(32)

    def verify_token(self, effect: VerifyToken) -> TokenVerdict:
        """`VerifyToken`."""
        fingerprint = self._fingerprint(
            effect.token.value,
            effect.key,
            effect.algorithm,
            effect.issuer,
            effect.audience or "",
            f"{effect.audience is None} {effect.leeway_seconds}",
        )
        return self._recall(fingerprint) or self._verify(effect, fingerprint)

    def verify_own_token(self, effect: VerifyOwnToken) -> TokenVerdict:
        """`VerifyOwnToken`."""
        fingerprint = self._fingerprint(effect.token.value)
        return self._recall(fingerprint) or self._verify_own(effect, fingerprint)

    def sign_token(self, effect: SignToken) -> Secret:
        """`SignToken`: HS256 (RFC 7518 section 3.2)."""
        signed = f"{_OWN_HEADER}.{encode_segment(effect.claims.encode())}"
        return Secret(f"{signed}.{encode_segment(self._mac(signed.encode('ascii')))}")

    def _verify(self, effect: VerifyToken, fingerprint: bytes) -> TokenVerdict:
        now = self._now()
        try:
            token = parse_signed_text(effect.token.value)
            if token.header.get("alg") != effect.algorithm:
                return TokenVerdict(None, "it is signed with another algorithm than its key is for")
            if not load_key(effect.key, effect.algorithm)(token.signed, token.signature):
                return TokenVerdict(None, "its signature is not that of its key")
            expires_at = _check_end(token.claims, now, effect.leeway_seconds)
            _check_beginning(token.claims, now, effect.leeway_seconds)
            _check_parties(token.claims, effect.issuer, effect.audience)
        except KeyUnusable as error:
            return TokenVerdict(None, f"its key cannot be used: {error}")
        except (TextInvalid, TokenInvalid) as error:
            return TokenVerdict(None, str(error))
        return self._remember(fingerprint, token, expires_at + effect.leeway_seconds)

    def _verify_own(self, effect: VerifyOwnToken, fingerprint: bytes) -> TokenVerdict:
        if self._secret is None:
            return TokenVerdict(None, "no token service is configured")
        try:
            token = parse_signed_text(effect.token.value)
            if token.header.get("alg") != "HS256" or token.header.get("typ") != OWN_TYPE:
                return TokenVerdict(None, "it is not a token of this registry")
            if not hmac.compare_digest(self._mac(token.signed), token.signature):
                return TokenVerdict(None, "its signature is not that of this registry")
            # Only its end: the clock of the replica that signed it may be a little ahead of ours.
            expires_at = _check_end(token.claims, self._now(), 0)
        except (TextInvalid, TokenInvalid) as error:
            return TokenVerdict(None, str(error))
        return self._remember(fingerprint, token, expires_at)

    def _mac(self, signed: bytes) -> bytes:
        assert self._secret is not None, "tokens are signed only where a token service is configured"
        return hmac.digest(self._secret, signed, "sha256")

    def _fingerprint(self, *parts: str) -> bytes:
        sizes = " ".join(str(len(part)) for part in parts)
        text = "".join((sizes, "\n", *parts)).encode("utf-8", "surrogatepass")
        return blake2b(text, digest_size=32, key=self._fingerprint_key).digest()

    def _recall(self, fingerprint: bytes) -> TokenVerdict | None:
        found = self._remembered.get(fingerprint)
        if found is None:
            return None
        verdict, until = found
        if until <= self._now():
            del self._remembered[fingerprint]
            return None
        self._remembered.move_to_end(fingerprint)
        return verdict

    def _remember(self, fingerprint: bytes, token: SignedText, until: float) -> TokenVerdict:
        verdict = TokenVerdict(json.dumps(token.claims))
        self._remembered[fingerprint] = (verdict, until)
        if len(self._remembered) > REMEMBERED_MAX:
            self._remembered.popitem(last=False)
        return verdict


def _check_end(claims: dict[str, Any], now: float, leeway: float) -> float:
    """RFC 7519 section 4.1.4. Gives when it expires. Raises `TokenInvalid`."""
    expires_at = _date(claims, "exp")
    if expires_at is None:
        raise TokenInvalid("it lacks exp, so it would be valid for ever")
    if expires_at + leeway <= now:
        raise TokenInvalid("it has expired")
    return expires_at


def _check_beginning(claims: dict[str, Any], now: float, leeway: float) -> None:
    """RFC 7519 sections 4.1.5 and 4.1.6. Raises `TokenInvalid`."""
    not_before, issued_at = _date(claims, "nbf"), _date(claims, "iat")
    if not_before is not None and not_before - leeway > now:
        raise TokenInvalid("it is not valid yet")
    if issued_at is not None and issued_at - leeway > now:
        raise TokenInvalid("it was issued in the future")


def _date(claims: dict[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            date = float(value)
        except OverflowError:  # an integer of hundreds of digits
            date = math.inf
        if math.isfinite(date):
            return date
    raise TokenInvalid(f"its {name} is not a date")


def _check_parties(claims: dict[str, Any], issuer: str, audience: str | None) -> None:
    """RFC 7519 sections 4.1.1 and 4.1.3. Raises `TokenInvalid`."""
    if claims.get("iss") != issuer:
        raise TokenInvalid("it is from another issuer")
    if audience is None:
        return
    meant_for = claims.get("aud")
    if isinstance(meant_for, str):
        meant_for = [meant_for]
    if not isinstance(meant_for, list) or audience not in meant_for:
        raise TokenInvalid("it is for another audience")
