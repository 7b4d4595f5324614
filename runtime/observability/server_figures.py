"""What the server counts, as metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from angos.runtime.observability.metrics import Figure
from angos.runtime.server.counters import ServerCounters

METRIC_OF: Final = {
    "connections_open": "angos_connections_open",
    "connections_accepted": "angos_connections_accepted_total",
    "connections_refused": "angos_connections_refused_total",
    "connections_evicted": "angos_connections_evicted_total",
    "tls_handshakes": "angos_tls_handshakes_total",
    "tls_handshakes_failed": "angos_tls_handshakes_total",
    "heads_refused": "angos_heads_refused_total",
    "requests_in_flight": "http_requests_in_flight",
    "requests_working": "angos_requests_working",
    "requests_waiting": "angos_requests_waiting",
    "requests_queued": "angos_requests_queued_total",
    "requests_rejected": "angos_requests_rejected_total",
    "timeouts": "angos_timeouts_total",
}
"""By the name of the field in `ServerCounters`; what a field counts by kind becomes the label."""

_LABEL: Final = {"tls_handshakes": ("ok",)}


def server_figures(counters: ServerCounters) -> Callable[[], Iterator[Figure]]:
    """Where the counters stand whenever it is called, for `Metrics.follow`."""

    def read() -> Iterator[Figure]:
        for field, metric in METRIC_OF.items():
            value = getattr(counters, field)
            if isinstance(value, dict):
                for kind, count in value.items():
                    yield (metric, kind), count
            else:
                yield (metric, *_LABEL.get(field, ())), value

    return read
