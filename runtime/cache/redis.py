"""What all processes that use the same Redis remember for a while.

Each process remembers what it wrote itself, too, and goes by that while Redis is away: a cache never fails, and what
was known a moment ago need not be asked for again because of it. The same goes for what Redis did not take, because it
was away then or its memory is full: until it lapses, the process that knows it goes by it.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import replace

from angos.runtime.cache.local import LocalCache
from angos.runtime.redis.server import RedisAway, RedisServer
from angos.sansio.effects import ReadCache, WriteCache


class RedisCache:
    """Used on one event loop of asyncio."""

    def __init__(self, server: RedisServer, key_prefix: str, scope: str = "") -> None:
        """`scope`: what is remembered under another one, or in another process with another one, does not count."""
        self._server = server
        self._key_prefix = key_prefix
        self._scope = scope
        self._own = LocalCache()
        self._not_taken = LocalCache()
        password = server.address.password
        # Variants are made from credentials: without the password nobody can try out which ones a key stands for.
        self._hash_key = b"angos" if password is None else hashlib.sha256(password.value.encode()).digest()

    async def read_cache(self, effect: ReadCache) -> bytes | None:
        """`ReadCache`."""
        if (known := self._not_taken.read_cache(effect)) is not None:
            return known
        try:
            found: bytes | None = await self._server.ask("GET", self._key(effect))
        except RedisAway:
            return self._own.read_cache(effect)
        return found

    async def write_cache(self, effect: WriteCache) -> None:
        """`WriteCache`."""
        self._own.write_cache(effect)
        milliseconds = round(effect.seconds * 1000)
        try:
            if milliseconds > 0:
                await self._server.ask("SET", self._key(effect), effect.value, "PX", milliseconds)
            else:
                await self._server.ask("DEL", self._key(effect))
        except RedisAway:
            self._not_taken.write_cache(effect)
        else:
            self._not_taken.write_cache(replace(effect, seconds=0))

    def _key(self, effect: ReadCache | WriteCache) -> str:
        variant = hmac.new(self._hash_key, f"{self._scope}\n{effect.variant.value}".encode(), hashlib.sha256)
        return f"{self._key_prefix}cache:{effect.name}:{variant.hexdigest()}"
