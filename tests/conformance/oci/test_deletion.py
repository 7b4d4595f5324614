"""Deleting tags, manifests and blobs; what is deleted is gone at once (distribution-spec, Content Management)."""

import pytest

from tests.conformance.http_client import Client, refused
from tests.conformance.oci.content import artifact_of, digest_of
from tests.conformance.oci.repository import Repository


def test_deleting_a_tag_removes_only_the_tag(repository: Repository, client: Client) -> None:
    manifest, pushed = repository.push_image("a", "b")
    assert client.delete(repository.manifest("a")).status == 202
    refused(client.get(repository.manifest("a")), 404, "MANIFEST_UNKNOWN")
    refused(client.head(repository.manifest("a")), 404)
    assert repository.pull_manifest("b").body == manifest
    assert repository.pull_manifest(pushed["digest"]).body == manifest
    assert repository.tags() == ["b"]


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_deleting_a_manifest_removes_all_its_tags(repository: Repository, client: Client, algorithm: str) -> None:
    _, pushed = repository.push_image("a", "b", "c", algorithm=algorithm)
    kept, _ = repository.push_image("d")
    answer = client.delete(repository.manifest(pushed["digest"]))
    assert answer.status == 202
    assert answer.get("docker-content-digest") in (None, pushed["digest"])
    for reference in ("a", "b", "c", pushed["digest"]):
        refused(client.get(repository.manifest(reference)), 404, "MANIFEST_UNKNOWN")
        refused(client.head(repository.manifest(reference)), 404)
    assert repository.tags() == ["d"]
    assert repository.pull_manifest("d").body == kept


def test_a_tag_that_moved_away_survives_the_old_manifest(repository: Repository, client: Client) -> None:
    _, old = repository.push_image("latest")
    new, _ = repository.push_image("latest")
    assert client.delete(repository.manifest(old["digest"])).status == 202
    assert repository.pull_manifest("latest").body == new


def test_a_tag_whose_manifest_was_deleted_does_not_fall_back_to_an_older_one(
    repository: Repository, client: Client
) -> None:
    _, old = repository.push_image("latest")
    _, new = repository.push_image("latest")
    assert client.delete(repository.manifest(new["digest"])).status == 202
    refused(client.get(repository.manifest("latest")), 404, "MANIFEST_UNKNOWN")
    assert repository.tags() == []
    assert repository.pull_manifest(old["digest"]).status == 200


def test_what_was_deleted_can_be_pushed_again(repository: Repository, client: Client) -> None:
    manifest, pushed = repository.push_image("latest")
    for _ in range(3):
        assert client.delete(repository.manifest(pushed["digest"])).status == 202
        refused(client.get(repository.manifest("latest")), 404)
        repository.push_manifest(manifest, "latest")
        assert repository.pull_manifest("latest").body == manifest
    for _ in range(3):
        assert client.delete(repository.manifest("latest")).status == 202
        assert repository.tags() == []
        repository.push_manifest(manifest, "latest")
        assert repository.pull_manifest("latest").body == manifest
        assert repository.tags() == ["latest"]


def test_deleting_what_is_not_there_is_unknown(repository: Repository, client: Client) -> None:
    refused(client.delete(repository.manifest("latest")), 404, {"MANIFEST_UNKNOWN", "NAME_UNKNOWN"})
    refused(client.delete(repository.manifest(digest_of(b"x"))), 404, {"MANIFEST_UNKNOWN", "NAME_UNKNOWN"})
    refused(client.delete(repository.blob(digest_of(b"x"))), 404, {"BLOB_UNKNOWN", "NAME_UNKNOWN"})
    repository.push_image("latest")
    refused(client.delete(repository.manifest("absent")), 404, "MANIFEST_UNKNOWN")
    refused(client.delete(repository.manifest(digest_of(b"x"))), 404, "MANIFEST_UNKNOWN")
    refused(client.delete(repository.blob(digest_of(b"x"))), 404, "BLOB_UNKNOWN")


def test_deleting_twice_is_unknown_the_second_time(repository: Repository, client: Client) -> None:
    _, pushed = repository.push_image("a", "b")
    blob = repository.push_blob(repository.fresh_bytes())
    for target, code in (
        (repository.manifest("a"), "MANIFEST_UNKNOWN"),
        (repository.manifest(pushed["digest"]), "MANIFEST_UNKNOWN"),
        (repository.blob(blob), "BLOB_UNKNOWN"),
    ):
        assert client.delete(target).status == 202
        refused(client.delete(target), 404, code)


@pytest.mark.parametrize("digest", ["nonsense", "sha256:short", "sha256:" + "A" * 64, "md5:" + "a" * 32])
def test_deleting_a_malformed_digest_is_refused(repository: Repository, client: Client, digest: str) -> None:
    refused(client.delete(repository.blob(digest)), 400, "DIGEST_INVALID")
    if ":" in digest:
        refused(client.delete(repository.manifest(digest)), 400, "DIGEST_INVALID")


def test_a_blob_that_a_manifest_needs_is_not_deleted(repository: Repository, client: Client) -> None:
    _, pushed = repository.push_image("latest")
    document = client.get(repository.manifest("latest")).json
    for digest in (document["config"]["digest"], document["layers"][0]["digest"]):
        refused(client.delete(repository.blob(digest)), 405, {"DENIED", "UNSUPPORTED"})
        assert repository.has_blob(digest)
    assert client.delete(repository.manifest(pushed["digest"])).status == 202
    for digest in (document["config"]["digest"], document["layers"][0]["digest"]):
        assert client.delete(repository.blob(digest)).status == 202
        assert not repository.has_blob(digest)


def test_a_blob_needed_elsewhere_can_be_deleted_here(repository: Repository, other: Repository, client: Client) -> None:
    repository.push_image("latest")
    layer = client.get(repository.manifest("latest")).json["layers"][0]["digest"]
    assert client.post(f"{other.uploads}?mount={layer}&from={repository.name}").status == 201
    assert client.delete(other.blob(layer)).status == 202
    assert not other.has_blob(layer)
    assert repository.has_blob(layer)


def test_deletes_are_visible_at_once_to_other_connections(repository: Repository, client: Client) -> None:
    with Client(client.host, client.port) as observer:
        for round_number in range(5):
            manifest, pushed = repository.push_image("latest")
            assert observer.get(repository.manifest("latest")).body == manifest
            target = repository.manifest("latest" if round_number % 2 else pushed["digest"])
            assert client.delete(target).status == 202
            refused(observer.get(repository.manifest("latest")), 404)
            listed = observer.get(repository.path("tags/list"))
            assert listed.status == 404 or listed.json["tags"] == []


def test_the_last_manifest_may_go(repository: Repository, client: Client) -> None:
    digest = repository.push_manifest(artifact_of("application/x"), "only")
    assert client.delete(repository.manifest(digest)).status == 202
    answer = client.get(repository.path("tags/list"))
    assert answer.status == 404 or answer.json["tags"] == []
