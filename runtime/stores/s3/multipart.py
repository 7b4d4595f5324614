"""An object that is made of pieces, and is there when all of them are."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from anyio import move_on_after

from angos.runtime.stores.s3 import objects
from angos.runtime.stores.s3.bucket import Asked, Bucket
from angos.runtime.stores.s3.documents import DocumentDamaged, completion, parse_copied_tag, parse_upload_id
from angos.sansio.effects import EffectError

ABORT_SECONDS = 5.0


class Multipart:
    """A multipart upload to one key. Completed or aborted by whoever began it."""

    def __init__(self, bucket: Bucket, key: str, upload_id: str) -> None:
        self._bucket = bucket
        self._key = key
        self._upload_id = upload_id
        self._tags: dict[int, str] = {}
        self._doing = f"creating {key}"

    @classmethod
    async def begin(cls, bucket: Bucket, key: str) -> Multipart:
        """Nothing of it is visible as long as it is not complete."""
        doing = f"creating {key}"
        told = await bucket.ask(Asked(doing, "POST", key, query={"uploads": ""}))
        try:
            return cls(bucket, key, parse_upload_id(told.body))
        except DocumentDamaged as error:
            raise bucket.unavailable(doing, error) from None

    async def put(self, number: int, body: Sequence[memoryview]) -> None:
        """Send a piece. Numbers begin with 1 and leave none out."""
        told = await self._bucket.ask(Asked(self._doing, "PUT", self._key, query=self._piece(number), body=body))
        tag = told.fields.get("etag")
        if not tag:
            raise self._bucket.unavailable(self._doing, "the answer has no ETag")
        self._tags[number] = tag

    async def copy(self, number: int, source: str, start: int, length: int) -> bool:
        """Let the store copy a piece out of another object. False when that one is absent."""
        fields = {
            "x-amz-copy-source": objects.copy_source(self._bucket, source),
            "x-amz-copy-source-range": f"bytes={start}-{start + length - 1}",
        }
        asked = Asked(
            self._doing,
            "PUT",
            self._key,
            query=self._piece(number),
            fields=fields,
            takes_long=True,
            expected=objects.ABSENT,
        )
        told = await self._bucket.ask(asked)
        if told.status == 404:
            return False
        try:
            self._tags[number] = parse_copied_tag(told.body)
        except DocumentDamaged as error:
            raise self._bucket.unavailable(self._doing, error) from None
        return True

    async def complete(self, new_size: int | None = None) -> None:
        """Put the pieces together: the object is there.

        With `new_size`, in bytes, nobody else can have made an object under this key. Then finding one tells that a
        request whose answer was lost has succeeded; otherwise its outcome is not known.
        """
        document = completion(tag for _, tag in sorted(self._tags.items()))
        asked = Asked(
            self._doing,
            "POST",
            self._key,
            query={"uploadId": self._upload_id},
            body=(memoryview(document),),
            takes_long=True,
            expected=objects.ABSENT,
        )
        told = await self._bucket.ask(asked)
        if told.status != 404:
            return
        if not told.again:
            raise self._bucket.unavailable(self._doing, "the store has forgotten the pieces that it was sent")
        found = None if new_size is None else await objects.stat(self._bucket, self._key)
        if found is None or found.size != new_size:
            raise self._bucket.unavailable(self._doing, "it is not known whether the pieces were put together")

    async def abort(self) -> None:
        """Throw the pieces away, as far as the store can be asked now. Never fails; done even when cancelled."""
        with move_on_after(ABORT_SECONDS, shield=True), suppress(EffectError):
            await abort(self._bucket, self._key, self._upload_id)

    def _piece(self, number: int) -> dict[str, str]:
        return {"partNumber": str(number), "uploadId": self._upload_id}


async def abort(bucket: Bucket, key: str, upload_id: str) -> None:
    """End a multipart upload that will not be completed. One that is gone already is no error."""
    asked = Asked(f"discarding pieces of {key}", "DELETE", key, query={"uploadId": upload_id}, expected=objects.ABSENT)
    await bucket.ask(asked)
