"""One connected client. The rest of the server sees bytes through `Channel` and never a socket.

The ``_now`` calls never wait and are safe in a worker thread; they give None where the caller has to wait first. All
of them raise `ConnectionError` once the client is gone.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import socket
import struct
import termios
from typing import Protocol

import anyio
from anyio.lowlevel import checkpoint

RECEIVE_SIZE = 64 << 10  # of one read on the loop; larger bodies are read by threads into larger buffers
SEND_FILE_SIZE = 512 << 10  # of one sendfile: what lies ready must not be more than a cache of the reader's core holds

_MORE = getattr(socket, "MSG_MORE", 0)  # Linux; elsewhere the pieces travel in packets of their own
_LINGER_NOT = struct.pack("ii", 1, 0)


class Channel(Protocol):
    """Bytes to and from one client.

    One that can receive into several buffers at once has ``receive_scattered_now(views) -> int | None`` besides, like
    `receive_into_now`.
    """

    peer: str
    """Address of the client, for logs."""

    def receive_now(self, size: int) -> bytes | None:
        """At most `size` bytes that are there already; empty at the end of the stream."""
        ...

    def receive_into_now(self, buffer: memoryview) -> int | None:
        """Fill the beginning of `buffer` with what is there already; 0 at the end of the stream."""
        ...

    def send_now(self, value: bytes | memoryview, more: bool = False) -> int | None:
        """Hand over as much as fits. `more` tells that further bytes follow at once."""
        ...

    def send_file_now(self, descriptor: int, offset: int, count: int) -> int | None:
        """Hand over as much of a file as fits; 0 when the file has no byte at `offset`.

        An `OSError` that is no `ConnectionError` is about the file.
        """
        ...

    def poll_receivable(self, milliseconds: int) -> bool:
        """In a thread: wait a moment for bytes."""
        ...

    def poll_sendable(self, milliseconds: int) -> bool:
        """In a thread: wait a moment for room."""
        ...

    async def wait_receivable(self) -> None:
        """Until a receiving call has something to say."""
        ...

    async def wait_sendable(self) -> None:
        """Until a sending call has something to say."""
        ...

    def unsent(self) -> int:
        """Bytes handed over that the client has not taken yet. Shrinking means that the client is alive."""
        ...

    def end_receiving(self) -> None:
        """From now on receiving calls find the end of the stream after what is there. Wakes a waiting one."""
        ...

    def end_sending(self) -> None:
        """Tell the client that nothing follows."""
        ...

    def abort(self) -> None:
        """Cut the connection: nothing in flight is delivered any more. Wakes whoever waits."""
        ...

    def close(self) -> None:
        """Give the descriptor back. Nobody may be waiting."""
        ...


class PlainChannel:
    """A TCP connection without encryption."""

    __slots__ = ("_socket", "peer")

    def __init__(self, connected: socket.socket, peer: str) -> None:
        connected.setblocking(False)
        # Every answer is handed over whole, so there is nothing that Nagle's algorithm could join.
        with contextlib.suppress(OSError):  # the client may be gone already
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = connected
        self.peer = peer

    def receive_now(self, size: int) -> bytes | None:
        try:
            return self._socket.recv(size)
        except BlockingIOError:
            return None
        except OSError as error:
            raise _as_connection_error(error) from error

    def receive_into_now(self, buffer: memoryview) -> int | None:
        try:
            return self._socket.recv_into(buffer)
        except BlockingIOError:
            return None
        except OSError as error:
            raise _as_connection_error(error) from error

    def receive_scattered_now(self, views: list[memoryview]) -> int | None:
        """Fill `views`, one after the other, with what is there already; 0 at the end of the stream."""
        try:
            return self._socket.recvmsg_into(views)[0]
        except BlockingIOError:
            return None
        except OSError as error:
            raise _as_connection_error(error) from error

    def send_now(self, value: bytes | memoryview, more: bool = False) -> int | None:
        try:
            return self._socket.send(value, _MORE if more else 0)
        except BlockingIOError:
            return None
        except OSError as error:
            raise _as_connection_error(error) from error

    def send_file_now(self, descriptor: int, offset: int, count: int) -> int | None:
        try:
            return os.sendfile(self._socket.fileno(), descriptor, offset, min(count, SEND_FILE_SIZE))
        except BlockingIOError:
            return None
        except TimeoutError as error:
            raise _as_connection_error(error) from error

    def poll_receivable(self, milliseconds: int) -> bool:
        return self._poll(select.POLLIN, milliseconds)

    def poll_sendable(self, milliseconds: int) -> bool:
        return self._poll(select.POLLOUT, milliseconds)

    def _poll(self, events: int, milliseconds: int) -> bool:
        poll = select.poll()
        poll.register(self._socket, events)
        return bool(poll.poll(milliseconds))

    async def wait_receivable(self) -> None:
        await anyio.wait_readable(self._socket)

    async def wait_sendable(self) -> None:
        await anyio.wait_writable(self._socket)

    def unsent(self) -> int:
        try:
            (count,) = struct.unpack("i", fcntl.ioctl(self._socket, termios.TIOCOUTQ, b"\0\0\0\0"))
        except OSError:
            return 0
        return int(count)

    def end_receiving(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RD)

    def end_sending(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def abort(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._socket.close()


async def receive(channel: Channel, size: int = RECEIVE_SIZE) -> bytes:
    """Wait for bytes and take them; empty at the end of the stream."""
    while True:
        received = channel.receive_now(size)
        if received is not None:
            return received
        await channel.wait_receivable()


async def send(channel: Channel, value: bytes) -> None:
    """Hand over all of a short message."""
    left = memoryview(value)
    while True:
        sent = channel.send_now(left)
        if sent is None:
            await channel.wait_sendable()
        elif sent == len(left):
            return
        else:
            left = left[sent:]
            await checkpoint()


def _as_connection_error(error: OSError) -> ConnectionError:
    if isinstance(error, ConnectionError):
        return error
    return ConnectionError(error.errno, error.strerror)
