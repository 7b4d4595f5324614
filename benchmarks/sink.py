"""A server of S3 that forgets large bodies: it keeps their size, so that what is measured is the registry.

    python -m benchmarks.sink PORT [FOLDER]

It begins with the files of the folder, if there is one, as old as they are. Objects up to `KEPT_BYTES` are kept whole;
larger ones are given back as zeros. Signatures are not looked at. It does what the registry asks of a store and nothing
more, in one process with a thread for each connection.
"""

from __future__ import annotations

import re
import socket
import sys
import threading
import time
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import formatdate
from itertools import count
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote
from xml.sax.saxutils import escape

KEPT_BYTES = 1 << 20
BUFFER_BYTES = 256 << 10

_ZEROS = bytes(BUFFER_BYTES)
_REASONS = {200: "OK", 204: "No Content", 206: "Partial Content", 404: "Not Found", 412: "Precondition Failed"}
_RANGE = re.compile(r"bytes=([0-9]+)-([0-9]*)")


@dataclass(frozen=True, slots=True)
class Stored:
    """An object, or a piece of one."""

    size: int
    content: bytes | None
    """None: it was too large to be kept."""
    fields: tuple[tuple[str, str], ...] = ()
    modified: float = field(default_factory=time.time)

    def cut(self, start: int, length: int) -> Stored:
        """Some of its bytes."""
        return Stored(length, None if self.content is None else self.content[start : start + length])


@dataclass(frozen=True, slots=True)
class Answer:
    """What is told; the body of an object comes in pieces."""

    status: int
    body: bytes = b""
    fields: tuple[tuple[str, str], ...] = ()
    stored: Stored | None = None


@dataclass(slots=True)
class Request:
    """With a body that has arrived."""

    method: str
    key: str
    query: dict[str, str]
    fields: dict[str, str]
    body: Stored


class Sink:
    """One bucket under any name."""

    def __init__(self) -> None:
        self._objects: dict[str, Stored] = {}
        self._names: list[str] | None = None
        """The keys in order; None when they have changed."""
        self._uploads: dict[str, tuple[str, dict[int, Stored]]] = {}
        self._numbers = count(1)
        self._lock = threading.Lock()

    def fill(self, folder: Path) -> None:
        """Begin with what lies in a folder."""
        for path in folder.rglob("*"):
            if path.is_file():
                content = path.read_bytes()
                self._objects[str(path.relative_to(folder))] = Stored(
                    len(content), content, modified=path.stat().st_mtime
                )

    def answer(self, request: Request) -> Answer:
        """To a request, applied at once."""
        with self._lock:
            if request.method != "GET":
                self._names = None
            if not request.key:
                return self._about_bucket(request)
            if "uploads" in request.query or "uploadId" in request.query:
                return self._about_pieces(request)
            return self._about_object(request)

    def _about_bucket(self, request: Request) -> Answer:
        if request.method == "POST":
            for key in re.findall(r"<Key>(.*?)</Key>", (request.body.content or b"").decode()):
                self._objects.pop(key.replace("&amp;", "&"), None)
            return Answer(200, b"<DeleteResult></DeleteResult>")
        if "uploads" in request.query:
            prefix = request.query.get("prefix", "")
            found = [(key, upload) for upload, (key, _) in sorted(self._uploads.items()) if key.startswith(prefix)]
            listed = "".join(
                f"<Upload><Key>{quote(key)}</Key><UploadId>{upload}</UploadId></Upload>" for key, upload in found
            )
            return Answer(
                200,
                f"<ListMultipartUploadsResult><EncodingType>url</EncodingType><IsTruncated>false</IsTruncated>{listed}"
                "</ListMultipartUploadsResult>".encode(),
            )
        return self._listing(request.query) if request.method == "GET" else Answer(200)

    def _listing(self, query: dict[str, str]) -> Answer:
        prefix, limit = query.get("prefix", ""), int(query.get("max-keys", "1000"))
        after = unquote(query.get("continuation-token", "")) or query.get("start-after", "")
        if self._names is None:
            self._names = sorted(self._objects)
        entries: list[str] = []
        for key in self._names[max(bisect_left(self._names, prefix), bisect_right(self._names, after)) :]:
            if not key.startswith(prefix):
                break
            rest = key[len(prefix) :]
            entry = key if "delimiter" not in query or "/" not in rest else prefix + rest[: rest.index("/") + 1]
            if entry > after and entry not in entries[-1:]:
                entries.append(entry)
            if len(entries) > limit:
                break
        more, entries = len(entries) > limit, entries[:limit]
        parts = [f"<IsTruncated>{str(more).lower()}</IsTruncated><EncodingType>url</EncodingType>"]
        if more:
            parts.append(f"<NextContinuationToken>{escape(quote(entries[-1]))}</NextContinuationToken>")
        for entry in entries:
            if entry in self._objects:
                found = self._objects[entry]
                age = f"<LastModified>{_iso(found.modified)}</LastModified>"
                parts.append(f"<Contents><Key>{quote(entry)}</Key>{age}<Size>{found.size}</Size></Contents>")
            else:
                parts.append(f"<CommonPrefixes><Prefix>{quote(entry)}</Prefix></CommonPrefixes>")
        return Answer(200, f"<ListBucketResult>{''.join(parts)}</ListBucketResult>".encode())

    def _about_pieces(self, request: Request) -> Answer:
        if "uploads" in request.query:
            upload = f"upload-{next(self._numbers)}"
            self._uploads[upload] = request.key, {}
            body = f"<InitiateMultipartUploadResult><UploadId>{upload}</UploadId></InitiateMultipartUploadResult>"
            return Answer(200, body.encode())
        upload = request.query["uploadId"]
        if upload not in self._uploads:
            return _error(404, "NoSuchUpload")
        key, pieces = self._uploads[upload]
        if request.method == "PUT":
            piece: Stored | None = request.body
            if "x-amz-copy-source" in request.fields:
                piece = self._source(request)
            if piece is None:
                return _error(404, "NoSuchKey")
            pieces[int(request.query["partNumber"])] = piece
            tag = f'"{request.query["partNumber"]}"'
            return Answer(200, f"<CopyPartResult><ETag>{tag}</ETag></CopyPartResult>".encode(), (("ETag", tag),))
        del self._uploads[upload]
        if request.method == "DELETE":
            return Answer(204)
        self._objects[key] = _joined([pieces[number] for number in sorted(pieces)])
        return Answer(200, b"<CompleteMultipartUploadResult></CompleteMultipartUploadResult>")

    def _about_object(self, request: Request) -> Answer:
        found = self._objects.get(request.key)
        if request.method == "PUT":
            if request.fields.get("if-none-match") == "*" and found is not None:
                return _error(412, "PreconditionFailed")
            stored: Stored | None = request.body
            if "x-amz-copy-source" in request.fields:
                stored = self._source(request)
            if stored is None:
                return _error(404, "NoSuchKey")
            kept = tuple((name, value) for name, value in request.fields.items() if name.startswith("x-amz-meta-"))
            self._objects[request.key] = Stored(stored.size, stored.content, kept)
            return Answer(200, b"<CopyObjectResult></CopyObjectResult>", (("ETag", '"it"'),))
        if request.method == "DELETE":
            self._objects.pop(request.key, None)
            return Answer(204)
        if found is None:
            return _error(404, "NoSuchKey")
        fields = (
            *found.fields,
            ("Last-Modified", formatdate(found.modified, usegmt=True)),
            ("Content-Type", request.query.get("response-content-type", "binary/octet-stream")),
        )
        match = _RANGE.fullmatch(request.fields.get("range", ""))
        if match is None or request.method == "HEAD":
            return Answer(200, b"", fields, found)
        start, end = int(match[1]), min(int(match[2] or found.size), found.size - 1)
        shown = ("Content-Range", f"bytes {start}-{end}/{found.size}")
        return Answer(206, b"", (*fields, shown), found.cut(start, end - start + 1))

    def _source(self, request: Request) -> Stored | None:
        source = self._objects.get(unquote(request.fields["x-amz-copy-source"]).partition("/")[2])
        match = _RANGE.fullmatch(request.fields.get("x-amz-copy-source-range", ""))
        if source is None or match is None:
            return source
        return source.cut(int(match[1]), int(match[2]) - int(match[1]) + 1)


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _joined(pieces: list[Stored]) -> Stored:
    size = sum(piece.size for piece in pieces)
    contents = [piece.content for piece in pieces if piece.content is not None]
    return Stored(size, b"".join(contents) if size <= KEPT_BYTES and len(contents) == len(pieces) else None)


def _error(status: int, code: str) -> Answer:
    return Answer(status, f"<Error><Code>{code}</Code></Error>".encode())


# --- HTTP -------------------------------------------------------------------------------------------------------------


def serve(port: int, folder: Path | None = None) -> None:
    """Until the process is ended."""
    sink = Sink()
    if folder is not None:
        sink.fill(folder)
    with socket.create_server(("127.0.0.1", port), backlog=256) as listener:
        while True:
            connection, _ = listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=_converse, args=(sink, connection), daemon=True).start()


def _converse(sink: Sink, connection: socket.socket) -> None:
    buffer = bytearray(BUFFER_BYTES)
    pending = b""
    with connection:
        try:
            while True:
                while (end := pending.find(b"\r\n\r\n")) < 0:
                    received = connection.recv(65536)
                    if not received:
                        return
                    pending += received
                request, length = _parsed(pending[:end].decode("latin-1"))
                pending = _receive(connection, request, length, pending[end + 4 :], buffer)
                for piece in _written(request, sink.answer(request)):
                    connection.sendall(piece)
        except OSError:
            return


def _parsed(head: str) -> tuple[Request, int]:
    line, *lines = head.split("\r\n")
    method, target, _ = line.split(" ")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    path, _, query = target.partition("?")
    key = unquote(path).lstrip("/").partition("/")[2]
    parameters = dict(parse_qsl(query, keep_blank_values=True))
    return Request(method, key, parameters, fields, Stored(0, b"")), int(fields.get("content-length", "0"))


def _receive(connection: socket.socket, request: Request, length: int, pending: bytes, buffer: bytearray) -> bytes:
    """Take the body, or forget it. What has come after it."""
    body, pending = bytearray(pending[:length]), pending[length:]
    left, keep = length - len(body), length <= KEPT_BYTES
    view = memoryview(buffer)
    while left:
        received = connection.recv_into(view, min(left, len(buffer)))
        if not received:
            raise ConnectionError("the client left in the middle of a body")
        if keep:
            body += view[:received]
        left -= received
    request.body = Stored(length, bytes(body) if keep else None)
    return pending


def _written(request: Request, answer: Answer) -> Iterator[bytes | memoryview]:
    stored = answer.stored
    length = len(answer.body) if stored is None else stored.size
    lines = [f"HTTP/1.1 {answer.status} {_REASONS[answer.status]}"]
    lines += [f"{name}: {value}" for name, value in answer.fields]
    if answer.status != 204:
        lines.append(f"Content-Length: {length}")
    head = "\r\n".join([*lines, "", ""]).encode("latin-1")
    if request.method == "HEAD" or answer.status == 204:
        yield head
    elif stored is None or stored.content is not None:
        yield head + (answer.body if stored is None or stored.content is None else stored.content)
    else:
        yield head
        for start in range(0, length, BUFFER_BYTES):
            yield memoryview(_ZEROS)[: min(BUFFER_BYTES, length - start)]


if __name__ == "__main__":
    serve(int(sys.argv[1]), *map(Path, sys.argv[2:]))
