"""A stand-in served by processes of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from tests.conformance.server.wire import PATIENCE_SECONDS, Wire


class Processes:
    """A parent with its workers."""

    def __init__(self, loop: str, workers: int, folder: Path) -> None:
        command = [sys.executable, "-m", "tests.conformance.server.serving_stand_in", loop, str(workers), str(folder)]
        self._folder = folder
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self.parent = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        assert self.parent.stdout is not None
        split = urlsplit(self.parent.stdout.readline().strip())
        assert split.hostname is not None, self.log.read_text()
        assert split.port is not None
        self.address = (split.hostname, split.port)
        self._seen: set[int] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing outlives the test, whatever it did."""
        for process in (self.parent.pid, *self._seen):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self.parent.wait()
        assert self.parent.stdout is not None
        self.parent.stdout.close()

    def ask_process(self) -> int:
        """Which process answers a new connection."""
        with Wire(self.address) as wire:
            process = int(wire.get("/process").body)
        self._seen.add(process)
        return process

    def find_processes(self, count: int) -> set[int]:
        """The processes that answer new connections, once they are as many."""
        found: set[int] = set()
        for _ in tries():
            with contextlib.suppress(ConnectionError, EOFError):
                found.add(self.ask_process())
            if len(found) == count:
                return found
        raise AssertionError(f"only {found} answer")

    def reload(self, wanted: str) -> None:
        """Ask for this name, and wait until the parent has said what became of it."""
        (self._folder / "wanted").write_text(wanted)
        before = self.settled()
        self.parent.send_signal(signal.SIGHUP)
        for _ in tries():
            if self.settled() > before:
                return
        raise AssertionError(f"no decision:\n{self.log.read_text()}")

    def settled(self) -> int:
        """How many reloads have been decided."""
        log = self.log.read_text()
        return log.count("INFO:root:accepted") + log.count("ERROR:root:refused")

    def names(self) -> set[bytes]:
        """What many new connections are answered with."""
        names = set()
        for _ in range(40):
            with Wire(self.address) as wire:
                names.add(wire.get("/name").body)
        return names

    def end(self, number: signal.Signals) -> int:
        """Send a signal to the parent and give its exit code."""
        self.parent.send_signal(number)
        return self.parent.wait(timeout=PATIENCE_SECONDS)


def tries() -> Iterator[None]:
    ends = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < ends:
        yield
        time.sleep(0.02)


def is_gone(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    # An orphan that nobody has waited for yet is as good as gone.
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
