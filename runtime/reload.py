"""Reloads of the configuration: what is read again, what of it takes effect, and what the log says."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from struct import Struct
from typing import Any, Final

from angos.runtime.app import Foundation
from angos.runtime.config.file import BadConfiguration, Problem
from angos.runtime.config.schema import Configuration, DirectoryConfig, RedisConfig, load_configuration
from angos.runtime.config.watch import Sighting, Watch
from angos.runtime.observability.settings import MetricsOptions
from angos.runtime.server.limits import RESTART_ONLY
from angos.runtime.server.serving import NotServable, Serving

RETRY_LOOKS: Final = 10  # a configuration that was refused is tried again after as many looks

_KEYS: Final = {"host": "bind_address"}
_SIZE: Final = Struct("!Q")

_log = logging.getLogger("angos.reload")


class ConfigurationReloader:
    """Notices that the configuration files, or files that they name, have changed; see `Reloader`."""

    def __init__(
        self,
        files: Sequence[Path],
        contents: Sequence[bytes],
        configuration: Configuration,
        foundation: Foundation,
        override: Callable[[Configuration], Configuration],
    ) -> None:
        """`contents` are the bytes of `files` that `configuration` was loaded from, by `override` too: it lets the
        command line win over files. Raises what `Foundation.build` raises."""
        self._files = tuple(files)
        self._started = configuration
        self._foundation = foundation
        self._override = override
        self._watch = Watch(files, contents)
        self._watch.follow(configuration.named_files())
        self.serving = foundation.build(configuration)
        """What was accepted last: what a worker that starts now begins with."""
        self._generation = 1
        self._prepared: tuple[Serving, tuple[str, ...]] | None = None
        self._candidate: bytes | None = None
        self._refused: tuple[str, ...] = ()
        self._looks_since_refusal = 0
        self._changed: tuple[Path, ...] = ()
        self._asked = False

    def look(self, *, at_once: bool) -> bytes | None:
        """See `Reloader.look`."""
        sighting = self._watch.look(at_once=at_once)
        if sighting is not None:
            self._asked, self._changed = at_once, sighting.changed
            self._candidate = None
            self._candidate = _packed(self._readable(sighting))
            return self._candidate
        if self._refused:
            # What was wrong may lie in a file that nobody watches, because its configuration was never accepted.
            self._looks_since_refusal += 1
            if self._looks_since_refusal >= RETRY_LOOKS:
                self._asked, self._changed = False, ()
                return self._candidate
        return None

    def prepare(self, candidate: bytes) -> Serving:
        """See `Reloader.prepare`."""
        try:
            loaded = self._override(load_configuration(self._files, _unpacked(candidate)))
        except BadConfiguration as error:
            raise NotServable("\n".join(map(str, error.problems))) from None
        self._watch.follow(loaded.named_files())
        configuration, kept = keep_until_restart(self._started, loaded)
        serving = self._foundation.build(configuration)
        self._prepared = serving, (*loaded.warnings, *kept)
        return serving

    def accept(self) -> None:
        """See `Reloader.accept`."""
        assert self._prepared is not None
        (serving, warnings), self._prepared = self._prepared, None
        self.serving = serving if serving.tls is not None else replace(serving, tls=self.serving.tls)
        self._generation += 1
        self._refused = ()
        _log.info("configuration reloaded (generation %d)%s", self._generation, _because(self._changed))
        self._foundation.observation.count_reload("applied", self._generation)
        for warning in warnings:
            _log.warning("%s", warning)

    def refuse(self, reasons: Sequence[str]) -> None:
        """See `Reloader.refuse`. What is tried again by itself is told only if the reasons are others."""
        self._prepared = None
        self._looks_since_refusal = 0
        lines = tuple(line for reason in reasons for line in reason.splitlines())
        if self._asked or self._changed or lines != self._refused:
            _log.error(
                "configuration not reloaded%s, the one before (generation %d) stays in use:%s",
                _because(self._changed),
                self._generation,
                "".join(f"\n  {line}" for line in lines),
            )
            self._foundation.observation.count_reload("rejected", self._generation)
        self._refused = lines

    def _readable(self, sighting: Sighting) -> list[bytes]:
        problems, contents = [], []
        for file, content in zip(self._files, sighting.contents, strict=True):
            if isinstance(content, bytes):
                contents.append(content)
            else:
                problems.append(str(Problem(str(file), "", str(content))))
        if problems:
            raise NotServable("\n".join(problems))
        return contents


def keep_until_restart(started: Configuration, found: Configuration) -> tuple[Configuration, tuple[str, ...]]:
    """What of `found` can be used without a restart, and a line for each key that cannot."""
    lines = []

    def compare(key: str, running: object, wanted: object) -> None:
        if running != wanted:
            lines.append(f"{key}: still {_shown(running)}, since a change to {_shown(wanted)} needs a restart")

    for name in sorted(RESTART_ONLY):
        compare(f"server.{_KEYS.get(name, name)}", getattr(started.server, name), getattr(found.server, name))
    stores: dict[str, Any] = {}
    for name in ("blob_store", "metadata_store"):
        running, wanted = getattr(started, name), getattr(found, name)
        stores[name] = running
        if running is None or type(running) is not type(wanted):
            compare(name, running, wanted)
        elif isinstance(running, DirectoryConfig):
            for part in fields(DirectoryConfig):
                compare(f"{name}.fs.{part.name}", getattr(running, part.name), getattr(wanted, part.name))
        else:
            for key in ("endpoint", "bucket", "region", "key_prefix"):
                compare(f"{name}.s3.{key}", getattr(running, key), getattr(wanted, key))
            compare(f"{name}.s3.server_ca_bundle", running.tls.server_ca_bundle, wanted.tls.server_ca_bundle)
            place = {key: getattr(running, key) for key in ("endpoint", "bucket", "region", "key_prefix", "tls")}
            stores[name] = replace(wanted, **place)
    for name in ("cache", "leases"):
        running, wanted = getattr(started, name), getattr(found, name)
        if isinstance(running, RedisConfig) and isinstance(wanted, RedisConfig):
            compare(f"{name}.redis.url", running.address, wanted.address)
            compare(f"{name}.redis.key_prefix", running.key_prefix, wanted.key_prefix)
        else:
            compare(f"{name}.redis", running, wanted)
    for part in fields(MetricsOptions):
        running, wanted = (getattr(each.observability.metrics, part.name) for each in (started, found))
        compare(f"observability.metrics.{part.name}", running, wanted)
    if (started.tls is None) != (found.tls is None):
        state = ("off", "on") if started.tls is None else ("on", "off")
        lines.append(f"server.tls: still {state[0]}, since turning TLS {state[1]} needs a restart")
        found = replace(found, tls=None)
    kept = {name: getattr(started.server, name) for name in RESTART_ONLY}
    configuration = replace(
        found,
        server=replace(found.server, **kept),
        **stores,
        cache=started.cache,
        leases=started.leases,
        observability=replace(found.observability, metrics=started.observability.metrics),
    )
    return configuration, tuple(lines)


def _shown(value: object) -> str:
    if value is None:
        return "none"
    if (place := getattr(value, "place", None)) is not None:
        return str(place)
    if isinstance(value, RedisConfig):
        return str(value.address)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _because(changed: Sequence[Path]) -> str:
    return f" after a change of {', '.join(map(str, changed))}" if changed else ""


def _packed(contents: Iterable[bytes]) -> bytes:
    return b"".join(_SIZE.pack(len(content)) + content for content in contents)


def _unpacked(candidate: bytes) -> list[bytes]:
    contents, start = [], 0
    while start < len(candidate):
        begin = start + _SIZE.size
        start = begin + _SIZE.unpack_from(candidate, start)[0]
        contents.append(candidate[begin:start])
    return contents
