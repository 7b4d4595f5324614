"""What the server asks of the application behind it, and what it offers in return."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from angos.sansio.effects import Key
from angos.sansio.http.message import Request, Response

Sink = Callable[[Sequence[memoryview]], None]
"""Takes the next payload bytes, in order. The views are valid during the call only.

It runs in a worker thread, or on the loop when the whole body is small. An `OSError` that it raises ends the transfer
and comes out of `RequestBody.receive` unchanged.

A sink that is an object may also have a method ``lend() -> memoryview | None``: where the next bytes may be received
into, so that nothing has to be copied. Its next call then gets the beginning of that view, if the body allows it.

One that cannot take everything at once has ``is_full: bool`` and ``async make_room()``, which is awaited on the loop
between the calls, so that a thread never waits for room; a full sink still takes what has been received already.
"""


class RequestBody(Protocol):
    """The body of one request. It can be taken once, by `read` or by `receive`."""

    async def read(self, size_max: int) -> bytes:
        """The whole body. Raises `BodyTooLarge` or `BodyInterrupted` (`angos.sansio.effects`)."""
        ...

    async def receive(self, sink: Sink, size_max: int | None) -> bool:
        """Feed the body to `sink`. True when all of it arrived, False when the client stopped, stalled or sent
        something that cannot be decoded; what had arrived before was sunk. Raises `BodyTooLarge`."""
        ...

    def aside(self) -> AbstractContextManager[None]:
        """While this is entered the request waits in a queue of the application's own and takes no place in the
        server: `angos.runtime.server.admission`."""
        ...


class FileContent(Protocol):
    """A stored value that lies in a file, opened for sending."""

    @property
    def size(self) -> int:
        """In bytes."""
        ...

    @property
    def descriptor(self) -> int:
        """A file descriptor that `os.sendfile` can read."""
        ...

    def close(self) -> None:
        """Give the descriptor back."""
        ...


Consume = Callable[[bytes], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class FetchedContent:
    """A stored value that comes from another machine while it is sent."""

    fetch: Callable[[int, int, Consume], Awaitable[bool]]
    """Give so many bytes, at least one, from an offset on to the consumer, piece by piece. False, before anything is
    given, when the value is absent. Fails with the errors of `angos.sansio.effects.StatKey`."""


Content: TypeAlias = FileContent | FetchedContent
"""A stored value, as it can be sent."""


class Application(Protocol):
    """What answers requests."""

    async def respond(self, request: Request, body: RequestBody) -> Response:
        """The answer. Whatever it raises becomes a 500 without details, and a traceback in the log."""
        ...

    def open_content(self, key: Key) -> Content | None:
        """Open the value that a response body refers to; None when it is absent. Called on the loop: be quick."""
        ...
