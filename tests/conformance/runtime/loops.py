"""Running async functions of a test on either loop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio

LOOPS = ("asyncio", "trio")
PATIENCE_SECONDS = 30

Run = Callable[[Callable[[], Awaitable[Any]]], Any]


def runner(loop: str) -> Run:
    """Runs one on this loop, but not for ever."""

    def run(main: Callable[[], Awaitable[Any]]) -> Any:
        async def bounded() -> Any:
            with anyio.fail_after(PATIENCE_SECONDS):
                return await main()

        return anyio.run(bounded, backend=loop)

    return run
