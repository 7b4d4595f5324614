"""``python -m tests.conformance.runtime.serving_observed LOOP WORKERS FOLDER FORMAT``: a registry that is observed.

It logs everything at debug level and prints its URL and that of its metrics. Users of the policy have names that start
with ``known``; nobody has a password that is right.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from angos.runtime.clock import SystemClock
from angos.runtime.driver import drive
from angos.runtime.entropy import SystemEntropy
from angos.runtime.leases.local import LocalLeases
from angos.runtime.observability.logs import configure_logging
from angos.runtime.observability.metrics_endpoint import MetricsEndpoint, WithMetrics
from angos.runtime.observability.observation import Observation
from angos.runtime.observability.settings import LogOptions, MetricsOptions
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

    def __init__(self, folder: Path, observation: Observation) -> None:
        self._directory = DirectoryStore(folder, sync=False)
        store = observation.store(self._directory)
        performers = {Tell: observation.events.tell, VerifyPassword: lambda _: False}
        self._services = Services(store, store, LocalLeases(), SystemClock(), SystemEntropy())
        self._services.table |= observation.access(performers)
        self._config = RegistryConfig()
        self._guarded = RegistryConfig(access=AccessConfig(Policy(), users=(User("known", "known"),)))

    async def respond(self, request: Request, body: RequestBody) -> Response:
        config = self._guarded if request.target.startswith("/v2/private/") else self._config
        return await drive(handle(request, config), RequestPerformer(self._services, {request.body: body}))

    def open_content(self, key: Key) -> Content | None:
        return self._directory.open_content(key)


def main() -> int:
    loop, workers, folder, log_format = sys.argv[1:]
    configure_logging(LogOptions("debug", "json" if log_format == "json" else "text"))
    observation = Observation(MetricsOptions(enabled=True, listen="127.0.0.1:0"), int(workers))
    assert observation.metrics is not None
    assert observation.listener is not None
    application = observation.application(Registry(Path(folder), observation), access_log=True)
    beside = WithMetrics(application, MetricsEndpoint(observation.metrics))
    options = ServerOptions(port=0, workers=int(workers), drain_seconds=10)
    serving = Serving(beside, options, on_answer=observation.on_answer(access_log=True))
    urls = observation.listener.urls

    @asynccontextmanager
    async def open_serving() -> AsyncIterator[Serving]:
        async with observation.running():
            yield serving

    return run(
        open_serving,
        options,
        loop="trio" if loop == "trio" else "asyncio",
        on_ready=lambda own_urls: print(*own_urls, *urls, flush=True),  # noqa: T201
        hand_over=observation.follow,
    )


if __name__ == "__main__":
    sys.exit(main())
