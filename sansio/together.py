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
    all_of_them = tuple(coroutines)
    if len(all_of_them) == 1:  # beside nothing
        return (await all_of_them[0],)
    if not all_of_them:
        return ()
    operations = tuple(map(Operation, all_of_them))
    try:
        return await Together(operations, limit)
    except GeneratorExit:
        for operation in operations:
            if not operation.has_begun:  # nor will it: a crash, and nobody is to be told of coroutines never awaited
                operation.abandon()
        raise
