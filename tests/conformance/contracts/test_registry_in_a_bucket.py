"""The registry itself, over HTTP, with what it stores in a bucket, in a folder, or half in each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import anyio
import pytest
from anyio.from_thread import start_blocking_portal

from angos.runtime.app import RegistryApplication
from angos.runtime.server.limits import ServerOptions
from angos.runtime.server.listener import bind, serve
from angos.runtime.stores.directory import DirectoryStore
from angos.runtime.stores.s3.store import S3Store
from angos.sansio.config import RegistryConfig
from tests.conformance.contracts.s3 import s3_bucket
from tests.conformance.http_client import Client

LAYER = hashlib.shake_128(b"layer").digest(11_000_003)


@pytest.fixture(params=["all asyncio", "all trio", "blobs asyncio", "metadata trio"])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Client]:
    """A server on the loopback interface; the parameter says what is in the bucket, and the loop."""
    what, loop = request.param.split()
    with s3_bucket() as options, start_blocking_portal(loop) as portal:
        bucket = S3Store(options)
        folder = DirectoryStore(tmp_path / "data")
        application = RegistryApplication(
            RegistryConfig(), folder if what == "metadata" else bucket, folder if what == "blobs" else bucket
        )
        server_options = ServerOptions(host="127.0.0.1", port=0)
        sockets = bind(server_options)
        stop, ready = portal.call(anyio.Event), portal.call(anyio.Event)
        served = portal.start_task_soon(
            partial(serve, application, server_options, sockets=sockets, stop=stop, on_ready=ready.set)
        )
        portal.call(ready.wait)
        host, port = sockets[0].getsockname()[:2]
        try:
            with Client.of(f"http://{host}:{port}") as client:
                yield client
        finally:
            portal.call(stop.set)
            served.result(30)
            portal.call(bucket.close)


def test_an_image_that_was_pushed_in_chunks_is_pulled(registry: Client) -> None:
    digest = f"sha256:{hashlib.sha256(LAYER).hexdigest()}"
    config = f"sha256:{hashlib.sha256(b'{}').hexdigest()}"
    assert registry.post(f"/v2/some/image/blobs/uploads/?digest={config}", b"{}").status == 201
    at = registry.post("/v2/some/image/blobs/uploads/").location
    for start, end in ((0, 10_000_000), (10_000_000, 10_000_001), (10_000_001, len(LAYER))):
        answer = registry.patch(at, LAYER[start:end], (("Content-Range", f"{start}-{end - 1}"),))
        assert answer.status == 202
        at = answer.location
    joined = "&" if "?" in at else "?"
    assert registry.put(f"{at}{joined}digest={digest}").status == 201

    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 2},
            "layers": [
                {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": len(LAYER)},
            ],
        }
    ).encode()
    fields = (("Content-Type", "application/vnd.oci.image.manifest.v1+json"),)
    assert registry.put("/v2/some/image/manifests/v1", manifest, fields).status == 201

    assert registry.get("/v2/some/image/manifests/v1").body == manifest
    assert registry.get("/v2/some/image/tags/list").json["tags"] == ["v1"]
    assert registry.get("/v2/_catalog").json["repositories"] == ["some/image"]
    assert registry.get(f"/v2/some/image/blobs/{digest}").body == LAYER
    part = registry.get(f"/v2/some/image/blobs/{digest}", (("Range", "bytes=5-11000000"),))
    assert (part.status, part.body) == (206, LAYER[5:11_000_001])
    assert registry.head(f"/v2/some/image/blobs/{digest}").size == len(LAYER)
    assert registry.get(at).status == 404
    assert registry.delete("/v2/some/image/manifests/v1").status == 202
    assert registry.get("/v2/some/image/manifests/v1").status == 404
