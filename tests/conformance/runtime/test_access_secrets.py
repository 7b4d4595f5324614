"""No secret of a client, a user or the configuration appears in what the services of access log, raise or show.

Bug class 28. Every secret here is a canary, and everything that goes wrong is made to go wrong.
"""

from __future__ import annotations

import base64
import inspect
import json
import logging
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import argon2
import pytest

from angos.runtime.access.documents import Documents
from angos.runtime.access.passwords import Passwords
from angos.runtime.access.settings import ProviderEndpoint, WebhookEndpoint
from angos.runtime.access.tokens import Tokens
from angos.runtime.access.webhooks import Webhooks
from angos.runtime.cache.local import LocalCache
from angos.sansio.effects import (
    AskWebhook,
    FetchDocument,
    PeerUnavailable,
    SignToken,
    VerifyOwnToken,
    VerifyPassword,
    VerifyToken,
    WriteCache,
)
from angos.sansio.secret import Secret
from tests.conformance.runtime.loops import LOOPS, Run, runner
from tests.conformance.scripted_server import SILENT, Said, ScriptedServer, said

CANARY = "canary7f3a"
SECRET_BYTES = CANARY.encode().ljust(32, b"!")

Shown = Callable[[], str]


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Run:
    return runner(request.param)


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Shown:
    """Everything that any logger was told, down to the finest level."""
    caplog.set_level(logging.DEBUG)
    return lambda: caplog.text


async def shown_by(ask: Callable[[], Any]) -> str:
    """The reply as it would be printed, or the whole traceback of the failure."""
    try:
        reply = ask()
        return repr(await reply if inspect.isawaitable(reply) else reply)
    except PeerUnavailable as error:
        return "".join(traceback.format_exception(error)) + repr(error)


def assert_hidden(*texts: str) -> None:
    hidden = [CANARY, base64.b64encode(SECRET_BYTES).decode(), base64.urlsafe_b64encode(CANARY.encode()).decode()[:12]]
    for text in texts:
        assert not [word for word in hidden if word in text]


def test_passwords(run: Run, logged: Shown) -> None:
    phc = argon2.PasswordHasher(1, 64, 1).hash(CANARY)
    passwords = Passwords({"alice": Secret(phc)})

    async def main() -> list[str]:
        shown = []
        for username, password in (("alice", CANARY), ("alice", f"{CANARY}?"), (CANARY, CANARY)):
            effect = VerifyPassword(username, Secret(password))
            shown.append(await shown_by(lambda effect=effect: passwords.verify_password(effect)))  # type: ignore[misc]
        return shown

    shown = run(main)
    assert shown == ["True", "False", "False"]
    assert_hidden(logged(), repr(vars(passwords)))
    assert phc not in logged() + repr(vars(passwords))


def test_tokens(logged: Shown) -> None:
    tokens = Tokens(Secret(base64.b64encode(SECRET_BYTES).decode()))
    own = tokens.sign_token(SignToken(json.dumps({"exp": 1, "sub": CANARY})))
    assert CANARY not in repr(own)
    key = json.dumps({"kty": "RSA", "n": CANARY, "e": CANARY})
    shown = []
    for token in (own.value, f"{CANARY}.{CANARY}.{CANARY}", CANARY, own.value + CANARY):
        for algorithm in ("RS256", "HS256", "none"):
            effect = VerifyToken(Secret(token), key, algorithm, "https://idp.example", None, 60)
            shown.append(repr(tokens.verify_token(effect)))
            assert CANARY not in repr(effect.token)
        shown.append(repr(tokens.verify_own_token(VerifyOwnToken(Secret(token)))))
    assert_hidden(logged(), repr(tokens), *shown)


@pytest.mark.parametrize(
    "answer",
    [
        said(CANARY.encode()),
        said(CANARY.encode(), f"500 {CANARY}", f"X-Field: {CANARY}"),
        said(b"", "302 Found", f"Location: https://{CANARY}.example/"),
        Said((CANARY.encode() + b"\r\n\r\n",), "close"),
        said(CANARY.encode(), length=1000, then="close"),
        SILENT,
    ],
)
def test_documents_and_webhooks(run: Run, logged: Shown, tmp_path: Path, answer: Said) -> None:
    file = tmp_path / "token"
    file.write_text(CANARY)

    async def main() -> list[str]:
        documents = Documents([ProviderEndpoint("ci", server.origin, bearer_token_file=file, request_seconds=0.2)])
        authorization = Secret(f"Bearer {CANARY}")
        webhooks = Webhooks([WebhookEndpoint("gate", f"{server.origin}/?key={CANARY}", 0.2, authorization)])
        asked: list[Callable[[], Awaitable[object]]] = [
            lambda: documents.fetch_document(FetchDocument("ci", f"{server.origin}/{CANARY}?key={CANARY}")),
            lambda: documents.fetch_document(FetchDocument("ci", f"https://user:{CANARY}@idp.example/")),
            lambda: documents.fetch_document(FetchDocument("ci", f"http://127.0.0.1:1/{CANARY}")),
            lambda: webhooks.ask_webhook(AskWebhook("gate", (("X-Some", CANARY),))),
            lambda: webhooks.ask_webhook(AskWebhook("gate", (("X-Some", f"{CANARY}\r\n"),))),
            lambda: webhooks.ask_webhook(AskWebhook("gate", (("Authorization", CANARY),))),
        ]
        shown = [repr(documents), repr(webhooks)]
        for ask in asked:
            text = await shown_by(ask)
            shown.append("" if answer.then == "stay" and text == repr(CANARY.encode()) else text)
        await webhooks.close()
        return shown

    with ScriptedServer(lambda asked: answer) as server:
        shown = run(main)
    assert server.asked[0].values("authorization") == [f"Bearer {CANARY}"]
    assert_hidden(logged(), *shown)


def test_settings_and_what_is_remembered(logged: Shown) -> None:
    cache = LocalCache()
    effect = WriteCache("name", CANARY.encode(), 60, Secret(CANARY))
    cache.write_cache(effect)
    webhook = WebhookEndpoint("gate", "https://gate.example", 1, Secret(CANARY))
    assert_hidden(logged(), repr(cache), repr(effect.variant), repr(webhook))
