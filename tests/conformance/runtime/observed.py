"""A registry with metrics and all its log lines, in processes of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from email.message import Message
from http.client import HTTPConnection
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from prometheus_client.parser import text_string_to_metric_families

from tests.conformance.http_client import Client

PATIENCE_SECONDS = 30.0

Sample = tuple[str, frozenset[tuple[str, str]]]


class Scrape:
    """The samples of one scrape."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self.samples: dict[Sample, float] = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in self.families.values()
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float:
        """Of one series; 0 when nothing was counted."""
        return self.samples.get((name, frozenset(labels.items())), 0.0)

    def sum(self, name: str) -> float:
        """Over all series of a metric."""
        return sum(value for (known, _), value in self.samples.items() if known == name)

    def counters(self) -> dict[Sample, float]:
        """Everything that must never go down as long as all processes live on one machine."""
        return {
            sample: value
            for sample, value in self.samples.items()
            if sample[0].endswith(("_total", "_bucket", "_count", "_sum")) and not sample[0].startswith("process_")
        }


class Raw:
    """Sends what no client would, and waits for the end of whatever comes back."""

    def __init__(self, host: str, port: int) -> None:
        self._socket = socket.create_connection((host, port), timeout=PATIENCE_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, head: bytes) -> bytes:
        """Everything that was answered."""
        self._socket.sendall(head)
        self._socket.shutdown(socket.SHUT_WR)
        answered = b""
        with contextlib.suppress(ConnectionError):
            while received := self._socket.recv(65536):
                answered += received
        return answered

    def ask(self, method: str, target: str, fields: list[tuple[str, str]], body: bytes = b"") -> bytes:
        """A request of its own connection; what is not latin-1 cannot be sent."""
        lines = [f"{method} {target} HTTP/1.1", "Host: x", "Connection: close", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in fields]
        return self.send("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)


class Observed:
    """`tests.conformance.runtime.serving_observed`, running."""

    def __init__(self, folder: Path, *, loop: str = "asyncio", workers: int = 1, log_format: str = "text") -> None:
        command = [sys.executable, "-m", "tests.conformance.runtime.serving_observed"]
        command += [loop, str(workers), str(folder / "data"), log_format]
        self._log = folder / "log"
        with self._log.open("wb") as log:
            self.parent = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True
            )
        assert self.parent.stdout is not None
        urls = self.parent.stdout.readline().split()
        assert len(urls) == 2, self.log
        self.url, self.metrics_url = urls

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.parent.pid, signal.SIGKILL)
        self.parent.wait()
        assert self.parent.stdout is not None
        self.parent.stdout.close()

    def client(self) -> Client:
        """A new client of the registry."""
        return Client.of(self.url)

    def raw(self) -> Raw:
        """A new connection to the registry that takes anything."""
        split = urlsplit(self.url)
        assert split.hostname is not None
        assert split.port is not None
        return Raw(split.hostname, split.port)

    def scrape(self) -> Scrape:
        """What the listener for metrics says, by whichever process."""
        status, _, body = ask("GET", self.metrics_url)
        assert status == 200
        return Scrape(body.decode())

    def scrape_until(self, condition: Callable[[Scrape], bool]) -> Scrape:
        """A scrape of which this holds: an answer is counted after its last byte, which its client has by then."""
        for _ in tries():
            if condition(found := self.scrape()):
                return found
        raise AssertionError

    @property
    def log(self) -> str:
        """What was logged so far."""
        return self._log.read_text(errors="replace")

    def end(self) -> None:
        """SIGTERM, and a good end."""
        self.parent.send_signal(signal.SIGTERM)
        assert self.parent.wait(PATIENCE_SECONDS) == 0, self.log
        assert "Traceback" not in self.log, self.log


def ask(method: str, url: str) -> tuple[int, Message, bytes]:
    """Status, header fields and body of an answer. Metrics are for any client of HTTP, not for those of registries."""
    split = urlsplit(url)
    connection = HTTPConnection(split.netloc, timeout=PATIENCE_SECONDS)
    with contextlib.closing(connection):
        connection.request(method, url.removeprefix(f"http://{split.netloc}"))
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()


def tries() -> Iterator[None]:
    """Until it has taken too long."""
    ends = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < ends:
        yield
        time.sleep(0.02)
    raise AssertionError("it does not get there")
