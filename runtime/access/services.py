"""Everything outside that decisions about access ask, as far as it is configured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from angos.runtime.access.settings import AccessSettings, WebhookEndpoint
from angos.runtime.cache.local import LocalCache
from angos.runtime.observability.events import EventSink
from angos.runtime.performer import Now, Perform
from angos.sansio.effects import (
    AskWebhook,
    Effect,
    FetchDocument,
    ReadCache,
    SignToken,
    Tell,
    VerifyOwnToken,
    VerifyPassword,
    VerifyToken,
    WriteCache,
)
from angos.sansio.secret import Secret

if TYPE_CHECKING:
    from angos.runtime.access.passwords import Passwords


class Cache(Protocol):
    """Remembers for a while. Methods are named after their effects."""

    def read_cache(self, effect: ReadCache) -> Now[bytes | None]: ...
    def write_cache(self, effect: WriteCache) -> Now[None]: ...


class AccessServices:
    """Makes them for one configuration after the other. What was remembered outlives a reload."""

    def __init__(self, events: EventSink, open_cache: Callable[[str], Cache] = lambda _scope: LocalCache()) -> None:
        """`open_cache`: gives a cache in which nothing counts that was remembered in another scope."""
        self._events = events
        self._open_cache = open_cache
        self._cache = open_cache("")
        self._webhooks: tuple[WebhookEndpoint, ...] = ()
        self._hashes: Mapping[str, Secret] = {}
        self._passwords: Passwords | None = None

    def performers(self, settings: AccessSettings) -> dict[type[Effect[Any]], Perform]:
        """What performs which effect. Libraries for what is not configured are not even imported.

        Raises `ClientTlsUnusable` when certificates or keys for speaking to a service cannot be used.
        """
        if settings.webhooks != self._webhooks:
            # What another service has answered under the same name does not count.
            self._cache, self._webhooks = self._open_cache(_scope_of(settings.webhooks)), settings.webhooks
        table: dict[type[Effect[Any]], Perform] = {
            ReadCache: self._cache.read_cache,
            WriteCache: self._cache.write_cache,
            Tell: self._events.tell,
        }
        if settings.passwords:
            table[VerifyPassword] = self._passwords_of(settings.passwords).verify_password
        if settings.providers or settings.token_secret is not None:
            from angos.runtime.access.tokens import Tokens

            tokens = Tokens(settings.token_secret, of_providers=bool(settings.providers))
            table |= {
                VerifyToken: tokens.verify_token,
                SignToken: tokens.sign_token,
                VerifyOwnToken: tokens.verify_own_token,
            }
        if settings.providers:
            from angos.runtime.access.documents import Documents

            table[FetchDocument] = Documents(settings.providers).fetch_document
        if settings.webhooks:
            from angos.runtime.access.webhooks import Webhooks

            table[AskWebhook] = Webhooks(settings.webhooks).ask_webhook
        return table

    def _passwords_of(self, hashes: Mapping[str, Secret]) -> Passwords:
        if self._passwords is None or hashes != self._hashes:
            from angos.runtime.access.passwords import Passwords

            self._passwords, self._hashes = Passwords(hashes), hashes
        return self._passwords


def _scope_of(webhooks: tuple[WebhookEndpoint, ...]) -> str:
    """The same text wherever the same services are asked in the same way."""
    secrets = (each.authorization.value if each.authorization is not None else "" for each in webhooks)
    return "\n".join(f"{each.name!r} {each.url!r} {secret!r}" for each, secret in zip(webhooks, secrets, strict=True))
