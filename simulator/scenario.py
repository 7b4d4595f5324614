"""A scenario: everything about a run that is not a choice. Plain data, so that a trace can hold it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any, Literal

from angos.sansio.config import RegistryConfig
from angos.simulator.world.client import Act
from angos.simulator.world.people import ACCESS, REPOSITORIES

StoreKind = Literal["bucket", "disk", "s3"]
PULLS_MS = 8
"""The granularity of recorded pulls."""
STORES: tuple[StoreKind, ...] = ("bucket", "disk", "s3")


@dataclass(frozen=True, slots=True)
class Scenario:
    """What the world is like, what may go wrong, and what clients do."""

    clients: tuple[tuple[Act, ...], ...] = ()
    """For each client its acts, one after the other."""
    before: tuple[Act, ...] = ()
    """What one client did before, in peace."""
    store: StoreKind = "bucket"
    """On a disk and in S3 an effect is carried out by the plans of the real stores, step by step or request by request;
    the bucket applies it at once."""
    granularity: Literal["coarse", "fine"] = "coarse"
    """Fine: other tasks may come between two steps of a plan."""
    replicas: int = 1
    """Processes that share the store."""
    faults: tuple[str, ...] = ()
    faults_max: int = 0
    lossy_answers: bool = False
    """Clients may lose an answer although the registry sent it."""
    leases_granted: bool = False
    """Nobody is ever kept waiting for a lease: there is no mutual exclusion."""
    hash_states: bool = True
    """The driver can export the state of a digest."""
    tick_ms: int = 1
    """What passes each time that somebody looks at the clock."""
    offsets_ms: tuple[int, ...] = ()
    """How wrong the clock of each replica is."""
    allow_missing: bool = True
    """`RegistryConfig.allow_missing_manifest_references`."""
    immutable_tags: bool = False
    """`RegistryConfig.immutable_tags`."""
    records_pulls: bool = False
    """`RegistryConfig.update_pull_time`, with a granularity of some milliseconds."""
    redirects: bool = False
    """`RegistryConfig.redirect_blobs` and `redirect_manifests`."""
    quirks: tuple[str, ...] = ()
    """What S3 does that it should not: `angos.simulator.world.quirks`."""
    tried_out: bool = True
    """S3, without quirks, is known to do what the registry relies on. Otherwise each process finds it out before it
    writes."""
    aged: bool = False
    """Days pass between what was done before and what clients do: the collector may look at it all."""
    grace_seconds: float = 86_400.0
    """`RegistryConfig.collection_grace_seconds`."""
    access: Literal["open", "private"] = "open"
    """Private: with the people, policies and services of `angos.simulator.world.people`."""

    @property
    def registry_config(self) -> RegistryConfig:
        """What the operations are given."""
        return replace(
            _config(self.allow_missing, self.immutable_tags, self.redirects, self.access, self.records_pulls),
            collection_grace_seconds=self.grace_seconds,
        )

    def to_json(self) -> dict[str, Any]:
        """For a trace."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Scenario:
        """From a trace."""
        known = dict(value)
        known["clients"] = tuple(tuple(Act(**act) for act in acts) for acts in known.get("clients", ()))
        known["before"] = tuple(Act(**act) for act in known.get("before", ()))
        for name in ("faults", "offsets_ms", "quirks"):
            known[name] = tuple(known.get(name, ()))
        return cls(**known)


@cache
def _config(
    allow_missing: bool, immutable_tags: bool, redirects: bool, access: str, records_pulls: bool
) -> RegistryConfig:
    config = RegistryConfig(
        allow_missing_manifest_references=allow_missing,
        immutable_tags=immutable_tags,
        tag_history_seconds=3600.0,
        redirect_blobs=redirects,
        redirect_manifests=redirects,
        update_pull_time=records_pulls,
        pull_time_granularity_seconds=PULLS_MS / 1000,
    )
    return config if access == "open" else replace(config, access=ACCESS, repositories=REPOSITORIES)
