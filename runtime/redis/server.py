"""One Redis, as all that use it in this process see it: at hand, or away.

Everything that is asked of it ends within `REPLY_SECONDS`, connecting included. Once that was not enough, or there was
no connection, the server counts as away: for a moment nobody waits for it, then one of those who come tries again. So a
frozen server costs a request now and then a second, and not every request one. It is back as soon as it answers.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from redis.asyncio import ConnectionPool, Redis, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from angos.runtime.redis.address import RedisAddress

T = TypeVar("T")

REPLY_SECONDS = 1.0
AWAY_SECONDS = 0.5  # until somebody tries again
COMMANDS_AT_ONCE = 32  # of one process; each takes a connection
TOLD_SECONDS = 60.0  # until a refusal that goes on is told again

_ADVICE: dict[type[ResponseError], str] = {
    NoPermissionError: "the user must be allowed GET, SET, DEL, PEXPIRE and EVAL for the keys of this registry",
    OutOfMemoryError: "its memory is full, so give it more, or let it drop what is used least (maxmemory-policy"
    " volatile-lru)",
    ReadOnlyError: "it is the replica of another one; the address has to lead to the one in charge",
}

_log = logging.getLogger("angos.redis")


class RedisAway(Exception):
    """No answer, or none that can be used."""

    def __init__(self, message: str, *, asked: bool) -> None:
        super().__init__(message)
        self.asked = asked
        """Whether the command may have been carried out all the same."""


class RedisServer:
    """Used on one event loop of asyncio; connects when it is needed. Made before workers are forked."""

    def __init__(self, address: RedisAddress) -> None:
        self.address = address
        self._redis: Redis | None = None
        self._turns = asyncio.Semaphore(COMMANDS_AT_ONCE)
        self._away_until = 0.0
        """Clock of the loop, in seconds; 0 when it is at hand."""
        self._told: dict[str, float] = {}
        """Refusals in the log, and when they may be told again."""
        self._tasks: set[asyncio.Task[Any]] = set()

    async def ask(self, *command: str | bytes | int) -> Any:
        """The reply to a command. Fails with `RedisAway`.

        Whoever is cancelled while waiting for the reply leaves a command that still runs to its end: a connection is
        never given up half-way, and what is sent is either answered or counted as `RedisAway`.
        """
        loop = asyncio.get_running_loop()
        if self._away_until:
            if loop.time() < self._away_until:
                raise RedisAway(f"{self.address} has been away for a moment", asked=False)
            self._away_until = loop.time() + REPLY_SECONDS + AWAY_SECONDS  # the others do not wait with us
        task = self._begin(self._ask(command))
        await asyncio.wait({task})
        return task.result()

    def start(self, coroutine: Coroutine[Any, Any, None]) -> Callable[[], object]:
        """Run something beside whatever else goes on, at most until `close`. Gives what cancels it."""
        return self._begin(coroutine).cancel

    async def close(self) -> None:
        """End what runs beside, and the connections."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._redis is not None:
            await self._redis.aclose(close_connection_pool=True)
            self._redis = None

    def _begin(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # so that asyncio does not complain that nobody has looked at it

    async def _ask(self, command: tuple[str | bytes | int, ...]) -> Any:
        try:
            async with asyncio.timeout(REPLY_SECONDS), self._turns:
                reply = await self._connected().execute_command(*command)  # type: ignore[no-untyped-call]
        except TimeoutError:
            raise self._away(f"gave no answer within {REPLY_SECONDS:g} s") from None
        except AuthenticationError:
            raise self._away("refuses the user name or password") from None
        except ResponseError as error:
            self._at_hand()
            refused = self._refused(error)
            if isinstance(error, ReadOnlyError) and self._redis is not None:
                # Another one may be in charge by now, and the address lead there: only new connections follow it.
                await self._redis.connection_pool.disconnect(inuse_connections=False)
            raise refused from None
        except (RedisError, OSError) as error:
            raise self._away(f"cannot be reached ({_reason(error)})") from None
        self._at_hand()
        return reply

    def _at_hand(self) -> None:
        if self._away_until:
            self._away_until = 0.0
            _log.info("%s is back", self.address)

    def _away(self, why: str) -> RedisAway:
        if not self._away_until:
            _log.warning("%s is away: it %s", self.address, why)
        self._away_until = asyncio.get_running_loop().time() + AWAY_SECONDS
        return RedisAway(f"{self.address} {why}", asked=True)

    def _refused(self, error: ResponseError) -> RedisAway:
        # What a server says may quote what it was sent, so only its code is repeated.
        code = str(error).partition(" ")[0]
        why = f"refuses a command ({code if code.isalpha() and code.isupper() else type(error).__name__})"
        if (advice := _ADVICE.get(type(error))) is not None:
            why += f": {advice}"
        now = asyncio.get_running_loop().time()
        if now >= self._told.get(why, now):
            self._told[why] = now + TOLD_SECONDS
            _log.warning("%s %s", self.address, why)
        return RedisAway(f"{self.address} {why}", asked=True)

    def _connected(self) -> Redis:
        if self._redis is None:
            address = self.address
            options: dict[str, Any] = {"connection_class": SSLConnection} if address.tls else {}
            pool = ConnectionPool(
                host=address.host,
                port=address.port,
                db=address.database,
                username=address.username,
                password=None if address.password is None else address.password.value,
                # A server that was restarted has closed its connections; that is found out by using one.
                retry=Retry(NoBackoff(), 1),
                **options,
            )
            self._redis = Redis(connection_pool=pool)
        return self._redis


def _reason(error: RedisError | OSError) -> str:
    """What the system says about it, as far as it does."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            if type(cause).__module__ == "builtins" and cause.errno is not None:
                return os.strerror(cause.errno)  # asyncio puts words of its own in the place of these
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__
