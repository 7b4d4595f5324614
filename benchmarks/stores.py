"""Stores with many tags and repositories, made by copying the keys of one real push: pushing them all takes an hour."""

from __future__ import annotations

from pathlib import Path

from angos.sansio.layout import tag_folder, tag_reference_key, tags_prefix
from angos.sansio.oci.digest import Digest
from angos.sansio.oci.reference import Namespace, Tag
from benchmarks.client import Connection, push_as_clients_do, push_manifest
from benchmarks.content import ContentMaker
from benchmarks.servers import angos
from benchmarks.settings import Settings

SEED = Namespace("bench/seed")
_SEED_TAG = Tag("seed")


def make_store(settings: Settings, root: Path, tags: int, repositories: int) -> None:
    """A store whose namespace `SEED` has this many tags, and that has this many namespaces; all of one image."""
    _push_seed(settings, root)
    files = _seed_files(root)
    for number in range(1, repositories):
        _copy_repository(root, files, repository_name(number))
    for number in range(1, tags):
        _copy_tag(root, tag_name(number))


def tag_name(number: int) -> Tag:
    """Of a tag made here; in order."""
    return Tag(f"v{number:07}")


def repository_name(number: int) -> Namespace:
    """Of a repository made here; in order."""
    return Namespace(f"bench/r{number:06}")


def _push_seed(settings: Settings, root: Path) -> None:
    config, layer = ContentMaker(1500).make(), ContentMaker(2000).make()
    with angos(settings.cores, root) as server, Connection(server.port) as connection:
        for content in (config, layer):
            push_as_clients_do(connection, SEED, content)
        push_manifest(connection, SEED, str(_SEED_TAG), config, [layer])


def _seed_files(root: Path) -> list[str]:
    names = (str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
    return [name for name in names if f"/{SEED}!" in name]


def _copy_repository(root: Path, files: list[str], namespace: Namespace) -> None:
    for source in files:
        _write(root / source.replace(f"/{SEED}!", f"/{namespace}!"), (root / source).read_bytes())


def _copy_tag(root: Path, tag: Tag) -> None:
    folder = root / tags_prefix(SEED)
    for event in (folder / tag_folder(str(_SEED_TAG))).iterdir():
        _write(folder / tag_folder(str(tag)) / event.name, event.read_bytes())
        digest = Digest.parse(":".join(event.name.rsplit(".", 2)[1:]))
        _write(root / tag_reference_key(digest, SEED, tag), b"")


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except FileNotFoundError:
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
