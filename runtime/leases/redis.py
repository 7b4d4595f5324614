"""Leases among the requests of all processes that use the same Redis.

A lease lapses in Redis after `LAPSE_SECONDS` at most, however long it was asked for: whoever has it prolongs it, and
whoever waits for one that a killed process had does not wait for longer.

Those of one process queue up here first, so that for each name one of them at most asks Redis, again and again until it
is free; a release wakes the next in the queue at once, without a question in between. A lease is prolonged while
somebody keeps its token, and given back when nobody does: an operation that was abandoned keeps nobody waiting.

When Redis is away, asking for a lease fails, and giving one back does not: what was done under it is done.
"""

from __future__ import annotations

import logging
import math
import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import CoroutineType
from weakref import ref

from anyio import current_time, sleep

from angos.runtime.leases.local import LocalLeases
from angos.runtime.redis.server import AWAY_SECONDS, REPLY_SECONDS, RedisAway, RedisServer
from angos.sansio.effects import AcquireLease, PeerUnavailable, ReleaseLease

LAPSE_SECONDS = 10.0  # a third of it is how often each lease is prolonged
RETRY_SECONDS = (0.005, 0.025)  # between two questions; drawn, so that processes do not ask in step
RETRY_SECONDS_MAX = 0.25  # of who has waited for some seconds: it may be a transfer of minutes

_TAKE = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
_PROLONG = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
_DROP = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
"""

_log = logging.getLogger("angos.redis")


class LeaseToken(str):
    """Tells, unlike a plain text, whether somebody still has it."""


@dataclass(frozen=True, slots=True)
class _Held:
    """A lease that this process has."""

    effect: AcquireLease
    token: str
    """The text alone, which does not count as having it."""
    place: str
    """Token of the queue among the requests of this process."""
    stop_keeping: Callable[[], object]


class RedisLeases:
    """Used on one event loop of asyncio."""

    def __init__(self, server: RedisServer, key_prefix: str) -> None:
        self._server = server
        self._key_prefix = key_prefix
        self._queues = LocalLeases()
        self._held: dict[str, _Held] = {}

    async def acquire(self, effect: AcquireLease) -> str | None:
        """`AcquireLease`. Fails with `PeerUnavailable` within about a second when Redis is away."""
        effect = replace(effect, seconds=min(effect.seconds, LAPSE_SECONDS))
        deadline = current_time() + effect.wait_seconds
        queued = self._queues.acquire(AcquireLease(effect.name, math.inf, effect.wait_seconds))
        place = await queued if isinstance(queued, CoroutineType) else queued
        if not isinstance(place, str):
            return None
        token, taken = str(uuid.uuid4()), False
        try:
            taken = await self._take(effect, token, deadline)
        except RedisAway as error:
            if error.asked:
                self._server.start(self._drop_surely(effect, token))
            raise PeerUnavailable(str(error)) from None
        except BaseException:  # cancelled: it may be granted all the same
            self._server.start(self._drop_surely(effect, token))
            raise
        finally:
            if not taken:
                self._queues.release(ReleaseLease(effect.name, place))
        if not taken:
            return None
        holder = LeaseToken(token)
        stop_keeping = self._server.start(self._keep(effect, token, ref(holder)))
        self._held[token] = _Held(effect, token, place, stop_keeping)
        return holder

    async def release(self, effect: ReleaseLease) -> None:
        """`ReleaseLease`."""
        held = self._held.get(effect.token)
        if held is not None and held.effect.name == effect.name:
            held.stop_keeping()
            await self._give_back(held)

    # --- what Redis is asked ------------------------------------------------------------------------------------------

    async def _take(self, effect: AcquireLease, token: str, deadline: float) -> bool:
        shortest, longest = RETRY_SECONDS
        while not await self._run(_TAKE, effect, token):
            left = deadline - current_time()
            if left <= 0:
                return False
            await sleep(min(left, random.uniform(shortest, longest)))
            longest = min(longest * 1.05, RETRY_SECONDS_MAX)
        return True

    async def _drop_surely(self, effect: AcquireLease, token: str) -> None:
        """Also when Redis is away now; after the time of the lease it has lapsed by itself.

        A frozen server may carry out what it was asked first after what it is asked later, so one that was away is
        asked again once it answers.
        """
        ends = current_time() + effect.seconds + REPLY_SECONDS
        while current_time() < ends:
            try:
                await self._run(_DROP, effect, token)
            except RedisAway:
                await sleep(AWAY_SECONDS * random.uniform(1, 2))
            else:
                return

    async def _run(self, script: str, effect: AcquireLease, token: str) -> bool:
        key, milliseconds = f"{self._key_prefix}lease:{effect.name}", max(1, round(effect.seconds * 1000))
        return bool(await self._server.ask("EVAL", script, 1, key, token, milliseconds))

    # --- while it is held ---------------------------------------------------------------------------------------------

    async def _keep(self, effect: AcquireLease, token: str, holder: ref[LeaseToken]) -> None:
        """Prolong it until it is released (which cancels this), lost, or forgotten by whoever had it."""
        held_until, kept = current_time() + effect.seconds, True
        while kept:
            await sleep(max(effect.seconds / 3, RETRY_SECONDS[0]))
            if holder() is None:
                break
            asked = current_time()
            try:
                kept = await self._run(_PROLONG, effect, token)
            except RedisAway:
                kept = asked < held_until
            else:
                held_until = asked + effect.seconds
        else:
            _log.warning("the lease %s was lost before its work was done: others may work on the same", effect.name)
        if (held := self._held.get(token)) is not None:
            await self._give_back(held)

    async def _give_back(self, held: _Held) -> None:
        del self._held[held.token]
        try:
            await self._run(_DROP, held.effect, held.token)
        except RedisAway:
            self._server.start(self._drop_surely(held.effect, held.token))
        finally:
            self._queues.release(ReleaseLease(held.effect.name, held.place))
