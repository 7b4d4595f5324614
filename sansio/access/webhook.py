"""Authorization webhooks: what they are told, and how long their answers hold.

The cache is keyed by exactly the fields that are sent, so two requests share an answer only if the webhook could not
tell them apart.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Literal

from angos.sansio.access.action import Action
from angos.sansio.access.config import Webhook
from angos.sansio.access.events import WebhookAsked
from angos.sansio.access.identity import Identity
from angos.sansio.effects import AskWebhook, PeerUnavailable, ReadCache, ReadClock, Tell, WriteCache
from angos.sansio.http.message import Header, Request
from angos.sansio.secret import Secret
from angos.sansio.upload_session import STATE_PARAMETER

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_STATE = re.compile(rf"(?<=[?&]){STATE_PARAMETER}=[^&]*&?")  # our own hint, another one for each chunk of an upload


@dataclass(frozen=True, slots=True)
class WebhookVerdict:
    """What came of asking."""

    webhook: str
    outcome: Literal["allow", "deny", "cached_allow", "cached_deny", "unavailable"]
    problem: str = ""

    @property
    def allowed(self) -> bool:
        """Only a clear yes is one."""
        return self.outcome in ("allow", "cached_allow")


async def ask_webhook(
    webhook: Webhook, action: Action, identity: Identity, request: Request, scheme: str
) -> WebhookVerdict:
    """Whether the webhook allows this. Anything but an answer that says so is a denial."""
    headers = webhook_headers(webhook, action, identity, request, scheme)
    if any(_CONTROL.search(value) for _, value in headers):
        return WebhookVerdict(webhook.name, "deny", "a value for the webhook has control characters in it")
    name, variant = f"webhook:{webhook.name}", _variant(headers)
    if webhook.cache_seconds > 0:
        remembered = await ReadCache(name, variant)
        if remembered is not None:
            verdict = WebhookVerdict(webhook.name, "cached_allow" if remembered == b"allow" else "cached_deny")
            await Tell(WebhookAsked(webhook.name, verdict.outcome))
            return verdict
    began_ms = await ReadClock()
    verdict, lasting = await _ask(webhook, headers)
    await Tell(WebhookAsked(webhook.name, verdict.outcome, max(0, await ReadClock() - began_ms) / 1000))
    if lasting and webhook.cache_seconds > 0:
        await WriteCache(name, b"allow" if verdict.allowed else b"deny", webhook.cache_seconds, variant)
    return verdict


async def _ask(webhook: Webhook, headers: tuple[Header, ...]) -> tuple[WebhookVerdict, bool]:
    try:
        status = await AskWebhook(webhook.name, headers)
    except PeerUnavailable:
        return WebhookVerdict(webhook.name, "unavailable", "it gave no answer"), False
    if 200 <= status < 300:
        return WebhookVerdict(webhook.name, "allow"), True
    if status in (401, 403):
        return WebhookVerdict(webhook.name, "deny", f"it answered {status}"), True
    return WebhookVerdict(webhook.name, "unavailable", f"it answered {status}"), False


def webhook_headers(
    webhook: Webhook, action: Action, identity: Identity, request: Request, scheme: str
) -> tuple[Header, ...]:
    """Everything that the webhook is told. What is not known has no field."""
    details, oidc = action.details, identity.oidc
    subject = None if oidc is None else oidc.claims.get("sub")
    told: list[tuple[str, str | None]] = [
        ("X-Forwarded-Method", request.method),
        ("X-Forwarded-Proto", scheme),
        ("X-Forwarded-Host", request.headers.get("host")),
        ("X-Forwarded-Uri", _STATE.sub("", request.target).rstrip("?&")),
        ("X-Forwarded-For", identity.client_ip),
        ("X-Registry-Action", action.name),
        ("X-Registry-Namespace", action.namespace),
        ("X-Registry-Reference", _in_utf_8(details.get("reference"))),
        ("X-Registry-Digest", _in_utf_8(details.get("digest"))),
        ("X-Registry-Username", _in_utf_8(identity.username)),
        ("X-Registry-Identity-ID", _in_utf_8(identity.id)),
        *(("X-Registry-Certificate-CN", _in_utf_8(name)) for name in identity.certificate.common_names),
        *(("X-Registry-Certificate-O", _in_utf_8(name)) for name in identity.certificate.organizations),
        ("X-Registry-OIDC-Provider", None if oidc is None else _in_utf_8(oidc.provider_name)),
        ("X-Registry-OIDC-Subject", _in_utf_8(subject) if isinstance(subject, str) else None),
    ]
    for name in webhook.forward_headers:
        told += [(name, value) for value in request.headers.all(name)]
    return tuple((name, value) for name, value in told if value is not None)


def _in_utf_8(text: str | None) -> str | None:
    """As it stands in a header field. All names go in one encoding: in two, two of them could be the same bytes."""
    return None if text is None else text.encode("utf-8", "surrogatepass").decode("latin-1")


def _variant(headers: tuple[Header, ...]) -> Secret:
    digest = hashlib.sha256()
    for name, value in headers:
        for text in (name, value):
            encoded = text.encode("latin-1")
            digest.update(len(encoded).to_bytes(4, "big"))
            digest.update(encoded)
    return Secret(digest.hexdigest())
