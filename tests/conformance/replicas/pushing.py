"""A client that pushes images as containerd and skopeo do: it tries again, and goes on where the registry says."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from angos.sansio import layout
from angos.sansio.oci.digest import Digest
from angos.sansio.oci.reference import Namespace, Tag
from tests.conformance.http_client import Answer, Body, Client, Fields, ProtocolViolation
from tests.conformance.oci.content import (
    OCI_CONFIG,
    OCI_LAYER_GZIP,
    OCI_MANIFEST,
    bytes_of,
    config_of,
    descriptor,
    digest_of,
    manifest_of,
)
from tests.conformance.oci.repository import pieces_of, with_query
from tests.conformance.replicas.replica_set import PASSWORD

PATIENCE_SECONDS = 60.0
PAUSE_SECONDS = 0.05  # between two tries; no client asks again at once


@dataclass(slots=True)
class Caller(Client):
    """Sends each request on a connection of its own, so that a balancer sends it somewhere else."""

    token: str = ""

    def request(self, method: str, target: str, body: Body = None, headers: Fields = ()) -> Answer:
        """Shows the token, if there is one."""
        shown = [("Authorization", f"Bearer {self.token}")] if self.token else []
        return self._alone(method, target, body, [*headers, *shown])

    def log_in(self, *scopes: str) -> None:
        """With the administrator's password."""
        words = base64.b64encode(f"admin:{PASSWORD}".encode()).decode()
        query = "&".join(f"scope={scope}" for scope in scopes)
        answer = self._alone("GET", f"/token?{query}", None, [("Authorization", f"Basic {words}")])
        assert answer.status == 200, answer
        self.token = answer.json["token"]

    def _alone(self, method: str, target: str, body: Body, headers: Fields) -> Answer:
        answer = Client.request(self, method, target, body, [*headers, ("Connection", "close")])
        self.close()
        return answer


@dataclass
class Image:
    """An image of one config and some layers."""

    namespace: str
    tag: str
    layers: list[bytes]
    config: bytes = field(init=False)
    manifest: bytes = field(init=False)

    def __post_init__(self) -> None:
        self.config = config_of(self.layers, comment=f"{self.namespace}:{self.tag}")
        layers = [descriptor(OCI_LAYER_GZIP, layer) for layer in self.layers]
        self.manifest = manifest_of(descriptor(OCI_CONFIG, self.config), layers)

    @classmethod
    def made(cls, namespace: str, tag: str, *sizes: int) -> Image:
        """Of layers with these sizes, unlike those of any other image."""
        return cls(namespace, tag, [bytes_of(f"{namespace}:{tag} {size} {at}", size) for at, size in enumerate(sizes)])

    def names(self) -> Iterable[str]:
        """Every key that there is because of it. Those of tag events end with when they were, so with ``*``."""
        namespace, manifest = Namespace(self.namespace), Digest.of(self.manifest, "sha256")
        yield layout.blob_key(manifest)
        yield layout.revision_key(namespace, manifest)
        yield layout.revision_reference_key(manifest, namespace)
        yield layout.tag_reference_key(manifest, namespace, Tag(self.tag))
        yield layout.catalog_key(namespace)
        yield f"{layout.tag_events_prefix(namespace, Tag(self.tag))}*.set.sha256.{manifest.hex}"
        for content in (self.config, *self.layers):
            digest = Digest.of(content, "sha256")
            yield layout.blob_key(digest)
            yield layout.owner_key(digest, namespace)
            yield layout.manifest_reference_key(digest, namespace, manifest)


class Pusher:
    """Pushes images, with patience. What happened to it on the way is counted."""

    def __init__(self, client: Caller, chunk_size: int = 400_000) -> None:
        self.client = client
        self.chunk_size = chunk_size
        self.statuses: list[int] = []
        """Of all answers, in order."""
        self.broken = 0
        """Connections that ended before an answer."""

    def push(self, image: Image) -> None:
        """Until everything is acknowledged."""
        self.push_blob(image.namespace, image.config, "put")
        for number, layer in enumerate(image.layers):
            # The Range of an upload cannot tell nothing from one byte, so clients send that little at once.
            way = ("chunks", "stream")[number % 2] if len(layer) > 1 else "put"
            self.push_blob(image.namespace, layer, way)
        target = f"/v2/{image.namespace}/manifests/{image.tag}"
        answer = self.surely("PUT", target, image.manifest, [("Content-Type", OCI_MANIFEST)])
        assert answer.status == 201, answer

    def push_blob(self, namespace: str, content: bytes, way: str) -> None:
        """`way`: ``put`` in one request, in ``chunks`` that say where they belong, or as one ``stream``."""
        digest = digest_of(content)
        ends = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < ends:
            answer = self.surely("POST", f"/v2/{namespace}/blobs/uploads/")
            assert answer.status == 202, answer
            if self._upload(namespace, answer.location, content, way):
                return
            if self.surely("HEAD", f"/v2/{namespace}/blobs/{digest}").status == 200:
                return
        raise AssertionError(f"no end to the push of {digest}: {self.statuses[-20:]}")

    def _upload(self, namespace: str, location: str, content: bytes, way: str) -> bool:
        """False when the upload is gone, so that it has to be begun again."""
        digest, at, ends = digest_of(content), 0, time.monotonic() + PATIENCE_SECONDS
        while way != "put" and at < len(content) and time.monotonic() < ends:
            rest = content[at:]
            if way == "stream" and at == 0:
                answer = self._once("PATCH", location, pieces_of(rest, self.chunk_size))
            else:
                chunk = rest[: self.chunk_size]
                fields = [("Content-Range", f"{at}-{at + len(chunk) - 1}")]
                answer = self._once("PATCH", location, chunk, fields)
            if answer is None or answer.status != 202:
                answer = self.surely("GET", location)
            if answer.status == 404:
                return False
            assert answer.status in (202, 204), answer
            at = _offset(answer, at)
            location = answer.location
        body = content if way == "put" else None
        answer = self.surely("PUT", with_query(location, {"digest": digest}), body)
        assert answer.status in (201, 404), answer
        assert answer.status == 404 or answer["docker-content-digest"] == digest
        return answer.status == 201

    def surely(self, method: str, target: str, body: Any = None, headers: Fields = ()) -> Answer:
        """The first answer that does not tell to come back later."""
        ends = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < ends:
            answer = self._once(method, target, body, headers)
            if answer is not None and answer.status != 503:
                return answer
            time.sleep(PAUSE_SECONDS)
        raise AssertionError(f"no answer to {method} {target}: {self.statuses[-20:]}")

    def _once(self, method: str, target: str, body: Any = None, headers: Fields = ()) -> Answer | None:
        """None when the connection broke."""
        try:
            answer = self.client.request(method, target, body, headers)
        except (ProtocolViolation, OSError):
            self.broken += 1
            return None
        self.statuses.append(answer.status)
        assert answer.status < 500 or answer.status == 503, answer
        assert answer.status != 503 or answer.get("retry-after"), answer
        return answer


def _offset(answer: Answer, before: int) -> int:
    """How far an upload has come, which can never be less far than was told before."""
    found = re.fullmatch(r"0-([0-9]+)", answer["range"])
    assert found is not None, answer
    offset = int(found[1]) + 1 if found[1] != "0" else 0
    assert offset >= before, f"{before} bytes were acknowledged; {answer} with {answer['range']}"
    return offset
