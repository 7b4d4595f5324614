"""A whole registry in memory, for a test: no socket, no file, no thread, no waiting.

    registry = SimulatedRegistry()
    answer = registry.send("GET", "/v2/")
    assert answer.status == 200

It runs the code of the core that also runs in production. Nothing goes wrong here and everything is answered at once;
for faults, crashes and concurrent clients there is `angos.simulator.search`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from angos.sansio.config import RegistryConfig
from angos.sansio.effects import (
    AcquireLease,
    BodyHandle,
    DrawId,
    Effect,
    EffectError,
    Key,
    NotePull,
    ReadBody,
    ReadClock,
    ReleaseLease,
    SignUrl,
    Sleep,
    Together,
)
from angos.sansio.errors import RegistryError
from angos.sansio.http.message import (
    UNKNOWN_PEER,
    FromKey,
    Header,
    Headers,
    Inline,
    Peer,
    Redirect,
    Request,
    Response,
    Slices,
)
from angos.sansio.operation import Done, Operation
from angos.sansio.registry import handle
from angos.simulator.scenario import Scenario
from angos.simulator.world.bodies import SyntheticBody
from angos.simulator.world.replica import World
from angos.simulator.world.services import SimulatedServices

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answer:
    """What the client gets."""

    status: int
    headers: tuple[Header, ...]
    body: bytes

    def header(self, name: str) -> str | None:
        """The value of a field, whatever the case of its name."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


@dataclass
class SimulatedRegistry:
    """Answers requests one after the other."""

    config: RegistryConfig = field(default_factory=RegistryConfig)
    """May be replaced between two requests, as a reload does."""
    services: SimulatedServices = field(default_factory=SimulatedServices)
    world: World = field(default_factory=lambda: World(Scenario()))
    effects: list[Effect[Any]] = field(default_factory=list)
    """What the core has asked for so far."""

    def send(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        *,
        peer: Peer = UNKNOWN_PEER,
        chunked: bool = False,
    ) -> Answer:
        """Have one request answered. Names of header fields may be written in any case."""
        content = SyntheticBody(body, chunked=chunked)
        fields = tuple((name.lower(), value) for name, value in (headers or {}).items())
        handle_ = BodyHandle(self.world.open_body(content))
        request = Request(method, target, Headers(fields), handle_, content.content_length, peer)
        response = self.run(handle(request, self.config))
        match response.body:
            case Redirect() as elsewhere:
                told = (*response.headers, elsewhere.header)
            case _:
                told = response.headers
        return Answer(response.status, told, self._bytes_of(response))

    def run(self, operation: Operation[T]) -> T:
        """Drive any operation of the core to its end."""
        step = operation.resume()
        while not isinstance(step, Done):
            self.effects.append(step)
            try:
                reply = self.perform(step)
            except (EffectError, RegistryError) as error:
                step = operation.fail(error)
            else:
                step = operation.resume(reply)
        return step.value

    def perform(self, effect: Effect[Any]) -> Any:
        """The reply to one effect, or the `EffectError` with which it fails."""
        world = self.world
        match effect:
            case Together(operations):
                return tuple(self.run(operation) for operation in operations)
            case ReadClock():
                return world.clock.look(world.replicas[0])
            case Sleep():
                return None
            case DrawId():
                return world.draw_id()
            case AcquireLease(name):
                return world.leases.acquire(name, until_ms=2**60)
            case ReleaseLease(name, token):
                return world.leases.release(name, token)
            case SignUrl():
                return world.sign_url(effect)
            case NotePull(pulls):
                world.books[world.replicas[0]].note(pulls, world.clock.look(world.replicas[0]))
                return None
            case ReadBody(body, size_max):
                return world.bodies[body].read(size_max)
            case _:
                pass
        try:
            return self.services.perform(effect)
        except LookupError:
            return world.store.apply(effect, world.replicas[0])

    def _bytes_of(self, response: Response) -> bytes:
        match response.body:
            case Inline(value):
                return value
            case FromKey(key, start, length):
                return self._slice(key, start, length)
            case Slices(key, slices, closing):
                parts = [before + self._slice(key, start, length) for before, start, length in slices]
                return b"".join((*parts, closing))
            case _:
                return b""

    def _slice(self, key: Key, start: int, length: int) -> bytes:
        value = self.world.store.get(key)
        assert value is not None
        return value[start : start + length]
