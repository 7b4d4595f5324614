"""What can be configured about metrics and logs: ``[observability.metrics]`` and ``[observability.log]``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

Level = Literal["debug", "info", "warning", "error"]
LEVELS: tuple[Level, ...] = get_args(Level)

LogFormat = Literal["text", "json"]


@dataclass(frozen=True, slots=True)
class MetricsOptions:
    """``[observability.metrics]``.

    Off by default: a registry that nobody scrapes should not pay for it, in memory least of all, and figures about
    traffic are not for everybody who can pull an image.
    """

    enabled: bool = False
    listen: str | None = None
    """``host:port`` of a listener for metrics alone, ``127.0.0.1:9090`` for instance. None: ``/metrics`` beside the
    registry, readable without credentials by everybody who reaches it."""


@dataclass(frozen=True, slots=True)
class LogOptions:
    """``[observability.log]``."""

    level: Level = "info"
    """The least urgent lines that are written."""
    format: LogFormat = "text"
    """For people, or one JSON object in each line."""
    modules: Mapping[str, Level] = field(default_factory=dict)
    """Other levels for parts of the registry, by the name of their logger: ``"angos.storage" = "debug"``."""


@dataclass(frozen=True, slots=True)
class ObservabilityOptions:
    """Both."""

    metrics: MetricsOptions = field(default_factory=MetricsOptions)
    log: LogOptions = field(default_factory=LogOptions)


def parse_listen(text: str) -> tuple[str, int]:
    """Host and port of ``127.0.0.1:9090``, ``[::1]:9090`` or ``:9090``, which means every address.

    Raises `ValueError` that says what is allowed.
    """
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        colon = ""
    if not colon or not (port.isascii() and port.isdigit() and int(port) <= 65535) or " " in host:
        raise ValueError('an address and a port, such as "127.0.0.1:9090" or "[::1]:9090"')
    return host, int(port)
