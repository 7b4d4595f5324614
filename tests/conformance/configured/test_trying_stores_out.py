"""What a start and ``angos check --storage`` find out about stores, and what follows from it."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from angos.runtime.client.url import Url
from angos.runtime.stores.s3.bucket import Bucket
from angos.runtime.stores.s3.carrying_out import carry_out
from angos.runtime.stores.s3.options import S3Options
from angos.sansio.bucket.listing import sizes_below, uploads_below
from angos.sansio.effects import Prefix
from tests.conformance.configured.configured_registry import ConfiguredRegistry, Start, refusal
from tests.conformance.contracts.s3_proxy import HANG_UP, Answer, S3Proxy, Seen, problem
from tests.conformance.oci.repository import Repository
from tests.conformance.registry_process import stored_files
from tests.conformance.runtime.example_configuration import file_with, written
from tests.conformance.s3_process import KEYS

pytestmark = pytest.mark.xdist_group("configured-buckets")

PROBES = "v2/probe/"


def in_bucket(proxy: S3Proxy, **options: Any) -> dict[str, Any]:
    table = {
        "endpoint": proxy.url,
        "bucket": "images",
        "region": "us-east-1",
        "access_key_id": KEYS.access_key_id,
        "secret_key": KEYS.secret_key.value,
        **options,
    }
    return {"blob_store": {"s3": table}}


def left_in_bucket(server: Url) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Keys of tries, and multipart uploads."""

    async def found() -> tuple[dict[str, int], list[tuple[str, str]]]:
        bucket = Bucket(S3Options(server, "images", "us-east-1", "", KEYS))
        keys = await carry_out(bucket, sizes_below(Prefix(PROBES), bucket.terms))
        uploads = await carry_out(bucket, uploads_below(Prefix(""), bucket.terms))
        await bucket.close()
        return keys, uploads

    return anyio.run(found)


def check_storage(folder: Path, document: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    file = file_with(folder, written(document))
    command = [sys.executable, "-m", "angos.runtime", "check", "-c", str(file), "--storage"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=folder)
    assert KEYS.secret_key.value not in found.stdout + found.stderr
    assert "Traceback" not in found.stderr
    return found


def without_conditions(seen: Seen) -> None:
    """A store that takes no notice of If-None-Match."""
    assert isinstance(seen.fields, dict)
    seen.fields.pop("if-none-match", None)


def push(registry: ConfiguredRegistry, tag: str = "1") -> None:
    with registry.client() as client:
        Repository(client, "some/image").push_image(tag)


def push_status(registry: ConfiguredRegistry) -> tuple[int, str]:
    """Of the first request of a push: the status, and after how many seconds to try again."""
    with registry.client() as client:
        answer = client.post("/v2/some/image/blobs/uploads/")
        return answer.status, answer["retry-after"]


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_shows_a_table_about_each_store_and_leaves_nothing(
    tmp_path: Path, proxy: S3Proxy, server: Url
) -> None:
    (tmp_path / "names").mkdir()
    document = {**in_bucket(proxy), "metadata_store": {"fs": {"root_dir": "names"}}}
    found = check_storage(tmp_path, document)
    assert (found.returncode, found.stderr) == (0, "")
    bucket, folder = found.stdout.split("metadata_store: ")
    assert bucket.startswith(f"blob_store: s3://images/ at {proxy.url}\n")
    for need in ("creates a key at most once", "joins pieces, sent or copied", "lets clients in with signed URLs"):
        (line,) = [line for line in bucket.splitlines() if need in line]
        assert line.endswith("works")
    for need in ("creates a name at most once (hard links)", "can be waited for", "O_DIRECT"):
        assert any(need in line and line.split("  ")[2:] for line in folder.splitlines())
    assert "fails" not in bucket
    assert left_in_bucket(server) == ({}, [])
    assert not stored_files(tmp_path / "names")


def test_the_command_makes_no_folder(tmp_path: Path) -> None:
    found = check_storage(tmp_path, {"blob_store": {"fs": {"root_dir": "not/there/yet"}}})
    assert (found.returncode, found.stderr) == (0, "")
    assert "blob_store: " in found.stdout
    assert os.listdir(tmp_path) == ["angos.toml"]


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (without_conditions, "takes no notice of If-None-Match"),
        (lambda _: problem(403, "SignatureDoesNotMatch"), "the secret key does not belong to the access key id"),
        (lambda _: HANG_UP, "closed the connection without an answer"),
        (
            lambda seen: Answer(200, b"<ListBucketResult>") if seen.query.get("list-type") else None,
            "the answer is not XML",
        ),
        (lambda seen: problem(501, "NotImplemented") if "uploads" in seen.query else None, "cannot do this"),
    ],
    ids=["no conditions", "wrong keys", "hangs up", "cut listing", "no multipart"],
)
def test_the_command_fails_where_a_server_would(
    tmp_path: Path, proxy: S3Proxy, server: Url, rule: Callable[[Seen], Any], said: str
) -> None:
    proxy.rule = rule
    found = check_storage(tmp_path, in_bucket(proxy))
    assert found.returncode == 1
    assert said in found.stdout
    assert "images" in found.stdout
    assert "hold a store" in found.stderr
    proxy.rule = lambda _: None
    assert left_in_bucket(server) == ({}, [])


# --- a start ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 3])
def test_a_start_tries_the_bucket_once_however_many_processes_serve(
    start: Start, proxy: S3Proxy, server: Url, workers: int
) -> None:
    registry = start({**in_bucket(proxy), "server": {"workers": workers}})
    assert len({seen.key.split("/")[2] for seen in proxy.about(PROBES)}) == 1
    assert len(proxy.seen) <= 21 + workers, "and each process looks once whether pulls are recorded"
    asked = len(proxy.about(PROBES))
    push(registry)
    assert len(proxy.about(PROBES)) == asked
    assert left_in_bucket(server) == ({}, [])
    assert not registry.log


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (lambda _: problem(404, "NoSuchBucket"), "there is no such bucket (404 NoSuchBucket)"),
        (
            lambda _: problem(403, "InvalidAccessKeyId", KEYS.secret_key.value),
            "it does not know this access key id (403 InvalidAccessKeyId)",
        ),
        (lambda _: problem(403, "SignatureDoesNotMatch"), "the secret key does not belong to the access key id"),
        (
            lambda seen: problem(403, "AccessDenied") if seen.method == "PUT" else None,
            "creating v2/probe/original in bucket images: these keys may not do this",
        ),
        (
            lambda _: Answer(
                403,
                b"<Error><Code>RequestTimeTooSkewed</Code></Error>",
                {"date": "Fri, 24 May 2013 00:00:00 GMT"},
            ),
            "set them right (its time is Fri, 24 May 2013 00:00:00 GMT, ",
        ),
        (without_conditions, "takes no notice of If-None-Match"),
    ],
    ids=["bucket", "key id", "secret", "writes denied", "clock", "no conditions"],
)
def test_a_bucket_that_will_not_do_is_said_in_one_line_and_nothing_starts(
    tmp_path: Path, proxy: S3Proxy, rule: Callable[[Seen], Any], said: str
) -> None:
    proxy.rule = rule
    (line,) = refusal(tmp_path, in_bucket(proxy)).splitlines()
    assert line.startswith(f"angos: s3://images/ at {proxy.url} cannot hold a store: ")
    assert said in line
    assert KEYS.secret_key.value not in line


@pytest.mark.parametrize("workers", [1, 2])
def test_a_store_that_is_away_is_tried_out_by_the_first_write(start: Start, proxy: S3Proxy, workers: int) -> None:
    proxy.rule = lambda _: problem(503, "SlowDown")
    tuning = {"max_attempts": 1, "circuit_breaker_threshold": 1000}
    registry = start({**in_bucket(proxy, key_prefix=f"away{workers}", **tuning), "server": {"workers": workers}})
    assert "was not tried out, which the first write will do: listing v2/probe/ in bucket images" in registry.log
    assert "it answered 503 SlowDown" in registry.log
    assert push_status(registry) == (503, "5")
    proxy.rule = without_conditions
    assert push_status(registry) == (503, "5")
    assert "nothing is written to bucket images" in registry.log
    with registry.client() as client:  # its bytes come before its first key
        digest = f"sha256:{hashlib.sha256(b'content').hexdigest()}"
        assert client.post(f"/v2/some/image/blobs/uploads/?digest={digest}", b"content").status == 503
    assert not proxy.about("v2/repositories/", "PUT")
    assert not proxy.about("v2/blobs/", "PUT")
    proxy.rule = lambda _: None
    push(registry)


def test_a_store_that_lets_nobody_in_with_signed_urls_is_not_shown_to_clients(start: Start, proxy: S3Proxy) -> None:
    registry = start(in_bucket(proxy, key_prefix="shown"))
    with registry.client() as client:
        digest = Repository(client, "some/image").push_blob(b"content")
        assert client.get(f"/v2/some/image/blobs/{digest}").status == 307

    proxy.rule = lambda seen: problem(403, "AccessDenied") if "X-Amz-Signature" in seen.query else None
    registry = start(in_bucket(proxy, key_prefix="shown"))
    assert "lets clients in with signed URLs: it fails, following a signed URL to v2/probe/original" in registry.log
    with registry.client() as client:
        answer = client.get(f"/v2/some/image/blobs/{digest}")
        assert (answer.status, answer.body) == (200, b"content")


def test_a_clock_that_is_a_little_wrong_is_told(start: Start, proxy: S3Proxy) -> None:
    date = {"date": "Fri, 24 May 2013 00:00:00 GMT"}
    proxy.rule = lambda seen: Answer(200, b"", date) if seen.method == "HEAD" and not seen.key else None
    registry = start(in_bucket(proxy))
    (line,) = registry.log.splitlines()
    assert "has the time of this machine: it fails, its clock is " in line
    assert " behind that of this machine, so it may refuse signatures" in line
