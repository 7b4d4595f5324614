"""What a registry does of its own accord, beside answering requests."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from angos.sansio import prune
from angos.sansio.access.expression_nodes import Constant
from angos.sansio.collection import collector, sweep
from angos.sansio.config import RegistryConfig
from angos.sansio.effects import EffectError
from angos.sansio.errors import RegistryError
from angos.sansio.operation import Operation
from angos.sansio.retention import RetentionConfig, RetentionRule

TAGS = RetentionRule(
    "image.tag != null", "rules[0]", Constant("bool", True), lambda variables: variables["image"]["tag"] is not None
)
KEEP_TAGS = RetentionConfig((TAGS,), min_age_seconds=0)
"""Tags stay, and manifests without one go, however young: what protects them is what this is to find out."""


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
    "prune": lambda config: prune.prune(KEEP_TAGS, registry=config, report=False),
    "sweep": lambda config: sweep.suspect_needless(config),
}
