"""Short messages between the process that starts workers and a worker."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import Final

RECEIVE_SIZE: Final = 64 << 10
_HEAD: Final = Struct("!BII")


class Kind(IntEnum):
    """What a message says."""

    READY = 1
    """Worker: it accepts connections."""
    PREPARE = 2
    """Parent: make what is needed to serve with this content."""
    PREPARED = 3
    """Worker: it could serve with it from now on."""
    REFUSED = 4
    """Worker: it cannot serve with it; the content says why."""
    INSTALL = 5
    """Parent: serve with what was prepared."""
    INSTALLED = 6
    """Worker: every request that begins now is served with it."""
    FORGET = 7
    """Parent: what was prepared is not needed."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message."""

    kind: Kind
    round: int = 0
    """Which reload it belongs to: an answer may come after the reload was given up."""
    content: bytes = b""


class Mailbox:
    """One end of the line between two processes. Nothing here ever waits, so neither can hold up the other."""

    def __init__(self, line: socket.socket) -> None:
        line.setblocking(False)
        self._line = line
        self._unsent = bytearray()
        self._received = bytearray()
        self.ended = False
        """The process at the other end is gone."""

    def fileno(self) -> int:
        """To wait with."""
        return self._line.fileno()

    @property
    def has_unsent(self) -> bool:
        """Wait until the line can take more, then call `send_rest`."""
        return bool(self._unsent)

    def put(self, message: Message) -> None:
        """Send it as soon as possible. To a process that is gone, nothing is sent."""
        self._unsent += _HEAD.pack(message.kind, message.round, len(message.content))
        self._unsent += message.content
        self.send_rest()

    def send_rest(self) -> None:
        """Send what the line can take."""
        try:
            while self._unsent:
                del self._unsent[: self._line.send(self._unsent)]
        except BlockingIOError:
            return
        except ConnectionError:
            self._unsent.clear()

    def take(self) -> list[Message]:
        """The messages that have arrived."""
        try:
            while received := self._line.recv(RECEIVE_SIZE):
                self._received += received
            self.ended = True
        except BlockingIOError:
            pass
        except ConnectionError:
            self.ended = True
        messages = []
        while len(self._received) >= _HEAD.size:
            kind, number, size = _HEAD.unpack_from(self._received)
            end = _HEAD.size + size
            if len(self._received) < end:
                break
            messages.append(Message(Kind(kind), number, bytes(self._received[_HEAD.size : end])))
            del self._received[:end]
        return messages

    def close(self) -> None:
        """Hang up."""
        self._line.close()
