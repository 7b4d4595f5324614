"""One client behind TLS.

OpenSSL works on the socket itself: it decrypts into the buffer that it is given and encrypts from it, without copies in
between and without the interpreter lock. It must not be called twice at the same time for one connection. Receiving and
sending never are; what the loop may call in the middle (`TlsChannel.abort`, `TlsChannel.end_receiving`,
`TlsChannel.unsent`) works on the socket below.

OpenSSL may have to read before it can write and the other way round, so what a waiting call waits for is what OpenSSL
asked for. A write that had to wait is repeated with the same bytes, which is how all callers of `Channel` behave.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import socket
import ssl
import struct
import termios
import threading
from typing import Final, Literal

import anyio

from angos.runtime.server.channel import SEND_FILE_SIZE

SEND_SIZE: Final = 256 << 10  # of one write: OpenSSL makes 16 records of it before it returns
HANDSHAKE_RECORD: Final = b"\x16"  # what a client begins with (RFC 8446 section 5.1)

_LINGER_NOT: Final = struct.pack("ii", 1, 0)

Failure = Literal["certificate", "plain_http", "other"]


class HandshakeFailed(Exception):
    """There is no encrypted connection with this client."""

    def __init__(self, kind: Failure, reason: str) -> None:
        super().__init__(reason)
        self.kind: Failure = kind


class _FileBuffers(threading.local):
    def __init__(self) -> None:
        self.view = memoryview(bytearray(SEND_SIZE))


_file_buffers = _FileBuffers()


class TlsChannel:
    """A `Channel` that is encrypted once `shake_hands` has succeeded and until `end_sending`.

    Outside of that time nothing can be sent through it, and what it receives are the bytes of the socket, of use only
    to somebody who throws them away.
    """

    __slots__ = ("_encrypted", "_receiving_needs", "_sending_needs", "_socket", "peer")

    def __init__(self, connected: socket.socket, peer: str) -> None:
        connected.setblocking(False)
        with contextlib.suppress(OSError):  # the client may be gone already
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = connected
        self._encrypted: ssl.SSLSocket | None = None
        self._receiving_needs = select.POLLIN
        self._sending_needs = select.POLLOUT
        self.peer = peer

    async def wait_for_hello(self) -> None:
        """Until the client begins with a handshake. Raises what `shake_hands` does.

        OpenSSL takes 50 KB of memory for a handshake, which a client that never says anything does not deserve.
        """
        first = await self._peek()
        if first != HANDSHAKE_RECORD:
            if not first:
                raise ConnectionError("the client left without a word")
            if first.isalpha():
                raise HandshakeFailed("plain_http", "the client does not speak TLS")
            raise HandshakeFailed("other", "what the client speaks is not TLS")

    async def shake_hands(self, context: ssl.SSLContext) -> bytes | None:
        """Agree with the client on keys. Gives its certificate in DER form, verified; None when it has none.

        Raises `HandshakeFailed`, or `ConnectionError` when the client leaves. There is no timeout: `abort` ends it.
        """
        try:
            encrypted = context.wrap_socket(self._socket, server_side=True, do_handshake_on_connect=False)
            self._socket = encrypted
            while True:
                try:
                    encrypted.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    await anyio.wait_readable(encrypted)
                except ssl.SSLWantWriteError:
                    await anyio.wait_writable(encrypted)
            certificate = encrypted.getpeercert(binary_form=True)
        except ssl.SSLCertVerificationError as error:
            raise HandshakeFailed("certificate", f"its certificate is refused: {error.verify_message}") from None
        except (ssl.SSLEOFError, ssl.SSLSyscallError, ssl.SSLZeroReturnError):
            raise ConnectionError("the client left during the handshake") from None
        except ssl.SSLError as error:
            if error.reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
                raise HandshakeFailed("certificate", "it has no certificate") from None
            raise HandshakeFailed("other", (error.reason or "unknown error").lower().replace("_", " ")) from None
        except OSError as error:
            raise _as_connection_error(error) from error
        self._encrypted = encrypted
        return certificate

    async def _peek(self) -> bytes:
        while True:
            await anyio.wait_readable(self._socket)
            try:
                return self._socket.recv(1, socket.MSG_PEEK)
            except BlockingIOError:
                continue
            except OSError as error:
                raise _as_connection_error(error) from error

    def refuse_plain(self, answer: bytes) -> None:
        """Tell a client that never spoke TLS why it gets nothing else. Only before any handshake."""
        if isinstance(self._socket, ssl.SSLSocket):
            raise RuntimeError("TLS has begun: nothing may be sent in the clear")
        with contextlib.suppress(OSError):
            self._socket.send(answer)

    def receive_now(self, size: int) -> bytes | None:
        encrypted = self._encrypted
        try:
            if encrypted is None:
                return socket.socket.recv(self._socket, size)
            return encrypted.recv(size)
        except (ssl.SSLWantReadError, BlockingIOError):
            self._receiving_needs = select.POLLIN
            return None
        except ssl.SSLWantWriteError:
            self._receiving_needs = select.POLLOUT
            return None
        except OSError as error:
            raise _as_connection_error(error) from error

    def receive_into_now(self, buffer: memoryview) -> int | None:
        encrypted = self._encrypted
        try:
            if encrypted is None:
                return socket.socket.recv_into(self._socket, buffer)
            return encrypted.recv_into(buffer)
        except (ssl.SSLWantReadError, BlockingIOError):
            self._receiving_needs = select.POLLIN
            return None
        except ssl.SSLWantWriteError:
            self._receiving_needs = select.POLLOUT
            return None
        except OSError as error:
            raise _as_connection_error(error) from error

    def send_now(self, value: bytes | memoryview, more: bool = False) -> int | None:
        encrypted = self._encrypted
        if encrypted is None:
            raise ConnectionError("nothing can be sent here: the encrypted connection has ended")
        try:
            return encrypted.send(value if len(value) <= SEND_SIZE else memoryview(value)[:SEND_SIZE])
        except ssl.SSLWantWriteError:
            self._sending_needs = select.POLLOUT
            return None
        except ssl.SSLWantReadError:
            self._sending_needs = select.POLLIN
            return None
        except OSError as error:
            raise _as_connection_error(error) from error

    def send_file_now(self, descriptor: int, offset: int, count: int) -> int | None:
        # After a write that had to wait, this reads the same bytes again: stored content does not change.
        end = offset + min(count, SEND_FILE_SIZE)
        position = offset
        while position < end:
            view = _file_buffers.view[: min(SEND_SIZE, end - position)]
            length = os.preadv(descriptor, [view], position)
            sent = self.send_now(view[:length]) if length else 0
            if not sent:
                return position - offset if position > offset else sent
            position += sent
        return position - offset

    def poll_receivable(self, milliseconds: int) -> bool:
        return self._has_pending() or self._poll(self._receiving_needs, milliseconds)

    def poll_sendable(self, milliseconds: int) -> bool:
        return self._poll(self._sending_needs, milliseconds)

    def _poll(self, events: int, milliseconds: int) -> bool:
        poll = select.poll()
        poll.register(self._socket, events)
        return bool(poll.poll(milliseconds))

    def _has_pending(self) -> bool:
        """Bytes are decrypted already: the socket below knows nothing of them."""
        return self._encrypted is not None and self._encrypted.pending() > 0

    async def wait_receivable(self) -> None:
        if not self._has_pending():
            await self._wait(self._receiving_needs)

    async def wait_sendable(self) -> None:
        await self._wait(self._sending_needs)

    async def _wait(self, events: int) -> None:
        if events == select.POLLIN:
            await anyio.wait_readable(self._socket)
        else:
            await anyio.wait_writable(self._socket)

    def unsent(self) -> int:
        try:
            (count,) = struct.unpack("i", fcntl.ioctl(self._socket, termios.TIOCOUTQ, b"\0\0\0\0"))
        except OSError:
            return 0
        return int(count)

    def end_receiving(self) -> None:
        self._shut(socket.SHUT_RD)

    def end_sending(self) -> None:
        self._say_goodbye()
        self._shut(socket.SHUT_WR)

    def abort(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
        self._shut(socket.SHUT_RDWR)

    def close(self) -> None:
        self._say_goodbye()
        self._socket.close()

    def _say_goodbye(self) -> None:
        """So that the client can tell the end of the answer from a connection that somebody has cut."""
        encrypted, self._encrypted = self._encrypted, None
        if encrypted is not None:
            # It wants to hear the goodbye of the client, too, which is of no interest.
            with contextlib.suppress(OSError, ValueError):
                encrypted.unwrap()

    def _shut(self, how: int) -> None:
        # `SSLSocket.shutdown` would make a plain socket of it, under the hands of a thread that is writing.
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._socket, how)


def _as_connection_error(error: OSError) -> ConnectionError:
    if isinstance(error, ConnectionError):
        return error
    return ConnectionError(error.errno, error.strerror)
