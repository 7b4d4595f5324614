"""Asking authorization webhooks."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from anyio import Semaphore, move_on_after

from angos.runtime.access.settings import WebhookEndpoint
from angos.runtime.client.connection import NoAnswer
from angos.runtime.client.http import HttpClient
from angos.runtime.client.url import Url, parse_url
from angos.sansio.effects import AskWebhook, PeerUnavailable
from angos.sansio.http.message import Header

BUSY_MAX = 128  # connections to one webhook at the same time: each takes a descriptor from those who only pull
IDLE_MAX = 32  # connections to one webhook that wait for the next request

NOT_FORWARDED = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Fields that are about one connection or its framing (RFC 9110 section 7.6.1): passed on they would mean another."""

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?")


@dataclass(frozen=True, slots=True)
class _Webhook:
    endpoint: WebhookEndpoint
    client: HttpClient
    url: Url
    turns: Semaphore


class Webhooks:
    """Keeps connections to each webhook, so that an answer costs one round trip."""

    def __init__(self, endpoints: Iterable[WebhookEndpoint]) -> None:
        """Raises `ClientTlsUnusable`, or `UrlInvalid`."""
        self._webhooks = {
            endpoint.name: _Webhook(
                endpoint,
                HttpClient(endpoint.tls, idle_max=IDLE_MAX),
                parse_url(endpoint.url),
                Semaphore(BUSY_MAX, fast_acquire=True),
            )
            for endpoint in endpoints
        }

    async def ask_webhook(self, effect: AskWebhook) -> int:
        """`AskWebhook`. Redirects are not followed: their status is the answer."""
        webhook = self._webhooks.get(effect.webhook)
        if webhook is None:
            raise PeerUnavailable(f"webhook {effect.webhook} is not configured any more")
        status: int | None = None
        try:
            headers = _fields(effect.headers, webhook.endpoint)
            with move_on_after(webhook.endpoint.timeout_seconds):
                async with webhook.turns, webhook.client.get(webhook.url, headers) as answer:
                    status = answer.status
        except NoAnswer as error:
            raise PeerUnavailable(f"webhook {effect.webhook}: {error}") from None
        if status is None:
            seconds = webhook.endpoint.timeout_seconds
            raise PeerUnavailable(f"webhook {effect.webhook}: {webhook.url.origin} gave no answer within {seconds:g} s")
        return status

    async def close(self) -> None:
        """End the connections that are kept."""
        for webhook in self._webhooks.values():
            await webhook.client.close()


def _fields(headers: tuple[Header, ...], endpoint: WebhookEndpoint) -> list[Header]:
    """What is sent. A field that would not arrive as it is, is refused: the webhook would judge something else."""
    for name, value in headers:
        lower = name.lower()
        if lower in NOT_FORWARDED or (lower == "authorization" and endpoint.authorization is not None):
            raise NoAnswer(f"the field {lower} of a client cannot be passed on")
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise NoAnswer(f"the field {lower!r} has a value that cannot be sent, or no name")
    if endpoint.authorization is None:
        return list(headers)
    return [*headers, ("Authorization", endpoint.authorization.value)]
