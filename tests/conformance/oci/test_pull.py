"""Pulling manifests and blobs, and looking whether they exist (distribution-spec, Pulling; end-1 to end-3)."""

import pytest

from tests.conformance.http_client import Client, refused
from tests.conformance.oci.content import OCI_INDEX, OCI_MANIFEST, digest_of, index_of
from tests.conformance.oci.repository import Repository

# As clients send them: docker, go-containerregistry, dkregistry, curl, .NET, Java, a browser, nonsense.
ACCEPTS = [
    ["application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json", "*/*"],
    ["application/vnd.docker.distribution.manifest.v1+json,application/vnd.docker.distribution.manifest.v1+prettyjws"],
    ["application/vnd.docker.distribution.manifest.v2+json; q=0.5, application/json; charset=utf-8"],
    ["*/*"],
    ["application/json", "application/vnd.docker.distribution.manifest.list.v2+json"],
    ["text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2"],
    ["text/html"],
    ["application/vnd.oci.image.index.v1+json;q=0"],
    [",,;;q=nonsense"],
    [""],
]


@pytest.mark.parametrize("target", ["/v2/", "/v2", "/v2/?ns=docker.io", "/v2/?"])
def test_the_version_check_answers_with_and_without_trailing_slash(client: Client, target: str) -> None:
    answer = client.get(target)
    assert answer.status == 200
    assert isinstance(answer.json, dict)
    assert answer["content-type"].startswith("application/json")


def test_the_version_check_answers_head(client: Client) -> None:
    assert client.head("/v2/").status == 200


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_health_checks_answer(client: Client, path: str) -> None:
    assert client.get(path).status == 200


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_a_manifest_is_pulled_byte_for_byte_with_its_exact_type(repository: Repository, algorithm: str) -> None:
    manifest, descriptor = repository.push_image("latest", algorithm=algorithm)
    for reference in ("latest", descriptor["digest"]):
        answer = repository.pull_manifest(reference)
        assert answer.body == manifest
        assert answer["content-type"] == OCI_MANIFEST
        assert answer["docker-content-digest"] == descriptor["digest"]
        assert answer.size == len(manifest)


def test_head_of_a_manifest_carries_the_headers_of_get(repository: Repository, client: Client) -> None:
    manifest, descriptor = repository.push_image("latest")
    for reference in ("latest", descriptor["digest"]):
        got, headed = client.get(repository.manifest(reference)), client.head(repository.manifest(reference))
        assert headed.status == 200
        assert _lasting(headed.headers) == _lasting(got.headers)
        assert headed.size == len(manifest)


def test_head_of_a_blob_carries_the_headers_of_get(repository: Repository, client: Client) -> None:
    content = repository.fresh_bytes(3000)
    digest = repository.push_blob(content)
    got, headed = client.get(repository.blob(digest)), client.head(repository.blob(digest))
    assert got.status == headed.status == 200
    assert _lasting(headed.headers) == _lasting(got.headers)
    assert headed.size == len(content)
    assert headed["accept-ranges"] == "bytes"
    assert headed["content-type"] == "application/octet-stream"


@pytest.mark.parametrize("size", [0, 1, 511, 70_000, 3_000_001])
@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_a_blob_of_any_size_is_pulled_whole(repository: Repository, size: int, algorithm: str) -> None:
    content = repository.fresh_bytes(size)
    digest = repository.push_blob(content, algorithm=algorithm)
    assert repository.has_blob(digest)
    assert repository.pull_blob(digest) == content


@pytest.mark.parametrize("accept", ACCEPTS, ids=range(len(ACCEPTS)))
def test_content_is_given_whatever_accept_says(repository: Repository, client: Client, accept: list[str]) -> None:
    manifest, descriptor = repository.push_image("latest")
    index = index_of([descriptor])
    repository.push_manifest(index, "index", OCI_INDEX)
    headers = [("Accept", value) for value in accept]
    for reference, content, media_type in (("latest", manifest, OCI_MANIFEST), ("index", index, OCI_INDEX)):
        answer = client.get(repository.manifest(reference), headers)
        assert (answer.status, answer.body, answer["content-type"]) == (200, content, media_type)
    assert client.get(repository.path("tags/list"), headers).status == 200
    assert client.get(repository.path(f"referrers/{descriptor['digest']}"), headers).status == 200
    refused(client.get(repository.manifest("absent"), headers), 404, "MANIFEST_UNKNOWN")


@pytest.mark.parametrize("encoding", ["gzip", "zstd;q=1.0, gzip;q=0.8, deflate;q=0.5", "br, *;q=1", "identity;q=0"])
def test_content_is_never_compressed(repository: Repository, client: Client, encoding: str) -> None:
    manifest, descriptor = repository.push_image("latest")
    digest = repository.push_blob(b"a" * 100_000)
    headers = [("Accept-Encoding", encoding)]
    assert client.get(repository.manifest("latest"), headers).body == manifest
    assert client.get(repository.blob(digest), headers).body == b"a" * 100_000
    assert client.get(repository.path(f"referrers/{descriptor['digest']}"), headers).json["manifests"] == []


def test_an_existing_repository_answers_404_for_what_it_lacks(repository: Repository, client: Client) -> None:
    repository.push_image("latest")
    absent = digest_of(repository.fresh_bytes())
    refused(client.get(repository.blob(absent)), 404, "BLOB_UNKNOWN")
    refused(client.head(repository.blob(absent)), 404)
    refused(client.get(repository.manifest(absent)), 404, "MANIFEST_UNKNOWN")
    refused(client.head(repository.manifest(absent)), 404)
    refused(client.get(repository.manifest("absent")), 404, "MANIFEST_UNKNOWN")
    refused(client.head(repository.manifest("absent")), 404)


def test_an_unknown_repository_answers_404(repository: Repository, client: Client) -> None:
    absent = digest_of(b"absent")
    refused(client.get(repository.blob(absent)), 404, {"BLOB_UNKNOWN", "NAME_UNKNOWN"})
    refused(client.head(repository.blob(absent)), 404)
    # jib takes a 404 for "absent" only with this code.
    refused(client.get(repository.manifest(absent)), 404, "MANIFEST_UNKNOWN")
    refused(client.get(repository.manifest("latest")), 404, "MANIFEST_UNKNOWN")
    refused(client.head(repository.manifest("latest")), 404)


def test_a_digest_of_another_algorithm_is_another_name(repository: Repository, client: Client) -> None:
    content = repository.fresh_bytes()
    repository.push_blob(content, algorithm="sha256")
    refused(client.get(repository.blob(digest_of(content, "sha512"))), 404, "BLOB_UNKNOWN")
    repository.push_blob(content, algorithm="sha512")
    assert repository.pull_blob(digest_of(content, "sha512")) == content
    assert repository.pull_blob(digest_of(content, "sha256")) == content


def test_a_manifest_is_not_listed_as_a_tag_under_its_digest(repository: Repository) -> None:
    _, descriptor = repository.push_image()
    assert repository.pull_manifest(descriptor["digest"]).status == 200
    assert repository.tags() == []


def test_what_is_known_by_digest_may_be_cached_for_ever_and_a_tag_not(repository: Repository, client: Client) -> None:
    _, descriptor = repository.push_image("latest")
    blob = repository.push_blob(repository.fresh_bytes())
    for target in (repository.manifest(descriptor["digest"]), repository.blob(blob)):
        value = client.get(target)["cache-control"]
        assert "immutable" in value
        assert "max-age=31536000" in value
    assert client.get(repository.manifest("latest"))["cache-control"] == "no-cache"


@pytest.mark.parametrize("query", ["?ns=docker.io", "?ns=", "?ns=a&ns=b", "?unknown=1&&=&x", "?digest=nonsense", "?"])
def test_unknown_query_parameters_are_ignored(repository: Repository, client: Client, query: str) -> None:
    manifest, descriptor = repository.push_image("latest")
    content = repository.fresh_bytes()
    digest = repository.push_blob(content)
    assert client.get(repository.manifest("latest") + query).body == manifest
    assert client.head(repository.manifest(descriptor["digest"]) + query).status == 200
    assert client.get(repository.blob(digest) + query).body == content
    assert client.get(repository.path("tags/list") + query).json["tags"] == ["latest"]
    assert client.get(repository.path(f"referrers/{descriptor['digest']}") + query).json["manifests"] == []


def test_mirror_clients_may_add_ns_to_every_request(repository: Repository, client: Client) -> None:
    content = repository.fresh_bytes()
    digest = digest_of(content)
    started = client.post(f"{repository.uploads}?ns=docker.io")
    assert started.status == 202
    appended = client.patch(f"{started.location}?ns=docker.io", content)
    assert appended.status == 202
    assert client.put(f"{appended.location}?digest={digest}&ns=docker.io").status == 201
    assert client.post(f"{repository.uploads}?mount={digest}&from={repository.name}&ns=docker.io").status in (201, 202)
    assert client.delete(f"{repository.blob(digest)}?ns=docker.io").status == 202


def _lasting(headers: tuple[tuple[str, str], ...]) -> list[tuple[str, str]]:
    return sorted((name, value) for name, value in headers if name != "date")
