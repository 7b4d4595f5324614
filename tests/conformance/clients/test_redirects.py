"""Clients of a registry whose blobs and manifests they get from a bucket."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from angos.runtime.stores.s3.options import S3Options
from tests.conformance.clients.conftest import Program
from tests.conformance.clients.oci_layout import content_of, image_layout, named_digest
from tests.conformance.configured.configured_registry import ConfiguredRegistry
from tests.conformance.contracts.s3 import s3_server
from tests.conformance.contracts.s3_proxy import S3Proxy
from tests.conformance.oci.repository import Repository
from tests.conformance.s3_process import KEYS, make_bucket

pytestmark = pytest.mark.xdist_group("clients-redirects")


@pytest.fixture(scope="module")
def bucket() -> Iterator[S3Proxy]:
    """Sees who asks it for what."""
    with s3_server() as url, S3Proxy(url) as proxy:
        anyio.run(make_bucket, S3Options(url, "images", "us-east-1", "", KEYS))
        yield proxy


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory, bucket: S3Proxy) -> Iterator[ConfiguredRegistry]:
    """Instead of the one that all tests share."""
    table = {
        "endpoint": bucket.url,
        "bucket": "images",
        "region": "us-east-1",
        "access_key_id": KEYS.access_key_id,
        "secret_key": KEYS.secret_key.value,
    }
    registry = ConfiguredRegistry.configured(tmp_path_factory.mktemp("redirects"), {"blob_store": {"s3": table}})
    yield registry
    registry.stop()


def test_skopeo_and_curl_follow(
    skopeo: Program, curl: Program, registry: ConfiguredRegistry, bucket: S3Proxy, tmp_path: Path
) -> None:
    image = f"docker://{registry.address}/some/image:latest"
    layout, digest = image_layout(tmp_path / "image")
    skopeo.run("copy", "--preserve-digests", layout.source, image)
    known = len(bucket.seen)
    skopeo.run("copy", image, f"oci:{tmp_path}/back:test")
    assert named_digest(tmp_path / "back") == digest
    assert content_of(tmp_path / "back") == layout.blobs
    followed = {seen.key for seen in bucket.seen[known:] if "X-Amz-Signature" in seen.query}
    assert {blob.partition(":")[2] for blob in layout.blobs} == {key.split("/")[4] for key in followed}
    found: Any = skopeo.json("inspect", image)
    assert found["Digest"] == digest

    url = f"{registry.url}{Repository(registry.client(), 'some/image').manifest('latest')}"
    assert curl.run("--location", url).encode() == layout.blobs[digest]
