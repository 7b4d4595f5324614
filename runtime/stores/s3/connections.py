"""The connections to one store, used again and again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

import h11
from anyio import current_time

from angos.runtime.access.settings import ClientTls
from angos.runtime.client.connection import Connection, NoAnswer, connect
from angos.runtime.client.trust import client_context
from angos.runtime.client.url import Url

CONNECT_SECONDS = 5.0
IDLE_SECONDS = 10.0  # stores close idle connections after 20 s or more; balancers in front of them may be quicker
IDLE_MAX = 32


class Connections:
    """Used on one event loop."""

    def __init__(self, endpoint: Url, tls: ClientTls) -> None:
        """Raises `ClientTlsUnusable`."""
        self._endpoint = endpoint
        self._context = client_context(tls)
        self._idle: list[tuple[Connection, float]] = []

    @asynccontextmanager
    async def exchange(
        self, method: str, target: str, fields: list[tuple[bytes, bytes]], body: Callable[[], Iterable[memoryview]]
    ) -> AsyncIterator[tuple[Connection, h11.Response, bool]]:
        """Send a request; its answer has begun. Fails with `NoAnswer`.

        A connection that was idle may have been closed by the server just now; then another one takes its place. That
        looks the same as a server that ends between doing what it was asked and saying so: the last value is True when
        the request may have been carried out before.
        """
        connection, response, again = await self._begin(method, target, fields, body)
        kept = False
        try:
            yield connection, response, again
            if connection.reusable and len(self._idle) < IDLE_MAX:
                self._idle.append((connection, current_time()))
                kept = True
        finally:
            if not kept:
                await connection.close()

    async def close(self) -> None:
        """End the idle connections."""
        while self._idle:
            await self._idle.pop()[0].close()

    async def _begin(
        self, method: str, target: str, fields: list[tuple[bytes, bytes]], body: Callable[[], Iterable[memoryview]]
    ) -> tuple[Connection, h11.Response, bool]:
        again = False
        while self._idle:
            connection, since = self._idle.pop()
            if current_time() - since >= IDLE_SECONDS:
                await connection.close()
                continue
            try:
                return connection, await connection.ask(target, fields, method, body()), again
            except NoAnswer:
                await connection.close()
                if connection.heard:
                    raise
                again = True
            except BaseException:
                await connection.close()
                raise
        connection = await connect(self._endpoint, self._context, CONNECT_SECONDS)
        try:
            return connection, await connection.ask(target, fields, method, body()), again
        except BaseException:
            await connection.close()
            raise
