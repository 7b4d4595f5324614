"""Leases among the requests of all workers of one server, without anything beside it.

A lease is a lock on one byte of a file without a name, which is made before workers are forked: the byte at the place
that the name of the lease hashes to. The system frees the locks of a process that ends, in whatever way, so a lease
never outlives its worker. Those of one process queue up first, so that one of them at most asks for a byte, again and
again until it is free; a release wakes the next in the queue at once.

A lease is kept while somebody keeps its token: an operation that was abandoned keeps nobody waiting.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import logging
import math
import os
import random
import tempfile
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from errno import EACCES, EAGAIN
from functools import partial
from typing import Any
from weakref import finalize

from anyio import current_time, sleep

from angos.runtime.leases.local import LocalLeases
from angos.sansio.effects import AcquireLease, ReleaseLease

PAUSE_SECONDS = 0.002  # between two looks at a lease of another worker; grows
PAUSE_SECONDS_MAX = 0.1

_log = logging.getLogger("angos.server")


class LeaseToken(str):
    """Tells, unlike a plain text, whether somebody still has it."""


class WorkerLeases:
    """Made before workers are forked; used on one event loop in each of them."""

    def __init__(self) -> None:
        with tempfile.TemporaryFile() as file:
            self._descriptor = os.dup(file.fileno())
        self._queues = LocalLeases()
        self._held: dict[str, tuple[str, finalize[[], LeaseToken]]] = {}
        """For each name that other workers must wait for: its token, and what happens when nobody has that any more."""
        self._warned = False

    def acquire(self, effect: AcquireLease) -> str | Coroutine[Any, Any, str | None] | None:
        """`AcquireLease`."""
        queued = self._queues.acquire(replace(effect, seconds=math.inf))
        if queued is None:
            return None
        if isinstance(queued, str):
            if self._lock(effect.name):
                return self._grant(effect.name, queued)
            if effect.wait_seconds <= 0:
                self._queues.release(ReleaseLease(effect.name, queued))
                return None
        return self._wait(effect, queued)

    def release(self, effect: ReleaseLease) -> None:
        """`ReleaseLease`."""
        token, lost = self._held.get(effect.name, ("", None))
        if token == effect.token and lost is not None:
            lost.detach()
            del self._held[effect.name]
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, _place(effect.name))
            self._queues.release(effect)

    async def _wait(self, effect: AcquireLease, queued: str | Coroutine[Any, Any, str | None]) -> str | None:
        deadline = current_time() + effect.wait_seconds
        place = queued if isinstance(queued, str) else await queued
        if place is None:
            return None
        taken, pause = False, PAUSE_SECONDS
        try:
            while not (taken := self._lock(effect.name)) and (left := deadline - current_time()) > 0:
                await sleep(min(left, pause * random.uniform(0.5, 1)))
                pause = min(pause * 1.5, PAUSE_SECONDS_MAX)
        finally:
            if not taken:
                self._queues.release(ReleaseLease(effect.name, place))
        return self._grant(effect.name, place) if taken else None

    def _lock(self, name: str) -> bool:
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _place(name))
        except OSError as error:
            if error.errno in (EACCES, EAGAIN):
                return False
            if not self._warned:  # nothing that is stored depends on a lease
                self._warned = True
                _log.warning("workers cannot wait for each other: %s", error.strerror)
        return True

    def _grant(self, name: str, place: str) -> str:
        token = LeaseToken(place)
        lost = finalize(token, _soon(partial(self.release, ReleaseLease(name, place))))
        lost.atexit = False
        self._held[name] = place, lost
        return token


def _place(name: str) -> int:
    """Two names that have the same one wait for each other for nothing."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) >> 2


def _soon(call: Callable[[], None]) -> Callable[[], None]:
    """For any thread: do this on the present loop, if that has not ended by then."""
    run: Callable[[Callable[[], None]], object]
    try:
        run = asyncio.get_running_loop().call_soon_threadsafe
    except RuntimeError:
        from trio.lowlevel import current_trio_token

        run = current_trio_token().run_sync_soon

    def do() -> None:
        with suppress(RuntimeError):  # it has ended
            run(call)

    return do
