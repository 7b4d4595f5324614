"""What the server asks of the application behind it, and what it offers in return."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

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


class Content(Protocol):
    """A stored value, opened for sending."""

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


class Application(Protocol):
    """What answers requests."""

    async def respond(self, request: Request, body: RequestBody) -> Response:
        """The answer. Whatever it raises becomes a 500 without details, and a traceback in the log."""
        ...

    def open_content(self, key: Key) -> Content | None:
        """Open the value that a response body refers to; None when it is absent. Called on the loop: be quick."""
        ...
