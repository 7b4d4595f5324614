"""The neighbours of a run, put together: storage, clock, leases, bodies, and the processes that share them."""

from __future__ import annotations

from angos.sansio.effects import SignedUrl, SignUrl
from angos.sansio.pulls import PullBook
from angos.sansio.secret import Secret
from angos.simulator.scenario import PULLS_MS, Scenario
from angos.simulator.world.bodies import ArrivingBody, SyntheticBody
from angos.simulator.world.clock import Clock
from angos.simulator.world.directory import DirectoryWorld
from angos.simulator.world.leases import Leases
from angos.simulator.world.private import PrivateWorld
from angos.simulator.world.s3 import S3World
from angos.simulator.world.store import KeyWorld

ADDRESS = "https://store.example/"


class World:
    """Everything outside the core. What a process keeps in memory is known here by the name of the process only."""

    def __init__(self, scenario: Scenario) -> None:
        self.replicas = tuple(f"replica-{number}" for number in range(scenario.replicas))
        offsets_ms = dict(zip(self.replicas, scenario.offsets_ms, strict=False))
        self.clock = Clock(tick_ms=scenario.tick_ms, offsets_ms=offsets_ms)
        self.leases = Leases(always_granted=scenario.leases_granted)
        self.bodies: dict[int, ArrivingBody] = {}
        self.disk: DirectoryWorld | None = None
        self.s3: S3World | None = None
        self.private = PrivateWorld(self.clock, self.replicas) if scenario.access == "private" else None
        self.books = {replica: PullBook(PULLS_MS) for replica in self.replicas}
        """What each process remembers of pulls."""
        self._ids = 0
        self.store: KeyWorld | DirectoryWorld | S3World
        if scenario.store == "disk":
            self.disk = DirectoryWorld(self.clock, self.bodies, exports_hash_states=scenario.hash_states)
            self.store = self.disk
        elif scenario.store == "s3":
            self.s3 = S3World(
                self.clock,
                self.bodies,
                exports_hash_states=scenario.hash_states,
                quirks=scenario.quirks,
                tried_out=scenario.tried_out and not scenario.quirks,
            )
            self.store = self.s3
        else:
            self.store = KeyWorld(self.clock, self.bodies, exports_hash_states=scenario.hash_states)

    def kill(self, replica: str) -> None:
        """A process loses what it had in memory."""
        self.store.kill(replica)
        self.books[replica] = PullBook(PULLS_MS)
        if self.private is not None:
            self.private.forget(replica)

    def open_body(self, body: SyntheticBody) -> int:
        """A handle for a body that begins to arrive."""
        handle = len(self.bodies)
        self.bodies[handle] = ArrivingBody(body)
        return handle

    def draw_id(self) -> str:
        """A UUID that was never drawn before, the same in every run."""
        self._ids += 1
        return f"00000000-0000-4000-8000-{self._ids:012x}"

    def sign_url(self, effect: SignUrl) -> SignedUrl | None:
        """A URL of a bucket; `at` finds the value again."""
        return None if self.disk is not None else SignedUrl(f"{ADDRESS}{effect.key}", Secret("signature"))

    def at(self, address: str) -> bytes | None:
        """What the store gives to a client that was sent there; None: that there is nothing."""
        return self.store.get(address.removeprefix(ADDRESS))
