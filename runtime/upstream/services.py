"""What performs the effects of upstreams, and what of it outlives requests and reloads."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from anyio.abc import TaskGroup

from angos.runtime.driver import Performer, drive
from angos.runtime.performer import RequestPerformer, Services
from angos.runtime.upstream.board import Board
from angos.runtime.upstream.client import OpenedStream, Upstreams
from angos.runtime.upstream.fills import Fills
from angos.runtime.upstream.secrets import Secrets
from angos.runtime.upstream.settings import UpstreamEndpoint
from angos.sansio.effects import Effect, ReadCache, Tell, WriteCache
from angos.sansio.http.message import FromUpstream, Response
from angos.sansio.operation import Operation
from angos.sansio.upstream.effects import (
    AskForToken,
    AskUpstream,
    CloseUpstream,
    FillEnd,
    FollowFill,
    Opened,
    OpenUpstream,
    ReadSecret,
    ReleaseFill,
    StageFill,
    TakeFillPlace,
    WriteSecret,
)

if TYPE_CHECKING:
    from angos.runtime.access.services import Cache
    from angos.runtime.observability.events import EventSink


class UpstreamServices:
    """Of one process."""

    def __init__(
        self, tasks: Callable[[], TaskGroup | None], events: EventSink, cache: Cache, workers: int = 1
    ) -> None:
        """`tasks`: where fills run; None before the process serves, and when it ends. `workers`: processes that are
        forked later, this one being their parent then."""
        self._tasks = tasks
        self._fills = Fills(tasks, Board(workers) if workers > 1 and Board.works() else None)
        self._secrets = Secrets()
        self._events = events
        self._cache = cache
        self._upstreams: Upstreams | None = None

    def configured(self, endpoints: Iterable[UpstreamEndpoint]) -> UpstreamPerformers:
        """What asks these upstreams. Raises `ClientTlsUnusable`."""
        return UpstreamPerformers(Upstreams(endpoints), self._fills, self._secrets, self._events, self._cache)

    def follow(self, performers: UpstreamPerformers | None) -> None:
        """Another configuration is in force. To be called on the loop."""
        before, self._upstreams = self._upstreams, None if performers is None else performers.upstreams
        tasks = self._tasks()
        if before is not None and tasks is not None:
            tasks.start_soon(before.close)

    @property
    def fills_running(self) -> int:
        """How many there are now."""
        return self._fills.running

    async def close(self) -> None:
        """End the idle connections."""
        if self._upstreams is not None:
            await self._upstreams.close()


class UpstreamPerformers:
    """Of one configuration."""

    def __init__(self, upstreams: Upstreams, fills: Fills, secrets: Secrets, events: EventSink, cache: Cache) -> None:
        self.upstreams = upstreams
        self._fills = fills
        self._secrets = secrets
        self._events = events
        self._cache = cache

    def join(self, services: Services) -> None:
        """Let these services perform the effects of upstreams too."""
        table = services.table
        table.setdefault(ReadCache, self._cache.read_cache)
        table.setdefault(WriteCache, self._cache.write_cache)
        table.setdefault(Tell, self._events.tell)
        table |= {
            AskUpstream: self.upstreams.ask,
            AskForToken: self.upstreams.ask_for_token,
            OpenUpstream: self.upstreams.open,
            CloseUpstream: self.upstreams.close_stream,
            ReadSecret: self._secrets.read,
            WriteSecret: self._secrets.write,
            FollowFill: partial(self._follow, services),
            TakeFillPlace: self._fills.take_place,
            StageFill: partial(self._stage, services),
            ReleaseFill: self._fills.release,
        }
        services.waits_for_others |= {AskUpstream, AskForToken, OpenUpstream, FollowFill}

    def _follow(self, services: Services, effect: FollowFill) -> Coroutine[Any, Any, Any]:
        return self._fills.follow(effect, partial(_drive, services))

    def _stage(self, services: Services, effect: StageFill) -> Coroutine[Any, Any, Any]:
        return self._fills.stage(effect, services.blobs)


async def _drive(services: Services, operation: Operation[FillEnd]) -> FillEnd:
    """A fill."""
    keeping = StreamsKept(RequestPerformer(services, {}))
    try:
        return await drive(operation, keeping, services.in_thread)
    finally:
        await keeping.close_others()


class StreamsKept:
    """A performer that remembers which answers of upstreams were opened, so that none stays open."""

    __slots__ = ("_opened", "_performer")

    def __init__(self, performer: Performer) -> None:
        self._performer = performer
        self._opened: list[OpenedStream] = []

    def perform(self, effect: Effect[Any], /) -> Any:
        """See `Performer`."""
        reply = self._performer.perform(effect)
        return self._note(reply) if type(effect) is OpenUpstream else reply

    async def _note(self, reply: Awaitable[Opened]) -> Opened:
        opened = await reply
        stream: int | None = opened.stream
        if isinstance(stream, OpenedStream):
            self._opened.append(stream)
        return opened

    async def close_others(self, response: Response | None = None) -> None:
        """Close all but the one that the response passes on."""
        kept: int | None = None
        if response is not None and isinstance(response.body, FromUpstream):
            kept = response.body.stream
        for stream in self._opened:
            if stream is not kept:
                await stream.close()
