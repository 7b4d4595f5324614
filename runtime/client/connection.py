"""One connection to a server that is asked: HTTP/1.1 (RFC 9112) on h11, over TCP or TLS."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable, Iterable
from itertools import zip_longest

import h11
from anyio import (
    BrokenResourceError,
    ClosedResourceError,
    EndOfStream,
    aclose_forcefully,
    connect_tcp,
    current_time,
    getaddrinfo,
    move_on_after,
)
from anyio.abc import ByteStream

from angos.runtime.client.url import Url

RECEIVE_BYTES = 256 << 10  # as much as asyncio reads at once
HEAD_BYTES_MAX = 64 << 10
ATTEMPT_SECONDS = 3.0  # for an address when there are others to try


class NoAnswer(Exception):
    """There is no usable answer. Says which server and why, and nothing of what was sent or received."""


class NotPermitted(NoAnswer):
    """It must not be connected to where this leads; nothing was sent there."""


Permit = Callable[[Url, str], None]
"""Raises `NotPermitted` when a URL leads to an IP address that must not be connected to."""


class Connection:
    """Carries one exchange after the other."""

    def __init__(self, stream: ByteStream, origin: str) -> None:
        self.origin = origin
        self.heard = False
        """Something of the answer to the last request has arrived."""
        self._stream = stream
        self._protocol = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_BYTES_MAX)
        self._ended = False

    @property
    def reusable(self) -> bool:
        """The exchange is complete, nothing came after it, and both sides agree that another one may follow."""
        protocol = self._protocol
        return protocol.our_state is h11.DONE and protocol.their_state is h11.DONE and not protocol.trailing_data[0]

    async def ask(
        self,
        target: str,
        fields: list[tuple[bytes, bytes]],
        method: str = "GET",
        body: Iterable[memoryview] = (),
    ) -> h11.Response:
        """The final response; its body is to be received. Fails with `NoAnswer`.

        `body`: pieces that are sent one after the other, without a copy. The fields say how long it is in all.
        """
        if self.reusable:
            self._protocol.start_next_cycle()
        self.heard = False
        try:
            request = h11.Request(method=method, target=target, headers=fields)
            head = self._protocol.send(request)
        except h11.LocalProtocolError:
            # Its text quotes the field, so it is not passed on.
            raise NoAnswer("the request has a header field that cannot be sent") from None
        assert head is not None, "a request has bytes"
        await self._send(head)
        for piece in body:
            some = h11.Data(data=piece)  # type: ignore[arg-type]  # whatever it is, it is passed on
            for data in self._protocol.send_with_data_passthrough(some) or ():
                await self._send(data)
        self._protocol.send(h11.EndOfMessage())
        while True:
            event = await self._next()
            if isinstance(event, h11.Response):
                return event
            if not isinstance(event, h11.InformationalResponse):
                raise NoAnswer(f"{self.origin} {self._what_went_wrong()}")

    async def receive(self) -> bytes:
        """The next bytes of the body, none at its end. Fails with `NoAnswer`."""
        while self._protocol.their_state not in (h11.DONE, h11.MUST_CLOSE, h11.CLOSED):
            event = await self._next()
            if isinstance(event, h11.Data) and event.data:
                return bytes(event.data)
        return b""

    async def close(self) -> None:
        """Does not wait for the server."""
        await aclose_forcefully(self._stream)

    async def _send(self, data: bytes) -> None:
        try:
            await self._stream.send(data)
        except (BrokenResourceError, ClosedResourceError, OSError) as error:
            raise NoAnswer(f"{self.origin} broke the connection off{_because(error)}") from None

    async def _next(self) -> h11.Event:
        while True:
            try:
                event = self._protocol.next_event()
            except h11.RemoteProtocolError:
                raise NoAnswer(f"{self.origin} {self._what_went_wrong()}") from None
            if isinstance(event, h11.Event):
                return event
            assert event is h11.NEED_DATA, "nothing is asked before the last answer is complete"
            self._protocol.receive_data(await self._receive())

    def _what_went_wrong(self) -> str:
        if not self._ended:
            return "did not answer in HTTP"
        return "closed the connection " + ("in the middle of its answer" if self.heard else "without an answer")

    async def _receive(self) -> bytes:
        try:
            data = await self._stream.receive(RECEIVE_BYTES)
        except EndOfStream:
            self._ended = True
            return b""
        except (BrokenResourceError, ClosedResourceError, OSError) as error:
            raise NoAnswer(f"{self.origin} broke the connection off{_because(error)}") from None
        self.heard = True
        return data


async def connect(url: Url, context: ssl.SSLContext, seconds: float, permit: Permit | None = None) -> Connection:
    """A new connection to the server of this URL; `context` counts if it is an https one. Fails with `NoAnswer`.

    `permit` is asked about every address that the host has, and only those that it lets pass are connected to.
    """
    stream: ByteStream | None = None
    with move_on_after(seconds):
        try:
            if permit is None:
                stream = await _connect_to(url.host, url, context)
            else:
                stream = await _connect_to_one_of(await _permitted(url, permit), url, context, current_time() + seconds)
        except (BrokenResourceError, EndOfStream, OSError) as error:
            raise NoAnswer(f"{url.origin} cannot be reached{_because(error)}") from None
    if stream is None:
        raise NoAnswer(f"{url.origin} cannot be reached: no connection within {seconds:g} s")
    return Connection(stream, url.origin)


async def _connect_to(host: str, url: Url, context: ssl.SSLContext) -> ByteStream:
    if url.scheme == "https":
        return await connect_tcp(host, url.port, ssl_context=context, tls_hostname=url.host)
    return await connect_tcp(host, url.port)


async def _permitted(url: Url, permit: Permit) -> list[str]:
    """The addresses of the host that may be connected to, at least one; those of both families in turn (RFC 8305)."""
    found = await getaddrinfo(url.host, url.port, type=socket.SOCK_STREAM)
    addresses, refusal = [], None
    for address in dict.fromkeys(str(each[4][0]) for each in found):
        try:
            permit(url, address)
        except NotPermitted as error:
            refusal = refusal or error
        else:
            addresses.append(address)
    if refusal is not None and not addresses:
        raise refusal
    first = [each for each in addresses if (":" in each) == (":" in addresses[0])]
    families = (first, [each for each in addresses if each not in first])
    return [each for pair in zip_longest(*families) for each in pair if each is not None]


async def _connect_to_one_of(
    addresses: list[str], url: Url, context: ssl.SSLContext, until: float
) -> ByteStream | None:
    """One after the other. The last one has all the time that is left, each before it a share, and not much of it."""
    problem: Exception | None = None
    for number, address in enumerate(addresses):
        left, others = until - current_time(), len(addresses) - number - 1
        with move_on_after(min(left / (others + 1), ATTEMPT_SECONDS) if others else left):
            try:
                return await _connect_to(address, url, context)
            except (BrokenResourceError, EndOfStream, OSError) as error:
                problem = error
    if problem is not None:
        raise problem
    return None


def _because(error: BaseException) -> str:
    """What the system says about it, after a colon."""
    while (cause := _cause(error)) is not None:
        error = cause
    match error:
        case ssl.SSLCertVerificationError():
            return f": its certificate is not accepted, {error.verify_message.rstrip('.')}"
        case ssl.SSLError(reason=str(reason)):
            return f": {reason.replace('_', ' ').lower()}"
        case socket.gaierror():
            return ": its name cannot be resolved"
        case OSError(errno=int(number)) if number > 0:
            return f": {os.strerror(number).lower()}"
        case _:
            return ""


def _cause(error: BaseException) -> BaseException | None:
    return error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error.__cause__
