"""Pushing blobs in every way that clients use (distribution-spec, Pushing blobs; end-4 and end-6)."""

import pytest

from tests.conformance.http_client import Client, refused
from tests.conformance.oci.content import digest_of
from tests.conformance.oci.repository import WAYS, Repository

ALGORITHMS = ("sha256", "sha512")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [512, 3067])
def test_a_blob_is_pushed_pulled_and_deleted(repository: Repository, way: str, algorithm: str, size: int) -> None:
    content = repository.fresh_bytes(size)
    digest = repository.push_blob(content, way, algorithm)
    assert repository.has_blob(digest)
    assert repository.pull_blob(digest) == content
    assert repository.client.delete(repository.blob(digest)).status == 202
    assert not repository.has_blob(digest)
    refused(repository.client.get(repository.blob(digest)), 404, "BLOB_UNKNOWN")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("way", WAYS)
def test_an_empty_blob_can_be_pushed_in_every_way(repository: Repository, way: str, algorithm: str) -> None:
    digest = repository.push_blob(b"", way, algorithm)
    answer = repository.client.head(repository.blob(digest))
    assert (answer.status, answer.size) == (200, 0)
    assert repository.pull_blob(digest) == b""


def test_an_empty_blob_may_arrive_as_a_chunked_body_without_chunks(repository: Repository) -> None:
    answer = repository.complete(repository.start_upload(), digest_of(b""), [])
    assert answer.status == 201
    assert repository.pull_blob(digest_of(b"")) == b""


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("way", WAYS)
def test_a_blob_under_a_wrong_digest_is_refused(repository: Repository, way: str, algorithm: str) -> None:
    wrong = digest_of(repository.fresh_bytes(), algorithm)
    content = repository.fresh_bytes()
    refused(repository.upload_as(wrong, content, way), 400, "DIGEST_INVALID")
    assert not repository.has_blob(wrong)
    assert not repository.has_blob(digest_of(content, algorithm))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "digest",
    [
        "sha256:totallywrong",
        "sha256:" + "A" * 64,
        "sha256:" + "a" * 63,
        "sha256:" + "a" * 65,
        "sha512:" + "a" * 64,
        "md5:d41d8cd98f00b204e9800998ecf8427e",
        "blake3:" + "a" * 64,
        "sha256",
        "",
        ":",
        "sha256:../../../../etc/passwd",
    ],
)
def test_a_malformed_or_unsupported_digest_is_refused(repository: Repository, way: str, digest: str) -> None:
    refused(repository.upload_as(digest, repository.fresh_bytes(), way), 400, "DIGEST_INVALID")


def test_a_put_without_digest_is_refused(repository: Repository, client: Client) -> None:
    refused(client.put(repository.start_upload(), repository.fresh_bytes()), 400, "DIGEST_INVALID")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("actual", ALGORITHMS)
def test_an_announced_algorithm_is_only_a_hint(repository: Repository, algorithm: str, actual: str) -> None:
    content = repository.fresh_bytes()
    location = repository.start_upload(**{"digest-algorithm": algorithm})
    answer = repository.append(location, content[:200], 0)
    assert answer.status == 202
    answer = repository.complete(answer.location, digest_of(content, actual), content[200:])
    assert answer.status == 201
    assert repository.pull_blob(digest_of(content, actual)) == content


@pytest.mark.parametrize("algorithm", ["md5", "", "SHA256", "sha256:abc", "../x"])
def test_an_unknown_algorithm_is_refused_at_once(repository: Repository, client: Client, algorithm: str) -> None:
    refused(client.post(f"{repository.uploads}?digest-algorithm={algorithm}"), 400, "DIGEST_INVALID")


@pytest.mark.parametrize("path", ["blobs/uploads/", "blobs/uploads"])
def test_uploads_start_with_and_without_trailing_slash(repository: Repository, client: Client, path: str) -> None:
    content = repository.fresh_bytes()
    started = client.post(repository.path(path))
    assert started.status == 202
    assert started.location.startswith(repository.uploads)
    assert repository.complete(started.location, digest_of(content), content).status == 201
    content = repository.fresh_bytes()
    assert client.post(f"{repository.path(path)}?digest={digest_of(content)}", content).status == 201


@pytest.mark.parametrize("body", [b"", b"ignored" * 1000, None])
def test_a_post_without_digest_may_have_a_type_and_a_body(
    repository: Repository, client: Client, body: bytes | None
) -> None:
    started = client.post(repository.uploads, body, [("Content-Type", "application/json")])
    assert started.status == 202
    status = client.get(started.location)
    assert (status.status, status["range"]) == (204, "0-0")
    content = repository.fresh_bytes()
    assert repository.complete(started.location, digest_of(content), content).status == 201
    assert repository.pull_blob(digest_of(content)) == content


def test_a_post_without_length_and_body_starts_an_upload(repository: Repository, client: Client) -> None:
    assert client.request("POST", repository.uploads, headers=[("Content-Length", "0")]).status == 202
    connection = client.connect()
    connection.send(f"POST {repository.uploads} HTTP/1.1\r\nHost: {client.host}\r\n\r\n".encode())
    assert connection.answer("POST", repository.uploads).status == 202
    connection.finish()


def test_an_announced_digest_without_bytes_starts_an_upload(repository: Repository, client: Client) -> None:
    content = repository.fresh_bytes()
    digest = digest_of(content)
    answer = client.post(f"{repository.uploads}?digest={digest}")
    assert not repository.has_blob(digest)
    if answer.status == 202:
        assert repository.complete(answer.location, digest, content).status == 201
        assert repository.pull_blob(digest) == content
    else:
        refused(answer, 400, "DIGEST_INVALID")


def test_a_chunked_single_post_is_accepted(repository: Repository, client: Client) -> None:
    content = repository.fresh_bytes(200_000)
    answer = client.post(f"{repository.uploads}?digest={digest_of(content)}", [content[:1], content[1:]])
    assert answer.status == 201
    assert repository.pull_blob(digest_of(content)) == content


@pytest.mark.parametrize("way", WAYS)
def test_pushing_what_is_there_succeeds_again(repository: Repository, way: str) -> None:
    content = repository.fresh_bytes()
    assert repository.push_blob(content) == repository.push_blob(content, way)
    assert repository.pull_blob(digest_of(content)) == content


def test_a_retried_put_of_a_completed_upload_succeeds(repository: Repository) -> None:
    content = repository.fresh_bytes()
    location = repository.start_upload()
    for body in (content, content, None):
        answer = repository.complete(location, digest_of(content), body)
        assert answer.status == 201
        assert answer.location == repository.blob(digest_of(content))
    refused(repository.client.get(location), 404, "BLOB_UPLOAD_UNKNOWN")


def test_a_put_of_a_completed_upload_under_another_digest_is_refused(repository: Repository) -> None:
    content = repository.fresh_bytes()
    location = repository.start_upload()
    assert repository.complete(location, digest_of(content), content).status == 201
    refused(repository.complete(location, digest_of(b"another"), b"another"), 404, "BLOB_UPLOAD_UNKNOWN")


def test_the_location_of_an_upload_is_a_uuid_below_the_repository(repository: Repository) -> None:
    first, second = repository.start_upload(), repository.start_upload()
    assert first != second
    for location in (first, second):
        assert location.startswith(repository.uploads)
        assert len(location.removeprefix(repository.uploads)) == 36


@pytest.mark.parametrize("method", ["GET", "PATCH", "PUT", "DELETE"])
@pytest.mark.parametrize("upload", ["b28b6d85-6d27-4c9a-8a8f-2cf6ff8a4a51", "no-uuid", "%2e%2e", "0", "-"])
def test_an_unknown_upload_is_refused(repository: Repository, client: Client, method: str, upload: str) -> None:
    query = f"?digest={digest_of(b'x')}" if method == "PUT" else ""
    body = b"x" if method in ("PATCH", "PUT") else None
    refused(client.request(method, repository.uploads + upload + query, body), 404, "BLOB_UPLOAD_UNKNOWN")


def test_an_upload_belongs_to_its_repository(repository: Repository, other: Repository, client: Client) -> None:
    location = repository.start_upload()
    assert repository.append(location, b"mine", 0).status == 202
    stolen = location.replace(repository.uploads, other.uploads)
    refused(client.get(stolen), 404, "BLOB_UPLOAD_UNKNOWN")
    refused(client.patch(stolen, b"x"), 404, "BLOB_UPLOAD_UNKNOWN")
    refused(other.complete(stolen, digest_of(b"mine")), 404, "BLOB_UPLOAD_UNKNOWN")
    refused(client.delete(stolen), 404, "BLOB_UPLOAD_UNKNOWN")
    assert client.get(location)["range"] == "0-3"


def test_a_cancelled_upload_is_gone(repository: Repository, client: Client) -> None:
    location = repository.start_upload()
    assert repository.append(location, b"some", 0).status == 202
    answer = client.request("DELETE", location, headers=[("Content-Length", "0")])
    assert answer.status == 204
    refused(client.get(location), 404, "BLOB_UPLOAD_UNKNOWN")
    refused(client.delete(location), 404, "BLOB_UPLOAD_UNKNOWN")
    refused(repository.complete(location, digest_of(b"some")), 404, "BLOB_UPLOAD_UNKNOWN")


def test_no_minimum_size_of_chunks_is_announced(repository: Repository, client: Client) -> None:
    assert client.post(repository.uploads).get("oci-chunk-min-length") is None


@pytest.mark.parametrize("suffix", ["?&digest={}", "?_state=abc&digest={}", "?digest={}&", "?digest={}&x=%zz"])
def test_clients_may_spell_the_query_as_they_like(repository: Repository, client: Client, suffix: str) -> None:
    content = repository.fresh_bytes()
    location = repository.start_upload()
    assert client.put(location + suffix.format(digest_of(content)), content).status == 201


def test_a_percent_encoded_digest_is_decoded_once(repository: Repository, client: Client) -> None:
    content = repository.fresh_bytes()
    digest = digest_of(content)
    location = repository.start_upload()
    refused(client.put(f"{location}?digest={digest.replace(':', '%253A')}", content), 400, "DIGEST_INVALID")
    location = repository.start_upload()
    assert client.put(f"{location}?digest={digest.replace(':', '%3a')}", content).status == 201
    assert client.get(repository.blob(digest.replace(":", "%3A"))).body == content
    refused(client.get(repository.blob(digest.replace(":", "%253A"))), 400, "DIGEST_INVALID")


def test_a_put_that_expects_100_continue_gets_it(repository: Repository, client: Client) -> None:
    content = repository.fresh_bytes(100_000)
    target = f"{repository.start_upload()}?digest={digest_of(content)}"
    connection = client.connect()
    head = f"PUT {target} HTTP/1.1\r\nHost: {client.host}\r\nContent-Length: {len(content)}\r\n"
    connection.send(f"{head}Expect: 100-continue\r\n\r\n".encode())
    assert connection.interim() == 100
    connection.send(content)
    assert connection.answer("PUT", target).status == 201
    connection.finish()
