"""The configuration, and how it is made from files.

Which keys the files may have, and what their values may be, is plain data (`angos.runtime.config.known`) and plain code
instead of a validation library; it is imported only when there is a file. All problems are reported at once, each with
the file, the key, what was found and what is allowed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from angos.runtime.access.settings import AccessSettings, ClientTls
from angos.runtime.config.file import read_files
from angos.runtime.observability.settings import ObservabilityOptions
from angos.runtime.server.limits import ServerOptions
from angos.runtime.server.tls import TlsOptions
from angos.sansio.config import RegistryConfig

if TYPE_CHECKING:
    from angos.runtime.redis.address import RedisAddress
    from angos.runtime.stores.s3.options import S3Options
    from angos.runtime.upstream.settings import UpstreamEndpoint
    from angos.sansio.retention import RetentionConfig

DEFAULT_ROOT = Path("angos-data")


@dataclass(frozen=True, slots=True)
class DirectoryConfig:
    """A store in a directory."""

    root_dir: Path
    sync_to_disk: bool = True
    """Wait for the disk before anything is acknowledged. Without it, a power cut may lose what was."""

    @property
    def place(self) -> str:
        """Where the keys lie, as the person wrote it but recognisable as a path."""
        root = str(self.root_dir)
        return root if self.root_dir.is_absolute() or root.startswith(".") else f"./{root}"


@dataclass(frozen=True, slots=True)
class RedisConfig:
    """What several processes share in a Redis."""

    address: RedisAddress
    key_prefix: str = "angos:"


@dataclass(frozen=True, slots=True)
class Configuration:
    """Everything that can be configured, valid."""

    server: ServerOptions = field(default_factory=ServerOptions)
    registry: RegistryConfig = field(default_factory=RegistryConfig)
    blob_store: DirectoryConfig | S3Options = field(default_factory=lambda: DirectoryConfig(DEFAULT_ROOT))
    metadata_store: DirectoryConfig | S3Options | None = None
    """None: the blob store keeps the metadata too."""
    cache: RedisConfig | None = None
    """None: each process remembers by itself."""
    leases: RedisConfig | None = None
    """None: leases hold among the workers of one server."""
    tls: TlsOptions | None = None
    """None: plain HTTP."""
    access: AccessSettings = field(default_factory=AccessSettings)
    observability: ObservabilityOptions = field(default_factory=ObservabilityOptions)
    retention: RetentionConfig | None = None
    """None: every tag stays."""
    retention_seconds: float = 0.0
    """From one run of it in a server to the next; 0: there is none."""
    warnings: tuple[str, ...] = ()
    """What is allowed but hardly meant; for the operator."""
    upstreams: tuple[UpstreamEndpoint, ...] = ()
    """How the upstreams of all repositories are reached."""
    collection_interval_seconds: float = 3600.0
    """Between two runs of the collector in a server. 0: none."""
    eviction_interval_seconds: float = 600.0
    """Between two looks at how large caches of upstreams are. 0: none."""

    def named_files(self) -> tuple[Path, ...]:
        """The files that were read because the configuration names them, and whose changes count only when it is
        loaded again. Files with a token of the registry itself are not among them: they are read for every use."""
        named: list[Path | None] = []
        if self.tls is not None:
            named += [self.tls.server_certificate_bundle, self.tls.server_private_key, self.tls.client_ca_bundle]
        shown: list[ClientTls] = [provider.tls for provider in self.access.providers]
        shown += [webhook.tls for webhook in self.access.webhooks]
        shown += [upstream.tls for upstream in self.upstreams]
        for store in (self.blob_store, self.metadata_store):
            if store is not None and not isinstance(store, DirectoryConfig):
                shown.append(store.tls)
        for tls in shown:
            named += [tls.server_ca_bundle, tls.client_certificate_bundle, tls.client_private_key]
        return tuple(dict.fromkeys(path for path in named if path is not None))


def load_configuration(files: Sequence[Path], contents: Sequence[bytes] | None = None) -> Configuration:
    """Read, merge and check configuration files. Raises `BadConfiguration` with every problem there is.

    With `contents`, what the files held when somebody read them counts: so several processes load the same. Relative
    paths in a file start from the folder of that file. What is loaded can be built: certificates and keys that the
    configuration names have been read and fit, rules and regular expressions have been compiled.
    """
    if not files:
        return Configuration()
    from angos.runtime.config.building import build

    return build(read_files(files, contents))
