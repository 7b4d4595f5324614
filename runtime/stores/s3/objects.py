"""What is done with one object of a bucket."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Awaitable, Callable, Sequence
from email.utils import parsedate_to_datetime
from functools import partial
from hashlib import md5
from uuid import uuid4

from angos.runtime.client.connection import NoAnswer
from angos.runtime.stores.s3.bucket import Asked, Bucket, Told
from angos.runtime.stores.s3.documents import DocumentDamaged, deletion, parse_failed_deletions
from angos.runtime.stores.s3.failures import AttemptFailed, Refusal, failure_of
from angos.runtime.stores.s3.side_by_side import side_by_side
from angos.runtime.stores.s3.signing import percent_encoded
from angos.sansio.effects import Stat, StorageCorrupt

ABSENT = frozenset({404})
DELETIONS_MAX = 1000  # in one request (Amazon S3 API Reference, DeleteObjects)
REQUESTS_AT_ONCE = 8
WRITER_FIELD = "x-amz-meta-angos-writer"


async def read(bucket: Bucket, key: str) -> bytes | None:
    """The whole object, None when it is absent."""
    told = await bucket.ask(Asked(f"reading {key}", "GET", key, expected=ABSENT))
    return None if told.status == 404 else told.body


async def stat(bucket: Bucket, key: str) -> Stat | None:
    """Size and age of an object, None when it is absent."""
    told = await _head(bucket, key)
    if told is None:
        return None
    try:
        modified = parsedate_to_datetime(told.fields["last-modified"])
        return Stat(int(told.fields["content-length"]), int(modified.timestamp() * 1000))
    except (KeyError, ValueError):
        raise bucket.unavailable(f"looking for {key}", "the answer has no size or no date") from None


async def _head(bucket: Bucket, key: str) -> Told | None:
    doing = f"looking for {key}"
    told = await bucket.ask(Asked(doing, "HEAD", key, expected=ABSENT))
    if told.status != 404:
        return told
    if not await bucket.is_there():  # an answer to HEAD cannot tell one from the other
        raise bucket.unavailable(doing, "there is no such bucket")
    return None


async def put(bucket: Bucket, key: str, body: Sequence[memoryview], doing: str) -> None:
    """Make these bytes the object, whatever it held."""
    await bucket.ask(Asked(doing, "PUT", key, body=body))


async def create(bucket: Bucket, key: str, value: bytes) -> bool:
    """Make these bytes the object unless there is one. True if this call did it."""
    writer = uuid4().hex
    body = (memoryview(value),) if value else ()
    fields = {"if-none-match": "*", WRITER_FIELD: writer}
    told = await bucket.ask(Asked(f"creating {key}", "PUT", key, fields=fields, body=body, expected=frozenset({412})))
    if told.status != 412:
        return True
    if not told.again:
        return False
    # Perhaps it is our own earlier attempt, whose answer was lost, that is in the way of this one.
    found = await _head(bucket, key)
    return found is not None and found.fields.get(WRITER_FIELD) == writer


async def copy(bucket: Bucket, source: str, key: str) -> bool:
    """Make the object a copy of another one, which has 5 GiB at most. False when that one is absent."""
    fields = {"x-amz-copy-source": copy_source(bucket, source)}
    told = await bucket.ask(Asked(f"creating {key}", "PUT", key, fields=fields, takes_long=True, expected=ABSENT))
    return told.status != 404


def copy_source(bucket: Bucket, key: str) -> str:
    """How a copy names what it is a copy of."""
    return percent_encoded(f"{bucket.options.bucket}/{bucket.options.key_prefix}{key}", "/")


async def delete(bucket: Bucket, keys: Sequence[str]) -> None:
    """Remove objects; those that are absent are no error."""
    if len(keys) == 1:
        await bucket.ask(Asked(f"deleting {keys[0]}", "DELETE", keys[0], expected=ABSENT))
        return
    for start in range(0, len(keys), DELETIONS_MAX):
        await _delete_many(bucket, keys[start : start + DELETIONS_MAX])


async def _delete_many(bucket: Bucket, keys: Sequence[str]) -> None:
    doing = f"deleting {keys[0]} and {len(keys) - 1} more keys"
    document = deletion(bucket.options.key_prefix + key for key in keys)
    fields = {"content-md5": b64encode(md5(document, usedforsecurity=False).digest()).decode()}
    for attempt in range(1, bucket.options.attempts + 1):
        asked = Asked(doing, "POST", query={"delete": ""}, fields=fields, body=(memoryview(document),))
        told = await bucket.ask(asked)
        try:
            failed = [each for each in parse_failed_deletions(told.body) if each.code != "NoSuchKey"]
        except DocumentDamaged as error:
            raise bucket.unavailable(doing, error) from None
        if not failed:
            return
        # Some keys are gone and some are not: that is no definite refusal, whatever each of them was told.
        why: AttemptFailed | Refusal = failure_of(500 if failed[0].code == "InternalError" else 403, failed[0].code)
        if isinstance(why, Refusal) or attempt == bucket.options.attempts:
            raise bucket.unavailable(doing, why)
        await bucket.back_off(attempt)


async def fetch(bucket: Bucket, key: str, start: int, length: int, consume: Callable[[bytes], Awaitable[None]]) -> bool:
    """Give `length` bytes of an object, at least one, to `consume`, in order and as they arrive.

    False, before anything is given, when the object is absent. A connection that breaks off is replaced and the rest
    asked for. Fails with `StorageCorrupt` when the object is too short.
    """
    doing = f"reading {key}"
    done = failures = 0
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
                    done, failures = done + len(data), 0
                    await consume(data)
        except (AttemptFailed, NoAnswer) as error:
            failures += 1
            if failures == bucket.options.attempts:
                raise bucket.unavailable(doing, error) from None
            await bucket.back_off(failures)
    return True


async def fetch_all(bucket: Bucket, slices: Sequence[tuple[str, int, int]]) -> list[bytearray] | None:
    """Slices of objects (key, start, length), each into memory; None when an object is absent."""

    async def one(key: str, start: int, length: int) -> bytearray | None:
        value = bytearray()

        async def take(data: bytes) -> None:
            value.extend(data)

        return value if await fetch(bucket, key, start, length, take) else None

    values = await side_by_side([partial(one, *each) for each in slices], REQUESTS_AT_ONCE)
    found = [value for value in values if value is not None]
    return found if len(found) == len(values) else None
