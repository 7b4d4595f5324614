"""The registry as its users run it: a process started by its command line, on a free port, with a folder of its own."""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Self

from tests.conformance.http_client import Client

_READY = re.compile(r"listening on (https?://\S+)")
START_SECONDS_MAX = 30.0
STOP_SECONDS_MAX = 30.0


class RegistryProcess:
    """A running ``angos server``. Use `start`, then end it by `stop`, `terminate` or `kill`."""

    def __init__(self, process: subprocess.Popen[bytes], root: Path, log_path: Path) -> None:
        self._process = process
        self.root = root
        """The folder of the stored data."""
        self.log_path = log_path
        self._drain: threading.Thread | None = None
        self.said = ""
        """Its lines on standard output up to the one that says where it listens."""
        self.url = ""
        """``http://127.0.0.1:PORT``, or ``https``."""

    @classmethod
    def start(
        cls,
        root: Path,
        *,
        loop: str = "asyncio",
        workers: int = 1,
        port: int = 0,
        arguments: Sequence[str] = (),
        log_path: Path | None = None,
    ) -> Self:
        """Start a server and wait until it says that it listens. Its log lies beside `root` unless said otherwise."""
        root.mkdir(parents=True, exist_ok=True)
        log_path = log_path or root.parent / f"{root.name}.log"
        command = [sys.executable, "-m", "angos.runtime", "server", "--port", str(port), "--root", str(root)]
        command += ["--workers", str(workers), "--loop", loop, *arguments]
        with log_path.open("ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=log_path.parent,
                start_new_session=True,
            )
        registry = cls(process, root, log_path)
        try:
            registry.url = registry._wait_until_ready()
        except BaseException:
            registry.kill()
            raise
        return registry

    def client(self) -> Client:
        """A new client of this server."""
        return Client.of(self.url)

    @property
    def address(self) -> str:
        """``127.0.0.1:PORT``, as in the name of an image."""
        return self.url.partition("://")[2]

    @property
    def pid(self) -> int:
        """Of the process that was started."""
        return self._process.pid

    @property
    def log(self) -> str:
        """What the server wrote to stderr so far."""
        return self.log_path.read_text(errors="replace")

    def interrupt(self, number: int = signal.SIGTERM) -> None:
        """Send a signal to the process that was started, and do not wait."""
        self._process.send_signal(number)

    def wait(self) -> int:
        """Wait for the end; the exit status."""
        status = self._process.wait(STOP_SECONDS_MAX)
        if self._drain is not None:
            self._drain.join(STOP_SECONDS_MAX)
        return status

    def terminate(self) -> int:
        """SIGTERM, as every service manager does; the exit status."""
        self.interrupt()
        try:
            return self.wait()
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"still running {STOP_SECONDS_MAX} s after SIGTERM; log:\n{self.log}") from None

    def kill(self) -> None:
        """SIGKILL, to all workers at once: what a power cut or the out-of-memory killer does."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self.wait()

    def stop(self) -> None:
        """End the server and make sure that it was well all the time."""
        status = self.terminate()
        assert status == 0, f"exit status {status}; log:\n{self.log}"
        assert "Traceback" not in self.log, f"the server logged a traceback:\n{self.log}"

    def _wait_until_ready(self) -> str:
        stdout = self._process.stdout
        assert stdout is not None
        said = b""
        deadline = time.monotonic() + START_SECONDS_MAX
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            while (remaining := deadline - time.monotonic()) > 0 and selector.select(remaining):
                data = os.read(stdout.fileno(), 4096)
                said += data
                if (ready := _READY.search(said.decode(errors="replace"))) and said.endswith(b"\n"):
                    self._drain = threading.Thread(target=_drain, args=(stdout,), daemon=True)
                    self._drain.start()
                    self.said = said.decode(errors="replace")
                    return ready[1]
                if not data:
                    break
        raise AssertionError(f"the server did not start; it said {said!r}; log:\n{self.log}")


def _drain(stdout: IO[bytes]) -> None:
    # A pipe that nobody reads would one day block the server.
    with stdout:
        while stdout.read(65536):
            pass


def stored_files(root: Path) -> set[str]:
    """Every file below a folder, relative to it."""
    return {os.path.relpath(os.path.join(folder, name), root) for folder, _, names in os.walk(root) for name in names}
