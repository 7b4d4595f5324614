"""``python -m tests.conformance.server.serving_stand_in LOOP WORKERS FOLDER``: a stand-in in processes of its own.

When the folder is called ``unusable``, the application cannot start. SIGHUP reloads the file ``wanted`` of the folder:
``/name`` answers with its content from then on. Some contents are special; see `FileReloader.prepare`.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from angos.runtime.server.application import RequestBody
from angos.runtime.server.limits import ServerOptions
from angos.runtime.server.serving import NotServable, Serving
from angos.runtime.server.workers import run
from angos.sansio.http.message import Inline, Request, Response
from tests.conformance.server.stand_in import StandIn


class NamedStandIn(StandIn):
    """Knows its name."""

    def __init__(self, folder: Path, name: str) -> None:
        super().__init__(folder)
        self.name = name

    async def respond(self, request: Request, body: RequestBody) -> Response:
        if request.target == "/name":
            return Response(200, (), Inline(self.name.encode()))
        return await super().respond(request, body)


class FileReloader:
    """Reloads a name from a file, only when it is asked."""

    def __init__(self, folder: Path, options: ServerOptions) -> None:
        self._folder = folder
        self._options = options
        self._first_process = os.getpid()
        self.serving = self._prepared = Serving(NamedStandIn(folder, "first"), options)

    def look(self, *, at_once: bool) -> bytes | None:
        return (self._folder / "wanted").read_bytes() if at_once else None

    def prepare(self, candidate: bytes) -> Serving:
        name = candidate.decode()
        in_worker = os.getpid() != self._first_process
        if name == "refused in workers" and in_worker:
            raise NotServable("this worker does not like it")
        if name == "refused at once":
            raise NotServable("nobody likes it")
        if name == "failing":
            raise RuntimeError("a mistake of the program")
        if name == "deadly for all" and in_worker:
            os._exit(3)
        if name == "deadly for one" and in_worker:
            try:
                (self._folder / "dead").touch(exist_ok=False)
            except FileExistsError:
                pass
            else:
                os._exit(3)
        self._prepared = Serving(NamedStandIn(self._folder, name), self._options)
        return self._prepared

    def accept(self) -> None:
        self.serving = self._prepared
        logging.info("accepted")

    def refuse(self, reasons: Sequence[str]) -> None:
        logging.error("refused: %s", "; ".join(reasons))


def main() -> int:
    loop, workers, folder = sys.argv[1:]
    logging.basicConfig(level=logging.INFO)
    options = ServerOptions(port=0, workers=int(workers), drain_seconds=10, linger_seconds=0.2)
    reloader = FileReloader(Path(folder), options)

    @asynccontextmanager
    async def open_serving() -> AsyncIterator[Serving]:
        if Path(folder).name == "unusable":
            raise RuntimeError("cannot start")
        yield reloader.serving
        print("application left", flush=True)  # noqa: T201

    return run(
        open_serving,
        options,
        loop="trio" if loop == "trio" else "asyncio",
        on_ready=lambda urls: print(*urls, flush=True),  # noqa: T201
        reloader=reloader,
    )


if __name__ == "__main__":
    sys.exit(main())
