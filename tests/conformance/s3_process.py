"""A server of S3 (ministack, an emulator from a package of the test extra) as a process for tests to ill-treat.

With ``ANGOS_TEST_S3_ENDPOINT`` in the environment there is another one, of which tests use one bucket, below a prefix
of their own that they clear in the end: `given_place`. See ``docs/how-to/test-with-your-own-store.md``.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import anyio

from angos.runtime.client.url import parse_url
from angos.runtime.stores.s3 import multipart, objects
from angos.runtime.stores.s3.bucket import Asked, Bucket
from angos.runtime.stores.s3.carrying_out import carry_out
from angos.runtime.stores.s3.options import Credentials, S3Options
from angos.sansio.bucket.listing import sizes_below, uploads_below
from angos.sansio.bucket.plans import delete
from angos.sansio.bucket.requests import AbortPieces, Get
from angos.sansio.effects import Prefix
from angos.sansio.secret import Secret
from tests.conformance.local_process import LocalProcess, free_port

T = TypeVar("T")

PATIENCE_SECONDS = 30.0
ENDPOINT = "ANGOS_TEST_S3_ENDPOINT"
KEYS = Credentials("AKIDANGOSTEST", Secret("not-really-a-secret"))


class S3Process(LocalProcess):
    """Keeps its objects in a folder, so that they survive its end.

    A multipart upload that is not complete is forgotten when it ends; without `keeps` all of it is, which is faster.
    """

    def __init__(self, folder: Path, *, keeps: bool = True) -> None:
        super().__init__()
        self._folder = folder
        self._keeps = keeps
        try:
            self.start()
        except AssertionError:  # somebody else has taken the port in between, perhaps
            self.port = free_port()
            self.start()

    @property
    def url(self) -> str:
        """The endpoint."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Ready on return, with everything that was stored before."""
        own = {
            "BIND_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(self.port),
            "SERVICES": "s3",
            "IOT_MTLS_ENABLED": "0",  # it would listen on every address
            "HOME": str(self._folder),
            "AWS_ACCESS_KEY_ID": KEYS.access_key_id,
            "AWS_SECRET_ACCESS_KEY": KEYS.secret_key.value,
            "S3_PERSIST": str(int(self._keeps)),
            "S3_DATA_DIR": str(self._folder / "s3"),
        }
        with (self._folder / "s3.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "ministack"],
                cwd=self._folder,
                env={**os.environ, **own},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        ends = time.monotonic() + PATIENCE_SECONDS
        while self._process.poll() is None and time.monotonic() < ends:
            with (
                contextlib.suppress(OSError),
                urllib.request.urlopen(f"{self.url}/_ministack/health", timeout=PATIENCE_SECONDS),
            ):
                return
            time.sleep(0.02)
        self.kill()
        raise AssertionError(f"it does not start:\n{(self._folder / 's3.log').read_text()[-3000:]}")

    def bucket(self, name: str, key_prefix: str = "") -> StoredBucket:
        """A bucket there, which has to be made before it is used."""
        return StoredBucket(S3Options(parse_url(self.url), name, "us-east-1", key_prefix, KEYS))


class StoredBucket:
    """What lies in a bucket, past the registry."""

    def __init__(self, options: S3Options) -> None:
        self.options = options

    def table(self) -> dict[str, str]:
        """The configuration of a store in it."""
        keys = self.options.credentials
        assert keys is not None, "tests have keys"
        return {
            "endpoint": self.options.endpoint.origin,
            "bucket": self.options.bucket,
            "region": self.options.region,
            "key_prefix": self.options.key_prefix,
            "access_key_id": keys.access_key_id,
            "secret_key": keys.secret_key.value,
        }

    def make(self) -> None:
        """Create it."""
        anyio.run(make_bucket, self.options)

    def sizes(self) -> dict[str, int]:
        """Every key and its size in bytes."""
        return self._with(lambda bucket: carry_out(bucket, sizes_below(Prefix(""), bucket.terms)))

    def open_uploads(self) -> list[tuple[str, str]]:
        """The multipart uploads that have neither been completed nor aborted: key and id."""
        return self._with(lambda bucket: carry_out(bucket, uploads_below(Prefix(""), bucket.terms)))

    def read(self, key: str) -> bytes:
        """An object that must be there."""
        value = self._with(lambda bucket: objects.get(bucket, Get(key)))
        assert value is not None, f"{key} is not there"
        return value

    def clear(self) -> None:
        """Remove every key, and abort every multipart upload."""

        async def remove(bucket: Bucket) -> None:
            for key, upload_id in await carry_out(bucket, uploads_below(Prefix(""), bucket.terms)):
                await multipart.abort(bucket, AbortPieces(key, upload_id))
            keys = list(await carry_out(bucket, sizes_below(Prefix(""), bucket.terms)))
            if keys:
                await carry_out(bucket, delete(keys, bucket.terms))

        self._with(remove)

    def _with(self, work: Callable[[Bucket], Awaitable[T]]) -> T:
        async def run() -> T:
            bucket = Bucket(self.options)
            try:
                return await work(bucket)
            finally:
                await bucket.close()

        return anyio.run(run)


class GivenPlace:
    """Below a prefix of their own tests find what they take for buckets."""

    def __init__(self, options: S3Options) -> None:
        self._options = options

    def bucket(self, name: str) -> StoredBucket:
        """It is there."""
        return GivenBucket(replace(self._options, key_prefix=f"{self._options.key_prefix}{name}/"))


class GivenBucket(StoredBucket):
    """A part of a bucket that somebody has made."""

    def make(self) -> None:
        """Nothing has to be done."""


@contextlib.contextmanager
def given_place() -> Iterator[GivenPlace | None]:
    """The store that the environment names; None when it names none."""
    endpoint = os.environ.get(ENDPOINT)
    if endpoint is None:
        yield None
        return
    options = S3Options(
        parse_url(endpoint),
        os.environ["ANGOS_TEST_S3_BUCKET"],
        os.environ.get("ANGOS_TEST_S3_REGION", "us-east-1"),
        f"angos-test/{uuid.uuid4().hex}/",
        Credentials(os.environ["ANGOS_TEST_S3_ACCESS_KEY"], Secret(os.environ["ANGOS_TEST_S3_SECRET_KEY"])),
    )
    try:
        yield GivenPlace(options)
    finally:
        StoredBucket(options).clear()


async def make_bucket(options: S3Options) -> None:
    """Create the bucket that the options name."""
    bucket = Bucket(options)
    document = f"""<CreateBucketConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
        <LocationConstraint>{options.region}</LocationConstraint></CreateBucketConfiguration>""".encode()
    body = () if options.region == "us-east-1" else (memoryview(document),)
    await bucket.ask(Asked("making the bucket", "PUT", body=body))
    await bucket.close()
