"""Mounting blobs across repositories, and who may see a blob (distribution-spec, Mounting; end-11)."""

import pytest

from tests.conformance.http_client import Client, refused
from tests.conformance.oci.content import digest_of
from tests.conformance.oci.repository import Repository


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_a_blob_is_mounted_from_another_repository(repository: Repository, other: Repository, algorithm: str) -> None:
    content = repository.fresh_bytes()
    digest = other.push_blob(content, algorithm=algorithm)
    answer = repository.client.post(f"{repository.uploads}?mount={digest}&from={other.name}")
    assert answer.status == 201
    assert answer.location == repository.blob(digest)
    assert answer["docker-content-digest"] == digest
    assert repository.pull_blob(digest) == content


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_a_blob_is_found_without_from(repository: Repository, other: Repository, algorithm: str) -> None:
    content = repository.fresh_bytes()
    digest = other.push_blob(content, algorithm=algorithm)
    answer = repository.client.post(f"{repository.uploads}?mount={digest}")
    assert answer.status == 201
    assert answer.location == repository.blob(digest)
    assert repository.pull_blob(digest) == content


@pytest.mark.parametrize(
    "source",
    [
        "&from={other}",
        "",
        "&from=",
        "&from=un/known",
        "&from=INVALID/../name",
        "&from={self}",
        "&from={other}&origin=example.com",
    ],
)
def test_an_impossible_mount_starts_an_upload(
    repository: Repository, other: Repository, client: Client, source: str
) -> None:
    content = repository.fresh_bytes()
    digest = digest_of(content)
    other.push_image("latest")
    query = source.format(other=other.name, self=repository.name)
    answer = client.post(f"{repository.uploads}?mount={digest}{query}")
    assert answer.status == 202
    assert answer.location.startswith(repository.uploads)
    assert "?" not in answer.location
    assert not repository.has_blob(digest)
    assert repository.complete(answer.location, digest, content).status == 201
    assert repository.pull_blob(digest) == content


@pytest.mark.parametrize("digest", ["nonsense", "sha256:short", "", "md5:d41d8cd98f00b204e9800998ecf8427e"])
def test_a_mount_of_a_malformed_digest_is_refused_or_starts_an_upload(
    repository: Repository, client: Client, digest: str
) -> None:
    answer = client.post(f"{repository.uploads}?mount={digest}&from=some/where")
    if answer.status != 202:
        refused(answer, 400, "DIGEST_INVALID")


def test_a_mount_of_what_the_target_has_succeeds(repository: Repository, client: Client) -> None:
    digest = repository.push_blob(repository.fresh_bytes())
    for source in (f"&from={repository.name}", ""):
        answer = client.post(f"{repository.uploads}?mount={digest}{source}")
        assert (answer.status, answer.location) == (201, repository.blob(digest))


def test_a_mount_from_a_repository_that_deleted_the_blob_starts_an_upload(
    repository: Repository, other: Repository, client: Client
) -> None:
    digest = other.push_blob(repository.fresh_bytes())
    assert client.delete(other.blob(digest)).status == 202
    assert client.post(f"{repository.uploads}?mount={digest}&from={other.name}").status == 202
    assert not repository.has_blob(digest)


def test_a_blob_is_visible_in_its_repository_only(repository: Repository, other: Repository, client: Client) -> None:
    digest = repository.push_blob(repository.fresh_bytes())
    for target in (other.blob(digest), f"{other.blob(digest)}?ns={repository.name}"):
        refused(client.get(target), 404, {"BLOB_UNKNOWN", "NAME_UNKNOWN"})
        refused(client.head(target), 404)
    other.push_image("latest")
    refused(client.get(other.blob(digest)), 404, "BLOB_UNKNOWN")
    refused(client.delete(other.blob(digest)), 404, "BLOB_UNKNOWN")
    assert repository.has_blob(digest)


def test_naming_a_blob_in_a_manifest_does_not_make_it_visible(
    repository: Repository, other: Repository, client: Client
) -> None:
    manifest, _ = repository.push_image("latest")
    assert other.put_manifest(manifest, "stolen").status in (201, 400)
    layer = client.get(repository.manifest("latest")).json["layers"][0]["digest"]
    assert repository.has_blob(layer)
    assert not other.has_blob(layer)


def test_a_manifest_is_visible_in_its_repository_only(
    repository: Repository, other: Repository, client: Client
) -> None:
    _, descriptor = repository.push_image("latest")
    other.push_image("other")
    refused(client.get(other.manifest(descriptor["digest"])), 404, "MANIFEST_UNKNOWN")
    refused(client.get(other.manifest("latest")), 404, "MANIFEST_UNKNOWN")
    assert client.delete(other.manifest(descriptor["digest"])).status == 404
    assert repository.pull_manifest("latest").status == 200


def test_a_deleted_blob_stays_in_the_other_repository(repository: Repository, other: Repository) -> None:
    content = repository.fresh_bytes()
    digest = repository.push_blob(content)
    other.push_blob(content)
    assert repository.client.delete(repository.blob(digest)).status == 202
    assert not repository.has_blob(digest)
    assert other.pull_blob(digest) == content
    answer = repository.client.post(f"{repository.uploads}?mount={digest}&from={other.name}")
    assert answer.status == 201
    assert repository.pull_blob(digest) == content
