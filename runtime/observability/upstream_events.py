"""What the core tells about upstreams: as log lines and as counts."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, assert_never

from angos.sansio.upstream.events import (
    CacheAnswered,
    CacheMeasured,
    FillEnded,
    RateLimitSeen,
    UpstreamAsked,
    UpstreamEvent,
    UpstreamSkipped,
)

if TYPE_CHECKING:
    from angos.runtime.observability.metrics import Metrics

_log = logging.getLogger("angos.upstream")


def tell_upstream_event(event: UpstreamEvent, metrics: Metrics | None) -> None:
    """Log it and count it."""
    if metrics is not None:
        _count(event, metrics)
    match event:
        case UpstreamAsked(upstream, what, namespace, outcome, problem):
            level = logging.WARNING if outcome not in ("ok", "absent") else logging.DEBUG
            _log.log(level, "%s: %s of %s: %s%s", upstream, what, namespace, outcome, f": {problem}" if problem else "")
        case UpstreamSkipped(upstream, what, seconds, problem):
            _log.warning("%s is not asked for a %s for %.0f s: %s", upstream, what, seconds, problem)
        case RateLimitSeen(upstream, limit, remaining, window_seconds):
            _log.debug("%s: %d of %d requests in %d s are left", upstream, remaining, limit, window_seconds)
        case CacheAnswered(repository, kind, outcome):
            _log.debug("%s: %s: %s", repository, kind, outcome)
        case FillEnded(upstream, namespace, digest, size, problem):
            if problem:
                _log.error("%s: blob %s of %s is not stored: %s", upstream, digest, namespace, problem)
            else:
                _log.info("%s: blob %s of %s is stored, %d bytes", upstream, digest, namespace, size)
        case CacheMeasured(repository, size, manifests):
            _log.debug("%s: %d manifests, %d bytes with their blobs", repository, manifests, size)
        case _:
            assert_never(event)


def _count(event: UpstreamEvent, metrics: Metrics) -> None:
    match event:
        case UpstreamAsked(upstream, what, _, outcome):
            metrics.count("angos_upstream_requests_total", upstream, what, outcome)
        case UpstreamSkipped(upstream):
            metrics.count("angos_upstream_skips_total", upstream)
        case RateLimitSeen(upstream, limit, remaining):
            metrics.set("angos_upstream_rate_limit", upstream, value=limit)
            metrics.set("angos_upstream_rate_limit_remaining", upstream, value=remaining)
        case CacheAnswered(repository, kind, outcome):
            metrics.count("angos_cache_requests_total", repository, kind, outcome)
        case FillEnded(upstream, _, _, size, problem):
            metrics.count("angos_cache_fills_total", upstream, "failed" if problem else "stored")
            metrics.count("angos_cache_fill_bytes_total", upstream, amount=size)
        case CacheMeasured(repository, size, manifests):
            metrics.set("angos_cache_bytes", repository, value=size)
            metrics.set("angos_cache_manifests", repository, value=manifests)
