"""OCI layout folders, made by the tests: real images for real clients (image-spec, image-layout.md)."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from tests.conformance.oci.content import (
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER_GZIP,
    OCI_MANIFEST,
    Json,
    bytes_of,
    compressed,
    config_of,
    descriptor,
    digest_of,
    index_of,
    layer_of,
    manifest_of,
)

TAG = "test"


class Layout:
    """A folder that skopeo reads as ``oci:FOLDER:test``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        (folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        self.blobs: dict[str, bytes] = {}

    @property
    def source(self) -> str:
        """How skopeo calls it."""
        return f"oci:{self.folder}:{TAG}"

    def add(self, media_type: str, content: bytes, algorithm: str = "sha256", **more: object) -> Json:
        """Add a blob or manifest; its descriptor."""
        described = descriptor(media_type, content, algorithm, **more)
        path = self.folder / "blobs" / algorithm / described["digest"].partition(":")[2]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        self.blobs[described["digest"]] = content
        return described

    def add_image(self, architecture: str, layers: int, algorithm: str = "sha256") -> Json:
        """Add an image of several gzip layers; its descriptor."""
        tars = [
            layer_of(
                {
                    f"file-{number}": bytes_of(f"{architecture} {number}", 30_000 * (number + 1)),
                    f"text-{number}": b"the same line again and again\n" * 1000,
                }
            )
            for number in range(layers)
        ]
        config = self.add(OCI_CONFIG, config_of(tars, architecture), algorithm)
        described = [self.add(OCI_LAYER_GZIP, compressed(tar), algorithm) for tar in tars]
        return self.add(OCI_MANIFEST, manifest_of(config, described), algorithm)

    def name(self, described: Json) -> str:
        """Make this manifest or index the one that is meant; its digest."""
        named = {**described, "annotations": {"org.opencontainers.image.ref.name": TAG}}
        (self.folder / "index.json").write_bytes(index_of([named]))
        return str(described["digest"])


def image_layout(folder: Path, layers: int = 3) -> tuple[Layout, str]:
    """An image of several layers; its digest."""
    layout = Layout(folder)
    return layout, layout.name(layout.add_image("amd64", layers))


def multi_arch_layout(folder: Path) -> tuple[Layout, str]:
    """An index of three images; its digest."""
    layout = Layout(folder)
    children = []
    for architecture in ("amd64", "arm64", "s390x"):
        child = layout.add_image(architecture, 2)
        children.append({**child, "platform": {"architecture": architecture, "os": "linux"}})
    return layout, layout.name(layout.add(OCI_INDEX, index_of(children)))


def named_digest(folder: Path) -> str:
    """The digest that the only entry of a layout's index names, after checking every blob of the layout."""
    for path in folder.glob("blobs/*/*"):
        assert hashlib.new(path.parent.name, path.read_bytes()).hexdigest() == path.name
    document = json.loads((folder / "index.json").read_bytes())
    (entry,) = document["manifests"]
    return str(entry["digest"])


def content_of(folder: Path) -> dict[str, bytes]:
    """Every blob of a layout by digest."""
    return {digest_of(path.read_bytes(), path.parent.name): path.read_bytes() for path in folder.glob("blobs/*/*")}
