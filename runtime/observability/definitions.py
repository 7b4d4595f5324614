"""Every metric there is: its name, its labels, what it says. The reference page is checked against this table.

Values of labels come from closed sets (methods, routes, statuses, kinds of effects) or from the configuration (names of
webhooks, keys of rules), never from a request as it was sent: clients must not be able to make up series.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

REQUEST_BUCKETS: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0),
)
"""Seconds: a manifest takes one of the first, a layer of some gigabytes one of the last."""

OPERATION_BUCKETS: Final = (
    *(0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025),
    *(0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)
"""Seconds: from a small file in the page cache to a layer that arrives at the speed of its client."""

WEBHOOK_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds."""


@dataclass(frozen=True, slots=True)
class Definition:
    """One metric. Names without ``angos_`` are those that earlier dashboards know."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    """Upper bounds in seconds, of a histogram."""
    of_processes: Literal["sum", "least"] = "sum"
    """What is shown of the figures of several processes."""

    @property
    def cells(self) -> int:
        """How many numbers a series takes: of a histogram one for each bucket, one above all, and the sum."""
        return len(self.buckets) + 2 if self.kind == "histogram" else 1


_TABLE: Final = (
    Definition("http_requests_total", "counter", "Requests answered.", ("method", "route", "status")),
    Definition(
        "http_request_duration_seconds",
        "histogram",
        "From the head of a request to the last byte of its answer.",
        ("method", "route"),
        REQUEST_BUCKETS,
    ),
    Definition("http_requests_in_flight", "gauge", "Requests, not connections, that are being answered now."),
    Definition("http_request_bytes_total", "counter", "Bytes of request bodies that were received.", ("route",)),
    Definition("http_response_bytes_total", "counter", "Length of the bodies of answers.", ("route",)),
    Definition("auth_attempts_total", "counter", "Credentials tried.", ("method", "result")),
    Definition("angos_access_denied_total", "counter", "Actions that were not allowed.", ("action",)),
    Definition(
        "angos_policy_rule_failures_total",
        "counter",
        "Rules that gave an error, or something other than true or false.",
        ("rule",),
    ),
    Definition(
        "webhook_authorization_requests_total",
        "counter",
        "Decisions of authorization webhooks; cached_ ones were not asked for again.",
        ("webhook", "result"),
    ),
    Definition(
        "webhook_authorization_duration_seconds",
        "histogram",
        "How long authorization webhooks took to answer.",
        ("webhook",),
        WEBHOOK_BUCKETS,
    ),
    Definition(
        "angos_storage_operations_total",
        "counter",
        "What was asked of the stores, and how it ended.",
        ("operation", "outcome"),
    ),
    Definition(
        "angos_storage_operation_duration_seconds",
        "histogram",
        "How long the stores took; of stage_body, the time of the client is part.",
        ("operation",),
        OPERATION_BUCKETS,
    ),
    Definition(
        "angos_access_operations_total",
        "counter",
        "What was asked to check credentials and permissions, and how it ended.",
        ("operation", "outcome"),
    ),
    Definition(
        "angos_access_operation_duration_seconds",
        "histogram",
        "How long that took; what is remembered takes next to nothing.",
        ("operation",),
        OPERATION_BUCKETS,
    ),
    Definition(
        "angos_upstream_requests_total",
        "counter",
        "Questions to upstreams, each with its redirects and tokens, and how they ended.",
        ("upstream", "what", "outcome"),
    ),
    Definition(
        "angos_upstream_skips_total",
        "counter",
        "Times that an upstream was left alone for a while: it failed again and again, or said so.",
        ("upstream",),
    ),
    Definition(
        "angos_upstream_rate_limit",
        "gauge",
        "Requests that an upstream allows in its window, as it has told last.",
        ("upstream",),
        of_processes="least",
    ),
    Definition(
        "angos_upstream_rate_limit_remaining",
        "gauge",
        "How many of them are left, as it has told last.",
        ("upstream",),
        of_processes="least",
    ),
    Definition(
        "angos_cache_requests_total",
        "counter",
        "Manifests and blobs of upstreams that clients asked for, and where they came from.",
        ("repository", "kind", "outcome"),
    ),
    Definition(
        "angos_cache_fills_total",
        "counter",
        "Blobs that were fetched from upstreams: stored, or failed.",
        ("upstream", "outcome"),
    ),
    Definition(
        "angos_cache_fill_bytes_total",
        "counter",
        "Bytes of blobs that came from upstreams to be stored.",
        ("upstream",),
    ),
    Definition("angos_cache_fills_running", "gauge", "Blobs that are being fetched and stored now."),
    Definition(
        "angos_cache_bytes",
        "gauge",
        "Bytes that a cache with a limit holds: manifests, and what is stored of their blobs.",
        ("repository",),
    ),
    Definition("angos_cache_manifests", "gauge", "Manifests in a cache with a limit.", ("repository",)),
    Definition("angos_connections_open", "gauge", "Connections now, those in a TLS handshake too."),
    Definition("angos_connections_accepted_total", "counter", "Connections accepted."),
    Definition(
        "angos_connections_refused_total",
        "counter",
        "Connections over a limit: total is connections_max, client is max_connections_per_client.",
        ("limit",),
    ),
    Definition("angos_connections_evicted_total", "counter", "Idle connections that had to make room for others."),
    Definition("angos_tls_handshakes_total", "counter", "TLS handshakes: ok, or what they failed of.", ("result",)),
    Definition(
        "angos_heads_refused_total", "counter", "Requests that are no HTTP, or whose head was too long or too slow."
    ),
    Definition("angos_requests_working", "gauge", "Requests that count against max_concurrent_requests now."),
    Definition("angos_requests_waiting", "gauge", "Requests that wait now because of max_concurrent_requests."),
    Definition("angos_requests_queued_total", "counter", "Requests that had to wait for that reason."),
    Definition(
        "angos_requests_rejected_total",
        "counter",
        "Answered with 503 for max_concurrent_requests (concurrency), or with 429 for "
        "max_requests_per_second_per_client (rate).",
        ("limit",),
    ),
    Definition("angos_timeouts_total", "counter", "Connections and requests ended for taking too long.", ("wait",)),
    Definition(
        "angos_maintenance_runs_total",
        "counter",
        "Runs in this server of what is done now and then: done, or failed and to be tried again.",
        ("work", "outcome"),
    ),
    Definition("angos_maintained_total", "counter", "What those runs came to, by what they count.", ("work", "what")),
    Definition(
        "angos_configuration_reloads_total", "counter", "Attempts to load a changed configuration.", ("result",)
    ),
    Definition("angos_configuration_generation", "gauge", "How many configurations have been in force, this one too."),
    Definition(
        "angos_metrics_dropped_total", "counter", "Observations lost because there were too many different series."
    ),
)

DEFINITIONS: Final = {definition.name: definition for definition in _TABLE}
