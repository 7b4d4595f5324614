"""``python -m tests.conformance.server.serving_stand_in LOOP WORKERS FOLDER``: a stand-in in processes of its own.

When the folder is called ``unusable``, the application cannot start.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from angos.runtime.server.limits import ServerOptions
from angos.runtime.server.serving import Serving
from angos.runtime.server.workers import run
from tests.conformance.server.stand_in import StandIn


def main() -> int:
    loop, workers, folder = sys.argv[1:]
    logging.basicConfig(level=logging.INFO)

    options = ServerOptions(port=0, workers=int(workers), drain_seconds=10)

    @asynccontextmanager
    async def open_serving() -> AsyncIterator[Serving]:
        if Path(folder).name == "unusable":
            raise RuntimeError("cannot start")
        yield Serving(StandIn(Path(folder)), options)
        print("application left", flush=True)  # noqa: T201

    return run(
        open_serving,
        options,
        loop="trio" if loop == "trio" else "asyncio",
        on_ready=lambda urls: print(*urls, flush=True),  # noqa: T201
    )


if __name__ == "__main__":
    sys.exit(main())
