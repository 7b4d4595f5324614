"""What a bucket may hold: what was acknowledged, everything of it, and nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from angos.sansio.layout import COLLECTORS_PREFIX, SUSPECTS_PREFIX, parse_blob_key
from tests.conformance.http_client import Answer
from tests.conformance.oci.content import digest_of
from tests.conformance.replicas.pushing import Image
from tests.conformance.s3_process import StoredBucket


@dataclass(frozen=True)
class Snapshot:
    """What a bucket held at some time."""

    sizes: dict[str, int]
    open_uploads: list[tuple[str, str]]

    @classmethod
    def of(cls, bucket: StoredBucket) -> Snapshot:
        """Now."""
        return cls(bucket.sizes(), bucket.open_uploads())


def check_bucket(bucket: StoredBucket, before: Snapshot, images: Iterable[Image], *, remains: bool = False) -> None:
    """Since then these images have been pushed. `remains`: of uploads that were cut short, which the collector takes
    later, may be there too."""
    now = Snapshot.of(bucket)
    found = now.sizes
    for key, size in before.sizes.items():
        assert found.get(key) == size, f"{key} has changed"
    expected = {name for image in images for name in image.names()}
    plain = {name for name in expected if "*" not in name}
    patterns = expected - plain
    assert plain <= found.keys(), f"acknowledged and not there: {sorted(plain - found.keys())}"
    for pattern in patterns:
        assert any(fnmatchcase(key, pattern) for key in found), f"acknowledged and not there: {pattern}"
    strays = {
        key
        for key in found.keys() - plain - before.sizes.keys()
        if not any(fnmatchcase(key, pattern) for pattern in patterns)
        and not (remains and "/_uploads/" in key)
        and not key.startswith((SUSPECTS_PREFIX, COLLECTORS_PREFIX))
    }
    assert not strays, f"nobody asked for {sorted(strays)}"
    for key in found.keys() - before.sizes.keys():
        digest = parse_blob_key(key)
        if digest is not None:
            assert hashlib.new(digest.algorithm, bucket.read(key)).hexdigest() == digest.hex, f"{key} has other bytes"
    if not remains:
        assert now.open_uploads == before.open_uploads, "pieces of objects are left"


def check_pulls(get: Callable[[str], Answer], images: Iterable[Image]) -> None:
    """Every image comes back as it was pushed, by its tag and by its digest."""
    for image in images:
        for reference in (image.tag, digest_of(image.manifest)):
            answer = get(f"/v2/{image.namespace}/manifests/{reference}")
            assert (answer.status, answer.body) == (200, image.manifest), answer
        for content in (image.config, *image.layers):
            answer = get(f"/v2/{image.namespace}/blobs/{digest_of(content)}")
            assert answer.status == 200, answer
            assert answer.body == content, f"{answer.target} has other bytes"
