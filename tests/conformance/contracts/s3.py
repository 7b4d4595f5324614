"""A bucket to test with: of a server that is started for it, or of the one that ``ANGOS_TEST_S3_ENDPOINT`` names."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio

from angos.runtime.client.url import Url, parse_url
from angos.runtime.stores.s3.options import Credentials, S3Options
from angos.sansio.secret import Secret
from tests.conformance.s3_process import KEYS, S3Process, make_bucket


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


@contextmanager
def s3_server() -> Iterator[Url]:
    """A server of S3 on the loopback interface, without any bucket."""
    with TemporaryDirectory() as folder, S3Process(Path(folder)) as server:
        yield parse_url(server.url)
