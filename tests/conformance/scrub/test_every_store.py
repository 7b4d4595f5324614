"""Scrub on folders and buckets, blobs and metadata apart or together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import anyio
import pytest

from angos.runtime.clock import SystemClock
from angos.runtime.driver import drive
from angos.runtime.entropy import SystemEntropy
from angos.runtime.leases.local import LocalLeases
from angos.runtime.performer import RequestPerformer, Services
from angos.runtime.stores.directory import DirectoryStore
from angos.runtime.stores.s3.options import S3Options
from angos.runtime.stores.s3.store import S3Store
from angos.sansio import layout
from angos.sansio.config import RegistryConfig
from angos.sansio.effects import CreateKeys, DeleteKeys, Key, ListKeys, Prefix, ReadKey, StatKey, Tell
from angos.sansio.manifests import push_manifest
from angos.sansio.oci.digest import Digest
from angos.sansio.oci.manifest import parse_manifest
from angos.sansio.oci.reference import Namespace, Tag
from angos.sansio.operation import Operation
from angos.sansio.scrub.hands import Settings
from angos.sansio.scrub.report import Scrubbed
from angos.sansio.scrub.run import scrub
from tests.conformance.contracts.s3 import s3_bucket
from tests.conformance.oci.content import OCI_CONFIG, OCI_LAYER_GZIP, config_of, descriptor, manifest_of

T = TypeVar("T")
NAMESPACE = Namespace("library/app")
LAYER = b"layer" * 5000
CONFIG = config_of([LAYER])
MANIFEST = manifest_of(descriptor(OCI_CONFIG, CONFIG), [descriptor(OCI_LAYER_GZIP, LAYER)])
DIGEST = Digest.of(LAYER)
BLOB = layout.blob_key(DIGEST)
STRAYS = [Key("v2/ns/stray"), Key("v2/blobs/stray/x"), Key("v2/repositories/stray"), Key("v2/odd/stray")]
SETTINGS = Settings(verify_bytes=True, grace_ms=-60_000, page=3)


@pytest.fixture(scope="module")
def bucket() -> Iterator[S3Options]:
    with s3_bucket() as options:
        yield options


def store_at(place: str, root: Path, bucket: S3Options) -> Any:
    if place == "folder":
        return DirectoryStore(root, sync=False)
    return S3Store(replace(bucket, key_prefix=f"{bucket.key_prefix}{root.name}/"))


async def run(services: Services, operation: Any) -> Any:
    return await drive(Operation(operation), RequestPerformer(services, {}))


async def fill() -> None:
    """As a push does."""
    for content in (LAYER, CONFIG):
        digest = Digest.of(content)
        await CreateKeys(((layout.blob_key(digest), content), (layout.owner_key(digest, NAMESPACE), b"")))
    await push_manifest(
        NAMESPACE, Digest.of(MANIFEST), MANIFEST, parse_manifest(MANIFEST, None), (Tag("latest"),), RegistryConfig()
    )


async def everything() -> dict[str, bytes | None]:
    found: dict[str, bytes | None] = {}
    prefixes = ["v2/blobs/", "v2/repositories/", "v2/ref/", "v2/ns/", "v2/cat/", "v2/odd/", "v2/scrub/"]
    for prefix in [*prefixes, *(f"_lost_and_found/{prefix}" for prefix in prefixes)]:
        for name in (await ListKeys(Prefix(prefix))).names:
            key = Key(prefix + name)
            found[key] = None if await StatKey(key) is None else await ReadKey(key)
    return found


async def damage() -> None:
    await DeleteKeys(
        (BLOB, layout.catalog_key(NAMESPACE), layout.manifest_reference_key(DIGEST, NAMESPACE, Digest.of(MANIFEST)))
    )
    await CreateKeys(((BLOB, LAYER[:-1]), *((key, b"stray") for key in STRAYS)))


PLACES = [("folder",), ("bucket",), ("folder", "folder"), ("bucket", "folder"), ("folder", "bucket")]


@pytest.mark.parametrize("places", PLACES, ids="-".join)
def test_it_is_mended_wherever_it_lies(places: tuple[str, ...], tmp_path: Path, bucket: S3Options) -> None:
    async def all_of_it() -> None:
        blobs = store_at(places[0], tmp_path / f"{tmp_path.name}-blobs", bucket)
        metadata = blobs if len(places) == 1 else store_at(places[1], tmp_path / f"{tmp_path.name}-metadata", bucket)
        services = Services(blobs, metadata, LocalLeases(), SystemClock(), SystemEntropy())
        services.table[Tell] = lambda effect: None
        try:
            await check(services)
        finally:
            for store in (blobs, metadata):
                if isinstance(store, S3Store):
                    await store.close()

    anyio.run(all_of_it)


async def check(services: Services) -> None:
    await run(services, fill())
    before = await run(services, everything())
    sound: Scrubbed = await run(services, scrub(SETTINGS))
    assert sound.is_sound, sound.findings
    assert await run(services, everything()) == before

    await run(services, damage())
    done: Scrubbed = await run(services, scrub(SETTINGS))
    assert dict(done.problems) == {
        "corrupt": 1,
        "missing-bytes": 1,
        "missing-catalogue": 1,
        "missing-reference": 1,
        "unknown-key": len(STRAYS),
    }
    after = await run(services, everything())
    del before[BLOB]
    lost = {f"_lost_and_found/{key}": b"stray" for key in STRAYS} | {f"_lost_and_found/{BLOB}": LAYER[:-1]}
    assert after == {**before, **lost}
