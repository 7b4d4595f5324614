"""What a registry does of its own accord, beside answering requests."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from angos.sansio.collection import collector, sweep
from angos.sansio.config import RegistryConfig
from angos.sansio.effects import EffectError
from angos.sansio.errors import RegistryError
from angos.sansio.operation import Operation


def chore(name: str, config: RegistryConfig) -> Operation[None]:
    """One run of it. Failures of the world end it early, as they end it in production, and nothing more."""
    return Operation(_quietly(name, config))


async def _quietly(name: str, config: RegistryConfig) -> None:
    try:
        await CHORES[name](config)
    except (EffectError, RegistryError):
        return


# Looked up when they are needed, so that a test can break them.
CHORES: dict[str, Callable[[RegistryConfig], Coroutine[Any, Any, Any]]] = {
    "collect": lambda config: collector.collect(config),
    "clear up": lambda _: collector.let_writers_pass(),
    "sweep": lambda config: sweep.suspect_needless(config),
}
