"""`ReadClock` and `Sleep`."""

from __future__ import annotations

import time
from collections.abc import Coroutine
from typing import Any

import anyio

from angos.sansio.effects import ReadClock, Sleep


class SystemClock:
    """The clock of this machine."""

    def read(self, effect: ReadClock) -> int:
        """`ReadClock`."""
        return time.time_ns() // 1_000_000

    def sleep(self, effect: Sleep) -> Coroutine[Any, Any, None]:
        """`Sleep`."""
        return anyio.sleep(effect.seconds)
