"""``[blob_store.s3]`` and ``[metadata_store.s3]``: what lies where, and how the bucket is asked."""

from __future__ import annotations

import subprocess
import sys
import time
from calendar import timegm
from pathlib import Path
from time import strptime
from typing import Any
from urllib.parse import urlsplit

import anyio
import pytest

from angos.runtime.client.url import Url
from angos.runtime.stores.s3.bucket import Bucket
from angos.runtime.stores.s3.carrying_out import carry_out
from angos.runtime.stores.s3.options import Credentials, S3Options
from angos.runtime.stores.s3.signing import signed_fields
from angos.sansio.bucket.listing import sizes_below
from angos.sansio.effects import Prefix
from angos.sansio.secret import Secret
from tests.conformance.certificates import Authority
from tests.conformance.configured.configured_registry import ConfiguredRegistry, Start, merged, refusal
from tests.conformance.configured.coverage import changes_with
from tests.conformance.configured.test_retention import prune
from tests.conformance.contracts.s3_proxy import S3Proxy, Seen
from tests.conformance.oci.content import digest_of
from tests.conformance.oci.repository import Repository
from tests.conformance.registry_process import stored_files
from tests.conformance.runtime.example_configuration import file_with, written
from tests.conformance.runtime.reloading import replace_file, wait_for
from tests.conformance.s3_process import KEYS
from tests.conformance.server.wire import PATIENCE_SECONDS

pytestmark = pytest.mark.xdist_group("configured-buckets")

SECRET = "canary-of-a-secret-key"
STORES = ("blob_store", "metadata_store")


def bucket(proxy: S3Proxy, **options: Any) -> dict[str, Any]:
    """The keys of a table."""
    return {
        "endpoint": proxy.url,
        "bucket": "images",
        "region": "us-east-1",
        "access_key_id": "AKIDONE",
        "secret_key": SECRET,
        **options,
    }


def names(server: Url, name: str, prefix: str = "") -> set[str]:
    """All keys in a bucket below a prefix."""

    async def listed() -> set[str]:
        bucket = Bucket(S3Options(server, name, "us-east-1", "", KEYS))
        found = await carry_out(bucket, sizes_below(Prefix(prefix), bucket.terms))
        await bucket.close()
        return set(found)

    return anyio.run(listed)


def push(registry: ConfiguredRegistry, name: str = "a") -> None:
    with registry.client() as client:
        Repository(client, name).push_image("1")


def is_signed_with(seen: Seen, credentials: Credentials, region: str) -> bool:
    """Whether the signature is the one that these make."""
    listed = seen.fields["authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
    own = ("x-amz-content-sha256", "x-amz-date", "x-amz-security-token")
    split = urlsplit(seen.target)
    again = signed_fields(
        seen.method,
        split.path,
        split.query,
        {name: seen.fields[name] for name in listed if name not in own},
        seen.fields["x-amz-content-sha256"],
        credentials=credentials,
        region=region,
        at_seconds=timegm(strptime(seen.fields["x-amz-date"], "%Y%m%dT%H%M%SZ")),
    )
    return again["authorization"] == seen.fields["authorization"]


# --- where ------------------------------------------------------------------------------------------------------------


@changes_with(
    "blob_store.s3.endpoint",
    "blob_store.s3.bucket",
    "blob_store.s3.key_prefix",
    "metadata_store.s3.endpoint",
    "metadata_store.s3.bucket",
    "metadata_store.s3.key_prefix",
)
def test_blobs_and_metadata_lie_in_the_buckets_of_their_stores(start: Start, server: Url) -> None:
    with S3Proxy(server) as one, S3Proxy(server) as other:
        registry = start(
            {
                "blob_store": {"s3": bucket(one, key_prefix="blobs/here")},
                "metadata_store": {"s3": bucket(other, bucket="names", key_prefix="there/")},
            }
        )
        push(registry)
        blobs, metadata = names(server, "images", "blobs/here/"), names(server, "names", "there/")
        assert any(name.endswith("/data") for name in blobs)
        assert any("!tag/1!" in name for name in metadata)
        assert {seen.key for seen in one.seen if seen.method == "PUT"} > {f"blobs/here/{name}" for name in blobs}
        assert not blobs & metadata
        assert f"data in s3://images/blobs/here/ at {one.url}" in registry.said
        assert f"metadata in s3://names/there/ at {other.url}" in registry.said
        assert SECRET not in registry.said + registry.log


def test_metadata_lies_where_the_blobs_are_unless_it_has_a_place_of_its_own(
    start: Start, proxy: S3Proxy, server: Url, tmp_path: Path
) -> None:
    push(start({"blob_store": {"s3": bucket(proxy, key_prefix="together")}}))
    together = names(server, "images", "together/")
    assert any(name.endswith("/data") for name in together)
    assert any("!tag/1!" in name for name in together)

    folder = {"fs": {"root_dir": str(tmp_path / "names"), "sync_to_disk": False}}
    push(start({"blob_store": {"s3": bucket(proxy, key_prefix="apart")}, "metadata_store": folder}))
    assert all(name.endswith("/data") for name in names(server, "images", "apart/"))
    assert any("!tag/1!" in name for name in stored_files(tmp_path / "names"))

    folder = {"fs": {"root_dir": str(tmp_path / "blobs"), "sync_to_disk": False}}
    push(start({"blob_store": folder, "metadata_store": {"s3": bucket(proxy, key_prefix="names")}}))
    assert any("!tag/1!" in name for name in names(server, "images", "names/"))
    assert any(name.endswith("/data") for name in stored_files(tmp_path / "blobs"))


@pytest.mark.parametrize("workers", [1, 2])
def test_every_worker_has_connections_of_its_own(start: Start, proxy: S3Proxy, workers: int) -> None:
    document = {"blob_store": {"s3": bucket(proxy, key_prefix=f"workers{workers}")}, "server": {"workers": workers}}
    registry = start(merged(document, {"observability": {"metrics": {"enabled": True}}}))
    for number in range(4):
        push(registry, f"a{number}")
    with registry.connect() as wire:
        counted = wire.get("/metrics").body.decode()
    assert 'operation="create_keys"' in counted


# --- as whom ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("store", STORES)
@changes_with(
    "blob_store.s3.region",
    "blob_store.s3.access_key_id",
    "blob_store.s3.secret_key",
    "metadata_store.s3.region",
    "metadata_store.s3.access_key_id",
    "metadata_store.s3.secret_key",
)
def test_requests_are_signed_with_these_keys_for_this_region(start: Start, proxy: S3Proxy, store: str) -> None:
    push(start({store: {"s3": bucket(proxy, bucket="far", region="eu-central-1", key_prefix=store)}}))
    assert proxy.seen
    for seen in proxy.seen:
        if "X-Amz-Signature" not in seen.query:  # the URL that the start tries out carries its own
            assert is_signed_with(seen, Credentials("AKIDONE", Secret(SECRET)), "eu-central-1")


def test_new_keys_are_used_as_soon_as_they_are_configured(start: Start, proxy: S3Proxy) -> None:
    registry = start({"blob_store": {"s3": bucket(proxy, key_prefix="rotated")}})
    push(registry)
    file = registry.log_path.with_name("angos.toml")
    replace_file(file, file.read_text().replace("AKIDONE", "AKIDTWO").replace(SECRET, "canary-of-another"))
    wait_for(registry, "configuration reloaded")
    known = len(proxy.seen)
    push(registry, "b")
    assert proxy.seen[known:]
    for seen in proxy.seen[known:]:
        assert is_signed_with(seen, Credentials("AKIDTWO", Secret("canary-of-another")), "us-east-1")
    assert "canary" not in registry.log


@pytest.mark.parametrize("store", STORES)
def test_of_two_tables_that_were_the_same_each_follows_its_own(start: Start, proxy: S3Proxy, store: str) -> None:
    table = {"s3": bucket(proxy, key_prefix=f"own-{store}")}
    registry = start({"blob_store": table, "metadata_store": table})
    push(registry)
    file = registry.log_path.with_name("angos.toml")
    before, header, after = file.read_text().partition(f"{store} = ")
    assert header
    replace_file(file, before + header + after.replace("AKIDONE", "AKIDTWO", 1))
    wait_for(registry, "configuration reloaded")
    known = len(proxy.seen)
    push(registry, "b")
    told = {(_store_of(seen), _access_key_id(seen)) for seen in proxy.seen[known:]}
    other = STORES[STORES.index(store) - 1]
    assert told == {(store, "AKIDTWO"), (other, "AKIDONE")}


def _store_of(seen: Seen) -> str:
    key = seen.key or seen.query["prefix"]
    return "blob_store" if "/v2/blobs/" in key or "/v2/repositories/" in key else "metadata_store"


def _access_key_id(seen: Seen) -> str:
    return seen.fields["authorization"].partition("Credential=")[2].partition("/")[0]


@pytest.mark.parametrize("store", STORES)
@changes_with("blob_store.s3.server_ca_bundle", "metadata_store.s3.server_ca_bundle")
def test_the_certificate_of_the_endpoint_is_checked(
    start: Start, server: Url, authority: Authority, store: str
) -> None:
    with S3Proxy(server, authority.server_context("127.0.0.1")) as proxy:
        options = bucket(proxy, key_prefix=f"tls-{store}")
        push(start({store: {"s3": {**options, "server_ca_bundle": str(authority.bundle)}}}))
        assert proxy.seen
        known = len(proxy.seen)
        registry = start({store: {"s3": options}})
        with registry.connect() as wire:
            assert wire.get("/v2/a/manifests/x").status == 503
        assert "its certificate is not accepted" in registry.log
        assert len(proxy.seen) == known


# --- what is refused --------------------------------------------------------------------------------------------------


def test_another_place_takes_a_restart(start: Start, proxy: S3Proxy) -> None:
    registry = start({"blob_store": {"s3": bucket(proxy)}})
    file = registry.log_path.with_name("angos.toml")
    replace_file(file, file.read_text().replace('bucket = "images"', 'bucket = "names"'))
    wait_for(registry, "blob_store.s3.bucket: still images, since a change to names needs a restart")
    replace_file(file, "[server]\nport = 0\n")
    wait_for(registry, f"blob_store: still s3://images/ at {proxy.url}, since a change to ./angos-data needs a restart")
    assert SECRET not in registry.log


def test_a_store_is_a_directory_or_a_bucket(tmp_path: Path, proxy: S3Proxy) -> None:
    both = {"fs": {"root_dir": "data"}, "s3": bucket(proxy)}
    said = refusal(tmp_path, {"blob_store": both, "metadata_store": both})
    for store in STORES:
        assert f"{store}.s3: there is [{store}.fs] too; keep one of them" in said
    assert SECRET not in said


def test_half_a_pair_of_keys_is_refused(tmp_path: Path, proxy: S3Proxy) -> None:
    for missing, given in (("access_key_id", "secret_key"), ("secret_key", "access_key_id")):
        half = {key: value for key, value in bucket(proxy).items() if key != missing}
        assert f"blob_store.s3.{given}: needs {missing} beside it" in refusal(tmp_path, {"blob_store": {"s3": half}})


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_keys_that_are_not_configured_are_found_on_either_loop(
    tmp_path: Path, proxy: S3Proxy, monkeypatch: pytest.MonkeyPatch, store: str, loop: str
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDFOUND")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    table = {key: value for key, value in bucket(proxy).items() if key not in ("access_key_id", "secret_key")}
    file = file_with(tmp_path, written({store: {"s3": table}}))
    command = [sys.executable, "-m", "angos.runtime", "server", "-c", str(file), "--loop", loop, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        try:
            assert process.stdout is not None
            assert "listening on" in process.stdout.readline()
        finally:
            process.terminate()
    signed = [seen for seen in proxy.seen if "X-Amz-Signature" not in seen.query]
    assert signed
    assert all(is_signed_with(seen, Credentials("AKIDFOUND", Secret(SECRET)), "us-east-1") for seen in signed)


def test_a_folder_on_the_command_line_does_not_replace_a_bucket(tmp_path: Path, proxy: S3Proxy) -> None:
    file = file_with(tmp_path, written({"blob_store": {"s3": bucket(proxy)}}))
    command = [sys.executable, "-m", "angos.runtime", "server", "-c", str(file), "--root", str(tmp_path / "data")]
    found = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert found.returncode == 1
    assert "the blobs are in a bucket; leave out --root or [blob_store.s3]" in found.stderr
    assert not (tmp_path / "data").exists()


# --- maintained -------------------------------------------------------------------------------------------------------


def test_tags_and_manifests_are_pruned_in_a_bucket(start: Start, proxy: S3Proxy) -> None:
    """Beside the server; what a bucket says about the age of its objects counts."""
    policy = {"rules": ['image.tag == "latest"'], "min_age": 0}
    registry = start(
        {
            "blob_store": {"s3": bucket(proxy, key_prefix="pruned")},
            "metadata_store": {"s3": bucket(proxy, bucket="names", key_prefix="pruned")},
            "global": {"retention_policy": policy, "gc_grace_secs": 1},
        }
    )
    with registry.client() as client:
        repository = Repository(client, "a")
        kept, old = repository.push_image("latest")[0], repository.push_image("v1")[0]
        shown = prune(registry, "--dry-run")
        assert (shown.returncode, shown.stderr) == (0, "")
        assert shown.stdout.splitlines()[-1].startswith("1 of 2 tags")
        assert client.request("GET", "/v2/a/manifests/v1").status == 200
        pruned = [prune(registry)]
        deadline = time.monotonic() + PATIENCE_SECONDS
        while client.request("GET", f"/v2/a/manifests/{digest_of(old)}").status == 200:
            assert time.monotonic() < deadline, pruned
            pruned.append(prune(registry))
        assert all((done.returncode, done.stderr) == (0, "") for done in pruned)
        assert "1 of 2 tags" in pruned[0].stdout
        assert "1 of 1 manifest without a tag" in pruned[-1].stdout
        assert client.request("GET", "/v2/a/manifests/v1").status == 404
        assert client.request("GET", f"/v2/a/manifests/{digest_of(kept)}").status == 200
