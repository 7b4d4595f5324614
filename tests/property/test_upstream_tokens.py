"""Tokens of upstreams: who is shown which one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from angos.sansio.effects import AcquireLease, Effect, ReadClock, ReleaseLease, WriteCache
from angos.sansio.operation import Done, Operation
from angos.sansio.secret import Secret
from angos.sansio.upstream.config import Upstream
from angos.sansio.upstream.effects import AskForToken, ReadSecret, TokenAnswer, WriteSecret
from angos.sansio.upstream.tokens import NOTHING, Shown, answer_challenge

HUB = Upstream("hub@hub.example", "https://hub.example", username="me", token_realms=("https://auth.example",))
NAME = "team/app"
CHALLENGE = 'Bearer realm="https://auth.example/token",service="hub"'


class World:
    """Remembers, and gives a token of its own to whoever asks for one."""

    def __init__(self) -> None:
        self.secrets: dict[str, Secret] = {}
        self.asked: list[AskForToken] = []

    def perform(self, effect: Effect[Any]) -> Any:
        match effect:
            case ReadSecret(name):
                return self.secrets.get(name)
            case WriteSecret(name, value):
                self.secrets[name] = value
            case AskForToken():
                self.asked.append(effect)
                return TokenAnswer(200, Secret(f"token-{len(self.asked)}"), 300.0, ())
            case AcquireLease():
                return "lease"
            case ReadClock():
                return 0
            case WriteCache() | ReleaseLease():
                return None
            case _:
                raise AssertionError(effect)
        return None

    def show(self, upstream: Upstream, name: str, challenge: str, refused: Shown = NOTHING) -> Shown:
        operation = Operation(answer_challenge(upstream, name, (challenge,), refused))
        step = operation.resume()
        while not isinstance(step, Done):
            step = operation.resume(self.perform(step))
        return step.value


def test_a_token_is_asked_for_once() -> None:
    world = World()
    shown = [world.show(HUB, NAME, CHALLENGE) for _ in range(3)]
    assert shown == [Shown(Secret("token-1"))] * 3
    assert [effect.url for effect in world.asked] == [
        "https://auth.example/token?service=hub&scope=repository%3Ateam%2Fapp%3Apull"
    ]


@pytest.mark.parametrize(
    ("upstream", "name", "challenge"),
    [
        (replace(HUB, url="https://hub2.example"), NAME, CHALLENGE),
        (replace(HUB, username="you"), NAME, CHALLENGE),
        (replace(HUB, username=None), NAME, CHALLENGE),
        (replace(HUB, name="other@hub.example"), NAME, CHALLENGE),
        (HUB, "team/other", CHALLENGE),
        (HUB, NAME, CHALLENGE.replace("/token", "/token2")),
        (HUB, NAME, CHALLENGE.replace('service="hub"', 'service="other"')),
    ],
)
def test_a_token_is_shown_to_nobody_else_and_for_nothing_else(upstream: Upstream, name: str, challenge: str) -> None:
    """Bug class 33: host, realm, service, scope and user tell tokens apart."""
    world = World()
    first = world.show(HUB, NAME, CHALLENGE)
    assert world.show(upstream, name, challenge) != first
    assert len(world.asked) == 2


def test_a_token_that_was_refused_is_not_shown_again() -> None:
    world = World()
    first = world.show(HUB, NAME, CHALLENGE)
    assert world.show(HUB, NAME, CHALLENGE, refused=first) == Shown(Secret("token-2"))
