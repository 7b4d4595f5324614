"""Objects made of pieces: each request of a multipart upload."""

from __future__ import annotations

from contextlib import suppress

from anyio import move_on_after

from angos.runtime.stores.s3.bucket import Asked, Bucket
from angos.runtime.stores.s3.documents import DocumentDamaged, completion, expect, parse_copied_tag, parse_upload_id
from angos.runtime.stores.s3.objects import ABSENT, copy_source, views_of
from angos.sansio.bucket.requests import AbortPieces, BeginPieces, CompletePieces, CopyPiece, Outcome, PutPiece
from angos.sansio.effects import EffectError

ABORT_SECONDS = 5.0


async def begin(bucket: Bucket, step: BeginPieces) -> str:
    """`BeginPieces`."""
    doing = f"creating {step.key}"
    told = await bucket.ask(Asked(doing, "POST", step.key, query={"uploads": ""}))
    try:
        return parse_upload_id(told.body)
    except DocumentDamaged as error:
        raise bucket.unavailable(doing, error) from None


async def put(bucket: Bucket, step: PutPiece) -> str:
    """`PutPiece`."""
    doing = f"creating {step.key}"
    told = await bucket.ask(Asked(doing, "PUT", step.key, query=_piece(step), body=views_of(step.content)))
    tag = told.fields.get("etag")
    if not tag:
        raise bucket.unavailable(doing, "the answer has no ETag")
    return tag


async def copy(bucket: Bucket, step: CopyPiece) -> str | None:
    """`CopyPiece`."""
    doing = f"creating {step.key}"
    fields = {
        "x-amz-copy-source": copy_source(bucket, step.source),
        "x-amz-copy-source-range": f"bytes={step.start}-{step.start + step.length - 1}",
    }
    told = await bucket.ask(
        Asked(doing, "PUT", step.key, query=_piece(step), fields=fields, takes_long=True, expected=ABSENT)
    )
    if told.status == 404:
        return None
    try:
        return parse_copied_tag(told.body)
    except DocumentDamaged as error:
        raise bucket.unavailable(doing, error) from None


async def complete(bucket: Bucket, step: CompletePieces) -> Outcome:
    """`CompletePieces`."""
    doing = f"creating {step.key}"
    asked = Asked(
        doing,
        "POST",
        step.key,
        query={"uploadId": step.upload_id},
        body=(memoryview(completion(step.tags)),),
        takes_long=True,
        expected=ABSENT,
        absent="NoSuchUpload",
    )
    told = await bucket.ask(asked)
    if told.status != 404:
        try:
            expect(told.body, "CompleteMultipartUploadResult")
        except DocumentDamaged as error:
            raise bucket.unavailable(doing, error) from None
    return Outcome(told.status != 404, told.again)


async def abort(bucket: Bucket, step: AbortPieces) -> None:
    """`AbortPieces`."""
    doing = f"discarding pieces of {step.key}"
    query = {"uploadId": step.upload_id}
    await bucket.ask(Asked(doing, "DELETE", step.key, query=query, expected=ABSENT, absent="NoSuchUpload"))


async def abort_in_any_case(bucket: Bucket, key: str, upload_id: str) -> None:
    """Throw pieces away, as far as the store can be asked now. Never fails; done even when cancelled."""
    with move_on_after(ABORT_SECONDS, shield=True), suppress(EffectError):
        await abort(bucket, AbortPieces(key, upload_id))


def _piece(step: PutPiece | CopyPiece) -> dict[str, str]:
    return {"partNumber": str(step.number), "uploadId": step.upload_id}
