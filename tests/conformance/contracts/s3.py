"""A bucket to test with: of a server that is started for it, or of the one that ``ANGOS_TEST_S3_ENDPOINT`` names."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from tempfile import TemporaryDirectory

import anyio

from angos.runtime.client.url import Url, parse_url
from angos.runtime.stores.s3.bucket import Asked, Bucket
from angos.runtime.stores.s3.options import Credentials, S3Options
from angos.sansio.secret import Secret

START_SECONDS_MAX = 30.0
KEYS = Credentials("AKIDANGOSTEST", Secret("not-really-a-secret"))


@contextmanager
def s3_bucket() -> Iterator[S3Options]:
    """An empty bucket, or a prefix that nobody else uses in the bucket that the environment names."""
    endpoint = os.environ.get("ANGOS_TEST_S3_ENDPOINT")
    if endpoint is not None:
        yield S3Options(
            parse_url(endpoint),
            os.environ["ANGOS_TEST_S3_BUCKET"],
            os.environ.get("ANGOS_TEST_S3_REGION", "us-east-1"),
            f"angos-test/{uuid.uuid4().hex}/",
            Credentials(os.environ["ANGOS_TEST_S3_ACCESS_KEY"], Secret(os.environ["ANGOS_TEST_S3_SECRET_KEY"])),
        )
        return
    with s3_server() as url:
        options = S3Options(url, "registry", "us-east-1", "some/where/", KEYS)
        anyio.run(make_bucket, options)
        yield options


async def make_bucket(options: S3Options) -> None:
    """Create the bucket that the options name."""
    bucket = Bucket(options)
    document = f"""<CreateBucketConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
        <LocationConstraint>{options.region}</LocationConstraint></CreateBucketConfiguration>""".encode()
    body = () if options.region == "us-east-1" else (memoryview(document),)
    await bucket.ask(Asked("making the bucket", "PUT", body=body))
    await bucket.close()


@contextmanager
def s3_server() -> Iterator[Url]:
    """A server of S3 on a free port of the loopback interface, without any bucket."""
    with TemporaryDirectory() as folder:
        process, url = _start(folder)
        try:
            yield parse_url(url)
        finally:
            process.kill()
            process.wait()


def _start(folder: str) -> tuple[subprocess.Popen[bytes], str]:
    ends = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < ends:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        process = subprocess.Popen(
            [sys.executable, "-m", "ministack"],
            cwd=folder,
            env={
                **os.environ,
                "BIND_HOST": "127.0.0.1",
                "GATEWAY_PORT": str(port),
                "SERVICES": "s3",
                "HOME": folder,
                "AWS_ACCESS_KEY_ID": KEYS.access_key_id,
                "AWS_SECRET_ACCESS_KEY": KEYS.secret_key.value,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        url = f"http://127.0.0.1:{port}"
        while process.poll() is None and time.monotonic() < ends:
            with suppress(OSError), urllib.request.urlopen(f"{url}/_ministack/health", timeout=1):
                return process, url
            time.sleep(0.05)
        process.kill()
        process.wait()  # somebody else has taken the port: try another one
    raise TimeoutError(f"ministack did not start within {START_SECONDS_MAX:g} s")
