"""Verifying passwords, which is slow on purpose, without slowing anything else down.

Argon2 runs in threads of its own, of low priority and few at a time: it takes tens of milliseconds and megabytes of
memory for each run. Requests that show the same credentials at the same time share one run. What was right is
remembered for a minute under a keyed hash, so that a client that sends its password with every request costs one run.
What was wrong is not remembered.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections import deque
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from threading import Thread, get_native_id
from time import monotonic
from typing import Any

from anyio import Event, from_thread, move_on_after
from anyio.lowlevel import EventLoopToken, current_token

from angos.runtime.access.phc import stand_in
from angos.sansio.effects import PeerUnavailable, VerifyPassword
from angos.sansio.secret import Secret

THREADS = 2 if (os.cpu_count() or 1) > 2 else 1
QUEUE_MAX = 256
WAIT_SECONDS = 30.0
REMEMBERED_SECONDS = 60.0
REMEMBERED_MAX = 4096
NICENESS = 10  # a tenth of the weight of a thread that answers requests (setpriority(2), sched(7))

TOO_MANY = "too many passwords are being checked at this moment"


@dataclass(eq=False, slots=True)
class _Run:
    """One verification, for everybody who waits for it."""

    fingerprint: bytes
    phc: Secret
    password: Secret
    waiting: int = 0
    ended: Event = field(default_factory=Event)
    right: bool | None = None
    """None before it has ended, and after it could not be done."""


class Passwords:
    """The users of the configuration. Used on one event loop; the threads only compute."""

    def __init__(self, passwords: Mapping[str, Secret]) -> None:
        """By user name: hashes that `check_phc` has nothing against."""
        if passwords:
            import argon2.low_level  # noqa: F401 - now, rather than when the first user waits for it
        self._hashes = dict(passwords)
        # Names that nobody has are given hashes of nobody, as many of each cost as there are users of that cost, and
        # the same one every time: how long an answer takes does not tell whether there is such a user.
        configured = sorted((username, phc.value) for username, phc in passwords.items())
        self._stand_ins = [Secret(stand_in(phc)) for _, phc in configured]
        self._stand_in_key = blake2b(repr(configured).encode()).digest()
        self._fingerprint_key = secrets.token_bytes(32)
        self._remembered: dict[bytes, float] = {}
        self._runs: dict[bytes, _Run] = {}
        self._queue: deque[_Run] = deque()
        self._threads = 0

    def verify_password(self, effect: VerifyPassword) -> bool | Coroutine[Any, Any, bool]:
        """`VerifyPassword`."""
        username, password = effect.username, effect.password.value
        phc = self._hashes.get(username)
        if phc is None:
            if not self._hashes:
                return False
            phc = self._stand_in(username)
        shown = f"{len(username)} {len(password)} {username}{password}{phc.value}".encode("utf-8", "surrogatepass")
        fingerprint = blake2b(shown, digest_size=32, key=self._fingerprint_key).digest()
        until = self._remembered.get(fingerprint)
        if until is not None and monotonic() < until:
            return True
        run = self._runs.get(fingerprint)
        if run is None:
            run = self._begin(_Run(fingerprint, phc, effect.password))
        run.waiting += 1
        return self._wait(run)

    def _stand_in(self, username: str) -> Secret:
        number = blake2b(username.encode("utf-8", "surrogatepass"), key=self._stand_in_key).digest()
        return self._stand_ins[int.from_bytes(number, "big") % len(self._stand_ins)]

    def _begin(self, run: _Run) -> _Run:
        if self._threads < THREADS:
            try:
                Thread(target=self._work, args=(run, current_token()), name="angos-passwords", daemon=True).start()
            except RuntimeError:  # the system gives us no further thread
                raise PeerUnavailable(TOO_MANY) from None
            self._threads += 1
        elif len(self._queue) < QUEUE_MAX:
            self._queue.append(run)
        else:
            raise PeerUnavailable(TOO_MANY)
        self._runs[run.fingerprint] = run
        return run

    async def _wait(self, run: _Run) -> bool:
        try:
            with move_on_after(WAIT_SECONDS):
                await run.ended.wait()
        finally:
            run.waiting -= 1
        if not run.ended.is_set():
            raise PeerUnavailable(TOO_MANY)
        if run.right is None:
            raise PeerUnavailable("a password could not be checked: there is not enough memory for it")
        return run.right

    def _end(self, run: _Run, right: bool | None) -> _Run | None:
        """On the loop. Gives what the thread is to do next; None: nothing is left, and it ends."""
        run.right = right
        run.ended.set()
        del self._runs[run.fingerprint]
        if right:
            self._remember(run.fingerprint)
        while self._queue:
            following = self._queue.popleft()
            if following.waiting:
                return following
            del self._runs[following.fingerprint]
        self._threads -= 1
        return None

    def _remember(self, fingerprint: bytes) -> None:
        self._remembered.pop(fingerprint, None)
        if len(self._remembered) >= REMEMBERED_MAX:
            del self._remembered[next(iter(self._remembered))]  # the one that is forgotten soonest anyway
        self._remembered[fingerprint] = monotonic() + REMEMBERED_SECONDS

    def _work(self, run: _Run | None, token: EventLoopToken) -> None:
        """In a thread of its own: it cannot get its priority back afterwards."""
        if sys.platform == "linux":  # elsewhere priorities belong to processes
            thread = get_native_id()
            os.setpriority(os.PRIO_PROCESS, thread, max(NICENESS, os.getpriority(os.PRIO_PROCESS, thread)))
        try:
            while run is not None:
                run = from_thread.run_sync(self._end, run, _is_right(run.phc.value, run.password), token=token)
        except RuntimeError:  # the loop has ended, nobody waits any more
            return


def _is_right(phc: str, password: Secret) -> bool | None:
    """None when it could not be found out."""
    from argon2.exceptions import VerificationError, VerifyMismatchError
    from argon2.low_level import Type, verify_secret

    kind = {"argon2id": Type.ID, "argon2i": Type.I, "argon2d": Type.D}[phc.split("$")[1]]
    try:
        return verify_secret(phc.encode(), password.value.encode("utf-8", "surrogatepass"), kind)
    except VerifyMismatchError:
        return False
    except VerificationError:
        return None
