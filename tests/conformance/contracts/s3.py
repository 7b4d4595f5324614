"""A bucket to test with: of a server that is started for it, or of the one that ``ANGOS_TEST_S3_ENDPOINT`` names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio

from angos.runtime.client.url import Url, parse_url
from angos.runtime.stores.s3.options import S3Options
from tests.conformance.s3_process import KEYS, S3Process, given_place, make_bucket


@contextmanager
def s3_bucket() -> Iterator[S3Options]:
    """An empty bucket, or a prefix that nobody else uses in the bucket that the environment names."""
    with given_place() as place:
        if place is not None:
            yield place.bucket("contract").options
            return
    with s3_server() as url:
        options = S3Options(url, "registry", "us-east-1", "some/where/", KEYS)
        anyio.run(make_bucket, options)
        yield options


@contextmanager
def s3_server() -> Iterator[Url]:
    """A server of S3 on the loopback interface, without any bucket."""
    with TemporaryDirectory() as folder, S3Process(Path(folder), keeps=False) as server:
        yield parse_url(server.url)
