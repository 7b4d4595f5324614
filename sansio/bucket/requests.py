"""The requests of the S3 protocol that a registry sends, each of them as a step.

`angos.sansio.bucket.plans` says in which order they are sent. The runtime sends them to a store over HTTP, the
simulator to a bucket that loses answers, applies requests late or twice, and shows a listing one page at a time.

A request is sent again as long as it has no usable answer: `angos.sansio.bucket.attempts`. One that fails for good
fails with `StorageRefused` or `StorageFull` when it was not applied, and with `StorageUnavailable` when that is not
known. Only `BeginPieces` leaves something behind that somebody has to end: whoever runs a plan aborts, when the plan
ends in whatever way, the pieces that it began and did not put together.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from angos.sansio.effects import Prefix, StorageUnavailable
from angos.sansio.steps import Step

T = TypeVar("T")

Content = tuple[bytes | bytearray | memoryview, ...]
"""The bytes of an object or a piece, in order."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a bucket is like. Sizes in bytes."""

    name: str
    """For people: the sentences of failures name it."""
    piece_bytes_min: int
    """Of all pieces of an object but the last."""
    piece_bytes_max: int
    """Of a piece, and of what can be copied at once."""
    copy_bytes_max: int
    """Larger objects are copied in pieces."""
    copy_piece_bytes: int
    copies_at_once: int
    """Pieces of one object."""
    attempts: int
    """How often a request is sent before it has failed."""
    listing_max: int = 1000
    """Names in one answer to a listing (Amazon S3 API Reference, ListObjectsV2)."""
    deletions_max: int = 1000
    """Keys in one request (Amazon S3 API Reference, DeleteObjects)."""
    requests_at_once: int = 8
    uniform_piece_bytes: int | None = None
    """All pieces of an object but the last have the same size, this one at least; None: they may differ."""

    def unavailable(self, doing: str, why: object) -> StorageUnavailable:
        """For something whose outcome is not known."""
        return StorageUnavailable(f"{doing} in {self.name}: {why}")


# --- objects ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Get(Step["bytes | None"]):
    """The whole object, None when it is absent."""

    key: str


@dataclass(frozen=True, slots=True)
class Found:
    """What is known of an object without reading it."""

    size: int
    modified_ms: int
    writer: str | None
    """The `Put.writer` that it was made with."""


@dataclass(frozen=True, slots=True)
class Head(Step["Found | None"]):
    """Facts about an object, None when it is absent."""

    key: str


@dataclass(frozen=True, slots=True)
class Fetch(Step["bytes | bytearray | None"]):
    """Some bytes of an object, at least one; None when the object is absent."""

    key: str
    start: int
    length: int


@dataclass(frozen=True, slots=True)
class FetchSigned(Step["bytes | None"]):
    """The whole object as one gets it who has no keys, but a URL that was signed for it; None when it is absent."""

    key: str
    media_type: str
    """What the answer has to say that it is. Another one fails with `StorageRefused`."""


@dataclass(frozen=True, slots=True)
class HashObjects(Step["str | None"]):
    """The hex digest of the bytes of objects, one after the other, each with its size; None when one is absent."""

    objects: tuple[tuple[str, int], ...]
    algorithm: str
    bytes_per_second: int | None = None
    """Read no faster than that. None: as fast as it goes."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the last attempt of a request was told."""

    done: bool
    again: bool
    """An earlier attempt had no answer: what this one was told of may be the work of that one."""


@dataclass(frozen=True, slots=True)
class Put(Step[Outcome]):
    """Make these bytes the object. With a writer only when there is none yet, `Outcome.done` being False otherwise."""

    key: str
    content: Content
    writer: str | None = None
    """Who creates it: kept with the object, so that a creation whose answer was lost is known for what it is."""


@dataclass(frozen=True, slots=True)
class Copy(Step[bool]):
    """Make the object a copy of another one. Reply: False when that one is absent."""

    source: str
    key: str


@dataclass(frozen=True, slots=True)
class Delete(Step[None]):
    """Remove an object; absent is no error."""

    key: str
    definite: bool = False
    """When it is answered, nothing of it can happen any more. Otherwise, an attempt before it having had no answer, it
    fails with `StorageUnavailable`, although the object is gone."""


@dataclass(frozen=True, slots=True)
class NotDeleted:
    """A key that a batch did not remove."""

    again: bool
    """Asking again may help."""
    why: str


@dataclass(frozen=True, slots=True)
class DeleteMany(Step[tuple[NotDeleted, ...]]):
    """Remove objects, in any order. Reply: those that are still there because they could not be removed."""

    keys: tuple[str, ...]
    definite: bool = False
    """As of `Delete`."""


# --- listings ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Listed:
    """One answer to a listing: keys with their sizes, and folders, each in order and relative to the prefix."""

    keys: tuple[tuple[str, int], ...]
    folders: tuple[str, ...]
    """With their ``/`` at the end."""
    next_token: str | None
    """None: there is no more."""
    modified_ms: tuple[int | None, ...] = ()
    """When each of the keys was written, as far as the answer says."""


@dataclass(frozen=True, slots=True)
class List(Step[Listed]):
    """At most `limit` keys below a prefix, and no more than the store likes to give at once."""

    prefix: Prefix
    after: str
    token: str
    """Where the answer before this one ended; empty for the first one."""
    limit: int
    folders: bool = False
    """Keys with ``/`` in their names are rolled up into their first folder."""


@dataclass(frozen=True, slots=True)
class ListedUploads:
    """One answer to a listing of pieces: key and upload id of multipart uploads neither completed nor aborted."""

    uploads: tuple[tuple[str, str], ...]
    next_markers: tuple[str, str] | None
    began_ms: tuple[int | None, ...] = ()
    """When each of them was begun, as far as the answer says."""


@dataclass(frozen=True, slots=True)
class ListUploads(Step[ListedUploads]):
    """The multipart uploads that are open below a prefix."""

    prefix: Prefix
    markers: tuple[str, str]
    """Where the answer before this one ended."""


# --- objects made of pieces -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BeginPieces(Step[str]):
    """Begin a multipart upload to a key. Reply: its id. Nothing of it is visible as long as it is not complete."""

    key: str


@dataclass(frozen=True, slots=True)
class PutPiece(Step[str]):
    """Send a piece. Numbers begin with 1 and leave none out. Reply: its tag."""

    key: str
    upload_id: str
    number: int
    content: Content


@dataclass(frozen=True, slots=True)
class CopyPiece(Step["str | None"]):
    """Let the store copy a piece out of an object. Reply: its tag, None when the object is absent."""

    key: str
    upload_id: str
    number: int
    source: str
    start: int
    length: int


@dataclass(frozen=True, slots=True)
class CompletePieces(Step[Outcome]):
    """Put the pieces together: they are the object. `Outcome.done` is False when there is no such multipart upload."""

    key: str
    upload_id: str
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AbortPieces(Step[None]):
    """Throw the pieces away; gone already is no error."""

    key: str
    upload_id: str


# --- what is no request -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DrawWriter(Step[str]):
    """A text that nobody else draws."""


@dataclass(frozen=True, slots=True)
class CompareClocks(Step["int | None"]):
    """How far the clock of the store is ahead of ours, in milliseconds and to a second; None when it does not tell."""


@dataclass(frozen=True, slots=True)
class BackOff(Step[None]):
    """Wait before the attempt with this number, 1 being the second one."""

    attempt: int


@dataclass(frozen=True, slots=True)
class SideBySide(Step[tuple[Any, ...]]):
    """Run plans at the same time, at most `limit` of them. Reply: their results, in order. When one fails, the others
    are given up and its failure is raised as it is."""

    plans: tuple[Callable[[], Coroutine[Any, Any, Any]], ...]
    limit: int
