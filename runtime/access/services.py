"""Everything outside that decisions about access ask: made anew with each configuration, as far as it is configured."""

from __future__ import annotations

from typing import Any

from angos.runtime.access.settings import AccessSettings
from angos.runtime.cache.local import LocalCache
from angos.runtime.observability.events import EventSink
from angos.runtime.performer import Perform
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


def access_performers(
    settings: AccessSettings, cache: LocalCache, events: EventSink
) -> dict[type[Effect[Any]], Perform]:
    """What performs which effect. Libraries for what is not configured are not even imported.

    Raises `ClientTlsUnusable` when certificates or keys for speaking to a service cannot be used.
    """
    table: dict[type[Effect[Any]], Perform] = {
        ReadCache: cache.read_cache,
        WriteCache: cache.write_cache,
        Tell: events.tell,
    }
    if settings.passwords:
        from angos.runtime.access.passwords import Passwords

        table[VerifyPassword] = Passwords(settings.passwords).verify_password
    if settings.providers or settings.token_secret is not None:
        from angos.runtime.access.tokens import Tokens

        tokens = Tokens(settings.token_secret)
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
