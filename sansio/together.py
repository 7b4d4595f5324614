"""Fan-out: several operations side by side as one effect, so that the driver stays in charge of scheduling."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

from angos.sansio.effects import Together
from angos.sansio.operation import Operation

T = TypeVar("T")

TOGETHER_MAX = 16  # enough to hide the latency of a bucket, few enough not to be a load test of it


async def together(coroutines: Iterable[Coroutine[Any, Any, T]], *, limit: int = TOGETHER_MAX) -> tuple[T, ...]:
    """Run coroutines of the core side by side and give their results in order."""
    operations = tuple(Operation(coroutine) for coroutine in coroutines)
    if not operations:
        return ()
    return await Together(operations, limit)
