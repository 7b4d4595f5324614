"""What the operator is told about upstreams: for the log and the metrics. Nothing in here is secret."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Outcome = Literal["ok", "absent", "denied", "limited", "unavailable", "unusable"]

CacheOutcome = Literal["hit", "fresh", "unchanged", "fetched", "followed", "passed on", "stale", "absent", "failed"]


@dataclass(frozen=True, slots=True)
class UpstreamAsked:
    """An upstream was asked for something. One for each upstream and question, not for each attempt."""

    upstream: str
    what: Literal["manifest", "manifest head", "blob", "blob head", "referrers", "tags"]
    namespace: str
    outcome: Outcome
    problem: str = ""
    """Why it is not ok, for a person."""


@dataclass(frozen=True, slots=True)
class UpstreamSkipped:
    """An upstream fails again and again, or wants to be left alone: nobody asks it for a while."""

    upstream: str
    what: str
    seconds: float
    problem: str


@dataclass(frozen=True, slots=True)
class RateLimitSeen:
    """What an upstream says about its limit (draft-polli-ratelimit-headers; Docker Hub, Usage and rate limits)."""

    upstream: str
    limit: int
    remaining: int
    window_seconds: int


@dataclass(frozen=True, slots=True)
class CacheAnswered:
    """A request for content of upstreams was answered, or could not be."""

    repository: str
    kind: Literal["manifest", "blob"]
    outcome: CacheOutcome


@dataclass(frozen=True, slots=True)
class FillEnded:
    """A blob was fetched and stored, or not."""

    upstream: str
    namespace: str
    digest: str
    size: int
    """Bytes that came."""
    problem: str = ""
    """Why it is not stored; empty when it is."""


@dataclass(frozen=True, slots=True)
class CacheMeasured:
    """How much a cache with a limit holds, after what was too much has gone."""

    repository: str
    size: int
    """Bytes."""
    manifests: int


UpstreamEvent = UpstreamAsked | UpstreamSkipped | RateLimitSeen | CacheAnswered | FillEnded | CacheMeasured
UPSTREAM_EVENTS = (UpstreamAsked, UpstreamSkipped, RateLimitSeen, CacheAnswered, FillEnded, CacheMeasured)
