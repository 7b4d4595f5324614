"""The registry as the server sees it, put together from a configuration."""

from __future__ import annotations

import base64
import logging
import os
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from anyio import create_task_group

from angos.runtime.background import Chore, OnlyOne, do_once
from angos.runtime.clock import SystemClock
from angos.runtime.config.schema import Configuration
from angos.runtime.driver import Performer, drive
from angos.runtime.entropy import SystemEntropy
from angos.runtime.leases.local import LocalLeases
from angos.runtime.observability.logs import configure_logging
from angos.runtime.observability.observation import Observation
from angos.runtime.opening import Opened
from angos.runtime.performer import Leases, Perform, RequestPerformer, Services
from angos.runtime.server.application import Content, RequestBody
from angos.runtime.server.serving import NotServable, Serving
from angos.runtime.stores.disk import UnusableRoot
from angos.sansio.config import RegistryConfig
from angos.sansio.effects import Effect, Key, NotePull
from angos.sansio.http.message import Request, Response
from angos.sansio.operation import Operation
from angos.sansio.registry import handle
from angos.sansio.secret import Secret

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from angos.runtime.access.services import AccessServices
    from angos.runtime.access.settings import AccessSettings
    from angos.runtime.observability.metrics import Figure
    from angos.runtime.observability.observed_store import ContentStore
    from angos.runtime.pulls import PullRecorder
    from angos.runtime.recorder import Recorder
    from angos.runtime.server.tls import ServerTls, TlsOptions
    from angos.runtime.upstream.services import UpstreamPerformers, UpstreamServices
    from angos.sansio.access.config import AccessConfig
    from angos.sansio.upstream.eviction import Eviction

CLEARING_SECONDS: Final = 60.0
"""Between two looks for collectors that were killed."""

_log = logging.getLogger("angos.recorder")


class RegistryApplication:
    """Answers requests: the core decides, these stores and services perform."""

    def __init__(
        self,
        config: RegistryConfig,
        blobs: ContentStore,
        metadata: ContentStore,
        recorder: Recorder | None = None,
        leases: Leases | None = None,
        access: Mapping[type[Effect[Any]], Perform] = MappingProxyType({}),
        upstreams: UpstreamPerformers | None = None,
    ) -> None:
        self._config = config
        self._recorder = recorder
        self._blobs = blobs
        self._services = Services(blobs, metadata, leases or LocalLeases(), SystemClock(), SystemEntropy(), access)
        self._has_upstreams = upstreams is not None
        if upstreams is not None:
            upstreams.join(self._services)

    async def respond(self, request: Request, body: RequestBody) -> Response:
        """The answer to one request. An error that comes out of here is a bug."""
        performer = RequestPerformer(self._services, {request.body: body})
        if self._has_upstreams:
            return await self._respond_with_upstreams(request, performer)
        return await self._respond(request, performer)

    async def _respond_with_upstreams(self, request: Request, performer: Performer) -> Response:
        from angos.runtime.upstream.services import StreamsKept

        keeping = StreamsKept(performer)
        response: Response | None = None
        try:
            response = await self._respond(request, keeping)
            return response
        finally:
            await keeping.close_others(response)

    async def _respond(self, request: Request, performer: Performer) -> Response:
        if self._recorder is not None:
            return await self._respond_recorded(request, performer, self._recorder)
        return await drive(handle(request, self._config), performer, self._services.in_thread)

    async def _respond_recorded(self, request: Request, performer: Performer, recorder: Recorder) -> Response:
        recording = recorder.begin(request, performer)
        response: Response | None = None
        try:
            response = await drive(handle(request, self._config), recording)
        finally:
            try:
                recorder.end(recording, response)
            except OSError as error:  # a full disk must not cost the client its answer
                _log.error("a request could not be recorded: %s", error.strerror)
        return response

    def open_content(self, key: Key) -> Content | None:
        """Open the value that a response body refers to; None when it is absent."""
        return self._blobs.open_content(key)


class Foundation:
    """What outlives each configuration: the stores with what they remember, the leases, the folder of the records.

    It is made once, before workers are forked and before there is a loop. Each process that serves then builds its
    applications on it, one after the other.
    """

    def __init__(self, configuration: Configuration, record: Path | None = None) -> None:
        """`record`: a folder for a record of each request. Raises `UnusableRoot` when a store cannot be used, and
        `ListenError` when the address of the metrics cannot."""
        self.observation = Observation(configuration.observability.metrics, configuration.server.workers)
        self._opened = Opened(configuration, self.observation.store, configuration.server.workers)
        self._lets_clients_in = self._opened.try_out(configuration)
        """Otherwise nobody is redirected to the store, whatever is configured."""
        self._configuration = configuration
        self._background = OnlyOne(configuration.server.workers)
        self._access: AccessServices | None = None
        self._upstreams: UpstreamServices | None = None
        self._pulls: PullRecorder | None = None
        self._evicted: Eviction | None = None
        """What the last run has come to."""
        self._tasks: TaskGroup | None = None
        """What no request waits for, in a process that serves."""
        self._token_secret = Secret(base64.b64encode(os.urandom(48)).decode())
        """Signs tokens when no secret is configured. All processes have it, since they are forked from this one."""
        self._recorder = None if record is None else _recorder(record, configuration.registry)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """To be entered in each process that serves, on its loop, for as long as it does."""
        try:
            async with (
                self.observation.running(),
                self._background.running(*self._chores()),
                create_task_group() as self._tasks,
            ):
                if self.observation.metrics is not None:
                    self.observation.metrics.follow(self._fill_figures)
                yield
                if self._pulls is not None:
                    await self._pulls.end()
                tasks, self._tasks = self._tasks, None
                tasks.cancel_scope.cancel()
        finally:
            if self._upstreams is not None:
                await self._upstreams.close()
            await self._opened.close()

    def build(self, configuration: Configuration) -> Serving:
        """What to serve with under this configuration, on the same stores as ever. Called in any thread.

        Raises `NotServable` when a certificate cannot be used.
        """
        config, options = configuration.registry, configuration.server
        if not self._lets_clients_in:
            config = replace(config, redirect_blobs=False, redirect_manifests=False)
        recorder = None if self._recorder is None else self._recorder.under(config)
        access = {} if config.access is None else self._access_performers(config.access, configuration.access)
        if config.records_any_pulls:
            access = {**access, NotePull: self._pull_recorder(config).note}
        opened = self._opened
        upstreams = self._upstream_performers(configuration) if config.has_upstreams else None
        application = RegistryApplication(
            config, opened.blobs, opened.metadata, recorder, opened.leases, access, upstreams
        )
        trusted_proxies = () if config.access is None else config.access.trusted_proxies
        return Serving(
            self.observation.application(application, access_log=options.access_log),
            options,
            _tls(configuration.tls),
            trusted_proxies,
            self.observation.on_answer(access_log=options.access_log, trusted_proxies=trusted_proxies),
            partial(self._take_effect, configuration, upstreams),
        )

    def _chores(self) -> tuple[Chore, ...]:
        """What is done now and then, whichever configuration is in force."""
        return (
            Chore(self._prune, self._retention_seconds),
            Chore(self._evict, self._eviction_seconds),
            Chore(self._collect, lambda: self._configuration.collection_interval_seconds, soon=True),
            Chore(self._clear_up, lambda: CLEARING_SECONDS),
        )

    def _eviction_seconds(self) -> float:
        caches = (repository.cache for repository in self._configuration.registry.repositories)
        limited = any(cache is not None and cache.size_max is not None for cache in caches)
        return self._configuration.eviction_interval_seconds if limited else 0.0

    async def _evict(self) -> None:
        from angos.sansio.upstream.eviction import WORK, Memory, evict

        memory = Memory() if self._evicted is None else self._evicted.memory
        operation = Operation(evict(self._configuration.registry, memory=memory))
        self._evicted = await do_once(WORK, operation, self._opened, self.observation) or self._evicted

    def _retention_seconds(self) -> float:
        return 0.0 if self._configuration.retention is None else self._configuration.retention_seconds

    async def _prune(self) -> None:
        if (retention := self._configuration.retention) is None:
            return
        from angos.sansio.prune import WORK, prune

        await do_once(
            WORK,
            Operation(prune(retention, registry=self._configuration.registry, report=False)),
            self._opened,
            self.observation,
        )

    async def _collect(self) -> None:
        # A server that never collects starts without what it does not need.
        from angos.sansio.collection.collector import WORK, collect_now_and_then

        operation = Operation(collect_now_and_then(self._configuration.registry))
        await do_once(WORK, operation, self._opened, self.observation)

    async def _clear_up(self) -> None:
        from angos.sansio.collection.collector import CLEARING, let_writers_pass

        await do_once(CLEARING, Operation(let_writers_pass()), self._opened, self.observation)

    def _fill_figures(self) -> Iterable[Figure]:
        running = 0 if self._upstreams is None else self._upstreams.fills_running
        return ((("angos_cache_fills_running",), running),)

    def _take_effect(self, configuration: Configuration, upstreams: UpstreamPerformers | None) -> None:
        self._configuration = configuration
        configure_logging(configuration.observability.log)
        self._opened.follow(configuration)
        if self._upstreams is not None:
            self._upstreams.follow(upstreams)
        if self._pulls is not None:
            self._pulls.follow(configuration.registry)
            if self._tasks is not None:
                self._pulls.start(self._tasks)
        if self._tasks is not None:
            self._tasks.start_soon(self._declare_pulls)

    async def _declare_pulls(self) -> None:
        from angos.runtime.pulls import declare  # not before the server serves

        await declare(self._opened, lambda: self._configuration.registry.update_pull_time)

    def _pull_recorder(self, config: RegistryConfig) -> PullRecorder:
        # A server that records no pulls starts without it.
        from angos.runtime.pulls import PullRecorder

        if self._pulls is None:
            self._pulls = PullRecorder(self._opened, config)
        return self._pulls

    def _upstream_performers(self, configuration: Configuration) -> UpstreamPerformers:
        from angos.runtime.client.trust import ClientTlsUnusable
        from angos.runtime.upstream.services import UpstreamServices

        if self._upstreams is None:
            cache = self._opened.cache("upstreams")
            self._upstreams = UpstreamServices(
                lambda: self._tasks, self.observation.events, cache, configuration.server.workers
            )
        try:
            return self._upstreams.configured(configuration.upstreams)
        except ClientTlsUnusable as error:
            raise NotServable(str(error)) from None

    def _access_performers(self, config: AccessConfig, settings: AccessSettings) -> Mapping[type[Effect[Any]], Perform]:
        from angos.runtime.access.services import AccessServices
        from angos.runtime.client.trust import ClientTlsUnusable

        if self._access is None:
            self._access = AccessServices(self.observation.events, self._opened.cache)
        if config.token_service is not None and settings.token_secret is None:
            settings = replace(settings, token_secret=self._token_secret)
        try:
            return self.observation.access(self._access.performers(settings))
        except ClientTlsUnusable as error:
            raise NotServable(str(error)) from None


def _tls(options: TlsOptions | None) -> ServerTls | None:
    if options is None:
        return None
    from angos.runtime.server.tls import TlsUnusable, load_tls

    try:
        return load_tls(options)
    except TlsUnusable as error:
        raise NotServable(f"server.tls: {error}") from None


def _recorder(folder: Path, config: RegistryConfig) -> Recorder:
    from angos.runtime.recorder import Recorder

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UnusableRoot(f"{folder} cannot take records: {error.strerror}; give another folder") from None
    return Recorder(folder, config)
