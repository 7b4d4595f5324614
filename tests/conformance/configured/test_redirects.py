"""Clients that are sent to the bucket for content, and those that are not."""

from __future__ import annotations

import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest

from angos.runtime.stores.s3.options import S3Options
from angos.sansio.trace import read_operation_trace
from tests.conformance.configured.configured_registry import ConfiguredRegistry, Start
from tests.conformance.configured.coverage import changes_with
from tests.conformance.http_client import Answer
from tests.conformance.oci.content import OCI_MANIFEST
from tests.conformance.oci.repository import Repository
from tests.conformance.registry_process import RegistryProcess
from tests.conformance.runtime.example_configuration import file_with, written
from tests.conformance.s3_process import KEYS, StoredBucket, given_place

pytestmark = pytest.mark.xdist_group("configured-redirects")

CONTENT = bytes(range(256)) * 40
NO_REDIRECT = "X-Angos-No-Redirect"


@pytest.fixture(scope="module")
def bucket(request: pytest.FixtureRequest) -> Iterator[StoredBucket]:
    """Whoever serves it: signed URLs are where stores differ."""
    with given_place() as place:
        if place is not None:
            yield place.bucket("images")
        else:
            yield StoredBucket(S3Options(request.getfixturevalue("server"), "images", "us-east-1", "", KEYS))


def in_bucket(bucket: StoredBucket, **options: Any) -> dict[str, Any]:
    return {"s3": {**bucket.table(), "key_prefix": prefix_in(bucket), **options}}


def prefix_in(bucket: StoredBucket) -> str:
    """One that has to be quoted in URLs."""
    return f"{bucket.options.key_prefix}some where"


@pytest.fixture(scope="module")
def registry(start_shared: Start, bucket: StoredBucket) -> ConfiguredRegistry:
    return start_shared({"blob_store": in_bucket(bucket)})


@pytest.fixture
def pushed(registry: ConfiguredRegistry) -> Iterator[tuple[Repository, str]]:
    """A repository, and the digest of a blob in it."""
    with registry.client() as client:
        repository = Repository(client, "some/image")
        yield repository, repository.push_blob(CONTENT)


def get(repository: Repository, target: str, **fields: str) -> Answer:
    return repository.client.get(target, tuple((name.replace("_", "-"), value) for name, value in fields.items()))


def followed(location: str, fields: Mapping[str, str] | None = None) -> tuple[int, bytes, Mapping[str, str]]:
    """What a client finds there that knows nothing of S3."""
    with urllib.request.urlopen(urllib.request.Request(location, headers=dict(fields or {})), timeout=30) as answer:
        return answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()}


def test_a_blob_is_got_from_the_bucket(pushed: tuple[Repository, str], bucket: StoredBucket) -> None:
    repository, digest = pushed
    answer = get(repository, repository.blob(digest))
    assert (answer.status, answer.body) == (307, b"")
    assert answer["docker-content-digest"] == digest
    assert answer["cache-control"] == "no-store"
    hexadecimal = digest.partition(":")[2]
    key = f"v2/blobs/sha256/{hexadecimal[:2]}/{hexadecimal}/data"
    place = f"{bucket.options.endpoint.origin}/{bucket.options.bucket}/{quote(prefix_in(bucket))}/{key}"
    assert answer.location.startswith(f"{place}?")
    status, body, fields = followed(answer.location)
    assert (status, body, fields["content-type"]) == (200, CONTENT, "application/octet-stream")
    status, body, fields = followed(answer.location, {"Range": "bytes=5-9"})
    assert (status, body, fields["content-range"]) == (206, CONTENT[5:10], f"bytes 5-9/{len(CONTENT)}")


def test_a_manifest_keeps_its_type_on_the_way(pushed: tuple[Repository, str]) -> None:
    repository, _ = pushed
    manifest, described = repository.push_image("1")
    for reference in ("1", described["digest"]):
        answer = get(repository, repository.manifest(reference))
        assert (answer.status, answer["docker-content-digest"]) == (307, described["digest"])
        status, body, fields = followed(answer.location)
        assert (status, body, fields["content-type"]) == (200, manifest, OCI_MANIFEST)


def test_a_signed_url_is_good_for_nothing_else(pushed: tuple[Repository, str]) -> None:
    repository, digest = pushed
    other = repository.push_blob(b"something else")
    location = get(repository, repository.blob(digest)).location
    hexadecimal, other = digest.partition(":")[2], other.partition(":")[2]
    for wrong in (
        location.replace("X-Amz-Expires=1800", "X-Amz-Expires=604800"),
        location.replace("octet-stream", "html"),
        location.replace(f"/{hexadecimal[:2]}/{hexadecimal}/", f"/{other[:2]}/{other}/"),
    ):
        assert wrong != location
        with pytest.raises(urllib.error.HTTPError) as refused:
            followed(wrong)
        assert refused.value.code == 403
        refused.value.close()


@pytest.mark.parametrize("asked", ["bytes=0-0", "bytes=10239-", "bytes=-5", "bytes=-99999", "bytes=0-99999"])
def test_one_range_is_got_from_the_bucket_as_it_would_be_from_the_registry(
    pushed: tuple[Repository, str], asked: str
) -> None:
    repository, digest = pushed
    answer = get(repository, repository.blob(digest), Range=asked)
    assert answer.status == 307
    own = get(repository, repository.blob(digest), Range=asked, **{NO_REDIRECT: "1"})
    status, body, fields = followed(answer.location, {"Range": asked})
    assert (status, body, fields["content-range"]) == (own.status, own.body, own["content-range"])


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"Range": "bytes=0-0,5-6"}, 206),
        ({"Range": "bytes=10240-"}, 416),
        ({"Range": "bytes=9-5"}, 416),
        ({"Range": "bytes=-0"}, 416),
        ({"Range": "bytes=-"}, 200),
        ({"Range": "Bytes=1-2"}, 206),
        ({"Range": "lines=1-2"}, 200),
        ({"Range": "bytes=1-2", "If-Range": '"something else"'}, 200),
        ({"If-Match": "*"}, 200),
        ({"If-Modified-Since": "Thu, 01 Jan 1970 00:00:00 GMT"}, 200),
        ({"If-Unmodified-Since": "Thu, 01 Jan 1970 00:00:00 GMT"}, 200),
        ({"If-None-Match": "*"}, 304),
        ({NO_REDIRECT: "1"}, 200),
        ({NO_REDIRECT: "true"}, 200),
        ({NO_REDIRECT: "0"}, 307),
        ({NO_REDIRECT: "False"}, 307),
        ({NO_REDIRECT: ""}, 307),
        ({"If-None-Match": '"something else"'}, 307),
    ],
)
def test_what_the_bucket_would_answer_otherwise_is_answered_here(
    pushed: tuple[Repository, str], fields: dict[str, str], status: int
) -> None:
    repository, digest = pushed
    assert get(repository, repository.blob(digest), **fields).status == status


def test_ranges_of_manifests_are_ignored_here_and_not_tried_there(pushed: tuple[Repository, str]) -> None:
    repository, _ = pushed
    repository.push_image("1")
    assert get(repository, repository.manifest("1"), Range="bytes=0-4").status == 200


def test_head_is_never_sent_elsewhere(pushed: tuple[Repository, str]) -> None:
    repository, digest = pushed
    repository.push_image("1")
    for target in (repository.blob(digest), repository.manifest("1")):
        answer = repository.client.head(target)
        assert (answer.status, answer.get("location")) == (200, None)


def test_nobody_is_sent_to_what_the_repository_does_not_own(pushed: tuple[Repository, str]) -> None:
    repository, digest = pushed
    stranger = Repository(repository.client, "other/image")
    stranger.push_image("1")
    answer = get(stranger, stranger.blob(digest))
    assert (answer.status, answer.get("location")) == (404, None)


@changes_with("blob_store.s3.presign_ttl_secs", "global.enable_blob_redirect", "global.enable_manifest_redirect")
def test_switches_and_lifetime(start: Start, bucket: StoredBucket) -> None:
    for blobs, manifests in ((True, False), (False, True)):
        registry = start(
            {
                "blob_store": in_bucket(bucket, presign_ttl_secs=7),
                "global": {"enable_blob_redirect": blobs, "enable_manifest_redirect": manifests},
            }
        )
        with registry.client() as client:
            repository = Repository(client, "some/image")
            digest = repository.push_blob(CONTENT)
            repository.push_image("1")
            answers = [get(repository, repository.blob(digest)), get(repository, repository.manifest("1"))]
        assert [answer.status == 307 for answer in answers] == [blobs, manifests]
        (location,) = [answer.location for answer in answers if answer.status == 307]
        assert parse_qs(urlsplit(location).query)["X-Amz-Expires"] == ["7"]
        assert followed(location)[0] == 200


@pytest.mark.parametrize("blobs", ["fs", "s3"])
def test_content_is_signed_where_it_lies(start: Start, bucket: StoredBucket, tmp_path: Path, blobs: str) -> None:
    stores = {"fs": {"fs": {"root_dir": str(tmp_path / "files"), "sync_to_disk": False}}, "s3": in_bucket(bucket)}
    other = "s3" if blobs == "fs" else "fs"
    registry = start({"blob_store": stores[blobs], "metadata_store": stores[other]})
    with registry.client() as client:
        repository = Repository(client, f"apart/{blobs}")
        digest = repository.push_blob(CONTENT)
        repository.push_image("1")
        for target in (repository.blob(digest), repository.manifest("1")):
            answer = get(repository, target)
            assert answer.status == (307 if blobs == "s3" else 200)
            assert blobs == "fs" or followed(answer.location)[0] == 200


def test_neither_logs_nor_traces_show_a_signature(tmp_path: Path, bucket: StoredBucket) -> None:
    document = {
        "server": {"port": 0, "access_log": True},
        "blob_store": in_bucket(bucket),
        "observability": {"log": {"format": "json", "level": "debug"}},
    }
    file = file_with(tmp_path, written(document))
    log = tmp_path / "log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "angos.runtime", "server", "-c", str(file), "--record", str(tmp_path / "records")],
            stdout=subprocess.PIPE,
            stderr=stderr,
            start_new_session=True,
        )
    registry = RegistryProcess(process, tmp_path, log)
    try:
        registry.url = registry._wait_until_ready()
        with registry.client() as client:
            repository = Repository(client, "some/image")
            location = get(repository, repository.blob(repository.push_blob(CONTENT))).location
    finally:
        registry.kill()
    signature = parse_qs(urlsplit(location).query)["X-Amz-Signature"][0]
    records = [path.read_text() for path in (tmp_path / "records").iterdir()]
    assert '"status":307' in log.read_text().replace(" ", "")
    for text in (log.read_text(), *records):
        assert signature not in text
        assert "X-Amz" not in text
    (response,) = [trace.response for trace in map(read_operation_trace, records) if trace.response["status"] == 307]
    assert response["body"]["address"] == location.partition("?")[0]
    assert response["body"]["query"] == {"is": "Secret"}
