"""An application that is no registry: every path shows one behaviour that the server has to cope with."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import anyio
import anyio.lowlevel

from angos.runtime.server.application import Consume, FetchedContent, RequestBody
from angos.sansio.effects import BodyInterrupted, BodyTooLarge, Key, StorageUnavailable
from angos.sansio.http.message import Absent, FromKey, Inline, Request, Response, Slices

SMALL = b"small" * 120


class OpenedFile:
    """A file of the folder, opened for sending."""

    def __init__(self, path: Path, claimed_size: int | None) -> None:
        self.descriptor = os.open(path, os.O_RDONLY)
        self.size = os.fstat(self.descriptor).st_size if claimed_size is None else claimed_size
        self.closed = False

    def close(self) -> None:
        assert not self.closed
        self.closed = True
        os.close(self.descriptor)


class StandIn:
    """Paths: see the methods. What the application was asked is kept for the tests."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.requests: list[Request] = []
        self.opened: list[OpenedFile] = []
        self.claimed_size: int | None = None
        """Makes `open_content` lie about sizes."""
        self.fails_after: int | None = None
        """How many bytes of a fetched value come before its store is away; None: all of them."""
        self.working = 0
        """Requests that are being answered."""
        self.go = anyio.Event()
        """Until it is set, requests for ``/hold`` are worked on."""
        self.cleaned_up = 0
        """Requests that were cancelled."""

    def all_closed(self) -> bool:
        """Every file that was opened for the server was closed by it."""
        return all(opened.closed for opened in self.opened)

    async def respond(self, request: Request, body: RequestBody) -> Response:
        self.requests.append(request)
        self.working += 1
        try:
            split = urlsplit(request.target)
            query = {name: values[0] for name, values in parse_qs(split.query).items()}
            return await self._respond(split.path.strip("/").split("/")[0], query, request, body)
        except anyio.get_cancelled_exc_class():
            self.cleaned_up += 1
            raise
        finally:
            self.working -= 1

    def open_content(self, key: Key) -> OpenedFile | FetchedContent | None:
        if key == "broken":
            raise OSError(errno.EIO, "input/output error")
        path = self.folder / key.removeprefix("fetched/")
        if key.startswith("fetched/"):
            return FetchedContent(partial(self._fetch, path.read_bytes() if path.exists() else None))
        if not path.exists():
            return None
        opened = OpenedFile(path, self.claimed_size)
        self.opened.append(opened)
        return opened

    async def _fetch(self, content: bytes | None, start: int, length: int, consume: Consume) -> bool:
        if content is None:
            return False
        for offset in range(0, length, 65_536):
            if self.fails_after is not None and offset >= self.fails_after:
                raise StorageUnavailable("the store is away")
            await anyio.lowlevel.checkpoint()
            await consume(content[start + offset : start + min(offset + 65_536, length)])
        return True

    async def _respond(self, path: str, query: dict[str, str], request: Request, body: RequestBody) -> Response:
        match path:
            case "small":
                value = SMALL if request.method != "HEAD" else b""
                return Response(200, (("Content-Type", "text/plain"),), Inline(value) if value else Absent(len(SMALL)))
            case "inline":
                return Response(200, (), Inline(b"i" * int(query["size"])))
            case "status":
                return Response(int(query["code"]), (), Inline(query.get("body", "").encode()))
            case "file":
                start = int(query.get("start", 0))
                return Response(200, (), FromKey(Key(query["name"]), start, int(query["length"])))
            case "slices":
                spans = tuple(tuple(map(int, span.split("-"))) for span in query["spans"].split(","))
                slices = tuple((f"<{start}>".encode(), start, length) for start, length in spans)
                return Response(206, (), Slices(Key(query["name"]), slices, query.get("closing", "").encode()))
            case "receive":
                return await _receive(query, body)
            case "lend":
                return await _receive_lending(int(query["size"]), body)
            case "read":
                return await _read(int(query.get("max", 1 << 30)), body)
            case "ignore":
                return Response(202)
            case "fail":
                raise RuntimeError("a secret that no client may see")
            case "wait":
                await anyio.sleep(float(query["seconds"]))
                return Response(200, (), Inline(b"waited"))
            case "hold":
                await self.go.wait()
                if "name" in query:
                    return Response(200, (), FromKey(Key(query["name"]), 0, int(query["length"])))
                return Response(200, (), Inline(b"held"))
            case "header":
                return Response(200, (("X-Value", query["value"]),))
            case "absent":
                return Response(200, (), Absent(10))
            case "process":
                return Response(200, (), Inline(str(os.getpid()).encode()))
            case _:
                return Response(404, (), Inline(b"{}"))


async def _receive(query: dict[str, str], body: RequestBody) -> Response:
    """Gives size and digest of what arrived, and whether it was whole."""
    digest = hashlib.sha256()
    size = calls = 0
    fail_at = int(query.get("fail", -1))

    def sink(views: Sequence[memoryview]) -> None:
        nonlocal size, calls
        calls += 1
        for view in views:
            digest.update(view)
            size += len(view)
        if 0 <= fail_at <= size:
            raise OSError(errno.ENOSPC, "no space left")

    size_max = int(query["max"]) if "max" in query else None
    try:
        whole = await body.receive(sink, size_max)
    except BodyTooLarge as error:
        return Response(413, (), Inline(str(error).encode()))
    except OSError as error:
        return Response(507, (), Inline(str(error.strerror).encode()))
    found = {"whole": whole, "size": size, "sha256": digest.hexdigest(), "calls": calls}
    return Response(201, (), Inline(json.dumps(found).encode()))


class LendingSink:
    """Lends pieces of one buffer, and collects what it gets."""

    def __init__(self, size: int) -> None:
        self.collected = bytearray()
        self.received_there = 0
        """Bytes that were received straight into what was lent."""
        self._buffer = memoryview(bytearray(size))
        self._filled = 0

    def lend(self) -> memoryview:
        self._filled %= len(self._buffer)
        return self._buffer[self._filled :]

    def __call__(self, views: Sequence[memoryview]) -> None:
        for view in views:
            self.collected += view
        if views[0].obj is self._buffer.obj:
            assert len(views) == 1
            assert views[0] == self._buffer[self._filled : self._filled + len(views[0])]
            self._filled += len(views[0])
            self.received_there += len(views[0])


async def _receive_lending(size: int, body: RequestBody) -> Response:
    """Gives the body back, and how much of it was received into the lent buffer of this size."""
    sink = LendingSink(size)
    whole = await body.receive(sink, None)
    fields = (("X-Received-There", str(sink.received_there)),)
    return Response(200 if whole else 400, fields, Inline(bytes(sink.collected)))


async def _read(size_max: int, body: RequestBody) -> Response:
    """Gives the body back."""
    try:
        return Response(200, (), Inline(await body.read(size_max)))
    except BodyTooLarge as error:
        return Response(413, (), Inline(str(error).encode()))
    except BodyInterrupted as error:
        return Response(400, (), Inline(str(error).encode()))
