"""``angos server -c FILE`` and nothing else on its command line, so that every value comes from the file."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from tests.conformance.registry_process import RegistryProcess
from tests.conformance.runtime.example_configuration import file_with, written
from tests.conformance.server.wire import PATIENCE_SECONDS, Wire

Document = Mapping[str, Any]
"""A configuration, as `tomllib` would give it."""

REGISTRY: Sequence[str] = ("-m", "angos.runtime")
ON_WATCHED_DISK: Sequence[str] = (str(Path(__file__).with_name("serving_on_watched_disk.py")),)
"""The same, and its log has a line like ``synced PATH`` or ``written PATH`` whenever it waited for the disk."""

Start = Callable[..., "ConfiguredRegistry"]
"""From a configuration, and perhaps the program, to a running server."""


class ConfiguredRegistry(RegistryProcess):
    """Listens on a free port and stores in ``data`` beside its file, unless its configuration says otherwise."""

    ended = False

    @classmethod
    def configured(cls, folder: Path, document: Document, program: Sequence[str] = REGISTRY) -> Self:
        """Start a server and wait until it says that it listens."""
        return cls.of_files(folder, [file_with(folder, written(_with_defaults(document)))], program)

    @classmethod
    def of_files(cls, folder: Path, files: Sequence[Path], program: Sequence[str] = REGISTRY) -> Self:
        """The same with configuration files that are there already, the last one winning."""
        log_path = folder / "log"
        with log_path.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, *program, "server", *(word for file in files for word in ("-c", str(file)))],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=folder,
                start_new_session=True,
            )
        registry = cls(process, folder / "data", log_path)
        try:
            registry.url = registry._wait_until_ready()
        except BaseException:
            registry.kill()
            raise
        return registry

    @property
    def at(self) -> tuple[str, int]:
        """Its address and its port."""
        host, _, port = self.address.rpartition(":")
        return host, int(port)

    def connect(self, **how: Any) -> Wire:
        """A new connection to it."""
        return Wire(self.at, **how)

    def status(self, target: str, *fields: str) -> int:
        """Of the answer to a GET on a connection of its own."""
        with self.connect() as wire:
            return wire.get(target, *fields).status

    @property
    def is_running(self) -> bool:
        """It has not ended."""
        return self._process.poll() is None

    @contextmanager
    def disk_held_up(self, done: str) -> Iterator[None]:
        """Whatever was ``synced`` or ``written`` does not come to an end; only `ON_WATCHED_DISK`."""
        hold = self.log_path.with_name(done)
        hold.touch()
        try:
            yield
        finally:
            hold.unlink()

    def stop(self) -> None:
        """Once or several times."""
        if not self.ended:
            self.ended = True
            super().stop()


def refusal(folder: Path, document: Document) -> str:
    """What a server says that does not start with this configuration."""
    file = file_with(folder, written(_with_defaults(document)), "refused.toml")
    command = [sys.executable, *REGISTRY, "server", "-c", str(file)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert found.returncode == 1, found
    return found.stderr


def is_silent(wire: Wire) -> bool:
    """Nothing has come so far."""
    wire.socket.setblocking(False)
    try:
        return not wire.receive(1)
    except BlockingIOError:
        return True
    finally:
        wire.socket.settimeout(PATIENCE_SECONDS)


def merged(document: Document, other: Document) -> dict[str, Any]:
    """Both; what is in both comes from `other`."""
    found = dict(document)
    for key, value in other.items():
        known = found.get(key)
        found[key] = merged(known, value) if isinstance(known, Mapping) and isinstance(value, Mapping) else value
    return found


def _with_defaults(document: Document) -> Document:
    stores: Document = {"blob_store": {"fs": {"root_dir": "data", "sync_to_disk": False}}}
    if "s3" in document.get("blob_store", {}):
        stores = {}
    return merged({"server": {"port": 0}, **stores}, document)
