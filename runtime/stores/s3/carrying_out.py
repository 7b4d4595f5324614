"""Plans of `angos.sansio.bucket`, carried out on a real bucket."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, TypeVar
from uuid import uuid4

from angos.runtime.stores.s3 import listing, multipart, objects
from angos.runtime.stores.s3.bucket import Bucket
from angos.runtime.stores.s3.side_by_side import side_by_side
from angos.sansio.bucket.requests import (
    AbortPieces,
    BackOff,
    BeginPieces,
    CompareClocks,
    CompletePieces,
    Copy,
    CopyPiece,
    Delete,
    DeleteMany,
    DrawWriter,
    Fetch,
    FetchSigned,
    Get,
    HashObjects,
    Head,
    List,
    ListUploads,
    Put,
    PutPiece,
    SideBySide,
)
from angos.sansio.steps import Step

T = TypeVar("T")


async def carry_out(bucket: Bucket, plan: Coroutine[Any, Any, T]) -> T:
    """What the plan comes to. Pieces that it began and did not put together are thrown away, whatever happens."""
    carrying = _CarryingOut(bucket)
    try:
        return await carrying.run(plan)
    finally:
        for upload_id, key in carrying.begun.items():
            await multipart.abort_in_any_case(bucket, key, upload_id)


class _CarryingOut:
    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self.begun: dict[str, str] = {}
        """The keys of multipart uploads, by upload id."""

    async def run(self, plan: Coroutine[Any, Any, T]) -> T:
        advance: Callable[[Any], Any] = plan.send
        outcome: Any = None
        try:
            while True:
                step = advance(outcome)
                try:
                    advance, outcome = plan.send, await self._take(step)
                except Exception as error:
                    advance, outcome = plan.throw, error
        except StopIteration as stop:
            value: T = stop.value
            return value
        finally:
            plan.close()

    async def _take(self, step: Step[Any]) -> Any:
        match step:
            case SideBySide(plans, limit):
                return tuple(await side_by_side([partial(self._run_one, plan) for plan in plans], limit))
            case DrawWriter():
                return uuid4().hex
            case BackOff(attempt):
                return await self._bucket.back_off(attempt)
            case BeginPieces(key):
                upload_id = await multipart.begin(self._bucket, step)
                self.begun[upload_id] = key
                return upload_id
            case CompletePieces(upload_id=upload_id):
                outcome = await multipart.complete(self._bucket, step)
                if outcome.done:
                    self.begun.pop(upload_id, None)
                return outcome
            case _:
                return await _REQUESTS[type(step)](self._bucket, step)

    async def _run_one(self, plan: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        return await self.run(plan())


_REQUESTS: dict[type[Step[Any]], Callable[[Bucket, Any], Awaitable[Any]]] = {
    AbortPieces: multipart.abort,
    CompareClocks: objects.compare_clocks,
    Copy: objects.copy,
    CopyPiece: multipart.copy,
    Delete: objects.delete,
    DeleteMany: objects.delete_many,
    Fetch: objects.fetch_one,
    FetchSigned: objects.fetch_signed,
    Get: objects.get,
    HashObjects: objects.hash_objects,
    Head: objects.head,
    List: listing.list_keys,
    ListUploads: listing.list_uploads,
    Put: objects.put,
    PutPiece: multipart.put,
}
