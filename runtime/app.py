"""The registry as the server sees it, put together from a configuration."""

from __future__ import annotations

from angos.runtime.clock import SystemClock
from angos.runtime.config.schema import Configuration
from angos.runtime.driver import drive
from angos.runtime.entropy import SystemEntropy
from angos.runtime.leases.local import LocalLeases
from angos.runtime.performer import RequestPerformer, Services
from angos.runtime.server.application import Content, RequestBody
from angos.runtime.stores.directory import DirectoryStore
from angos.sansio.config import RegistryConfig
from angos.sansio.effects import Key
from angos.sansio.http.message import Request, Response
from angos.sansio.registry import handle


class RegistryApplication:
    """Answers requests: the core decides, these stores and services perform."""

    def __init__(self, config: RegistryConfig, blobs: DirectoryStore, metadata: DirectoryStore) -> None:
        self._config = config
        self._blobs = blobs
        self._services = Services(blobs, metadata, LocalLeases(), SystemClock(), SystemEntropy())

    async def respond(self, request: Request, body: RequestBody) -> Response:
        """The answer to one request. An error that comes out of here is a bug."""
        performer = RequestPerformer(self._services, {request.body: body})
        return await drive(handle(request, self._config), performer)

    def open_content(self, key: Key) -> Content | None:
        """Open the value that a response body refers to; None when it is absent."""
        return self._blobs.open_content(key)


def build_application(configuration: Configuration) -> RegistryApplication:
    """Everything but the listener. Raises `UnusableRoot` when a store cannot be used."""
    blob_store, metadata_store = configuration.blob_store, configuration.metadata_store
    blobs = DirectoryStore(blob_store.root_dir, blob_store.sync_to_disk)
    metadata = blobs
    if metadata_store is not None and metadata_store != blob_store:
        metadata = DirectoryStore(metadata_store.root_dir, metadata_store.sync_to_disk)
    return RegistryApplication(configuration.registry, blobs, metadata)
