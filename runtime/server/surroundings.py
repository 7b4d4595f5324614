"""What the connections of one event loop share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from anyio import CapacityLimiter

from angos.runtime.server.admission import RequestSlots
from angos.runtime.server.application import Application
from angos.runtime.server.clients import ClientConnections, ClientRates
from angos.runtime.server.counters import OnAnswer, ServerCounters
from angos.runtime.server.deadlines import Deadline, Wait
from angos.runtime.server.framing import HeadParser
from angos.runtime.server.limits import ServerOptions

if TYPE_CHECKING:
    from angos.runtime.server.tls import ServerTls


@dataclass(slots=True)
class Surroundings:
    """Of one event loop.

    A reload replaces all up to `on_answer` by assignment, except for the limiter. Each request goes by what it finds at
    its beginning, each connection by the `tls` that it finds. What `angos.runtime.server.limits.RESTART_ONLY` names
    does not change by that.
    """

    application: Application
    options: ServerOptions
    head_parser: HeadParser
    limiter: CapacityLimiter
    """Of the threads that move large bodies."""
    tls: ServerTls | None = None
    """Whether it is None is decided at the start: afterwards it may only be replaced by another one."""
    trusted_proxies: tuple[str, ...] = ()
    """Networks whose word about the address of a client counts; see `angos.sansio.access.peer`."""
    on_answer: OnAnswer | None = None
    counters: ServerCounters = field(default_factory=ServerCounters)
    clients: ClientConnections = field(default_factory=ClientConnections)
    rates: ClientRates = field(default_factory=ClientRates)
    slots: RequestSlots = field(init=False)
    deadlines: set[Deadline] = field(default_factory=set)
    """One for each open connection."""
    handshakes: dict[Deadline, None] = field(default_factory=dict)
    """Those of them that are in a TLS handshake, the oldest first."""
    draining: bool = False
    """No further requests are wanted: every answer closes its connection."""

    def __post_init__(self) -> None:
        self.slots = RequestSlots(self.counters)

    def end_idle(self) -> None:
        """End the connections that wait for a request. One that has arrived already is still found and answered."""
        for deadline in self.deadlines:
            if deadline.wait is Wait.REQUEST:
                deadline.channel.end_receiving()
