"""Pushing manifests: what is accepted, what is refused, and the tags given on the way (distribution-spec, Pushing
Manifests; end-7; image-spec, manifest.md and image-index.md)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.conformance.http_client import Client, chunked, refused, request_head
from tests.conformance.oci.content import (
    DOCKER_CONFIG,
    DOCKER_LAYER,
    DOCKER_LAYER_FOREIGN,
    DOCKER_LIST,
    DOCKER_MANIFEST,
    EMPTY_DESCRIPTOR,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER_FOREIGN,
    OCI_LAYER_GZIP,
    OCI_MANIFEST,
    artifact_of,
    descriptor,
    digest_of,
    encoded,
    index_of,
    manifest_of,
)
from tests.conformance.oci.repository import Repository

LIMIT = 5 << 20


def test_a_manifest_is_pushed_by_tag_and_by_digest(repository: Repository) -> None:
    manifest, pushed = repository.push_image("latest")
    answer = repository.put_manifest(manifest, pushed["digest"])
    assert answer.status == 201
    assert answer.location == repository.manifest(pushed["digest"])
    assert repository.client.get(answer.location).body == manifest


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_a_manifest_may_arrive_chunked(repository: Repository, algorithm: str) -> None:
    manifest, _ = repository.push_image("seed")
    digest = repository.push_manifest(manifest, algorithm=algorithm, chunked=True)
    assert repository.pull_manifest(digest).body == manifest
    repository.push_manifest(manifest, "latest", chunked=True)
    assert repository.pull_manifest("latest").body == manifest


def test_bytes_are_kept_exactly(repository: Repository) -> None:
    document = json.loads(artifact_of("application/x"))
    for content in (
        json.dumps(document, indent=7).encode() + b"\n\n\t ",
        json.dumps(document, sort_keys=True, separators=(" , ", " : ")).encode(),
        json.dumps(document | {"annotations": {"ü": "\U0001f433"}}, ensure_ascii=False).encode(),
        json.dumps(document | {"annotations": {"ü": "\U0001f433"}}, ensure_ascii=True).encode(),
    ):
        digest = repository.push_manifest(content, "exact")
        assert repository.pull_manifest("exact").body == content
        assert repository.pull_manifest(digest).body == content


def test_a_tag_moves_to_what_was_pushed_last(repository: Repository) -> None:
    first, first_pushed = repository.push_image("latest")
    second, _ = repository.push_image("latest")
    assert repository.pull_manifest("latest").body == second
    assert repository.pull_manifest(first_pushed["digest"]).body == first
    repository.push_manifest(first, "latest")
    assert repository.pull_manifest("latest").body == first
    assert repository.tags() == ["latest"]


def test_the_same_push_twice_succeeds(repository: Repository) -> None:
    manifest, _ = repository.push_image("latest")
    assert repository.push_manifest(manifest, "latest") == repository.push_manifest(manifest)


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_a_manifest_under_a_digest_of_other_bytes_is_refused(repository: Repository, algorithm: str) -> None:
    manifest = artifact_of("application/x")
    digest = digest_of(manifest, algorithm)
    refused(repository.put_manifest(manifest + b"  ", digest), 400, "DIGEST_INVALID")
    refused(repository.client.get(repository.manifest(digest)), 404, "MANIFEST_UNKNOWN")


@pytest.mark.parametrize(
    "reference",
    ["sha256:baddigeststring", "sha256:totallywrong", "sha256:", "md5:" + "a" * 32, "sha256:" + "A" * 64, "a:b:c"],
)
def test_a_malformed_digest_is_refused_on_put_and_get(repository: Repository, client: Client, reference: str) -> None:
    refused(repository.put_manifest(artifact_of("application/x"), reference), 400, "DIGEST_INVALID")
    refused(client.get(repository.manifest(reference)), 400, "DIGEST_INVALID")
    refused(client.head(repository.manifest(reference)), 400)
    # The first official suite asked with a body.
    refused(client.request("GET", repository.manifest(reference), b"body"), 400, "DIGEST_INVALID")


@pytest.mark.parametrize(
    "tag", [".dot", "-dash", "..", "a" * 129, "sp%20ace", "pl+us", "a%00b", "%C3%BC", "a@b", "a!", "%2e%2e"]
)
def test_a_malformed_tag_is_refused_on_put(repository: Repository, client: Client, tag: str) -> None:
    refused(repository.put_manifest(artifact_of("application/x"), tag), 400)
    refused(client.get(repository.manifest(tag)), (400, 404))
    assert client.get(repository.path("tags/list")).status == 404


@pytest.mark.parametrize("tag", ["a", "_", "A.b-C_d", "0", "v1.0.0-rc.1_build", "a" * 128, "latest", "a--", "__.--"])
def test_every_tag_of_the_grammar_works(repository: Repository, tag: str) -> None:
    manifest = artifact_of("application/x")
    repository.push_manifest(manifest, tag)
    assert repository.pull_manifest(tag).body == manifest
    assert repository.tags() == [tag]


# --- types ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["; charset=utf-8", ";charset=UTF-8", ' ; a=b; c="d;e"'])
def test_parameters_of_the_content_type_are_not_kept(repository: Repository, suffix: str) -> None:
    manifest = artifact_of("application/x")
    answer = repository.put_manifest(manifest, "latest", OCI_MANIFEST + suffix)
    assert answer.status == 201
    assert repository.pull_manifest("latest")["content-type"] == OCI_MANIFEST


def test_without_content_type_the_media_type_of_the_document_counts(repository: Repository, client: Client) -> None:
    for content, media_type in (
        (artifact_of("application/x"), OCI_MANIFEST),
        (index_of([]), OCI_INDEX),
        (index_of([], DOCKER_LIST), DOCKER_LIST),
    ):
        assert client.put(repository.manifest("latest"), content).status == 201
        assert repository.pull_manifest("latest")["content-type"] == media_type


def test_without_any_type_the_shape_of_the_document_counts(repository: Repository, client: Client) -> None:
    for content, media_type in (
        (encoded({"schemaVersion": 2, "config": EMPTY_DESCRIPTOR, "layers": []}), OCI_MANIFEST),
        (encoded({"schemaVersion": 2, "manifests": []}), OCI_INDEX),
    ):
        assert client.put(repository.manifest("latest"), content).status == 201
        assert repository.pull_manifest("latest")["content-type"] == media_type


def test_a_document_of_no_type_and_no_shape_is_refused(repository: Repository, client: Client) -> None:
    for content in (b'{"schemaVersion":2}', b"{}"):
        refused(client.put(repository.manifest("latest"), content), 400, "MANIFEST_INVALID")


@pytest.mark.parametrize("content_type", ["application/json", "application/octet-stream", "text/plain"])
def test_a_content_type_that_says_nothing_never_becomes_the_type(repository: Repository, content_type: str) -> None:
    answer = repository.put_manifest(artifact_of("application/x"), "latest", content_type)
    if answer.status == 201:
        assert repository.pull_manifest("latest")["content-type"] == OCI_MANIFEST
    else:
        refused(answer, 400, "MANIFEST_INVALID")


def test_a_document_without_media_type_keeps_its_content_type(repository: Repository) -> None:
    content = encoded({"schemaVersion": 2, "config": EMPTY_DESCRIPTOR, "layers": []})
    repository.push_manifest(content, "latest")
    assert repository.pull_manifest("latest")["content-type"] == OCI_MANIFEST


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        (artifact_of("application/x"), OCI_INDEX),
        (artifact_of("application/x"), DOCKER_MANIFEST),
        (index_of([]), OCI_MANIFEST),
        (index_of([]), DOCKER_LIST),
    ],
)
def test_a_content_type_that_contradicts_the_document_is_refused(
    repository: Repository, content: bytes, content_type: str
) -> None:
    refused(repository.put_manifest(content, "latest", content_type), 400, "MANIFEST_INVALID")
    refused(repository.client.get(repository.manifest("latest")), 404)


def test_an_image_in_docker_format_keeps_its_types(repository: Repository) -> None:
    config, layer = repository.fresh_bytes(), repository.fresh_bytes()
    repository.push_blob(config)
    repository.push_blob(layer)
    manifest = manifest_of(descriptor(DOCKER_CONFIG, config), [descriptor(DOCKER_LAYER, layer)], DOCKER_MANIFEST)
    repository.push_manifest(manifest, "latest", DOCKER_MANIFEST)
    platform = {"architecture": "amd64", "os": "linux"}
    fat = index_of([descriptor(DOCKER_MANIFEST, manifest, platform=platform)], DOCKER_LIST)
    repository.push_manifest(fat, "fat", DOCKER_LIST)
    assert repository.pull_manifest("latest")["content-type"] == DOCKER_MANIFEST
    assert repository.pull_manifest("fat")["content-type"] == DOCKER_LIST
    assert repository.pull_manifest("fat").body == fat


# --- what must be accepted --------------------------------------------------------------------------------------------

FOREIGN = descriptor(OCI_LAYER_FOREIGN, b"never pushed", urls=["https://example.com/layer"])
ACCEPTED: dict[str, tuple[dict[str, Any], str]] = {
    "no layers": ({"config": EMPTY_DESCRIPTOR, "layers": []}, OCI_MANIFEST),
    "layers are null": ({"config": EMPTY_DESCRIPTOR, "layers": None}, OCI_MANIFEST),
    "layers are left out": ({"config": EMPTY_DESCRIPTOR}, OCI_MANIFEST),
    "unknown fields": (
        {"config": EMPTY_DESCRIPTOR, "layers": [], "org.example": {"a": [1, 2.5, None, True]}},
        OCI_MANIFEST,
    ),
    "unknown config type": (
        {"config": {**EMPTY_DESCRIPTOR, "mediaType": "application/vnd.unknown+x"}, "layers": []},
        OCI_MANIFEST,
    ),
    "unknown layer type": (
        {"config": EMPTY_DESCRIPTOR, "layers": [{**EMPTY_DESCRIPTOR, "mediaType": "a/b+gzip+encrypted"}]},
        OCI_MANIFEST,
    ),
    "foreign layer": ({"config": EMPTY_DESCRIPTOR, "layers": [FOREIGN]}, OCI_MANIFEST),
    "docker foreign layer": (
        {"config": EMPTY_DESCRIPTOR, "layers": [{**FOREIGN, "mediaType": DOCKER_LAYER_FOREIGN}]},
        OCI_MANIFEST,
    ),
    "empty config without artifact type": ({"config": EMPTY_DESCRIPTOR, "layers": [EMPTY_DESCRIPTOR]}, OCI_MANIFEST),
    "size zero": ({"config": {**descriptor("a/b", b"")}, "layers": []}, OCI_MANIFEST),
    "large size": ({"config": EMPTY_DESCRIPTOR, "layers": [{**EMPTY_DESCRIPTOR, "size": 2**40}]}, OCI_MANIFEST),
    "unregistered digest algorithm in a layer": (
        {"config": EMPTY_DESCRIPTOR, "layers": [{**EMPTY_DESCRIPTOR, "digest": "multihash+base58:QmRZxt2b1"}]},
        OCI_MANIFEST,
    ),
    "empty annotations": ({"config": EMPTY_DESCRIPTOR, "layers": [], "annotations": {}}, OCI_MANIFEST),
    "null annotations": ({"config": EMPTY_DESCRIPTOR, "layers": [], "annotations": None}, OCI_MANIFEST),
    "null subject": ({"config": EMPTY_DESCRIPTOR, "layers": [], "subject": None}, OCI_MANIFEST),
    "empty index": ({"manifests": []}, OCI_INDEX),
    "null index": ({"manifests": None}, OCI_INDEX),
    "index with a child of unknown type": (
        {"manifests": [{**EMPTY_DESCRIPTOR, "mediaType": "application/x-unknown"}]},
        OCI_INDEX,
    ),
    "index with platform of buildkit": (
        {
            "manifests": [
                {
                    **EMPTY_DESCRIPTOR,
                    "mediaType": OCI_MANIFEST,
                    "platform": {"architecture": "unknown", "os": "unknown"},
                }
            ]
        },
        OCI_INDEX,
    ),
    "index of blobs, a buildkit cache": (
        {
            "manifests": [
                {**EMPTY_DESCRIPTOR, "mediaType": OCI_LAYER_GZIP},
                {**EMPTY_DESCRIPTOR, "mediaType": "application/vnd.buildkit.cacheconfig.v0"},
            ]
        },
        OCI_INDEX,
    ),
    "index with artifact type": ({"manifests": [], "artifactType": "application/x"}, OCI_INDEX),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_what_is_not_understood_is_not_judged(repository: Repository, case: str) -> None:
    fields, media_type = ACCEPTED[case]
    repository.push_empty_blob()
    repository.push_blob(b"")
    content = encoded({"schemaVersion": 2, "mediaType": media_type, **fields})
    repository.push_manifest(content, "latest", media_type)
    assert repository.pull_manifest("latest").body == content


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_missing_blobs_and_children_are_no_reason_to_refuse(repository: Repository, algorithm: str) -> None:
    sparse = manifest_of(descriptor(OCI_CONFIG, b"absent", algorithm), [descriptor(OCI_LAYER_GZIP, b"gone", algorithm)])
    repository.push_manifest(sparse, algorithm=algorithm)
    index = index_of([descriptor(OCI_MANIFEST, sparse, algorithm), descriptor(OCI_MANIFEST, b"absent", algorithm)])
    digest = repository.push_manifest(index, media_type=OCI_INDEX, algorithm=algorithm)
    assert repository.pull_manifest(digest).body == index


# --- what must be refused ---------------------------------------------------------------------------------------------

VALID = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": EMPTY_DESCRIPTOR, "layers": [EMPTY_DESCRIPTOR]}
VALID_INDEX = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [EMPTY_DESCRIPTOR]}
REFUSED: dict[str, bytes] = {
    "no bytes": b"",
    "no JSON": b"\x1f\x8b\x08",
    "not UTF-8": b'{"schemaVersion":2,"config":"\xff"}',
    "UTF-16": json.dumps(VALID).encode("utf-16"),
    "half a document": encoded(VALID)[:-5],
    "two documents": encoded(VALID) * 2,
    "an array": b"[]",
    "a string": b'"manifest"',
    "null": b"null",
    "a number": b"2",
    "deeply nested": b"[" * 100_000 + b"]" * 100_000,
    "deeply nested objects": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "NaN": encoded(VALID)[:-1] + b',"x":NaN}',
    "schema version 1": encoded(VALID | {"schemaVersion": 1}),
    "schema version 3": encoded(VALID | {"schemaVersion": 3}),
    "schema version as a string": encoded(VALID | {"schemaVersion": "2"}),
    "media type is a number": encoded(VALID | {"mediaType": 7}),
    "config is a list": encoded(VALID | {"config": []}),
    "config without digest": encoded(VALID | {"config": {"mediaType": OCI_CONFIG, "size": 2}}),
    "config without size": encoded(VALID | {"config": {"mediaType": OCI_CONFIG, "digest": EMPTY_DESCRIPTOR["digest"]}}),
    "layers are an object": encoded(VALID | {"layers": {}}),
    "layers are a string": encoded(VALID | {"layers": "abc"}),
    "a layer is null": encoded(VALID | {"layers": [None]}),
    "a layer is a string": encoded(VALID | {"layers": [EMPTY_DESCRIPTOR["digest"]]}),
    "malformed digest": encoded(VALID | {"layers": [{**EMPTY_DESCRIPTOR, "digest": "sha256:short"}]}),
    "path as digest": encoded(VALID | {"layers": [{**EMPTY_DESCRIPTOR, "digest": "sha256:../../../etc/passwd"}]}),
    "digest is a number": encoded(VALID | {"layers": [{**EMPTY_DESCRIPTOR, "digest": 5}]}),
    "negative size": encoded(VALID | {"layers": [{**EMPTY_DESCRIPTOR, "size": -1}]}),
    "size is a string": encoded(VALID | {"layers": [{**EMPTY_DESCRIPTOR, "size": "2"}]}),
    "size is a fraction": encoded(VALID | {"layers": [{**EMPTY_DESCRIPTOR, "size": 2.5}]}),
    "size is true": encoded(VALID | {"layers": [{**EMPTY_DESCRIPTOR, "size": True}]}),
    "annotations are a list": encoded(VALID | {"annotations": []}),
    "an annotation is a number": encoded(VALID | {"annotations": {"a": 1}}),
    "subject is a string": encoded(VALID | {"subject": EMPTY_DESCRIPTOR["digest"]}),
    "subject without digest": encoded(VALID | {"subject": {"mediaType": OCI_MANIFEST, "size": 2}}),
    "subject with malformed digest": encoded(VALID | {"subject": {**EMPTY_DESCRIPTOR, "digest": "sha256:xyz"}}),
    "artifact type is a number": encoded(VALID | {"artifactType": 5}),
    "manifest and index at once": encoded(
        {"schemaVersion": 2, "config": EMPTY_DESCRIPTOR, "manifests": [EMPTY_DESCRIPTOR]}
    ),
    "layers twice": encoded(VALID)[:-1] + b',"layers":[]}',
    "media type twice": encoded(VALID)[:-1] + b',"mediaType":"application/vnd.oci.image.index.v1+json"}',
    "a second subject in capitals": encoded(VALID)[:-1] + b',"subject":null,"Subject":null}',
    "manifests are an object": encoded(VALID_INDEX | {"manifests": {}}),
    "a child is a number": encoded(VALID_INDEX | {"manifests": [1]}),
    "a child without digest": encoded(VALID_INDEX | {"manifests": [{"mediaType": OCI_MANIFEST, "size": 2}]}),
    "a child of negative size": encoded(VALID_INDEX | {"manifests": [{**EMPTY_DESCRIPTOR, "size": -5}]}),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("by", ["tag", "digest"])
def test_a_document_that_is_no_manifest_is_refused(repository: Repository, client: Client, case: str, by: str) -> None:
    content = REFUSED[case]
    media_type = OCI_INDEX if b'"manifests"' in content and b'"layers"' not in content else OCI_MANIFEST
    reference = "latest" if by == "tag" else digest_of(content)
    refused(repository.put_manifest(content, reference, media_type), 400, "MANIFEST_INVALID")
    refused(client.get(repository.manifest(reference)), 404, "MANIFEST_UNKNOWN")


@pytest.mark.parametrize(
    "content_type",
    [
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
    ],
)
def test_docker_schema_1_is_refused(repository: Repository, content_type: str) -> None:
    content = encoded({"schemaVersion": 1, "name": "a", "tag": "b", "fsLayers": [], "history": [], "signatures": []})
    refused(repository.put_manifest(content, "latest", content_type), 400, "MANIFEST_INVALID")


@pytest.mark.parametrize(
    "content_type",
    ["", "nonsense", "/", "a/b/c", "text/html; =", "application/vnd.oci.image.manifest.v1+json, text/html"],
)
def test_a_malformed_content_type_never_becomes_the_type_of_a_manifest(
    repository: Repository, content_type: str
) -> None:
    answer = repository.put_manifest(artifact_of("application/x"), "latest", content_type)
    if answer.status == 201:
        assert repository.pull_manifest("latest")["content-type"] == OCI_MANIFEST
    else:
        refused(answer, 400, "MANIFEST_INVALID")


# --- size -------------------------------------------------------------------------------------------------------------


def _manifest_of_size(size: int) -> bytes:
    empty = artifact_of("application/x", annotations={"filler": ""})
    manifest = artifact_of("application/x", annotations={"filler": "a" * (size - len(empty))})
    assert len(manifest) == size
    return manifest


@pytest.mark.parametrize("size", [3_910_601, 4 << 20, LIMIT])
def test_large_manifests_are_accepted_up_to_the_limit(repository: Repository, size: int) -> None:
    manifest = _manifest_of_size(size)
    repository.push_manifest(manifest, "large", chunked=True)
    assert repository.pull_manifest("large").body == manifest


@pytest.mark.parametrize("size", [LIMIT + 1, LIMIT + (3 << 20)])
@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_manifest_above_the_limit_is_too_large(repository: Repository, size: int, is_chunked: bool) -> None:
    answer = repository.put_manifest(_manifest_of_size(size), "large", chunked=is_chunked)
    refused(answer, 413, "MANIFEST_INVALID")
    assert str(LIMIT) in answer.json["errors"][0]["message"]
    refused(repository.client.get(repository.manifest("large")), 404)


def test_an_announced_giant_manifest_is_refused_before_it_is_sent(repository: Repository, client: Client) -> None:
    connection = client.connect()
    head = [("Host", client.host), ("Content-Length", str(10 << 30)), ("Content-Type", OCI_MANIFEST)]
    connection.send(request_head("PUT", repository.manifest("giant"), head))
    refused(connection.answer("PUT", repository.manifest("giant")), 413, "MANIFEST_INVALID")
    connection.close()


def test_a_manifest_that_breaks_off_is_not_stored(repository: Repository, client: Client) -> None:
    manifest = artifact_of("application/x")
    for cut in (0, 1, len(manifest) - 1):
        connection = client.connect()
        head = [("Host", client.host), ("Content-Type", OCI_MANIFEST), ("Transfer-Encoding", "chunked")]
        connection.send(request_head("PUT", repository.manifest("cut"), head))
        for piece in chunked([manifest[:cut]], end=False):
            connection.send(piece)
        connection.close()
    refused(client.get(repository.manifest("cut")), 404, "MANIFEST_UNKNOWN")
    assert client.get(repository.path("tags/list")).status == 404


# --- ?tag= ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("count", [1, 2, 10, 40])
def test_tags_are_given_along_with_a_push_by_digest(repository: Repository, algorithm: str, count: int) -> None:
    manifest = artifact_of("application/x")
    digest = digest_of(manifest, algorithm)
    tags = [f"tag-{number:02}" for number in range(count)]
    query = "&".join(f"tag={tag}" for tag in tags)
    answer = repository.put_manifest(manifest, f"{digest}?{query}")
    assert answer.status == 201
    assert answer["docker-content-digest"] == digest
    assert {tag.strip() for value in answer.all("oci-tag") for tag in value.split(",")} == set(tags)
    for tag in tags:
        assert repository.pull_manifest(tag)["docker-content-digest"] == digest
    assert repository.tags() == tags


def test_one_malformed_tag_parameter_refuses_the_whole_push(repository: Repository, client: Client) -> None:
    manifest = artifact_of("application/x")
    for wrong in (".bad", "a%20b", "a,b", "x" * 129, ""):
        answer = repository.put_manifest(manifest, f"{digest_of(manifest)}?tag=good&tag={wrong}")
        refused(answer, 400)
        assert answer.get("oci-tag") is None
        refused(client.get(repository.manifest("good")), 404)
        refused(client.get(repository.manifest(digest_of(manifest))), 404)


def test_a_push_without_tag_parameters_names_no_tags(repository: Repository) -> None:
    manifest = artifact_of("application/x")
    assert repository.put_manifest(manifest, digest_of(manifest)).get("oci-tag") is None


def test_thousands_of_tag_parameters_are_refused_without_effect(repository: Repository, client: Client) -> None:
    manifest = artifact_of("application/x")
    query = "&".join(f"tag=tag-{number:05}" for number in range(5000))
    answer = repository.put_manifest(manifest, f"{digest_of(manifest)}?{query}")
    assert answer.status in (400, 414, 431)
    refused(client.get(repository.manifest("tag-00000")), 404)


def test_an_error_names_what_is_wrong(repository: Repository) -> None:
    answer = repository.put_manifest(REFUSED["negative size"], "latest")
    assert "size" in answer.json["errors"][0]["message"]
    answer = repository.put_manifest(REFUSED["malformed digest"], "latest")
    assert "layers[0].digest" in answer.json["errors"][0]["message"]
