"""Upstreams as the core sees them: no passwords, no certificates. Times in seconds, sizes in bytes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Upstream:
    """``[[repository."<namespace>".upstream]]``."""

    name: str
    """For people and effects: the repository and the host, unlike any other."""
    url: str
    """``scheme://host[:port]``, without a path: what API paths are appended to."""
    path: str = ""
    """The beginning of every name at the upstream, without ``/`` around it."""
    username: str | None = None
    """None: it is asked anonymously."""
    token_realms: tuple[str, ...] = ()
    """Origins, beside the upstream's own, that may be shown its password for a token."""
    short_names: str = ""
    """What precedes a name of a single component: ``library`` at Docker Hub."""


@dataclass(frozen=True, slots=True)
class CacheConfig:
    """``[repository."<namespace>".cache]``: how content of upstreams is kept."""

    fresh_seconds: float = 60.0
    """A tag is compared with the upstream's no more often."""
    stale_seconds: float = 7 * 86400.0
    """A tag is served without being compared for so long at most, when no upstream can be asked. 0: never."""
    missing_seconds: float = 30.0
    """What no upstream has is not asked for again for so long."""
    size_max: int | None = None
    """Bytes of all that the repository holds; beyond it, what was not pulled for longest goes. None: no limit."""
    kept_percent: int = 90
    """How much of `size_max` is left then."""


def name_at_upstream(namespace: str, repository: str, upstream: Upstream) -> str:
    """What the namespace is called at the upstream: what follows the repository, below the upstream's path.

    The repository itself is called as the path is, or as here when there is none."""
    rest = namespace.removeprefix(repository).removeprefix("/")
    if not rest:
        return upstream.path or namespace
    if upstream.path:
        return f"{upstream.path}/{rest}"
    return f"{upstream.short_names}/{rest}" if upstream.short_names and "/" not in rest else rest
