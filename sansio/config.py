"""The configuration as the core sees it: frozen, valid by construction, passed to operations."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from angos.sansio.access.config import AccessConfig
    from angos.sansio.access.policy import Policy
    from angos.sansio.oci.reference import Namespace, Tag
    from angos.sansio.upstream.config import CacheConfig, Upstream


@lru_cache(maxsize=256)
def backtracking_search(pattern: str) -> Callable[[str], bool]:
    """Whether a text has a match of the pattern somewhere. For patterns that are known to be harmless."""
    search = re.compile(pattern).search
    return lambda text: search(text) is not None


@dataclass(frozen=True, slots=True)
class RepositoryConfig:
    """``[repository."<namespace>"]``: what holds for a namespace and everything below it."""

    namespace: str
    policy: Policy | None = None
    """Must allow what the global policy has allowed already; None: nothing further is asked."""
    webhook: str | None = None
    """Asked instead of the global one. None: the global one is asked; empty: none is."""
    immutable_tags: bool = False
    immutable_tags_exclusions: tuple[str, ...] = ()
    """Regular expressions, found anywhere in a tag. When there are any, the global ones do not count here."""
    upstreams: tuple[Upstream, ...] = ()
    """Where content comes from that is not here, in the order in which they are asked. Clients cannot push then."""
    cache: CacheConfig | None = None
    """How content of upstreams is kept. None without upstreams."""
    mirror_of: str | None = None
    """The host that this is a mirror of, in lower case: requests with ``?ns=<host>`` are meant for this repository."""
    records_pulls: bool = False
    """It is recorded when manifests and, with upstreams, blobs are pulled, whatever `update_pull_time` says."""


@dataclass(frozen=True, slots=True)
class RegistryConfig:
    """Sizes in bytes, times in seconds."""

    manifest_size_max: int = 5 << 20  # the specification asks for at least 4 MB; clients cap at 4 to 4.4 MB
    blob_size_max: int = 100 << 30
    allow_missing_manifest_references: bool = True
    page_size_default: int = 1000
    page_size_max: int = 10_000
    ranges_max: int = 256  # of one request; zstd:chunked pulls ask for up to some hundreds
    upload_lease_seconds: float = 60.0
    upload_wait_seconds: float = 5.0
    """How long a request waits for another one that is appending to the same upload."""
    immutable_tags: bool = False
    """Once set, a tag keeps its manifest until it is deleted; in every namespace."""
    immutable_tags_exclusions: tuple[str, ...] = ()
    search: Callable[[str], Callable[[str], bool]] = field(default=backtracking_search, compare=False, repr=False)
    """What compiles these patterns. Clients choose tags, so a server gives an engine whose time is linear."""
    repositories: tuple[RepositoryConfig, ...] = ()
    """None lies inside another one."""
    redirect_blobs: bool = False
    """Clients that GET a blob are sent to the store for it, where the store can sign a URL."""
    redirect_manifests: bool = False
    tag_history_seconds: float = 0.0
    """How long a tag can be set back to a manifest that was deleted."""
    fills_max: int = 4
    """Blobs that are fetched from upstreams and stored at the same time, in each process."""
    access: AccessConfig | None = None
    """None: anybody may do anything."""
    collection_grace_seconds: float = 86_400.0
    """How long the collector leaves alone what somebody was about to need, or stopped needing. A push takes less than
    a quarter of it, or is repeated. The same in all processes that share a store."""
    upload_expiry_seconds: float = 86_400.0
    """How long an upload may stand still before the collector takes it."""
    update_pull_time: bool = False
    """It is recorded when tags and manifests are pulled."""
    pull_time_granularity_seconds: float = 3600.0
    """A pull is recorded as of the last full multiple of this: once in so long for each thing that is pulled."""

    def repository(self, namespace: Namespace) -> RepositoryConfig | None:
        """The declared repository that this namespace belongs to."""
        text = str(namespace)
        for repository in self.repositories:
            if text == repository.namespace or text.startswith(f"{repository.namespace}/"):
                return repository
        return None

    def records_pulls(self, namespace: Namespace) -> bool:
        """Whether pulls of tags and manifests of this namespace are recorded."""
        if self.update_pull_time:
            return True
        repository = self.repository(namespace) if self.repositories else None
        return repository is not None and repository.records_pulls

    def keeps_pulls_of_blobs(self, namespace: Namespace) -> bool:
        """Whether pulls of blobs of this namespace are recorded, too."""
        repository = self.repository(namespace)
        return repository is not None and repository.records_pulls

    @property
    def records_any_pulls(self) -> bool:
        """Whether pulls are recorded anywhere."""
        return self.update_pull_time or any(repository.records_pulls for repository in self.repositories)

    @property
    def has_upstreams(self) -> bool:
        """Whether any repository is a cache of another registry."""
        return any(repository.upstreams for repository in self.repositories)

    def history_seconds(self, namespace: Namespace) -> float:
        """How long a tag of this namespace can be set back: not at all where content comes from an upstream, which is
        the one to say what a tag names."""
        repository = self.repository(namespace) if self.repositories else None
        return self.tag_history_seconds if repository is None or not repository.upstreams else 0.0

    def mirror_of(self, host: str) -> RepositoryConfig | None:
        """The repository that is a mirror of this host."""
        host = host.lower()
        return next((repository for repository in self.repositories if repository.mirror_of == host), None)

    def is_immutable(self, namespace: Namespace, tag: Tag) -> bool:
        """Whether this tag keeps its manifest until it is deleted. A repository cannot opt out, but exclude tags."""
        repository = self.repository(namespace)
        if not (self.immutable_tags or (repository is not None and repository.immutable_tags)):
            return False
        exclusions = self.immutable_tags_exclusions
        if repository is not None and repository.immutable_tags_exclusions:
            exclusions = repository.immutable_tags_exclusions
        return not any(self.search(exclusion)(tag.name) for exclusion in exclusions)
