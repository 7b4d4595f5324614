"""Every size, number and time that bounds what a client can make the server do."""

from __future__ import annotations

import resource
from dataclasses import dataclass
from typing import Literal

KIB = 1 << 10
MIB = 1 << 20

DESCRIPTORS_RESERVED = 256  # for files, pipes, the loop itself
DESCRIPTORS_WANTED_MAX = 1 << 20  # some systems have a hard limit of a billion; tables grow with it


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """How to listen, and the limits of one worker process. Sizes in bytes, times in seconds."""

    host: str = "127.0.0.1"
    """A name or an IPv4 or IPv6 address; empty listens on every address."""
    port: int = 8000
    """0 takes any free port."""
    workers: int = 1
    backlog: int = 1024
    head_parser: Literal["h11", "httptools"] = "h11"
    """``httptools`` must be installed to be chosen. Both accept and refuse the same heads."""
    access_log: bool = False
    """One line to the logger ``angos.access`` for each request."""

    head_size_max: int = 32 * KIB
    """Request line and header fields together; a longer head is answered with 431."""
    request_line_size_max: int = 16 * KIB
    """A longer request line is answered with 414."""
    fields_max: int = 256
    """Header fields of one request; more are answered with 431."""
    head_timeout: float = 10.0
    """From the first byte of a head to its last."""
    idle_timeout: float = 120.0
    """Between requests. Above the 90 seconds after which Go's client drops a connection by itself, so that it is the
    client who ends it and no request meets a closing connection."""
    body_stall_timeout: float = 60.0
    """Without any byte of a body that the application waits for."""
    send_stall_timeout: float = 60.0
    """Without any byte taken by a client that an answer is sent to."""
    drain_seconds: float = 30.0
    """How long requests in flight may go on after the server was told to stop."""
    query_timeout: float = 3600.0
    """For one request in all, from the end of its head. A request that is still worked on then is given up and answered
    with 503; an answer that is being sent may go on for the grace period."""
    query_timeout_grace_period: float = 60.0
    """After that, for clean-up and the end of the answer. Then the connection is cut."""
    unread_size_max: int = 1 * MIB
    """What is left of a body that the application did not take is skipped up to this size, to keep the connection."""
    linger_seconds: float = 5.0
    """How long a client that still sends is listened to after the last answer, so that it gets to see that answer."""
    linger_size_max: int = 64 * MIB
    """How much such a client may send in that time."""
    sweep_seconds: float = 1.0
    """How often overdue connections are looked for, so how late a timeout may strike."""
    connections_max: int | None = None
    """For each worker. None: three quarters of the open files that the system allows."""
    transfer_threads: int = 16
    """Threads that move large bodies, for each worker. A transfer holds one only while bytes flow."""
    max_concurrent_requests: int = 64
    """Requests that one worker works on at the same time; see `angos.runtime.server.admission`. Further ones wait in
    turn."""
    queue_timeout: float = 1.0
    """How long such a request waits before it is answered with 503."""
    max_connections_per_client: int | None = None
    """For each worker and client address; further ones are refused with 429. The addresses of trusted proxies are
    exempt, since a proxy speaks for many. None: no limit."""
    max_requests_per_second_per_client: int | None = None
    """For each worker and client address, in the long run; further ones are answered with 429. Behind a trusted proxy
    it is the address that the proxy names. None: no limit."""
    max_request_burst_per_client: int = 100
    """How many requests a client that was quiet for a while may send at once."""


RESTART_ONLY = frozenset({"host", "port", "workers", "backlog", "transfer_threads"})
"""The options that a running server does not change; all others count from the moment that they are replaced. Turning
TLS on or off needs a restart, too."""


def raise_descriptor_limit() -> int:
    """Lift the soft limit on open files to the hard one as far as the system lets us. The limit that now holds."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS_WANTED_MAX if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS_WANTED_MAX)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (ValueError, OSError):
            return soft
        return wanted
    return wanted if soft == resource.RLIM_INFINITY else soft


def connections_allowed(options: ServerOptions, descriptors: int) -> int:
    """How many connections one worker may hold when it may have this many descriptors open."""
    if options.connections_max is not None:
        return options.connections_max
    return max(16, (descriptors - DESCRIPTORS_RESERVED) * 3 // 4)
