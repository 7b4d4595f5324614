"""All that the configuration asks to see of the registry, for whoever puts it together.

One of it is made before workers are forked; it outlives every reload.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from angos.runtime.observability.logs import AccessLog, WithRequestIds
from angos.runtime.observability.settings import MetricsOptions, parse_listen

if TYPE_CHECKING:
    from angos.runtime.observability.events import EventSink
    from angos.runtime.observability.metrics import Metrics
    from angos.runtime.observability.metrics_endpoint import MetricsEndpoint, MetricsListener
    from angos.runtime.observability.observed_store import ContentStore
    from angos.runtime.performer import Perform
    from angos.runtime.server.application import Application
    from angos.runtime.server.counters import OnAnswer
    from angos.runtime.server.surroundings import Surroundings
    from angos.sansio.effects import Effect
    from angos.sansio.http.message import Request, Response


class Observation:
    """What is switched on does something, what is not costs nothing: every method may be called in any case."""

    def __init__(self, options: MetricsOptions, workers: int) -> None:
        """For one process, or a parent with so many `workers`. Raises `angos.runtime.server.listener.ListenError`."""
        self.metrics: Metrics | None = None
        self.listener: MetricsListener | None = None
        self._endpoint: MetricsEndpoint | None = None
        if options.enabled:
            from angos.runtime.observability.metrics import Metrics
            from angos.runtime.observability.metrics_endpoint import MetricsEndpoint, MetricsListener

            self.metrics = Metrics(workers if workers > 1 else 0)
            self.metrics.set("angos_configuration_generation", value=1)
            if options.listen is None:
                self._endpoint = MetricsEndpoint(self.metrics)
            else:
                self.listener = MetricsListener(self.metrics, *parse_listen(options.listen))

    @cached_property
    def events(self) -> EventSink:
        """Performs `Tell`. Without rules about access nobody asks for it."""
        from angos.runtime.observability.events import EventSink

        return EventSink(self.metrics)

    def store(self, store: ContentStore) -> ContentStore:
        """The store, counted."""
        if self.metrics is None:
            return store
        from angos.runtime.observability.observed_store import ObservedStore

        return ObservedStore(store, self.metrics)

    def access(self, performers: Mapping[type[Effect[Any]], Perform]) -> Mapping[type[Effect[Any]], Perform]:
        """The performers of what decisions about access ask of services, counted."""
        if self.metrics is None:
            return performers
        from angos.sansio import effects

        operations: dict[type[Effect[Any]], str] = {
            effects.VerifyPassword: "verify_password",
            effects.VerifyToken: "verify_token",
            effects.VerifyOwnToken: "verify_own_token",
            effects.SignToken: "sign_token",
            effects.FetchDocument: "fetch_document",
            effects.AskWebhook: "ask_webhook",
        }
        return {
            kind: self.metrics.observed("access", operations[kind], perform) if kind in operations else perform
            for kind, perform in performers.items()
        }

    def application(self, application: Application, *, access_log: bool) -> Application:
        """The application with what belongs around it. Made anew for each configuration."""
        if access_log:
            application = WithRequestIds(application)
        if self._endpoint is not None:
            from angos.runtime.observability.metrics_endpoint import WithMetrics

            application = WithMetrics(application, self._endpoint)
        return application

    def on_answer(self, *, access_log: bool, trusted_proxies: tuple[str, ...] = ()) -> OnAnswer | None:
        """What is to be called after each answer. Made anew for each configuration."""
        count = None if self.metrics is None else self.metrics.on_answer
        if not access_log:
            return count
        log = AccessLog(trusted_proxies).on_answer
        if count is None:
            return log

        def on_answer(request: Request, response: Response, seconds: float, received: int) -> None:
            count(request, response, seconds, received)
            log(request, response, seconds, received)

        return on_answer

    def count_reload(self, result: Literal["applied", "rejected"], generation: int) -> None:
        """A changed configuration was taken or not. For the one process that decides."""
        if self.metrics is not None:
            self.metrics.count_reload(result, generation)

    def follow(self, surroundings: Surroundings) -> None:
        """Publish what the server counts. Once in each process that serves, inside of `running`."""
        if self.metrics is not None:
            from angos.runtime.observability.server_figures import server_figures

            self.metrics.follow(server_figures(surroundings.counters))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """To be entered in each process that serves, on its loop, for as long as it does."""
        if self.metrics is None:
            yield
            return
        from angos.runtime.observability.metrics_endpoint import counting

        async with counting(self.metrics, self.listener):
            yield
