"""The registry itself, over HTTP, with what it stores in a bucket, in a folder, or half in each."""

from __future__ import annotations

import hashlib
import json
import time
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
from angos.runtime.stores.s3.options import PART_BYTES_MIN
from angos.runtime.stores.s3.store import S3Store
from angos.sansio.config import RegistryConfig
from tests.conformance.contracts.s3 import s3_bucket
from tests.conformance.http_client import Client, request_head
from tests.conformance.oci.content import digest_of
from tests.conformance.oci.repository import WAYS, Repository

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


@pytest.mark.parametrize("registry", ["all asyncio"], indirect=True)
@pytest.mark.parametrize("size", [0, 1, PART_BYTES_MIN - 1, PART_BYTES_MIN, PART_BYTES_MIN + 1])
def test_blobs_around_the_size_of_a_part_are_pushed_in_every_way(registry: Client, size: int) -> None:
    for way in WAYS:
        repository = Repository(registry, f"some/{WAYS.index(way)}")
        content = LAYER[:size]
        assert repository.pull_blob(repository.push_blob(content, way)) == content


@pytest.mark.parametrize("registry", ["all trio"], indirect=True)
def test_a_connection_that_breaks_around_the_end_of_a_part_costs_only_time(registry: Client) -> None:
    """Whatever was kept of the chunk, the session says how much, and going on from there makes the right blob."""
    for cut_at in (0, 1, PART_BYTES_MIN - 1, PART_BYTES_MIN, PART_BYTES_MIN + 1, 2 * PART_BYTES_MIN):
        content = LAYER[cut_at % 7 :]
        repository = Repository(registry, "some/image")
        location = repository.start_upload()
        assert repository.append(location, content[:10], 0).status == 202
        connection = registry.connect()
        fields = [("Host", registry.host), ("Content-Length", str(len(content) - 10))]
        connection.send(request_head("PATCH", location, fields) + content[10 : 10 + cut_at])
        connection.close()
        reached = _when_settled(registry, location, 10 + cut_at)
        assert reached == 10 + cut_at
        assert repository.append(location, content[reached:], reached).status == 202
        assert repository.complete(location, digest_of(content)).status == 201
        assert repository.pull_blob(digest_of(content)) == content
        assert repository.complete(location, digest_of(content)).status == 201, "asked again it changes nothing"
        assert repository.pull_blob(digest_of(content)) == content


def _when_settled(registry: Client, location: str, expected: int) -> int:
    """How far an upload has come, once the server has learned of the cut."""
    ends = time.monotonic() + 30
    while (reached := int(registry.get(location)["range"].partition("-")[2]) + 1) != expected:
        assert time.monotonic() < ends, f"{reached} bytes were kept instead of {expected}"
        time.sleep(0.02)
    return reached
