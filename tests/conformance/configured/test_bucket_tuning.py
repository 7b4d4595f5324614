"""How patiently a bucket is asked, and in which pieces content goes there."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.configured.configured_registry import ConfiguredRegistry, Start, refusal
from tests.conformance.configured.coverage import changes_with
from tests.conformance.configured.test_buckets import STORES, bucket
from tests.conformance.contracts.s3_proxy import HANG_UP, S3Proxy, Seen, problem
from tests.conformance.http_client import Answer
from tests.conformance.oci.content import bytes_of
from tests.conformance.oci.repository import Repository
from tests.conformance.s3_process import KEYS

pytestmark = pytest.mark.xdist_group("configured-bucket-tuning")

PATIENCE_SECONDS = 30
MIB = 1 << 20


def impatient(start: Start, proxy: S3Proxy, store: str, tmp_path: Path, **options: Any) -> ConfiguredRegistry:
    """A registry with one store in the bucket and the other one in a folder."""
    (other,) = set(STORES) - {store}
    folder = {"fs": {"root_dir": str(tmp_path / "files"), "sync_to_disk": False}}
    registry = start({store: {"s3": bucket(proxy, key_prefix=store, **options)}, other: folder})
    assert asked_of(registry, store).status in (202, 404), "the bucket answers so far"
    return registry


def asked_of(registry: ConfiguredRegistry, store: str) -> Answer:
    """The answer to a request for which a store is asked exactly one thing first."""
    with registry.client() as client:
        return client.post("/v2/a/blobs/uploads/") if store == "blob_store" else client.get("/v2/a/manifests/1")


# --- patience ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("store", STORES)
@changes_with("blob_store.s3.max_attempts", "metadata_store.s3.max_attempts")
def test_a_request_is_sent_so_many_times(start: Start, proxy: S3Proxy, store: str, tmp_path: Path) -> None:
    for attempts in (1, 2):
        registry = impatient(start, proxy, store, tmp_path, max_attempts=attempts)
        known = len(proxy.seen)
        proxy.rule = lambda _: problem(503, "SlowDown")
        assert asked_of(registry, store).status == 503
        assert len({seen.target for seen in proxy.seen[known:]}) == 1
        assert len(proxy.seen[known:]) == attempts
        proxy.rule = lambda _: None


@pytest.mark.parametrize("store", STORES)
@changes_with("blob_store.s3.operation_attempt_timeout_secs", "metadata_store.s3.operation_attempt_timeout_secs")
def test_a_silent_store_is_not_waited_for(start: Start, proxy: S3Proxy, store: str, tmp_path: Path) -> None:
    registry = impatient(start, proxy, store, tmp_path, operation_attempt_timeout_secs=0.2, max_attempts=1)
    over = threading.Event()

    def hold(_: Seen) -> str:
        over.wait(PATIENCE_SECONDS)
        return HANG_UP

    proxy.rule = hold
    answer = asked_of(registry, store)
    over.set()
    assert (answer.status, answer.get("retry-after") is not None) == (503, True)
    assert f"{proxy.url} was silent for 0.2 s" in registry.log


@pytest.mark.parametrize("store", STORES)
@changes_with("blob_store.s3.operation_timeout_secs", "metadata_store.s3.operation_timeout_secs")
def test_all_attempts_together_have_a_limit(start: Start, proxy: S3Proxy, store: str, tmp_path: Path) -> None:
    registry = impatient(
        start, proxy, store, tmp_path, operation_timeout_secs=0.5, max_attempts=20, circuit_breaker_threshold=100
    )
    known = len(proxy.seen)
    proxy.rule = lambda _: HANG_UP
    assert asked_of(registry, store).status == 503
    assert "it was not done after 0.5 s, with all attempts" in registry.log
    assert 1 < len(proxy.seen) - known < 20


@pytest.mark.parametrize("store", STORES)
@changes_with(
    "blob_store.s3.circuit_breaker_threshold",
    "blob_store.s3.circuit_breaker_cooldown_secs",
    "metadata_store.s3.circuit_breaker_threshold",
    "metadata_store.s3.circuit_breaker_cooldown_secs",
)
def test_a_store_that_fails_is_left_alone_for_a_while(start: Start, proxy: S3Proxy, store: str, tmp_path: Path) -> None:
    long = {"max_attempts": 1, "circuit_breaker_threshold": 3, "circuit_breaker_cooldown_secs": 1000}
    registry = impatient(start, proxy, store, tmp_path, **long)
    known = len(proxy.seen)
    proxy.rule = lambda _: problem(503, "SlowDown")
    for _ in range(5):
        assert asked_of(registry, store).status == 503
    assert len(proxy.seen) - known == 3
    assert "fails again and again: not asked for 1000 s" in registry.log
    assert "not asked, it failed too often" in registry.log

    proxy.rule = lambda _: None
    registry = impatient(start, proxy, store, tmp_path, **long | {"circuit_breaker_cooldown_secs": 0.01})
    proxy.rule = lambda _: problem(503, "SlowDown")
    for _ in range(3):
        assert asked_of(registry, store).status == 503
    proxy.rule = lambda _: None
    ends = time.monotonic() + PATIENCE_SECONDS
    while (status := asked_of(registry, store).status) == 503:
        assert time.monotonic() < ends, "the bucket is not asked again"
    assert status in (202, 404)
    assert f"bucket {bucket(proxy)['bucket']} answers again" in registry.log


def test_a_redirect_costs_one_question(start: Start, proxy: S3Proxy) -> None:
    """Whether the repository owns the blob. It is looked for once, and then only for those who want to know that."""
    keys = {
        "access_key_id": KEYS.access_key_id,
        "secret_key": KEYS.secret_key.value,
    }  # a URL signed with others is no use
    registry = start({"blob_store": {"s3": bucket(proxy, key_prefix="asked", **keys)}})
    with registry.client() as client:
        repository = Repository(client, "a")
        digest = repository.push_blob(b"content")
        assert client.get(repository.blob(digest)).status == 307
        known = len(proxy.seen)
        for _ in range(3):
            assert client.get(repository.blob(digest)).status == 307
        asked = [seen for seen in proxy.seen[known:] if digest[7:] in seen.key]  # others may be the collector's
        assert [(seen.method, seen.key.endswith("/a!own")) for seen in asked] == [("GET", True)] * 3
        unknown = f"{0:064x}"
        assert client.head(repository.blob(f"sha256:{unknown}")).status == 404
        assert len(proxy.about(unknown)) == 2, "is it owned, is it a manifest"
        assert client.delete(repository.blob(digest)).status == 202
        assert client.get(repository.blob(digest)).status == 404, "who may read it is looked for each time"


# --- pieces -----------------------------------------------------------------------------------------------------------


def pushing(start: Start, proxy: S3Proxy, size: int, *, chunks: int = 1, **options: Any) -> list[Seen]:
    """What the bucket is asked while a blob of so many bytes is pushed. What was pushed comes back."""
    registry = start({"blob_store": {"s3": bucket(proxy, **options)}, "global": {"enable_blob_redirect": False}})
    known = len(proxy.seen)
    content = bytes_of(f"{options}", size)
    with registry.client() as client:
        repository = Repository(client, "a")
        digest = repository.push_blob(content, "several chunks" if chunks > 1 else "stream")
        seen = proxy.seen[known:]
        assert repository.pull_blob(digest) == content
    return seen


def sent(seen: list[Seen]) -> list[int]:
    """The sizes of the pieces that went to the bucket."""
    return [len(each.body) for each in seen if "partNumber" in each.query and "x-amz-copy-source" not in each.fields]


def copied(seen: list[Seen]) -> list[tuple[int, int]]:
    """The ranges that the bucket was asked to copy as pieces."""
    ranges = [each.fields["x-amz-copy-source-range"] for each in seen if "x-amz-copy-source-range" in each.fields]
    pairs = [each.removeprefix("bytes=").split("-") for each in ranges]
    return sorted((int(first), int(last)) for first, last in pairs)


@changes_with("blob_store.s3.multipart_part_size")
def test_uploads_are_sent_in_parts_of_this_size(start: Start, proxy: S3Proxy) -> None:
    assert sent(pushing(start, proxy, 13 * MIB)) == [5 * MIB, 5 * MIB, 3 * MIB]
    assert sent(pushing(start, proxy, 13 * MIB, multipart_part_size="6MiB")) == [6 * MIB, 6 * MIB, MIB]


@changes_with("blob_store.s3.multipart_copy_threshold", "blob_store.s3.multipart_copy_chunk_size")
def test_objects_above_a_size_are_copied_in_pieces(start: Start, proxy: S3Proxy) -> None:
    size = 17 * MIB + 5
    assert copied(pushing(start, proxy, size)) == []
    assert copied(pushing(start, proxy, size, multipart_copy_threshold="16MiB")) == [(0, size - 1)]
    seen = pushing(start, proxy, size, multipart_copy_threshold="16MiB", multipart_copy_chunk_size="6MiB")
    assert copied(seen) == [
        (0, 6 * MIB - 1),
        (6 * MIB, 12 * MIB - 1),
        (12 * MIB, size - 1),
    ]


@changes_with("blob_store.s3.multipart_copy_jobs")
def test_so_many_pieces_are_copied_at_once(start: Start, proxy: S3Proxy) -> None:
    """Five are more than usual; each is answered only when all have come."""
    met = threading.Barrier(5, timeout=PATIENCE_SECONDS)

    def meet(seen: Seen) -> None:
        if "x-amz-copy-source-range" in seen.fields:
            met.wait()

    proxy.rule = meet
    seen = pushing(
        start,
        proxy,
        25 * MIB,
        multipart_copy_threshold="16MiB",
        multipart_copy_chunk_size="5MiB",
        multipart_copy_jobs=5,
    )
    assert len(copied(seen)) == 5
    assert not met.broken


@changes_with("blob_store.s3.multipart_uniform_parts")
def test_parts_may_all_have_one_size(start: Start, proxy: S3Proxy) -> None:
    """Chunks of 7 MiB are put together from pieces of 5 MiB, those across two chunks by way of the registry."""
    size = 21 * MIB - 1

    def pieces_of_blob(seen: list[Seen]) -> dict[int, int]:
        found = {}
        for each in seen:
            if "partNumber" in each.query and each.key.endswith("/data"):
                ((first, last),) = copied([each]) or [(1, 0)]
                found[int(each.query["partNumber"])] = len(each.body) or last - first + 1
        return dict(sorted(found.items()))

    usual = pieces_of_blob(pushing(start, proxy, size, chunks=3))
    uniform = pieces_of_blob(pushing(start, proxy, size, chunks=3, multipart_uniform_parts=True))
    assert sum(usual.values()) == sum(uniform.values()) == size
    assert set(list(usual.values())[:-1]) == {7 * MIB}
    assert list(uniform.values()) == [5 * MIB] * 4 + [MIB - 1]


def test_sizes_that_a_bucket_does_not_take_are_refused(tmp_path: Path, proxy: S3Proxy) -> None:
    said = refusal(tmp_path, {"blob_store": {"s3": bucket(proxy, multipart_part_size="4MiB", max_attempts=0)}})
    assert 'blob_store.s3.multipart_part_size: found "4MiB"; allowed is a size from "5MiB" to "5GiB"' in said
    assert "blob_store.s3.max_attempts: found 0; allowed is a number from 1 to 20" in said
