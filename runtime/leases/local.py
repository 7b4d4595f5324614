"""Leases among the requests of one process."""

from __future__ import annotations

from collections import deque
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from anyio import Event, current_time, move_on_after

from angos.sansio.effects import AcquireLease, ReleaseLease

SWEEP_ABOVE = 1000  # names held; lapsed ones are looked for only then


@dataclass(slots=True)
class _Waiter:
    """Someone in the queue of a lease."""

    seconds: float
    turn: Event = field(default_factory=Event)
    token: str | None = None


@dataclass(slots=True)
class _Lease:
    token: str
    lapses_at: float
    """Clock of the event loop, in seconds."""
    queue: deque[_Waiter] = field(default_factory=deque)


class LocalLeases:
    """Used on one event loop. Waiting costs nothing: a release wakes the first in the queue and nobody else."""

    def __init__(self) -> None:
        self._leases: dict[str, _Lease] = {}
        self._tokens = 0

    def acquire(self, effect: AcquireLease) -> str | Coroutine[Any, Any, str | None] | None:
        """`AcquireLease`."""
        lease = self._leases.get(effect.name)
        if lease is None:
            if len(self._leases) > SWEEP_ABOVE:
                self._sweep()
            lease = self._leases[effect.name] = _Lease("", 0.0)
        elif lease.queue or current_time() < lease.lapses_at:
            return self._wait(effect, lease) if effect.wait_seconds > 0 else None
        return self._grant(lease, effect.seconds)

    def release(self, effect: ReleaseLease) -> None:
        """`ReleaseLease`."""
        lease = self._leases.get(effect.name)
        if lease is not None and lease.token == effect.token:
            self._pass_on(effect.name, lease)

    def _grant(self, lease: _Lease, seconds: float) -> str:
        self._tokens += 1
        lease.token = str(self._tokens)
        lease.lapses_at = current_time() + seconds
        return lease.token

    def _pass_on(self, name: str, lease: _Lease) -> None:
        """The lease is free: it goes to the first in the queue."""
        if lease.queue:
            waiter = lease.queue.popleft()
            waiter.token = self._grant(lease, waiter.seconds)
            waiter.turn.set()
        elif self._leases.get(name) is lease:
            del self._leases[name]

    async def _wait(self, effect: AcquireLease, lease: _Lease) -> str | None:
        deadline = current_time() + effect.wait_seconds
        waiter = _Waiter(effect.seconds)
        lease.queue.append(waiter)
        try:
            while waiter.token is None and (now := current_time()) < deadline:
                if now >= lease.lapses_at:
                    self._pass_on(effect.name, lease)
                    continue
                with move_on_after(min(deadline, lease.lapses_at) - now):
                    await waiter.turn.wait()
        except BaseException:
            if waiter.token is not None:  # granted and cancelled in the same moment
                self.release(ReleaseLease(effect.name, waiter.token))
            raise
        finally:
            if waiter.token is None:
                lease.queue.remove(waiter)
        return waiter.token

    def _sweep(self) -> None:
        now = current_time()
        lapsed = [name for name, lease in self._leases.items() if not lease.queue and lease.lapses_at <= now]
        for name in lapsed:
            del self._leases[name]
