"""One repository of a registry, as a client sees it. Methods are acts of a client; most assert that they succeed."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode, urlsplit

from tests.conformance.http_client import Answer, Body, Client, Fields
from tests.conformance.oci.content import (
    EMPTY,
    OCI_CONFIG,
    OCI_LAYER_GZIP,
    OCI_MANIFEST,
    Json,
    bytes_of,
    config_of,
    descriptor,
    digest_of,
    manifest_of,
)

WAYS = ("single post", "post and put", "one chunk", "stream", "several chunks", "last chunk in put")
"""Every way to upload a blob that clients use."""


class Repository:
    """A repository name and a client."""

    def __init__(self, client: Client, name: str) -> None:
        self.client = client
        self.name = name
        self._counter = itertools.count()

    def path(self, rest: str) -> str:
        """The target of something in this repository."""
        return f"/v2/{self.name}/{rest}"

    def blob(self, digest: str) -> str:
        """The target of a blob."""
        return self.path(f"blobs/{digest}")

    def manifest(self, reference: str) -> str:
        """The target of a manifest."""
        return self.path(f"manifests/{reference}")

    @property
    def uploads(self) -> str:
        """Where uploads start."""
        return self.path("blobs/uploads/")

    def fresh_bytes(self, size: int = 512) -> bytes:
        """Bytes that nothing else in the registry consists of."""
        return bytes_of(f"{self.name} {next(self._counter)}", size)

    # --- blobs --------------------------------------------------------------------------------------------------------

    def start_upload(self, **query: str) -> str:
        """The location of a new upload."""
        answer = self.client.post(with_query(self.uploads, query))
        assert answer.status == 202, answer
        assert answer.get("range") in (None, "0-0"), answer
        assert answer.get("docker-content-digest") is None, answer
        return answer.location

    def append(self, location: str, content: bytes, start: int | None) -> Answer:
        """One chunk with a Content-Range, or without when `start` is None. Not asserted."""
        headers = [("Content-Type", "application/octet-stream")]
        if start is not None:
            headers.append(("Content-Range", f"{start}-{start + len(content) - 1}"))
        return self.client.patch(location, content, headers)

    def complete(self, location: str, digest: str, body: Body = None, headers: Fields = ()) -> Answer:
        """The closing PUT. Not asserted."""
        return self.client.put(with_query(location, {"digest": digest}), body, headers)

    def upload(self, content: bytes, way: str = "single post", algorithm: str = "sha256") -> Answer:
        """Upload by one of the `WAYS`, asserting every step but the last, whose answer is returned."""
        return self.upload_as(digest_of(content, algorithm), content, way)

    def upload_as(self, digest: str, content: bytes, way: str = "single post") -> Answer:
        """Like `upload`, under any digest, even a wrong one."""
        if way == "single post":
            return self.client.post(with_query(self.uploads, {"digest": digest}), content)
        location = self.start_upload()
        if way == "post and put":
            return self.complete(location, digest, content)
        if way == "stream":
            answer = self.client.patch(location, pieces_of(content, max(100, len(content) // 50)))
            assert answer.status == 202, answer
            return self.complete(answer.location, digest)
        chunks = [content] if way == "one chunk" or len(content) < 3 else pieces_of(content, len(content) // 3 + 1)
        last = chunks.pop() if way == "last chunk in put" else b""
        sent = 0
        for chunk in chunks:
            answer = self.append(location, chunk, sent) if chunk else self.client.patch(location, b"")
            sent += len(chunk)
            assert answer.status == 202, answer
            assert answer["range"] == f"0-{max(sent - 1, 0)}", answer
            location = answer.location
        if last:
            return self.complete(location, digest, last, [("Content-Range", f"{sent}-{sent + len(last) - 1}")])
        return self.complete(location, digest)

    def push_blob(self, content: bytes, way: str = "single post", algorithm: str = "sha256") -> str:
        """Upload and check what the registry says about it; the digest."""
        answer = self.upload(content, way, algorithm)
        digest = digest_of(content, algorithm)
        assert answer.status == 201, answer
        assert answer.location == self.blob(digest), answer
        assert answer["docker-content-digest"] == digest, answer
        return digest

    def pull_blob(self, digest: str) -> bytes:
        """GET with all its promises."""
        answer = self.client.get(self.blob(digest))
        assert answer.status == 200, answer
        assert answer["docker-content-digest"] == digest
        assert answer["content-type"] == "application/octet-stream"
        assert answer["etag"] == f'"{digest}"'
        assert answer["accept-ranges"] == "bytes"
        assert digest_of(answer.body, digest.partition(":")[0]) == digest
        return answer.body

    def has_blob(self, digest: str) -> bool:
        """HEAD with all its promises."""
        answer = self.client.head(self.blob(digest))
        assert answer.status in (200, 404), answer
        assert answer.status == 404 or answer["docker-content-digest"] == digest
        return answer.status == 200

    # --- manifests ----------------------------------------------------------------------------------------------------

    def put_manifest(
        self, content: bytes, reference: str, media_type: str = OCI_MANIFEST, chunked: bool = False
    ) -> Answer:
        """PUT a manifest. Not asserted."""
        body: Body = [content] if chunked else content
        return self.client.put(self.manifest(reference), body, [("Content-Type", media_type)])

    def push_manifest(
        self,
        content: bytes,
        reference: str | None = None,
        media_type: str = OCI_MANIFEST,
        *,
        algorithm: str = "sha256",
        chunked: bool = False,
    ) -> str:
        """PUT a manifest, by its digest without a reference, and check what the registry says; the digest."""
        digest = digest_of(content, algorithm)
        answer = self.put_manifest(content, reference or digest, media_type, chunked)
        assert answer.status == 201, answer
        assert answer["docker-content-digest"] == digest, answer
        assert answer.location in (self.manifest(digest), self.manifest(reference or digest)), answer
        return digest

    def pull_manifest(self, reference: str) -> Answer:
        """GET with all its promises."""
        answer = self.client.get(self.manifest(reference))
        assert answer.status == 200, answer
        digest = answer["docker-content-digest"]
        assert digest_of(answer.body, digest.partition(":")[0]) == digest
        assert ":" not in reference or reference == digest
        assert answer["etag"] == f'"{digest}"'
        return answer

    def push_image(self, *tags: str, layers: int = 1, algorithm: str = "sha256", **more: Any) -> tuple[bytes, Json]:
        """Push a small image with content of its own, by digest and under these tags; its bytes and descriptor."""
        contents = [self.fresh_bytes() for _ in range(layers)]
        config = config_of(contents)
        for content in (config, *contents):
            self.push_blob(content, algorithm=algorithm)
        manifest = manifest_of(
            descriptor(OCI_CONFIG, config, algorithm),
            [descriptor(OCI_LAYER_GZIP, content, algorithm) for content in contents],
            **more,
        )
        if algorithm == "sha256":
            for tag in tags or [digest_of(manifest)]:
                self.push_manifest(manifest, tag)
        else:
            digest = digest_of(manifest, algorithm)
            query = urlencode([("tag", tag) for tag in tags])
            answer = self.put_manifest(manifest, f"{digest}?{query}")
            assert answer.status == 201, answer
        return manifest, descriptor(OCI_MANIFEST, manifest, algorithm)

    def push_empty_blob(self) -> None:
        """Push ``{}``, the content of the empty descriptor."""
        self.push_blob(EMPTY)

    # --- lists --------------------------------------------------------------------------------------------------------

    def tags(self, query: str = "") -> list[str]:
        """All tags, page by page."""
        found: list[str] = []
        target: str | None = self.path(f"tags/list{query}")
        while target is not None:
            answer = self.client.get(target)
            assert answer.status == 200, answer
            assert answer["content-type"].startswith("application/json")
            assert answer.json["name"] == self.name
            found += answer.json["tags"]
            target = answer.next_page
        return found

    def referrers(self, subject: str, query: str = "") -> list[Json]:
        """The descriptors of all referrers, page by page."""
        found: list[Json] = []
        target: str | None = self.path(f"referrers/{subject}{query}")
        while target is not None:
            answer = self.client.get(target)
            assert answer.status == 200, answer
            assert answer["content-type"] == "application/vnd.oci.image.index.v1+json"
            assert answer.json["schemaVersion"] == 2
            assert answer.json["mediaType"] == "application/vnd.oci.image.index.v1+json"
            assert len(answer.body) <= 4 << 20, "clients cap an answer at 4 MiB"
            found += answer.json["manifests"]
            target = answer.next_page
        return found


def with_query(target: str, query: dict[str, str]) -> str:
    """Add parameters to a target that may already have some, as clients do."""
    if not query:
        return target
    return f"{target}{'&' if urlsplit(target).query else '?'}{urlencode(query)}"


def pieces_of(content: bytes, size: int) -> list[bytes]:
    """The content in pieces of this size."""
    return [content[start : start + size] for start in range(0, len(content), size)]


def parts_of(answer: Answer) -> Sequence[tuple[dict[str, str], bytes]]:
    """The parts of a ``multipart/byteranges`` body, parsed to the last byte (RFC 9110 section 14.6, RFC 2046 5.1)."""
    media_type, _, parameter = answer["content-type"].partition(";")
    assert media_type == "multipart/byteranges", answer["content-type"]
    boundary = parameter.strip().removeprefix("boundary=").strip('"')
    assert 1 <= len(boundary) <= 70
    body = answer.body if answer.body.startswith(b"\r\n") else b"\r\n" + answer.body
    delimiter = f"\r\n--{boundary}".encode()
    assert body.startswith(delimiter)
    closing = delimiter + b"--"
    assert body.count(closing) == 1
    assert body[body.index(closing) + len(closing) :] in (b"", b"\r\n")
    parts = []
    for part in body[: body.index(closing)].split(delimiter)[1:]:
        head, found, content = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        assert found
        fields = dict(line.split(": ", 1) for line in head.decode("ascii").split("\r\n"))
        parts.append(({name.lower(): value for name, value in fields.items()}, content))
    return parts
