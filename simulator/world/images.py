"""The tiny universe of a scenario: a few blobs, images of them, two namespaces, three tags. Collisions are normal."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache

from angos.sansio.oci.digest import Digest
from angos.simulator.world.bodies import synthetic

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"

NAMESPACES = ("a", "a/b")
TAGS = ("v1", "latest", "v1.0")
BLOB_SIZES = (24, 37, 10, 0)  # never 1: an offset of 1 and one of 0 are the same text in ``Range``


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes and what they are called."""

    content: bytes
    digest: Digest


@dataclass(frozen=True, slots=True)
class Image:
    """A manifest and what has to be there before it."""

    content: bytes
    digest: Digest
    media_type: str
    blobs: tuple[int, ...]
    children: tuple[int, ...] = ()
    subject: Digest | None = None


@cache
def blob(index: int) -> Blob:
    """One of the blobs; the odd-numbered rounds through the list are sha512."""
    size = BLOB_SIZES[index % len(BLOB_SIZES)]
    content = synthetic(f"blob {index}", size)
    return Blob(content, Digest.of(content, "sha512" if index // len(BLOB_SIZES) % 2 else "sha256"))


@cache
def image(index: int) -> Image:
    """0 and 1 are images that share a layer, 2 refers to 0 as its subject, 3 is an index of 0 and 1."""
    kind, turn = index % 4, index // 4
    if kind == 3:
        children = (4 * turn, 4 * turn + 1)
        return _image({"mediaType": INDEX_TYPE, "manifests": [_child(child) for child in children]}, (), children)
    blobs = ((0, 1), (0, 2, 1), (3, 2))[kind]
    manifest: dict[str, object] = {
        "mediaType": MANIFEST_TYPE,
        "config": _descriptor(blobs[0], CONFIG_TYPE),
        "layers": [_descriptor(layer, LAYER_TYPE) for layer in blobs[1:]],
        "annotations": {"turn": str(turn)},
    }
    if kind == 2:
        manifest["artifactType"] = "application/vnd.example.signature"
        manifest["subject"] = _child(4 * turn)
        return _image(manifest, blobs, (), image(4 * turn).digest)
    return _image(manifest, blobs, ())


def _image(
    manifest: dict[str, object], blobs: tuple[int, ...], children: tuple[int, ...], subject: Digest | None = None
) -> Image:
    content = json.dumps({"schemaVersion": 2, **manifest}).encode()
    return Image(content, Digest.of(content), str(manifest["mediaType"]), blobs, children, subject)


def _descriptor(index: int, media_type: str) -> dict[str, object]:
    one = blob(index)
    return {"mediaType": media_type, "digest": str(one.digest), "size": len(one.content)}


def _child(index: int) -> dict[str, object]:
    one = image(index)
    return {"mediaType": one.media_type, "digest": str(one.digest), "size": len(one.content)}
