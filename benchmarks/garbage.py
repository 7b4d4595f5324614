"""Stores with many small blobs, needed ones and needless ones, written file by file: pushing them takes too long."""

from __future__ import annotations

import os
import time
from hashlib import sha256
from itertools import count
from pathlib import Path

from angos.sansio import layout
from angos.sansio.effects import Key
from angos.sansio.oci.digest import Digest
from angos.sansio.oci.reference import Namespace

_NAMESPACE = Namespace("collected")
_LAYERS = 10
"""Of one manifest."""
_BLOB_BYTES = 100
_AGE_SECONDS = 2 * 86400  # past the grace period
_NAMES_OF_A_FILE = 30_000  # as the registry gives empty keys; ext4 has room for 65,000

_numbers = count()


def make_needed(root: Path, blobs: int) -> None:
    """So many blobs, each a layer of a manifest that is there."""
    files = _Files(root)
    for layer, manifest in _layers(blobs):
        files.link(layout.revision_key(_NAMESPACE, manifest), b"{}")
        files.link(layout.blob_key(layer), bytes(_BLOB_BYTES))
        _name(files, layer, manifest)


def make_needless(root: Path, blobs: int) -> None:
    """So many more, as the deletion of their manifests leaves them, two days ago."""
    files = _Files(root)
    at_ms = int((time.time() - _AGE_SECONDS) * 1000)
    for layer, manifest in _layers(blobs):
        files.write(layout.blob_key(layer), bytes(_BLOB_BYTES))
        _name(files, layer, manifest)
        files.link(layout.suspect_key(layer, at_ms, f"{next(_numbers):08x}"), b"")


def _name(files: _Files, layer: Digest, manifest: Digest) -> None:
    files.link(layout.owner_key(layer, _NAMESPACE), b"")
    files.link(layout.manifest_reference_key(layer, _NAMESPACE, manifest), b"")


def _layers(blobs: int) -> list[tuple[Digest, Digest]]:
    """Layers, and the manifests that they belong to."""
    numbers = [next(_numbers) for _ in range(blobs)]
    return [(_digest(f"layer {number}"), _digest(f"manifest {number // _LAYERS}")) for number in numbers]


def _digest(text: str) -> Digest:
    return Digest("sha256", sha256(text.encode()).hexdigest())


class _Files:
    """Old files of a store."""

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        self._folders: set[str] = set()
        self._lenders: dict[bytes, tuple[str, int]] = {}

    def write(self, key: Key, content: bytes) -> None:
        """Make a file."""
        path = self._path(key)
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        try:
            os.write(descriptor, content)
            then = time.time() - _AGE_SECONDS
            os.utime(descriptor, (then, then))
        finally:
            os.close(descriptor)

    def link(self, key: Key, content: bytes) -> None:
        """One more name of a file with this content, which takes less time. The key may be there."""
        path = self._path(key)
        lender, names = self._lenders.get(content, ("", 0))
        if not names % _NAMES_OF_A_FILE:
            lender = os.path.join(self._root, f"lender-{next(_numbers)}")
            self.write(Key(os.path.basename(lender)), content)
        self._lenders[content] = lender, names + 1
        try:
            os.link(lender, path)
        except FileExistsError:
            return

    def _path(self, key: Key) -> str:
        path = f"{self._root}/{key}"
        self._make_folder(os.path.dirname(path))
        return path

    def _make_folder(self, folder: str) -> None:
        if folder in self._folders:
            return
        self._folders.add(folder)
        try:
            os.mkdir(folder)
        except FileNotFoundError:
            self._make_folder(os.path.dirname(folder))
            os.mkdir(folder)
        except FileExistsError:
            return
