"""What surrounds the replicas of a private registry: passwords, an identity provider, a webhook, and what each replica
remembers of their answers."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any

from angos.sansio.effects import Effect, FetchDocument, SignToken
from angos.simulator.world.clock import Clock
from angos.simulator.world.people import DISCOVERY_URL, KEYS_URL, PASSWORDS, PROVIDER, WEBHOOK, gate
from angos.simulator.world.services import Memory, SimulatedKey, SimulatedServices

EXPIRES = 2_000_000_000  # of every token, in seconds: nobody waits for so long here
GARBAGE = (
    b"",
    b"<html>",
    b"[]",
    b'{"keys":{}}',
    b'{"issuer":"https://evil.example","jwks_uri":"https://evil.example/k"}',
)
GARBAGE_STATUSES = (302, 404, 500)


@dataclass(frozen=True, slots=True)
class Fetch:
    """A replica asked the provider for its keys."""

    replica: str
    life: int
    """How often any memory had been emptied when this one was, for the last time."""
    since_ms: int
    """When that was."""
    at_ms: int
    renewing: bool
    """It remembered keys, and wanted newer ones."""


class PrivateWorld:
    """All of it. Services are shared; a memory is a replica's own and dies with it."""

    def __init__(self, clock: Clock, replicas: tuple[str, ...]) -> None:
        self.fetches: list[Fetch] = []
        self._clock = clock
        self._lives = 0
        self._memories: dict[str, tuple[int, int, Memory]] = {}
        for replica in replicas:
            self.forget(replica)
        self._keys = 0
        self._strangers = 0
        discovered = json.dumps({"issuer": PROVIDER.issuer, "jwks_uri": KEYS_URL}).encode()
        self._services = SimulatedServices(
            passwords=dict(PASSWORDS), documents={DISCOVERY_URL: discovered}, webhooks={WEBHOOK.name: gate}
        )
        self.rotate()

    def perform(self, effect: Effect[Any], replica: str) -> Any:
        """The reply to an effect of one replica. Raises `PeerUnavailable`."""
        services = self._services
        services.now_ms = self._clock.now_ms
        life, since_ms, services.memory = self._memories[replica]
        if isinstance(effect, FetchDocument) and effect.url == DISCOVERY_URL:
            renewing = services.memory.holds("oidc:keys:", services.now_ms)
            self.fetches.append(Fetch(replica, life, since_ms, services.now_ms, renewing))
        return services.perform(effect)

    def forget(self, replica: str) -> None:
        """A replica remembers nothing any more."""
        self._lives += 1
        self._memories[replica] = (self._lives, self._clock.now_ms, Memory())

    def rotate(self) -> None:
        """The provider has a new key and no other one. Jobs get tokens of it from now on."""
        self._keys += 1
        self._services.documents[KEYS_URL] = json.dumps({"keys": [self._key.jwk()]}).encode()

    def authorization(self, person: str) -> str | None:
        """What somebody shows now, as the value of the header field."""
        claims = {"iss": PROVIDER.issuer, "exp": EXPIRES, "sub": "job"}
        match person:
            case "nobody":
                return None
            case "job":
                return f"Bearer {self._key.sign(claims).value}"
            case "stranger":
                self._strangers += 1
                return f"Bearer {SimulatedKey(f'made-up-{self._strangers}').sign(claims).value}"
            case "forger":
                forged = SimulatedKey(self._key.kid, kind="EC").sign(claims)
                return f"Bearer {forged.value}"
            case "reader":
                own = {"id": "alice-id", "scope": ["repository:a:pull"], "exp": EXPIRES}
                return f"Bearer {self._services.perform(SignToken(json.dumps(own))).value}"
            case "mallory":
                return _basic("alice", "guessed")
            case _:
                return _basic(person, PASSWORDS[person])

    @property
    def _key(self) -> SimulatedKey:
        return SimulatedKey(f"key-{self._keys}")


def _basic(username: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()
