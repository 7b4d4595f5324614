"""What a configuration stores in and shares with other processes: opened, for a server or for a command.

A server opens it once, before it forks its workers, and closes it in each process that has used it. A command that
maintains what is stored does all of it in one go:

    async with opened_services(configuration) as services:
        await drive(Operation(scrub(...)), RequestPerformer(services, {}))
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from angos.runtime.clock import SystemClock
from angos.runtime.config.schema import Configuration, DirectoryConfig
from angos.runtime.entropy import SystemEntropy
from angos.runtime.leases.local import LocalLeases
from angos.runtime.performer import Leases, Perform, Services
from angos.runtime.stores.directory import DirectoryStore
from angos.runtime.stores.disk import UnusableRoot
from angos.sansio.effects import Effect
from angos.sansio.findings import Finding, doubts

if TYPE_CHECKING:
    from angos.runtime.access.services import Cache
    from angos.runtime.observability.observed_store import ContentStore
    from angos.runtime.redis.address import RedisAddress
    from angos.runtime.redis.server import RedisServer
    from angos.runtime.stores.s3.options import S3Options
    from angos.runtime.stores.s3.store import S3Store


class Opened:
    """The stores, the leases and the caches of a configuration.

    Nothing is connected yet when it is made, so that forked processes may use it, each for itself on its own loop.
    """

    def __init__(
        self,
        configuration: Configuration,
        observed: Callable[[ContentStore], ContentStore] = lambda store: store,
        workers: int = 1,
        *,
        for_writing: bool = True,
    ) -> None:
        """`observed`: puts something around each store. `workers`: processes that will use it together. Without
        `for_writing` folders may be read-only.

        Raises `UnusableRoot` for a folder or a bucket that cannot be used; a bucket is not asked for that."""
        self._buckets: dict[str, S3Store] = {}
        self._for_writing = for_writing
        blob_store, metadata_store = configuration.blob_store, configuration.metadata_store
        self.blobs = self.metadata = observed(self._open("blob_store", blob_store))
        if metadata_store is not None and (
            # Two tables of a bucket may be the same today: each has to follow its own when one of them is changed.
            metadata_store != blob_store or not isinstance(metadata_store, DirectoryConfig)
        ):
            self.metadata = observed(self._open("metadata_store", metadata_store))
        self._redis: dict[RedisAddress, RedisServer] = {}
        self._cache = configuration.cache
        self.leases: Leases = LocalLeases()
        if (shared := configuration.leases) is not None:
            from angos.runtime.leases.redis import RedisLeases

            self.leases = RedisLeases(self._redis_at(shared.address), shared.key_prefix)
        elif workers > 1:
            from angos.runtime.leases.workers import WorkerLeases

            self.leases = WorkerLeases()

    def try_out(self, configuration: Configuration) -> bool:
        """Find out whether buckets do what the registry relies on, before workers are forked.

        Gives whether clients can be sent to that of the blobs. Raises `UnusableRoot` for a bucket that will not do.
        One that does not answer is tried out later, by the first write of each process.
        """
        lets_clients_in = True
        known: dict[S3Options, tuple[Finding, ...]] = {}
        for name, bucket in self._buckets.items():
            from angos.runtime.stores.trying_out import findings_about, judge
            from angos.sansio.bucket.probe import LETS_CLIENTS_IN

            options = getattr(configuration, name)
            if options not in known:
                known[options] = findings_about(name, options, thorough=False)
                bucket.tried = judge(options.place, known[options])
            else:
                bucket.tried = not doubts(known[options])
            if name == "blob_store":
                lets_clients_in = not any(
                    each.need == LETS_CLIENTS_IN and each.verdict == "fails" for each in known[options]
                )
        return lets_clients_in

    def services(self, access: Mapping[type[Effect[Any]], Perform] = MappingProxyType({})) -> Services:
        """What performs effects with it. `access`: see `Services`."""
        return Services(self.blobs, self.metadata, self.leases, SystemClock(), SystemEntropy(), access)

    def cache(self, scope: str) -> Cache:
        """A cache whose names nobody else uses."""
        if self._cache is None:
            from angos.runtime.cache.local import LocalCache

            return LocalCache()
        from angos.runtime.cache.redis import RedisCache

        return RedisCache(self._redis_at(self._cache.address), self._cache.key_prefix, scope)

    def follow(self, configuration: Configuration) -> None:
        """Use what a reload has changed: how buckets are asked, and with whose keys. Never fails."""
        for name, bucket in self._buckets.items():
            found = getattr(configuration, name)
            if found is not None and not isinstance(found, DirectoryConfig):
                bucket.follow(found)

    async def close(self) -> None:
        """End the connections of this process. Nothing that is stored depends on it."""
        for bucket in self._buckets.values():
            await bucket.close()
        for server in self._redis.values():
            await server.close()

    def _open(self, name: str, store: DirectoryConfig | S3Options) -> ContentStore:
        if isinstance(store, DirectoryConfig):
            return DirectoryStore(store.root_dir, store.sync_to_disk, for_writing=self._for_writing)
        from angos.runtime.client.trust import ClientTlsUnusable
        from angos.runtime.stores.s3.store import S3Store

        try:
            bucket = S3Store(store)
        except ClientTlsUnusable as error:
            raise UnusableRoot(f"{name}.s3: {error}") from None
        self._buckets[name] = bucket
        return bucket

    def _redis_at(self, address: RedisAddress) -> RedisServer:
        from angos.runtime.redis.server import RedisServer

        return self._redis.setdefault(address, RedisServer(address))


@asynccontextmanager
async def opened_services(
    configuration: Configuration,
    access: Mapping[type[Effect[Any]], Perform] = MappingProxyType({}),
    *,
    for_writing: bool = True,
) -> AsyncIterator[Services]:
    """For a command: performs the effects of storage, leases, time and ids. `access`: see `Services`, `for_writing`:
    see `Opened`.

    Raises `UnusableRoot`."""
    opened = Opened(configuration, for_writing=for_writing)
    try:
        yield opened.services(access)
    finally:
        await opened.close()


def loop_problem(configuration: Configuration, loop: str) -> str | None:
    """Why this configuration cannot be used on this event loop; None when it can."""
    if loop != "trio":
        return None
    if configuration.cache or configuration.leases:
        return "Redis can be used on asyncio only; leave out --loop, or [cache.redis] and [leases.redis]"
    return None
