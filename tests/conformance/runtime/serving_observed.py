"""``python -m tests.conformance.runtime.serving_observed LOOP WORKERS FOLDER FORMAT``: a registry that is observed.

It logs everything at debug level and prints its URL and that of its metrics. Users of the policy have names that start
with ``known``; nobody has a password that is right.
"""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from angos.runtime.clock import SystemClock
from angos.runtime.driver import drive
from angos.runtime.entropy import SystemEntropy
from angos.runtime.leases.local import LocalLeases
from angos.runtime.observability.events import EventSink
from angos.runtime.observability.logs import AccessLog, WithRequestIds, configure_logging
from angos.runtime.observability.metrics import Metrics
from angos.runtime.observability.metrics_endpoint import MetricsEndpoint, MetricsListener, WithMetrics, counting
from angos.runtime.observability.observed_store import ObservedStore
from angos.runtime.observability.settings import LogOptions
from angos.runtime.performer import RequestPerformer, Services
from angos.runtime.server.application import Content, RequestBody
from angos.runtime.server.limits import ServerOptions
from angos.runtime.server.serving import Serving
from angos.runtime.server.workers import run
from angos.runtime.stores.directory import DirectoryStore
from angos.sansio.access.config import AccessConfig, User
from angos.sansio.access.policy import Policy
from angos.sansio.config import RegistryConfig
from angos.sansio.effects import Key, Tell, VerifyPassword
from angos.sansio.http.message import Request, Response
from angos.sansio.registry import handle


class Registry:
    """The core over a directory; requests of ``/v2/private/`` need an identity, which nobody has."""

    def __init__(self, folder: Path, metrics: Metrics) -> None:
        self._directory = DirectoryStore(folder, sync=False)
        store = ObservedStore(self._directory, metrics)
        self._services = Services(store, store, LocalLeases(), SystemClock(), SystemEntropy())
        self._services.table |= {Tell: EventSink(metrics).tell, VerifyPassword: lambda _: False}
        self._config = RegistryConfig()
        self._guarded = RegistryConfig(access=AccessConfig(Policy(), users=(User("known", "known"),)))
        self._on_answer = (metrics.on_answer, AccessLog().on_answer)

    async def respond(self, request: Request, body: RequestBody) -> Response:
        began = time.perf_counter()
        config = self._guarded if request.target.startswith("/v2/private/") else self._config
        response = await drive(handle(request, config), RequestPerformer(self._services, {request.body: body}))
        for on_answer in self._on_answer:
            on_answer(request, response, time.perf_counter() - began, request.content_length or 0)
        return response

    def open_content(self, key: Key) -> Content | None:
        return self._directory.open_content(key)


def main() -> int:
    loop, workers, folder, log_format = sys.argv[1:]
    configure_logging(LogOptions("debug", "json" if log_format == "json" else "text"))
    metrics = Metrics(int(workers))
    listener = MetricsListener(metrics, "127.0.0.1", 0)
    registry = WithMetrics(WithRequestIds(Registry(Path(folder), metrics)), MetricsEndpoint(metrics))
    options = ServerOptions(port=0, workers=int(workers), drain_seconds=10)

    @asynccontextmanager
    async def open_serving() -> AsyncIterator[Serving]:
        async with counting(metrics, listener):
            yield Serving(registry, options)

    return run(
        open_serving,
        options,
        loop="trio" if loop == "trio" else "asyncio",
        on_ready=lambda urls: print(*urls, *listener.urls, flush=True),  # noqa: T201
    )


if __name__ == "__main__":
    sys.exit(main())
