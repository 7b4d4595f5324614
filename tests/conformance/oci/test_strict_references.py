"""A registry that refuses manifests whose blobs are missing, which is a setting (distribution-spec, end-7a)."""

from collections.abc import Iterator

import pytest

from tests.conformance.http_client import Client, refused
from tests.conformance.oci.content import (
    DOCKER_LAYER_FOREIGN,
    EMPTY_DESCRIPTOR,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER_FOREIGN,
    OCI_LAYER_GZIP,
    OCI_MANIFEST,
    artifact_of,
    descriptor,
    digest_of,
    index_of,
    manifest_of,
)
from tests.conformance.oci.repository import Repository
from tests.conformance.registry_process import RegistryProcess


@pytest.fixture(scope="module", params=["asyncio", "trio"])
def registry(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryProcess]:
    """A registry with that setting."""
    folder = tmp_path_factory.mktemp("strict")
    (folder / "strict.toml").write_text("[global]\nallow_missing_manifest_references = false\n")
    registry = RegistryProcess.start(folder / "data", loop=request.param, arguments=["-c", str(folder / "strict.toml")])
    yield registry
    registry.stop()


def test_a_complete_image_is_accepted(repository: Repository) -> None:
    manifest, pushed = repository.push_image("latest", layers=3)
    assert repository.pull_manifest("latest").body == manifest
    repository.push_manifest(index_of([pushed]), "index", OCI_INDEX)


def test_every_missing_blob_is_named(repository: Repository, client: Client) -> None:
    layers = [repository.fresh_bytes() for _ in range(3)]
    repository.push_blob(layers[1])
    config = repository.fresh_bytes()
    manifest = manifest_of(descriptor(OCI_CONFIG, config), [descriptor(OCI_LAYER_GZIP, each) for each in layers])
    for reference in ("latest", digest_of(manifest)):
        answer = repository.put_manifest(manifest, reference)
        refused(answer, 400, "MANIFEST_BLOB_UNKNOWN")
        for missing in (config, layers[0], layers[2]):
            assert digest_of(missing) in answer.body.decode()
        assert digest_of(layers[1]) not in answer.body.decode()
    refused(client.get(repository.manifest("latest")), 404, "MANIFEST_UNKNOWN")
    refused(client.get(repository.manifest(digest_of(manifest))), 404, "MANIFEST_UNKNOWN")
    assert client.get(repository.path("tags/list")).status == 404
    for content in (config, layers[0], layers[2]):
        repository.push_blob(content)
    repository.push_manifest(manifest, "latest")


def test_a_blob_of_another_repository_is_missing(repository: Repository, other: Repository, client: Client) -> None:
    manifest, _ = other.push_image("latest")
    refused(repository.put_manifest(manifest, "latest"), 400, "MANIFEST_BLOB_UNKNOWN")
    document = client.get(other.manifest("latest")).json
    for each in (document["config"], *document["layers"]):
        assert client.post(f"{repository.uploads}?mount={each['digest']}&from={other.name}").status == 201
    repository.push_manifest(manifest, "latest")


def test_a_missing_child_of_an_index_is_named(repository: Repository) -> None:
    _, present = repository.push_image()
    missing = descriptor(OCI_MANIFEST, repository.fresh_bytes())
    answer = repository.put_manifest(index_of([present, missing]), "index", OCI_INDEX)
    refused(answer, 400, "MANIFEST_BLOB_UNKNOWN")
    assert missing["digest"] in answer.body.decode()


def test_an_index_may_name_blobs_as_the_cache_of_buildkit_does(repository: Repository) -> None:
    layer = repository.fresh_bytes()
    repository.push_blob(layer)
    repository.push_manifest(index_of([descriptor(OCI_LAYER_GZIP, layer)]), "cache", OCI_INDEX)


@pytest.mark.parametrize(
    "foreign",
    [
        descriptor(OCI_LAYER_FOREIGN, b"never pushed", urls=["https://example.com/layer"]),
        descriptor(OCI_LAYER_FOREIGN, b"never pushed"),
        descriptor(DOCKER_LAYER_FOREIGN, b"never pushed"),
        descriptor(OCI_LAYER_GZIP, b"never pushed", urls=["https://example.com/layer"]),
    ],
)
def test_what_is_fetched_elsewhere_is_not_missing(repository: Repository, foreign: dict[str, object]) -> None:
    repository.push_empty_blob()
    repository.push_manifest(manifest_of(EMPTY_DESCRIPTOR, [foreign]), "latest")


def test_a_missing_subject_is_not_missing(repository: Repository) -> None:
    repository.push_empty_blob()
    subject = descriptor(OCI_MANIFEST, repository.fresh_bytes())
    digest = repository.push_manifest(artifact_of("application/x", subject))
    assert [each["digest"] for each in repository.referrers(subject["digest"])] == [digest]


def test_an_empty_index_and_an_image_without_layers_are_complete(repository: Repository) -> None:
    repository.push_manifest(index_of([]), "empty", OCI_INDEX)
    repository.push_empty_blob()
    repository.push_manifest(manifest_of(EMPTY_DESCRIPTOR, []), "config-only")
