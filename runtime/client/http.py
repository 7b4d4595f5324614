"""Asking one service: answers that are read as they arrive, connections that are used again.

There are no redirects here: following one is the decision of whoever asks, because it may lead to somebody else.
Neither is there a time limit on a whole exchange: `anyio.fail_after` around it is one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Literal

import h11
from anyio import current_time

from angos.runtime.access.settings import ClientTls
from angos.runtime.client.connection import Connection, NoAnswer, Permit, connect
from angos.runtime.client.trust import client_context
from angos.runtime.client.url import Url
from angos.sansio.http.message import Header, Headers

CONNECT_SECONDS = 10.0
IDLE_SECONDS = 15.0  # many servers give up an idle connection after a minute, some after 20 s
DRAIN_BYTES_MAX = 64 << 10  # of an answer that nobody reads to its end; beyond, a new connection is cheaper


class Answer:
    """The answer of a server, its body still to come."""

    def __init__(self, response: h11.Response, connection: Connection, client: HttpClient) -> None:
        self.status: int = response.status_code
        self.headers = Headers(tuple((name.decode(), value.decode("latin-1")) for name, value in response.headers))
        self._connection = connection
        self._client = client
        self._ended = False

    async def finish(self) -> None:
        """Do without the rest; the connection is used again when little of it is left."""
        if not self._ended:
            self._ended = True
            kept = False
            try:
                kept = await self._client.keep(self._connection)
            finally:
                if not kept:
                    await self._connection.close()

    async def abandon(self) -> None:
        """Do without the rest, and without the connection."""
        if not self._ended:
            self._ended = True
            await self._connection.close()

    async def receive(self) -> bytes:
        """The next bytes of the body; none at its end. Fails with `NoAnswer` if it is cut short."""
        return await self._connection.receive()

    async def read(self, size_max: int) -> bytes:
        """The whole body. Fails with `NoAnswer` if it is larger, as soon as that is known."""
        body = bytearray()
        while data := await self.receive():
            body += data
            if len(body) > size_max:
                raise NoAnswer(f"{self._connection.origin} answered with more than {size_max} bytes")
        return bytes(body)


class HttpClient:
    """For one service: its own trust, its own connections. Used on one event loop."""

    def __init__(
        self,
        tls: ClientTls,
        *,
        idle_max: int = 0,
        connect_seconds: float | None = None,
        permit: Permit | None = None,
    ) -> None:
        """Raises `ClientTlsUnusable`. Up to `idle_max` connections are kept for later. `permit`: see `connect`."""
        self._context = client_context(tls)
        self._idle_max = idle_max
        self._connect_seconds = connect_seconds
        self._permit = permit
        self._idle: list[tuple[Connection, float]] = []

    @asynccontextmanager
    async def get(self, url: Url, headers: Iterable[Header]) -> AsyncIterator[Answer]:
        """GET, as `open` does, for as long as the block goes on."""
        answer = await self.open(url, headers)
        try:
            yield answer
            await answer.finish()
        finally:
            await answer.abandon()

    async def open(self, url: Url, headers: Iterable[Header], method: Literal["GET", "HEAD"] = "GET") -> Answer:
        """Ask with ``Host`` and these fields, nothing else. Whoever asks ends the answer. Fails with `NoAnswer`.

        A connection that was idle may have been closed by the server just now: then the request is sent again on a
        new one, which these methods allow (RFC 9110 section 9.2.2).
        """
        fields = [(b"Host", url.authority.encode())]
        fields += [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        connection, response = await self._begin(url, fields, method)
        return Answer(response, connection, self)

    async def close(self) -> None:
        """End the idle connections, and keep no further ones."""
        self._idle_max = 0
        while self._idle:
            await self._idle.pop()[0].close()

    async def _begin(
        self, url: Url, fields: list[tuple[bytes, bytes]], method: Literal["GET", "HEAD"]
    ) -> tuple[Connection, h11.Response]:
        while (idle := await self._take_idle(url.origin)) is not None:
            try:
                response = await idle.ask(url.target, fields, method)
            except NoAnswer:
                await idle.close()
                if idle.heard:
                    raise
            except BaseException:
                await idle.close()
                raise
            else:
                if response.status_code != 408:  # said to the idle connection before it was closed, not to us
                    return idle, response
                await idle.close()
        seconds = CONNECT_SECONDS if self._connect_seconds is None else self._connect_seconds
        connection = await connect(url, self._context, seconds, self._permit)
        try:
            return connection, await connection.ask(url.target, fields, method)
        except BaseException:
            await connection.close()
            raise

    async def _take_idle(self, origin: str) -> Connection | None:
        now = current_time()
        while self._idle and now - self._idle[0][1] >= IDLE_SECONDS:
            await self._idle.pop(0)[0].close()
        for place in range(len(self._idle) - 1, -1, -1):
            if self._idle[place][0].origin == origin:
                return self._idle.pop(place)[0]
        return None

    async def keep(self, connection: Connection) -> bool:
        """Put a connection aside for the next request. False when it must be closed."""
        if len(self._idle) >= self._idle_max:
            return False
        drained = 0
        try:
            while data := await connection.receive():
                drained += len(data)
                if drained > DRAIN_BYTES_MAX:
                    return False
        except NoAnswer:  # whoever asked has seen as much of it as they wanted
            return False
        if not connection.reusable or len(self._idle) >= self._idle_max:
            return False
        self._idle.append((connection, current_time()))
        return True
