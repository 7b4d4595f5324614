"""Where metrics are read: ``/metrics`` beside the registry, or a listener of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import anyio
from anyio import CapacityLimiter, to_thread

from angos.runtime.observability.exposition import Exposition
from angos.runtime.observability.metrics import METRICS_PATH, Metrics
from angos.runtime.server.application import Application, Content, RequestBody
from angos.runtime.server.limits import ServerOptions
from angos.runtime.server.listener import ListenError, bind, serve, url_of
from angos.sansio.effects import Key
from angos.sansio.errors import RegistryError
from angos.sansio.http.error_body import error_response
from angos.sansio.http.message import Absent, Inline, Request, Response

PUBLISH_SECONDS: Final = 1.0  # how old the figures of the server may be in the answer of another process
_OPTIONS: Final = ServerOptions(backlog=16, connections_max=64, transfer_threads=1, drain_seconds=1.0)


class MetricsEndpoint:
    """Answers ``/metrics``. No credentials are asked for: who may read it is decided by where it listens."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._exposition = Exposition(metrics)
        self._limiter = CapacityLimiter(1)

    async def respond(self, request: Request) -> Response:
        """The figures of all processes, whichever of them is asked."""
        if request.method not in ("GET", "HEAD"):
            message = f"{request.method[:20]} is not possible here, only GET, HEAD"
            return error_response(RegistryError(405, "UNSUPPORTED", message, headers={"Allow": "GET, HEAD"}))
        self._metrics.publish()
        # In a thread, one at a time: thousands of series take tens of milliseconds.
        content_type, text = await to_thread.run_sync(self._exposition.metrics_text, limiter=self._limiter)
        headers = (("Content-Type", content_type), ("Cache-Control", "no-store"))
        return Response(200, headers, Absent(len(text)) if request.method == "HEAD" else Inline(text))


class WithMetrics:
    """An application with ``/metrics`` beside it."""

    def __init__(self, application: Application, endpoint: MetricsEndpoint) -> None:
        self._application = application
        self._endpoint = endpoint

    async def respond(self, request: Request, body: RequestBody) -> Response:
        """The answer of either."""
        if request.target.startswith(METRICS_PATH) and request.target.partition("?")[0] == METRICS_PATH:
            return await self._endpoint.respond(request)
        return await self._application.respond(request, body)

    def open_content(self, key: Key) -> Content | None:
        """Of the application; metrics are never stored."""
        return self._application.open_content(key)


class MetricsListener:
    """A listener for metrics alone.

    To be made before workers are forked: all of them accept on the one socket, and any of them answers for all.
    """

    def __init__(self, metrics: Metrics, host: str, port: int) -> None:
        """Raises `ListenError`."""
        self._endpoint = MetricsEndpoint(metrics)
        try:
            self._sockets = bind(ServerOptions(host=host, port=port, backlog=_OPTIONS.backlog))
        except ListenError as error:
            raise ListenError(f"observability.metrics.listen: {error}") from None
        self.urls = tuple(f"{url_of(bound)}{METRICS_PATH}" for bound in self._sockets)

    async def respond(self, request: Request, _: RequestBody) -> Response:
        """The answer to one request."""
        if request.target.partition("?")[0] == METRICS_PATH:
            return await self._endpoint.respond(request)
        return error_response(RegistryError(404, "UNSUPPORTED", f"there is only {METRICS_PATH} here"))

    def open_content(self, _: Key) -> Content | None:
        """Nothing here is stored."""
        return None

    async def serve(self, stop: anyio.Event) -> None:
        """Serve in this process until `stop` is set."""
        await serve(self, _OPTIONS, sockets=[bound.dup() for bound in self._sockets], stop=stop)


@asynccontextmanager
async def counting(metrics: Metrics, listener: MetricsListener | None = None) -> AsyncIterator[None]:
    """What has to go on in every process that serves, for as long as it does."""
    metrics.begin()
    stop = anyio.Event()
    async with anyio.create_task_group() as tasks:
        publisher = anyio.CancelScope()
        tasks.start_soon(partial(_publish_for_ever, metrics, publisher))
        if listener is not None:
            tasks.start_soon(listener.serve, stop)
        try:
            yield
        finally:
            stop.set()
            publisher.cancel()
            metrics.publish()


async def _publish_for_ever(metrics: Metrics, scope: anyio.CancelScope) -> None:
    with scope:
        while True:
            await anyio.sleep(PUBLISH_SECONDS)
            metrics.publish()
