"""One bucket as a service to ask: signed requests, sent again when that may help, given up when it does not."""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import h11
from anyio import CancelScope, current_time, move_on_after, sleep
from anyio.to_thread import run_sync

from angos.runtime.client.connection import Connection, NoAnswer
from angos.runtime.stores.s3.breaker import Breaker
from angos.runtime.stores.s3.connections import Connections
from angos.runtime.stores.s3.credentials import CredentialsMissing, CredentialSource
from angos.runtime.stores.s3.documents import parse_error
from angos.runtime.stores.s3.failures import Refusal, failure_of
from angos.runtime.stores.s3.options import PART_BYTES_MAX, PART_BYTES_MIN, Credentials, S3Options
from angos.runtime.stores.s3.signing import (
    UNSIGNED_PAYLOAD,
    percent_encoded,
    presigned_query,
    query_text,
    signed_fields,
)
from angos.sansio.bucket.attempts import Attempt, AttemptFailed, in_attempts
from angos.sansio.bucket.requests import BackOff, Terms
from angos.sansio.effects import EffectError, StorageRefused, StorageUnavailable
from angos.sansio.steps import Step

SLICE_BYTES = 256 << 10  # sent at a time: a loop keeps a copy of what the system does not take at once
DIGEST_ON_LOOP_BYTES = 64 << 10
ANSWER_BYTES_MAX = 64 << 20
BACKOFF_SECONDS_MIN = 0.05
BACKOFF_SECONDS_MAX = 1.0

_log = logging.getLogger("angos.storage")


@dataclass(frozen=True, slots=True)
class Asked:
    """A request to a bucket."""

    doing: str
    """For the operator, when it fails: what the registry wanted."""
    method: str
    key: str | None = None
    """As the core names it; None: the bucket itself."""
    query: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, str] = field(default_factory=dict)
    """Header fields, names in lower case."""
    body: Sequence[memoryview] = ()
    takes_long: bool = False
    """The store may be busy for minutes before it answers."""
    expected: frozenset[int] = frozenset()
    """Statuses besides the successful ones that are an answer and no failure."""
    absent: str = "NoSuchKey"
    """The code of a 404 that is an answer: what it says is not there."""
    presigned: str | None = None
    """Path and query that carry a signature: they are asked for as they are, and without keys."""


@dataclass(frozen=True, slots=True)
class Told:
    """A complete answer."""

    status: int
    fields: Mapping[str, str]
    """Names in lower case."""
    body: bytes
    again: bool
    """An earlier attempt had no answer: what this one was told of may be the work of that one."""


@dataclass(slots=True)
class Arriving:
    """An answer whose body is received piece by piece."""

    status: int
    fields: Mapping[str, str]
    again: bool
    """The same request was sent on a connection that broke off: what is answered may be the work of that one."""
    _connection: Connection
    _silence: CancelScope
    _silence_seconds: float

    async def receive(self) -> bytes:
        """The next bytes; none at the end. Fails with `NoAnswer`. The time until it is called does not count."""
        self._silence.deadline = current_time() + self._silence_seconds
        data = await self._connection.receive()
        self._silence.deadline = math.inf
        return data


class Bucket:
    """Asks, on one event loop. Fails with `StorageUnavailable`, `StorageRefused` and `StorageFull`, which name what was
    wanted and the bucket, and nothing secret."""

    def __init__(self, options: S3Options) -> None:
        """Raises `ClientTlsUnusable`."""
        self.options = options
        self._connections = Connections(options.endpoint, options.tls)
        self._credentials = CredentialSource(options.credentials)
        self._breaker = Breaker(options.breaker_threshold, options.breaker_cooldown_seconds, time.monotonic)
        self._path = f"{options.endpoint.target.rstrip('/')}/{percent_encoded(options.bucket)}"

    def follow(self, options: S3Options) -> None:
        """Ask like this from the next request on. The place of the bucket does not change."""
        if options.credentials != self.options.credentials:
            self._credentials = CredentialSource(options.credentials)
        self._breaker.follow(options.breaker_threshold, options.breaker_cooldown_seconds)
        self.options = options

    @property
    def terms(self) -> Terms:
        """What plans have to know of it."""
        options = self.options
        return Terms(
            name=f"bucket {options.bucket}",
            piece_bytes_min=PART_BYTES_MIN,
            piece_bytes_max=PART_BYTES_MAX,
            copy_bytes_max=options.copy_threshold_bytes,
            copy_piece_bytes=options.copy_piece_bytes,
            copies_at_once=options.copy_jobs,
            attempts=options.attempts,
            uniform_piece_bytes=options.part_bytes if options.uniform_parts else None,
        )

    async def ask(self, asked: Asked) -> Told:
        """The answer, which has one of the expected statuses."""
        seconds = self.options.operation_seconds
        with move_on_after(seconds):
            return await self._in_attempts(asked)
        self._failed()
        raise self.unavailable(asked.doing, f"it was not done after {seconds:g} s, with all attempts")

    async def _in_attempts(self, asked: Asked) -> Told:
        attempts = in_attempts(self.options.attempts)
        advance: Callable[[Any], Any] = attempts.send
        outcome: Any = None
        try:
            while True:
                step = advance(outcome)
                try:
                    advance, outcome = attempts.send, await self._take(step, asked)
                except (AttemptFailed, EffectError) as error:
                    advance, outcome = attempts.throw, error
        except StopIteration as stop:
            told: Told = stop.value
            return told
        finally:
            attempts.close()

    async def _take(self, step: Step[Any], asked: Asked) -> Told | None:
        if isinstance(step, BackOff):
            await self.back_off(step.attempt)
            return None
        assert isinstance(step, Attempt), "attempts are made, with pauses between them"
        self._check_breaker(asked)
        try:
            told = await self._attempt(asked, again=step.again)
        except AttemptFailed as error:
            self._failed()
            raise AttemptFailed(str(self.unavailable(asked.doing, error))) from None
        except Refusal as error:
            self._succeeded()
            raise self._refused(asked, error) from None
        except BaseException:
            self._breaker.abandoned()
            raise
        self._succeeded()
        return told

    async def presigned(self, doing: str, key: str, media_type: str) -> str:
        """What anybody may GET for a while without keys: the path of an object, with a query."""
        path = self._path_of(key)
        query = presigned_query(
            path,
            self.options.endpoint.authority,
            media_type,
            credentials=await self._keys(doing),
            region=self.options.region,
            at_seconds=time.time(),
            lifetime_seconds=self.options.presign_seconds,
        )
        return f"{path}?{query}"

    async def is_there(self) -> bool:
        """False when there is no such bucket, or none any more: what it answered before proves nothing."""
        told = await self.ask(Asked("looking for the bucket", "HEAD", expected=frozenset({404})))
        return told.status != 404

    @asynccontextmanager
    async def arriving(self, asked: Asked) -> AsyncIterator[Arriving]:
        """One attempt, without a body: the beginning of the answer. Fails also with `AttemptFailed` and `NoAnswer`,
        which the block may let out: another attempt may then be made after `back_off`."""
        self._check_breaker(asked)
        settled = False
        try:
            async with self._exchange(asked) as arriving:
                if arriving.status >= 300:
                    document = parse_error(await _whole(arriving))
                    code = "" if document is None else document.code
                    if not _is_expected(arriving.status, code, asked):
                        raise failure_of(arriving.status, code, arriving.fields.get("date"))
                self._succeeded()
                settled = True
                yield arriving
        except Refusal as error:
            self._succeeded()
            settled = True
            raise self._refused(asked, error) from None
        except (AttemptFailed, NoAnswer):
            self._failed()
            settled = True
            raise
        finally:
            if not settled:
                self._breaker.abandoned()

    async def back_off(self, attempt: int) -> None:
        """Wait before the attempt with this number, 1 being the second one."""
        longest = min(BACKOFF_SECONDS_MAX, BACKOFF_SECONDS_MIN * 4**attempt)
        await sleep(random.uniform(BACKOFF_SECONDS_MIN, longest))  # so that those who failed together part

    def unavailable(self, doing: str, why: object) -> StorageUnavailable:
        """For an operation whose outcome is not known."""
        return self.terms.unavailable(doing, why)

    async def close(self) -> None:
        """End the idle connections."""
        await self._connections.close()

    # --- one attempt --------------------------------------------------------------------------------------------------

    async def _attempt(self, asked: Asked, *, again: bool) -> Told:
        try:
            async with self._exchange(asked) as arriving:
                status, fields = arriving.status, arriving.fields
                body = await _whole(arriving)
        except NoAnswer as error:
            raise AttemptFailed(str(error)) from None
        again = again or arriving.again
        document = parse_error(body) if asked.method != "GET" or status >= 300 or asked.key is None else None
        code = "" if document is None else document.code
        if _is_expected(status, code, asked) or (status < 300 and document is None):
            return Told(status, fields, body, again)
        failure = failure_of(status if status >= 300 else 500, code, fields.get("date"))
        # With an earlier request in doubt a refusal is not definite. The next attempt knows of that doubt.
        raise AttemptFailed(str(failure)) if arriving.again else failure

    @asynccontextmanager
    async def _exchange(self, asked: Asked) -> AsyncIterator[Arriving]:
        """Fails with `AttemptFailed` after a silence, besides `NoAnswer`."""
        options = self.options
        seconds = options.copy_seconds if asked.takes_long else options.attempt_seconds
        target, fields = await self._signed(asked)
        with move_on_after(seconds) as silence:

            def pieces() -> Iterator[memoryview]:
                for view in asked.body:
                    for start in range(0, len(view), SLICE_BYTES):
                        silence.deadline = current_time() + seconds
                        yield view[start : start + SLICE_BYTES]

            async with self._connections.exchange(asked.method, target, fields, pieces) as (connection, said, again):
                silence.deadline = math.inf
                yield Arriving(said.status_code, _fields(said), again, connection, silence, seconds)
        if silence.cancelled_caught:
            raise AttemptFailed(f"{options.endpoint.origin} was silent for {seconds:g} s")

    async def _signed(self, asked: Asked) -> tuple[str, list[tuple[bytes, bytes]]]:
        options = self.options
        if asked.presigned is not None:
            return asked.presigned, [(b"host", options.endpoint.authority.encode())]
        credentials = await self._keys(asked.doing)
        size = sum(map(len, asked.body))
        if size > DIGEST_ON_LOOP_BYTES:
            # TLS sees to it that nobody changes the body; without it the signature has to.
            secure = options.endpoint.scheme == "https"
            digest = UNSIGNED_PAYLOAD if secure else await run_sync(_digest, asked.body)
        else:
            digest = _digest(asked.body)
        path = self._path if asked.key is None else self._path_of(asked.key)
        query = query_text(asked.query)
        signed = signed_fields(
            asked.method,
            path,
            query,
            {"host": options.endpoint.authority, **asked.fields},
            digest,
            credentials=credentials,
            region=options.region,
            at_seconds=time.time(),
        )
        if asked.method in ("PUT", "POST"):
            signed["content-length"] = str(size)
        fields = [(name.encode(), value.encode()) for name, value in signed.items()]
        return (f"{path}?{query}" if query else path), fields

    async def _keys(self, doing: str) -> Credentials:
        try:
            return await self._credentials.current()
        except CredentialsMissing as error:
            raise StorageRefused(f"{doing} in {self.terms.name}: {error}") from None

    def _path_of(self, key: str) -> str:
        return f"{self._path}/{percent_encoded(self.options.key_prefix + key, '/')}"

    # --- what to do about failures ------------------------------------------------------------------------------------

    def _check_breaker(self, asked: Asked) -> None:
        left = self._breaker.admit()
        if left is not None:
            raise self.unavailable(asked.doing, f"not asked, it failed too often; asked again in {left:.0f} s")

    def _succeeded(self) -> None:
        if self._breaker.succeeded():
            _log.info("bucket %s answers again", self.options.bucket)

    def _failed(self) -> None:
        if self._breaker.failed():
            seconds = self.options.breaker_cooldown_seconds
            _log.error("bucket %s fails again and again: not asked for %g s", self.options.bucket, seconds)

    def _refused(self, asked: Asked, refusal: Refusal) -> EffectError:
        return refusal.kind(f"{asked.doing} in {self.terms.name}: {refusal}")


def _is_expected(status: int, code: str, asked: Asked) -> bool:
    """Whether it is an answer and no failure. Only the bucket itself can say that something is absent: a proxy that
    has lost its way to it, or a store without it, says 404 too. An answer to HEAD has no code: see `is_there`."""
    if status == 404 and asked.method != "HEAD":
        return 404 in asked.expected and code == asked.absent
    return status in asked.expected


async def _whole(arriving: Arriving) -> bytes:
    body = bytearray()
    while data := await arriving.receive():
        body += data
        if len(body) > ANSWER_BYTES_MAX:
            raise AttemptFailed(f"it answered with more than {ANSWER_BYTES_MAX} bytes")
    return bytes(body)


def _fields(response: h11.Response) -> dict[str, str]:
    return {name.decode(): value.decode("latin-1") for name, value in response.headers}


def _digest(body: Sequence[memoryview]) -> str:
    digest = sha256()
    for view in body:
        digest.update(view)
    return digest.hexdigest()
