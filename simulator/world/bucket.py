"""A bucket of S3: objects and multipart uploads, which take one request at a time and are durable from then on.

Requests are those of `angos.sansio.bucket.requests`. One is applied whole or not at all; that its answer is lost, or
that it arrives late or twice, is for those who send it. What breaks a limit is refused, as Amazon's does.

The bytes of objects may be anything that has a length, can be cut with a slice, and is joined by `join`. So terabytes
fit into a test that is about sizes.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from angos.sansio.bucket.requests import (
    AbortPieces,
    BeginPieces,
    CompareClocks,
    CompletePieces,
    Copy,
    CopyPiece,
    Delete,
    DeleteMany,
    Fetch,
    FetchSigned,
    Found,
    Get,
    Head,
    List,
    Listed,
    ListedUploads,
    ListUploads,
    NotDeleted,
    Put,
    PutPiece,
)
from angos.sansio.effects import Key, StorageCorrupt, StorageRefused
from angos.sansio.steps import Step


@dataclass(frozen=True, slots=True)
class Limits:
    """What a store does not exceed. Sizes in bytes; those of Amazon S3 (User Guide, multipart upload limits)."""

    piece_bytes_min: int = 5 << 20
    """Of all pieces of an object but the last."""
    piece_bytes_max: int = 5 << 30
    """Of a piece, and of what can be copied at once."""
    put_bytes_max: int = 5 << 30
    """Of what is put as a whole."""
    pieces_max: int = 10_000
    listing_max: int = 1000
    deletions_max: int = 1000


AMAZON = Limits()


@dataclass(slots=True)
class Object:
    """What lies under a key."""

    content: Any
    modified_ms: int
    writer: str | None


@dataclass(slots=True)
class Pieces:
    """A multipart upload that is neither complete nor aborted."""

    key: str
    began_ms: int
    contents: dict[int, Any] = field(default_factory=dict)
    tags: dict[int, str] = field(default_factory=dict)


class Bucket:
    """Takes requests. Refuses with `StorageRefused` what it is asked wrongly."""

    def __init__(
        self,
        now_ms: Callable[[], int] = lambda: 0,
        *,
        limits: Limits = AMAZON,
        join: Callable[[Iterable[Any]], Any] = b"".join,
    ) -> None:
        self.objects: dict[str, Object] = {}
        self.uploads: dict[str, Pieces] = {}
        """By upload id."""
        self.completed: dict[str, str] = {}
        """The keys of multipart uploads that were put together, by upload id."""
        self.touched: list[Key] = []
        """Keys that got an object. Who looks at them empties it."""
        self.limits = limits
        self._now_ms = now_ms
        self._join = join
        self._names: list[str] = []
        self._begun = 0

    def take(self, request: Step[Any]) -> Any:
        """Apply a request. Gives its reply, of a `Put` or `CompletePieces` only whether it was done."""
        return TAKERS[type(request)](self, request)

    def names(self, prefix: str) -> list[str]:
        """The keys below a prefix, whole and in order."""
        names = self._names
        behind = prefix[:-1] + chr(ord(prefix[-1]) + 1) if prefix else ""
        return names[bisect_left(names, prefix) : bisect_left(names, behind) if behind else len(names)]

    # --- objects ------------------------------------------------------------------------------------------------------

    def _get(self, request: Get) -> bytes | None:
        found = self.objects.get(request.key)
        return None if found is None else found.content

    def _head(self, request: Head) -> Found | None:
        found = self.objects.get(request.key)
        return None if found is None else Found(len(found.content), found.modified_ms, found.writer)

    def _fetch(self, request: Fetch) -> Any:
        found = self.objects.get(request.key)
        return None if found is None else self._range(found, request.start, request.length)

    def _fetch_signed(self, request: FetchSigned) -> bytes | None:
        found = self.objects.get(request.key)
        return None if found is None else found.content

    def _put(self, request: Put) -> bool:
        content = self._join(request.content)
        self._check(len(content) <= self.limits.put_bytes_max, "EntityTooLarge")
        if request.writer is not None and request.key in self.objects:
            return False
        self._store(request.key, content, request.writer)
        return True

    def _copy(self, request: Copy) -> bool:
        found = self.objects.get(request.source)
        if found is None:
            return False
        self._check(len(found.content) <= self.limits.piece_bytes_max, "InvalidRequest: the copy source is too large")
        self._store(request.key, found.content, None)
        return True

    def _delete(self, request: Delete) -> None:
        self._drop(request.key)

    def _delete_many(self, request: DeleteMany) -> tuple[NotDeleted, ...]:
        self._check(1 <= len(request.keys) <= self.limits.deletions_max, "MalformedXML")
        for key in request.keys:
            self._drop(key)
        return ()

    def _store(self, key: str, content: Any, writer: str | None) -> None:
        if key not in self.objects:
            insort(self._names, key)
        self.objects[key] = Object(content, self._now_ms(), writer)
        self.touched.append(Key(key))

    def _drop(self, key: str) -> None:
        if self.objects.pop(key, None) is not None:
            del self._names[bisect_left(self._names, key)]

    def _range(self, found: Object, start: int, length: int) -> Any:
        if not 0 <= start < start + length <= len(found.content):
            raise StorageCorrupt("InvalidRange: the object is shorter than recorded")
        return found.content[start : start + length]

    # --- listings -----------------------------------------------------------------------------------------------------

    def _list(self, request: List) -> Listed:
        return self.page(request, min(request.limit, self.limits.listing_max))

    def page(self, request: List, limit: int) -> Listed:
        """The answer to a listing with no more than so many names in it. Its token is the last one of them."""
        names, prefix = self._names, request.prefix
        cut, size, token = len(prefix), len(names), request.token
        after = token or request.after
        place = bisect_right(names, prefix + after) if after else bisect_left(names, prefix)
        keys: list[tuple[str, int]] = []
        folders: list[str] = []
        last = token
        while place < size and names[place].startswith(prefix):
            name = names[place][cut:]
            end = name.find("/") + 1 if request.folders else 0
            entry = name[:end] or name
            place += 1
            if end and entry in (last, token):  # one entry for all of the folder
                continue
            if len(keys) + len(folders) == limit:
                return Listed(tuple(keys), tuple(folders), last, self._ages(prefix, keys))
            if end:
                folders.append(entry)
            else:
                keys.append((name, len(self.objects[names[place - 1]].content)))
            last = entry
        return Listed(tuple(keys), tuple(folders), None, self._ages(prefix, keys))

    def _ages(self, prefix: str, keys: list[tuple[str, int]]) -> tuple[int, ...]:
        return tuple(self.objects[prefix + name].modified_ms for name, _ in keys)

    def _list_uploads(self, request: ListUploads) -> ListedUploads:
        return self.page_of_uploads(request, self.limits.listing_max)

    def page_of_uploads(self, request: ListUploads, limit: int) -> ListedUploads:
        """The answer to a listing of multipart uploads with no more than so many of them in it."""
        prefix = request.prefix
        found = sorted((pieces.key, each) for each, pieces in self.uploads.items() if pieces.key.startswith(prefix))
        left = [each for each in found if each > request.markers]
        page = tuple(left[:limit])
        markers = (page[-1] if page else request.markers) if len(left) > limit else None
        return ListedUploads(page, markers, tuple(self.uploads[upload_id].began_ms for _, upload_id in page))

    # --- pieces -------------------------------------------------------------------------------------------------------

    def _begin_pieces(self, request: BeginPieces) -> str:
        self._begun += 1
        upload_id = f"pieces-{self._begun:06}"
        self.uploads[upload_id] = Pieces(request.key, self._now_ms())
        return upload_id

    def _put_piece(self, request: PutPiece) -> str:
        return self._piece(request, self._join(request.content))

    def _copy_piece(self, request: CopyPiece) -> str | None:
        found = self.objects.get(request.source)
        if found is None:
            return None
        return self._piece(request, self._range(found, request.start, request.length))

    def _piece(self, request: PutPiece | CopyPiece, content: Any) -> str:
        pieces = self.uploads.get(request.upload_id)
        if pieces is None or pieces.key != request.key:
            raise StorageRefused("NoSuchUpload")
        self._check(1 <= request.number <= self.limits.pieces_max, "InvalidArgument: part number")
        self._check(1 <= len(content) <= self.limits.piece_bytes_max, "EntityTooLarge, or nothing at all")
        pieces.contents[request.number] = content
        pieces.tags[request.number] = tag = f"tag {request.number}"
        return tag

    def _complete_pieces(self, request: CompletePieces) -> bool:
        pieces = self.uploads.get(request.upload_id)
        if pieces is None or pieces.key != request.key:
            return False
        numbers = range(1, len(request.tags) + 1)
        self._check(tuple(pieces.tags.get(number) for number in numbers) == request.tags, "InvalidPart")
        self._check(bool(request.tags) and len(pieces.tags) == len(request.tags), "InvalidPart: not all of them")
        contents = [pieces.contents[number] for number in numbers]
        self._check(all(len(each) >= self.limits.piece_bytes_min for each in contents[:-1]), "EntityTooSmall")
        del self.uploads[request.upload_id]
        self.completed[request.upload_id] = request.key
        self._store(request.key, self._join(self._in_order(contents, pieces)), None)
        return True

    def _in_order(self, contents: list[Any], pieces: Pieces) -> list[Any]:
        return contents

    def _abort_pieces(self, request: AbortPieces) -> None:
        self.uploads.pop(request.upload_id, None)

    def _compare_clocks(self, request: CompareClocks) -> int | None:
        return 0

    def _check(self, right: bool, wrong: str) -> None:
        if not right:
            raise StorageRefused(wrong)


TAKERS: dict[type[Step[Any]], Callable[[Bucket, Any], Any]] = {
    Get: lambda bucket, request: bucket._get(request),
    Head: lambda bucket, request: bucket._head(request),
    Fetch: lambda bucket, request: bucket._fetch(request),
    FetchSigned: lambda bucket, request: bucket._fetch_signed(request),
    Put: lambda bucket, request: bucket._put(request),
    Copy: lambda bucket, request: bucket._copy(request),
    Delete: lambda bucket, request: bucket._delete(request),
    DeleteMany: lambda bucket, request: bucket._delete_many(request),
    List: lambda bucket, request: bucket._list(request),
    ListUploads: lambda bucket, request: bucket._list_uploads(request),
    BeginPieces: lambda bucket, request: bucket._begin_pieces(request),
    PutPiece: lambda bucket, request: bucket._put_piece(request),
    CopyPiece: lambda bucket, request: bucket._copy_piece(request),
    CompletePieces: lambda bucket, request: bucket._complete_pieces(request),
    AbortPieces: lambda bucket, request: bucket._abort_pieces(request),
    CompareClocks: lambda bucket, request: bucket._compare_clocks(request),
}
"""Looked up late, so that a worse bucket takes some of them in its own way."""
