"""A server of somebody else's as a process for tests to ill-treat."""

from __future__ import annotations

import contextlib
import random
import signal
import socket
import subprocess
from abc import ABC, abstractmethod
from typing import Self


class LocalProcess(ABC):
    """On the same port of the loopback address each time it starts."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @abstractmethod
    def start(self) -> None:
        """Ready on return."""

    def kill(self) -> None:
        """At once, without a word to anybody."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Connections stay, and whatever is sent is taken and not answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Go on with everything that has been sent meanwhile."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


def free_port() -> int:
    """Not one of those that the system gives to whoever takes any: it has to be free again after a restart, too."""
    while True:
        port = random.randrange(10_000, 32_000)
        with socket.socket() as attempt, contextlib.suppress(OSError):
            attempt.bind(("127.0.0.1", port))
            return port
