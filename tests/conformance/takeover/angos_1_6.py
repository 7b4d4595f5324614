"""A store as Angos 1.6 leaves it, written by hand: none of our own code that writes keys or records is used here.

From the description of its layout: keys are files, values as it writes them, with more digits in times than we write,
with reasons of references that we do not write, and with what it keeps for itself.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
UPLOAD = "9b2f7c1e-1111-4222-8333-444455556666"
PULLED = 1_772_000_000_000

Json = dict[str, Any]


def digest_of(content: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"


def described(content: bytes, media_type: str, algorithm: str = "sha256") -> Json:
    return {"mediaType": media_type, "digest": digest_of(content, algorithm), "size": len(content)}


def order(at_ms: int | None) -> str:
    """The newest sorts first; the last of all are those of unknown time, from before 1.2."""
    return f"{2**64 - 1 if at_ms is None else 2**64 - 2 - at_ms:016x}"


class Angos16:
    """Writes files below a root."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, key: str, value: bytes | Json = b"") -> None:
        path = self.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(value if isinstance(value, bytes) else json.dumps(value).encode())

    def blob(self, content: bytes, algorithm: str = "sha256") -> str:
        digest = digest_of(content, algorithm)
        self.write(f"v2/blobs/{sharded(digest)}/data", content)
        return digest

    def own(self, namespace: str, content: bytes, algorithm: str = "sha256") -> None:
        """Uploaded, mounted or fetched there."""
        digest = self.blob(content, algorithm)
        self.write(f"v2/ref/{sharded(digest)}/{namespace}!own")
        self.write(f"v2/cat/{namespace}!")

    def refer(self, namespace: str, digest: str, why: str) -> None:
        self.write(f"v2/ref/{sharded(digest)}/{namespace}!r/{why}")

    def manifest(self, namespace: str, document: Json, *, records_type: bool = True, tracked: bool = True) -> bytes:
        """A manifest by its digest. `tracked`: references say which manifest needs a blob, not only that one does."""
        content = json.dumps(document, indent=3).encode()
        digest = self.blob(content)
        name = digest.replace(":", ".")
        for descriptor in [document.get("config"), *document.get("layers", ())]:
            if descriptor is not None:
                kind = "config" if descriptor is document.get("config") else "layer"
                self.refer(namespace, descriptor["digest"], name if tracked else kind)
        for child in document.get("manifests", ()):
            self.refer(namespace, child["digest"], f"idx.{name}")
        self.refer(namespace, digest, "rev")
        subject = document.get("subject")
        if subject is not None:
            self.refer(namespace, digest, f"sub.{subject['digest'].replace(':', '.')}")
            record = {**described(content, document["mediaType"]), "artifactType": document.get("artifactType")}
            self.write(f"v2/ns/{namespace}!sub/{sharded(subject['digest'])}/{name}", record)
        record = {"created_at": "2026-02-03T04:05:06.123456789Z"}
        if records_type:
            record["media_type"] = document.get("mediaType", MANIFEST)
        self.write(f"v2/ns/{namespace}!rev/{sharded(digest)}", record)
        self.write(f"v2/cat/{namespace}!")
        return content

    def tag(
        self, namespace: str, tag: str, content: bytes, at_ms: int | None, kind: str = "set", family: str = "tag"
    ) -> None:
        """An event in the life of a tag."""
        digest = digest_of(content)
        body = {"media_type": MANIFEST, "size": len(content), "annotations": {"a": "b"}} if kind == "set" else {}
        name = f"{order(at_ms)}.{kind}.{digest.replace(':', '.')}"
        self.write(f"v2/ns/{namespace}!{family}/{tag}!/{name}", body)
        self.refer(namespace, digest, f"tag.{tag}")

    def housekeeping(self, namespace: str, digest: str) -> None:
        """What it keeps for itself."""
        algorithm, _, encoded = digest.partition(":")
        self.write(f"v2/ns/{namespace}!atime/tag/v1!/{order(PULLED)}.01abcdef", {"client": "bob", "at": PULLED})
        self.write(f"v2/ns/{namespace}!atime/rev/{algorithm}/{encoded}!/{order(PULLED)}.01abcdef", {"client": "bob"})
        self.write(f"v2/gc/{UPLOAD}", {"start": digest, "end": digest, "expires_at": PULLED, "instance": "i"})
        self.write(f"v2/repositories/{namespace}/_uploads/{UPLOAD}/data", b"half")
        self.write(f"v2/repositories/{namespace}/_uploads/{UPLOAD}/session.json", {"committed_offset": 4})
        self.write(f"v2/repositories/{namespace}/_uploads/{UPLOAD}/staged/0", b"ha")
        self.write(f"v2/cat/.angos-write.{UPLOAD}", b"")
        self.write("_jobs/pending/cache/0001.json", {"queue": "cache"})
        self.write("_lost_and_found/v2/ns/odd", b"odd")


def sharded(digest: str) -> str:
    algorithm, _, encoded = digest.partition(":")
    return f"{algorithm}/{encoded[:2]}/{encoded}"


def image(config: bytes, *layers: bytes, **more: Any) -> Json:
    return {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": described(config, CONFIG),
        "layers": [described(layer, LAYER) for layer in layers],
        **more,
    }
