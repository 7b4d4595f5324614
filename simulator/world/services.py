"""The services beside the storage: users, identity providers, webhooks, a cache, and what the operator is told.

Tokens are made of real segments, so that the core takes them apart as it does real ones, but their signature is a plain
digest over the key's own text: whoever knows the key can sign, which is all that a simulated provider needs.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from angos.sansio.access.events import Event
from angos.sansio.effects import (
    AskWebhook,
    Effect,
    FetchDocument,
    PeerUnavailable,
    ReadCache,
    SignToken,
    Tell,
    TokenVerdict,
    VerifyOwnToken,
    VerifyPassword,
    VerifyToken,
    WriteCache,
)
from angos.sansio.secret import Secret
from angos.sansio.upstream.events import UpstreamEvent

OWN_KEY = json.dumps({"kid": None, "kty": "RSA", "n": "of the registry itself"}, sort_keys=True)


@dataclass(frozen=True, slots=True)
class SimulatedKey:
    """A key of an identity provider."""

    kid: str | None
    kind: str = "RSA"

    def jwk(self) -> dict[str, Any]:
        """As its provider publishes it."""
        jwk: dict[str, Any] = {"kty": self.kind, "n": f"secret of {self.kid}"}
        return jwk if self.kid is None else {**jwk, "kid": self.kid}

    def sign(self, claims: Mapping[str, Any], *, algorithm: str = "RS256", **header: Any) -> Secret:
        """A token. A `header` may say anything, a key that is another one included."""
        known = {"alg": algorithm} if self.kid is None else {"alg": algorithm, "kid": self.kid}
        return sign(json.dumps(self.jwk(), sort_keys=True), {**known, **header}, claims)


def sign(key: str, header: Mapping[str, Any], claims: Mapping[str, Any]) -> Secret:
    """A token under any key."""
    signed = f"{_segment(json.dumps(header).encode())}.{_segment(json.dumps(claims).encode())}"
    return Secret(f"{signed}.{_signature(key, signed)}")


class Memory:
    """A cache."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, str], tuple[int, bytes]] = {}

    def read(self, name: str, variant: Secret, now_ms: int) -> bytes | None:
        """What is remembered, None when it is not or no longer."""
        until_ms, value = self._values.get((name, variant.value), (0, b""))
        return value if now_ms < until_ms else None

    def write(self, name: str, variant: Secret, value: bytes, until_ms: int) -> None:
        """Remember it."""
        self._values[name, variant.value] = (until_ms, value)

    def holds(self, beginning: str, now_ms: int) -> bool:
        """Whether anything is remembered under a name that begins so."""
        return any(name.startswith(beginning) and now_ms < until for (name, _), (until, _) in self._values.items())


@dataclass
class SimulatedServices:
    """All of them. Attributes may be changed at any time: that is how providers fail and passwords change."""

    passwords: dict[str, str] = field(default_factory=dict)
    documents: dict[str, bytes | None] = field(default_factory=dict)
    """By URL; None for one that does not answer."""
    webhooks: dict[str, Callable[[tuple[tuple[str, str], ...]], int | None]] = field(default_factory=dict)
    """By name: the status of the answer, None for none."""
    now_ms: int = 1_700_000_000_000
    fetched: list[str] = field(default_factory=list)
    asked: list[AskWebhook] = field(default_factory=list)
    told: list[Event | UpstreamEvent] = field(default_factory=list)
    memory: Memory = field(default_factory=Memory)
    """What is remembered for whoever asks now."""

    def perform(self, effect: Effect[Any]) -> Any:
        """The reply. Raises `PeerUnavailable`, and `LookupError` for an effect that is not for these services."""
        match effect:
            case VerifyPassword(username, password):
                return self.passwords.get(username) == password.value
            case VerifyToken(token, key, algorithm, issuer, audience, leeway):
                return self._verify(token.value, key, algorithm, issuer, audience, leeway)
            case SignToken(claims):
                return sign(OWN_KEY, {"alg": "RS256", "typ": "angos+jwt"}, json.loads(claims))
            case VerifyOwnToken(token):
                return self._verify(token.value, OWN_KEY, "RS256", None, None, 0)
            case FetchDocument(_, url):
                self.fetched.append(url)
                document = self.documents.get(url)
                if document is None:
                    raise PeerUnavailable(f"{url} does not answer")
                return document
            case AskWebhook(name):
                self.asked.append(effect)
                status = self.webhooks[name](effect.headers)
                if status is None:
                    raise PeerUnavailable(f"webhook {name} does not answer")
                return status
            case ReadCache(name, variant):
                return self.memory.read(name, variant, self.now_ms)
            case WriteCache(name, value, seconds, variant):
                return self.memory.write(name, variant, value, self.now_ms + int(seconds * 1000))
            case Tell(event):
                self.told.append(event)
                return None
            case _:
                pass
        raise LookupError(type(effect).__name__)

    def _verify(
        self, token: str, key: str, algorithm: str, issuer: str | None, audience: str | None, leeway: float
    ) -> TokenVerdict:
        signed, _, signature = token.rpartition(".")
        header, claims = (json.loads(_bytes(segment)) for segment in signed.split("."))
        now = self.now_ms / 1000
        if header.get("alg") != algorithm or signature != _signature(key, signed):
            return TokenVerdict(None, "its signature is wrong")
        if claims.get("exp", 0) + leeway <= now:
            return TokenVerdict(None, "it has expired")
        if issuer is not None and claims.get("iss") != issuer:
            return TokenVerdict(None, "it has another issuer")
        if audience is not None and claims.get("aud") != audience:
            return TokenVerdict(None, "it is for another audience")
        return TokenVerdict(json.dumps(claims))


def _signature(key: str, signed: str) -> str:
    return _segment(hashlib.sha256(f"{key}\n{signed}".encode()).digest())


def _segment(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def _bytes(segment: str) -> bytes:
    return base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
