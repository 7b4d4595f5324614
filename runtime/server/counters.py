"""What the server counts. Plain numbers: whoever publishes them reads them when asked.

Each worker process counts for itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from angos.sansio.http.message import Request, Response

OnAnswer = Callable[[Request, Response, float, int], None]
"""Called after each answer with the request, the answer, the seconds from the end of the request's head to the last
byte of the answer, and the bytes of the request's body that were received. An answer that the client did not take to
its end counts too. Heads that cannot be understood are no requests: see `ServerCounters.heads_refused`."""


def _of(*names: str) -> dict[str, int]:
    return dict.fromkeys(names, 0)


@dataclass(slots=True)
class ServerCounters:
    """Of one event loop. Those marked *now* go up and down, all others only up."""

    connections_open: int = 0
    """*Now*; TLS handshakes included."""
    connections_accepted: int = 0
    connections_refused: dict[str, int] = field(default_factory=lambda: _of("total", "client"))
    """By the limit: ``connections_max``, or ``max_connections_per_client``."""
    connections_evicted: int = 0
    """Idle ones, and TLS handshakes, that were cut to make room."""
    tls_handshakes: int = 0
    """Those that succeeded."""
    tls_handshakes_failed: dict[str, int] = field(
        default_factory=lambda: _of("certificate", "plain_http", "timeout", "other")
    )
    """``certificate``: the client has none although it must, or one that is not trusted. ``timeout``: also when it was
    cut to make room."""
    heads_refused: int = 0
    """Requests that are not HTTP, or whose head is too long or too slow."""
    requests_in_flight: int = 0
    """*Now*, from the end of the head to the last byte of the answer."""
    requests_working: int = 0
    """*Now*: those that count against ``max_concurrent_requests``."""
    requests_waiting: int = 0
    """*Now*: those that wait because of it."""
    requests_queued: int = 0
    """Those that ever had to wait."""
    requests_rejected: dict[str, int] = field(default_factory=lambda: _of("concurrency", "rate"))
    """Answered with 503 because of ``max_concurrent_requests``, with 429 because of
    ``max_requests_per_second_per_client``."""
    timeouts: dict[str, int] = field(
        default_factory=lambda: _of("idle", "head", "body", "sending", "closing", "handshake", "request")
    )
    """By what took too long; ``request`` is ``query_timeout``."""
