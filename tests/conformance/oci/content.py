"""Contents of an image registry, made by the tests: blobs, manifests, indexes, artifacts. Deterministic."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import random
import tarfile
from collections.abc import Iterable, Mapping
from typing import Any

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_LAYER_FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
DOCKER_LAYER_FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"

Json = dict[str, Any]


def digest_of(content: bytes, algorithm: str = "sha256") -> str:
    """``algorithm:hex`` of these bytes."""
    return f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"


def bytes_of(seed: str, size: int) -> bytes:
    """Always the same bytes for a seed, different ones for another."""
    return random.Random(seed).randbytes(size)


def encoded(document: object) -> bytes:
    """JSON as tools write it: any bytes would do, these are readable in a failure."""
    return json.dumps(document, separators=(",", ":")).encode()


def descriptor(media_type: str, content: bytes, algorithm: str = "sha256", **more: Any) -> Json:
    """A descriptor of these bytes (image-spec, descriptor.md)."""
    return {"mediaType": media_type, "digest": digest_of(content, algorithm), "size": len(content), **more}


def with_data(media_type: str, content: bytes) -> Json:
    """A descriptor that carries its content."""
    return descriptor(media_type, content, data=base64.b64encode(content).decode())


EMPTY = b"{}"
EMPTY_DESCRIPTOR = descriptor(OCI_EMPTY, EMPTY)


def manifest_of(config: Json, layers: Iterable[Json], media_type: str = OCI_MANIFEST, **more: Any) -> bytes:
    """An image manifest."""
    return encoded({"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": list(layers), **more})


def index_of(manifests: Iterable[Json], media_type: str = OCI_INDEX, **more: Any) -> bytes:
    """An image index."""
    return encoded({"schemaVersion": 2, "mediaType": media_type, "manifests": list(manifests), **more})


def artifact_of(artifact_type: str | None, subject: Json | None = None, **more: Any) -> bytes:
    """An artifact without content: config and layer are both the empty descriptor."""
    if artifact_type is not None:
        more["artifactType"] = artifact_type
    if subject is not None:
        more["subject"] = subject
    return manifest_of(EMPTY_DESCRIPTOR, [EMPTY_DESCRIPTOR], **more)


def layer_of(files: Mapping[str, bytes]) -> bytes:
    """An uncompressed layer with these files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, content in files.items():
            info = tarfile.TarInfo(path)
            info.size = len(content)
            info.mode = 0o644
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def compressed(content: bytes) -> bytes:
    """gzip without a timestamp."""
    return gzip.compress(content, mtime=0)


def config_of(layers: Iterable[bytes], architecture: str = "amd64", **more: Any) -> bytes:
    """The configuration of an image with these uncompressed layers."""
    diff_ids = [digest_of(layer) for layer in layers]
    return encoded(
        {
            "created": "2026-01-01T00:00:00Z",
            "architecture": architecture,
            "os": "linux",
            "config": {"Cmd": ["/hello"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": [{"created": "2026-01-01T00:00:00Z", "created_by": "test"} for _ in diff_ids],
            **more,
        }
    )
