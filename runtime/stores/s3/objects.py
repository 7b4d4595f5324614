"""What is asked about one object of a bucket, or about several at once."""

from __future__ import annotations

import time
from base64 import b64encode
from collections.abc import Awaitable, Callable, Sequence
from hashlib import md5

from anyio import current_time, sleep
from anyio.to_thread import run_sync

from angos.runtime.client.connection import NoAnswer
from angos.runtime.hashing import Hasher
from angos.runtime.pace import Pace
from angos.runtime.stores.s3.bucket import Asked, Bucket, Told
from angos.runtime.stores.s3.documents import DocumentDamaged, ErrorDocument, deletion, expect, parse_failed_deletions
from angos.runtime.stores.s3.failures import failure_of, seconds_of
from angos.runtime.stores.s3.signing import percent_encoded
from angos.sansio.bucket.attempts import AttemptFailed
from angos.sansio.bucket.requests import (
    CompareClocks,
    Content,
    Copy,
    Delete,
    DeleteMany,
    Fetch,
    FetchSigned,
    Found,
    Get,
    HashObjects,
    Head,
    NotDeleted,
    Outcome,
    Put,
)
from angos.sansio.effects import StorageCorrupt, StorageRefused

ABSENT = frozenset({404})
THERE = frozenset({412})
HASH_BYTES = 1 << 20  # gathered before they are worth a thread
SMALL_VALUES = ("v2/cat/", "v2/ns/", "v2/ref/")  # empty, most of them
WRITER_FIELD = "x-amz-meta-angos-writer"


def views_of(content: Content) -> Sequence[memoryview]:
    """As a request takes its body; an empty one has none."""
    return [memoryview(piece) for piece in content if piece]


async def get(bucket: Bucket, step: Get) -> bytes | None:
    """`Get`."""
    told = await bucket.ask(Asked(f"reading {step.key}", "GET", step.key, expected=ABSENT))
    return None if told.status == 404 else told.body


async def head(bucket: Bucket, step: Head) -> Found | None:
    """`Head`. Only an answer to GET can say that it is the key that is absent, and not the bucket: so that is what
    small values are asked for by, and others ask for the bucket then."""
    doing = f"looking for {step.key}"
    small = step.key.startswith(SMALL_VALUES)
    told = await bucket.ask(Asked(doing, "GET" if small else "HEAD", step.key, expected=ABSENT))
    if told.status == 404:
        if small or await bucket.is_there():
            return None
        raise bucket.unavailable(doing, "there is no such bucket")
    try:
        size = len(told.body) if small else int(told.fields["content-length"])
    except (KeyError, ValueError):
        raise bucket.unavailable(doing, "the answer has no size") from None
    modified = seconds_of(told.fields.get("last-modified"))
    if modified is None:
        raise bucket.unavailable(doing, "the answer has no date")
    return Found(size, int(modified * 1000), told.fields.get(WRITER_FIELD))


async def put(bucket: Bucket, step: Put) -> Outcome:
    """`Put`."""
    fields = {} if step.writer is None else {"if-none-match": "*", WRITER_FIELD: step.writer}
    expected = frozenset[int]() if step.writer is None else THERE
    body = views_of(step.content)
    told = await bucket.ask(Asked(f"creating {step.key}", "PUT", step.key, fields=fields, body=body, expected=expected))
    return Outcome(told.status != 412, told.again)


async def copy(bucket: Bucket, step: Copy) -> bool:
    """`Copy`."""
    fields = {"x-amz-copy-source": copy_source(bucket, step.source)}
    doing = f"creating {step.key}"
    told = await bucket.ask(Asked(doing, "PUT", step.key, fields=fields, takes_long=True, expected=ABSENT))
    if told.status == 404:
        return False
    try:
        expect(told.body, "CopyObjectResult")
    except DocumentDamaged as error:
        raise bucket.unavailable(doing, error) from None
    return True


def copy_source(bucket: Bucket, key: str) -> str:
    """How a copy names what it is a copy of."""
    return percent_encoded(f"{bucket.options.bucket}/{bucket.options.key_prefix}{key}", "/")


async def delete(bucket: Bucket, step: Delete) -> None:
    """`Delete`."""
    doing = f"deleting {step.key}"
    told = await bucket.ask(Asked(doing, "DELETE", step.key, expected=ABSENT))
    _check_definite(bucket, doing, told, definite=step.definite)


async def delete_many(bucket: Bucket, step: DeleteMany) -> tuple[NotDeleted, ...]:
    """`DeleteMany`."""
    doing = f"deleting {step.keys[0]} and {len(step.keys) - 1} more keys"
    document = deletion(bucket.options.key_prefix + key for key in step.keys)
    fields = {"content-md5": b64encode(md5(document, usedforsecurity=False).digest()).decode()}
    told = await bucket.ask(Asked(doing, "POST", query={"delete": ""}, fields=fields, body=(memoryview(document),)))
    try:
        failed = parse_failed_deletions(told.body)
    except DocumentDamaged as error:
        raise bucket.unavailable(doing, error) from None
    _check_definite(bucket, doing, told, definite=step.definite)
    return tuple(_not_deleted(each) for each in failed if each.code != "NoSuchKey")


def _check_definite(bucket: Bucket, doing: str, told: Told, *, definite: bool) -> None:
    if definite and told.again:
        raise bucket.unavailable(doing, "it is done, and a request before it that had no answer may be carried out yet")


def _not_deleted(document: ErrorDocument) -> NotDeleted:
    why = failure_of(500 if document.code == "InternalError" else 403, document.code)
    return NotDeleted(isinstance(why, AttemptFailed), str(why))


async def fetch(bucket: Bucket, key: str, start: int, length: int, consume: Callable[[bytes], Awaitable[None]]) -> bool:
    """Give `length` bytes of an object, at least one, to `consume`, in order and as they arrive.

    False, before anything is given, when the object is absent. A connection that breaks off is replaced and the rest
    asked for. Fails with `StorageCorrupt` when the object is too short.
    """
    doing = f"reading {key}"
    done = failures = 0
    since = current_time()
    while done < length:
        fields = {"range": f"bytes={start + done}-{start + length - 1}"}
        try:
            async with bucket.arriving(
                Asked(doing, "GET", key, fields=fields, expected=frozenset({404, 416}))
            ) as answer:
                if answer.status == 404:
                    if done:
                        raise bucket.unavailable(doing, "it was deleted meanwhile")
                    return False
                expected = f"bytes {start + done}-{start + length - 1}/"
                if answer.status != 206 or not answer.fields.get("content-range", "").startswith(expected):
                    raise StorageCorrupt(f"{doing} in bucket {bucket.options.bucket}: it is shorter than recorded")
                while data := await answer.receive():
                    await consume(data)
                    done, failures, since = done + len(data), 0, current_time()
        except (AttemptFailed, NoAnswer) as error:
            failures += 1
            options = bucket.options
            if failures == options.attempts or current_time() - since >= options.operation_seconds:
                raise bucket.unavailable(doing, error) from None
            await bucket.back_off(failures)
    return True


async def fetch_one(bucket: Bucket, step: Fetch) -> bytearray | None:
    """`Fetch`."""
    value = bytearray()

    async def take(data: bytes) -> None:
        value.extend(data)

    return value if await fetch(bucket, step.key, step.start, step.length, take) else None


async def fetch_signed(bucket: Bucket, step: FetchSigned) -> bytes | None:
    """`FetchSigned`."""
    doing = f"following a signed URL to {step.key}"
    presigned = await bucket.presigned(doing, step.key, step.media_type)
    told = await bucket.ask(Asked(doing, "GET", step.key, presigned=presigned, expected=ABSENT))
    if told.status == 404:
        return None
    if told.fields.get("content-type") != step.media_type:
        raise StorageRefused(f"{doing} in {bucket.terms.name}: it takes no notice of response-content-type")
    return told.body


async def compare_clocks(bucket: Bucket, _: CompareClocks) -> int | None:
    """`CompareClocks`."""
    asked_at = time.time()
    told = await bucket.ask(Asked("asking for the time", "HEAD"))
    theirs = seconds_of(told.fields.get("date"))
    if theirs is None:
        return None
    # It was cut to a second, at some moment between the question and the answer.
    return round((theirs + 0.5 - (asked_at + time.time()) / 2) * 1000)


async def hash_objects(bucket: Bucket, step: HashObjects) -> str | None:
    """`HashObjects`: what arrives is hashed and forgotten."""
    hasher = Hasher(step.algorithm)
    held = bytearray()
    pace = Pace(step.bytes_per_second)

    async def take(data: bytes) -> None:
        nonlocal held
        held += data
        if len(held) >= HASH_BYTES:
            full, held = held, bytearray()
            await run_sync(hasher.update, full)
            if (early := pace.early(len(full))) > 0:
                await sleep(early)

    for key, size in step.objects:
        if not await fetch(bucket, key, 0, size, take):
            return None
    hasher.update(held)
    return hasher.hex()
