"""The data sets of the official suite: each is pushed, listed, looked at, pulled, referred to and deleted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.conformance.http_client import Client, refused
from tests.conformance.oci.content import (
    EMPTY,
    EMPTY_DESCRIPTOR,
    OCI_CONFIG,
    OCI_EMPTY,
    OCI_INDEX,
    OCI_LAYER,
    OCI_LAYER_FOREIGN,
    OCI_LAYER_GZIP,
    OCI_MANIFEST,
    Json,
    bytes_of,
    compressed,
    config_of,
    descriptor,
    digest_of,
    encoded,
    index_of,
    layer_of,
    manifest_of,
    with_data,
)
from tests.conformance.oci.repository import WAYS, Repository

ACCEPT = [("Accept", OCI_INDEX), ("Accept", OCI_MANIFEST)]


@dataclass
class Manifest:
    """One manifest of a set."""

    content: bytes
    media_type: str
    digest: str
    tags: list[str]
    subject: str | None = None


@dataclass
class DataSet:
    """Blobs and manifests, children first; filled by one of the functions below."""

    seed: str
    algorithm: str = "sha256"
    tag_parameters: bool = False
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: list[Manifest] = field(default_factory=list)
    referrers: dict[str, list[Json]] = field(default_factory=dict)
    never_pushed: list[str] = field(default_factory=list)

    def blob(self, media_type: str, content: bytes, *, push: bool = True, **more: Any) -> Json:
        """Add a blob; its descriptor."""
        described = descriptor(media_type, content, self.algorithm, **more)
        if push:
            self.blobs[described["digest"]] = content
        else:
            self.never_pushed.append(described["digest"])
        return described

    def layer(self, number: int, media_type: str = OCI_LAYER_GZIP, **more: Any) -> Json:
        """Add a layer."""
        tar = layer_of({f"file-{number}": bytes_of(f"{self.seed}{number}", 1000)})
        return self.blob(media_type, tar if media_type == OCI_LAYER else compressed(tar), **more)

    def config(self, number: int = 0, **more: Any) -> Json:
        """Add a configuration."""
        return self.blob(OCI_CONFIG, config_of([bytes_of(f"{self.seed}{number}", 10)], **more))

    def add(self, content: bytes, media_type: str, *tags: str, subject: Json | None = None, **listed: Any) -> Json:
        """Add a manifest; its descriptor. `listed` is what a list of referrers must say of it."""
        described = descriptor(media_type, content, self.algorithm)
        digest = subject["digest"] if subject else None
        self.manifests.append(Manifest(content, media_type, described["digest"], list(tags), digest))
        if subject:
            self.referrers.setdefault(subject["digest"], []).append({**described, **listed})
        return described

    def image(self, number: int = 0, *tags: str, layers: int = 2, **more: Any) -> Json:
        """Add an image."""
        config = self.config(number)
        content = manifest_of(config, [self.layer(10 * number + each) for each in range(layers)], **more)
        return self.add(content, OCI_MANIFEST, *tags)

    def artifact(self, number: int, kind: str | None, *tags: str, subject: Json | None = None) -> Json:
        """Add an artifact; listed by its type, or by that of its configuration."""
        config = self.blob(OCI_EMPTY, EMPTY) if kind else self.blob("application/vnd.example.config", EMPTY)
        layer = self.blob("application/vnd.example.content", bytes_of(f"{self.seed} artifact {number}", 300))
        annotations = {"org.example.number": str(number), "org.example.empty": ""}
        more: Json = {"annotations": annotations}
        if kind:
            more["artifactType"] = kind
        if subject:
            more["subject"] = subject
        content = manifest_of(config, [layer], **more)
        listed = {"artifactType": kind or "application/vnd.example.config", "annotations": annotations}
        return self.add(content, OCI_MANIFEST, *tags, subject=subject, **listed)


def _image(data: DataSet) -> None:
    data.image(0, "image")


def _image_uncompressed(data: DataSet) -> None:
    layers = [data.layer(number, OCI_LAYER) for number in range(2)]
    data.add(manifest_of(data.config(), layers), OCI_MANIFEST, "image-uncompressed")


def _large_manifest(data: DataSet) -> None:
    annotations = {f"org.example.large-{number:03}": "x" * 10_000 for number in range(390)}
    data.image(0, "large-manifest", annotations=annotations)


def _index(data: DataSet) -> None:
    children = [data.image(number) for number in range(2)]
    for child, architecture in zip(children, ("amd64", "arm64"), strict=True):
        child["platform"] = {"architecture": architecture, "os": "linux"}
    data.add(index_of(children), OCI_INDEX, "index")


def _nested_index(data: DataSet) -> None:
    inner = []
    for number in range(2):
        children = [data.image(2 * number + each) for each in range(2)]
        inner.append(data.add(index_of(children, annotations={"n": str(number)}), OCI_INDEX))
    data.add(index_of(inner), OCI_INDEX, "nested-index")


def _empty_index(data: DataSet) -> None:
    data.add(index_of([]), OCI_INDEX, "empty-index")


def _artifact(data: DataSet) -> None:
    data.artifact(0, "application/vnd.example.artifact", "artifact")


def _artifact_index(data: DataSet) -> None:
    children = [data.artifact(number, "application/vnd.example.artifact") for number in range(2)]
    data.add(index_of(children, artifactType="application/vnd.example.artifact"), OCI_INDEX, "artifact-index")


def _artifact_without_layers(data: DataSet) -> None:
    empty = data.blob(OCI_EMPTY, EMPTY)
    content = manifest_of(empty, [empty], artifactType="application/vnd.example.artifact")
    data.add(content, OCI_MANIFEST, "artifact-without-layers")


def _artifacts_with_subject(data: DataSet) -> None:
    subject = data.image(0, "artifacts-with-subject")
    data.artifact(1, None, subject=subject)
    data.artifact(2, "application/vnd.example.sbom", "tagged-a", subject=subject)
    data.artifact(3, "application/vnd.example.signature", "tagged-b", subject=subject)


def _index_with_subject(data: DataSet) -> None:
    subject = data.add(index_of([data.image(0), data.image(1)]), OCI_INDEX, "index-with-subject")
    children = [data.artifact(number, "application/vnd.example.sbom", subject=subject) for number in (2, 3)]
    annotations = {"org.example.index": "yes"}
    kind = "application/vnd.example.sboms"
    content = index_of(children, subject=subject, artifactType=kind, annotations=annotations)
    data.add(content, OCI_INDEX, "referring", subject=subject, artifactType=kind, annotations=annotations)


def _missing_subject(data: DataSet) -> None:
    subject = descriptor(OCI_MANIFEST, bytes_of(f"{data.seed} never", 100), data.algorithm)
    data.artifact(0, "application/vnd.example.sbom", "missing-subject", subject=subject)


def _data_field(data: DataSet) -> None:
    config = config_of([b""])
    layers = [bytes_of(f"{data.seed}{number}", 100) for number in range(2)]
    for media_type, content in ((OCI_CONFIG, config), *((OCI_LAYER_GZIP, layer) for layer in layers)):
        data.blob(media_type, content)
    described = [with_data(OCI_LAYER_GZIP, layer) for layer in layers]
    data.add(manifest_of(with_data(OCI_CONFIG, config), described), OCI_MANIFEST, "data-field")


def _non_distributable_layers(data: DataSet) -> None:
    urls = ["https://example.com/layer"]
    foreign = [data.layer(number, OCI_LAYER_FOREIGN, push=False, urls=urls) for number in range(2)]
    data.add(manifest_of(data.config(), [*foreign, data.layer(2)]), OCI_MANIFEST, "non-distributable-layers")


def _custom_fields(data: DataSet) -> None:
    custom: Json = {"org.example": {"nested": [1, "two", None, {"three": 3.5}]}, "anotherOne": True}
    child = data.add(manifest_of(data.config(**custom), [data.layer(0)], **custom), OCI_MANIFEST)
    data.add(index_of([{**child, **custom}], **custom), OCI_INDEX, "custom-fields")


def _no_layers(data: DataSet) -> None:
    data.add(manifest_of(data.config(), []), OCI_MANIFEST, "no-layers")


def _sha512(data: DataSet) -> None:
    data.algorithm = "sha512"
    data.add(index_of([data.image(0), data.image(1)]), OCI_INDEX)


def _sparse(data: DataSet) -> None:
    absent = data.blob(OCI_LAYER_GZIP, bytes_of(f"{data.seed} absent", 100), push=False)
    image = data.add(manifest_of(data.config(), [data.layer(0), absent]), OCI_MANIFEST, "sparse-image")
    missing_child = descriptor(OCI_MANIFEST, bytes_of(f"{data.seed} child", 100))
    data.add(index_of([image, missing_child]), OCI_INDEX, "sparse-index")


def _tag_parameters(data: DataSet) -> None:
    data.tag_parameters = True
    data.add(index_of([data.image(0, "child-a"), data.image(1, "child-b", "child-c")]), OCI_INDEX, "tagged", "again")


def _tag_parameters_sha512(data: DataSet) -> None:
    data.algorithm = "sha512"
    _tag_parameters(data)


SETS: list[Callable[[DataSet], None]] = [
    _image,
    _image_uncompressed,
    _large_manifest,
    _index,
    _nested_index,
    _empty_index,
    _artifact,
    _artifact_index,
    _artifact_without_layers,
    _artifacts_with_subject,
    _index_with_subject,
    _missing_subject,
    _data_field,
    _non_distributable_layers,
    _custom_fields,
    _no_layers,
    _sha512,
    _sparse,
    _tag_parameters,
    _tag_parameters_sha512,
]


@pytest.mark.parametrize("fill", SETS, ids=lambda fill: fill.__name__.strip("_").replace("_", "-"))
def test_a_data_set_lives_through_its_whole_life(
    repository: Repository, client: Client, fill: Callable[[DataSet], None]
) -> None:
    data = DataSet(repository.name)
    fill(data)
    _push(repository, data)
    _list_tags(repository, data)
    _look_and_pull(repository, data)
    _list_referrers(repository, client, data)
    _delete(repository, data)


def _push(repository: Repository, data: DataSet) -> None:
    for number, content in enumerate(data.blobs.values()):
        repository.push_blob(content, WAYS[number % len(WAYS)], data.algorithm)
    for manifest in data.manifests:
        references = [manifest.digest, *manifest.tags]
        if data.tag_parameters:
            references = [f"{manifest.digest}?{'&'.join(f'tag={tag}' for tag in manifest.tags)}"]
        for reference in references:
            answer = repository.put_manifest(manifest.content, reference, manifest.media_type, chunked=True)
            assert answer.status == 201, answer
            assert answer.get("oci-subject") == manifest.subject
            assert answer["docker-content-digest"] == manifest.digest
            if data.tag_parameters:
                named = {tag.strip() for value in answer.all("oci-tag") for tag in value.split(",")}
                assert named == set(manifest.tags) or not manifest.tags
            pulled = repository.client.get(answer.location, ACCEPT)
            assert (pulled.status, pulled.body) == (200, manifest.content)
            assert pulled["content-type"] == manifest.media_type


def _list_tags(repository: Repository, data: DataSet) -> None:
    tags = sorted(tag for manifest in data.manifests for tag in manifest.tags)
    assert repository.tags() == tags
    if len(tags) > 1:
        middle = tags[len(tags) // 2 - 1]
        assert repository.tags(f"?last={middle}") == [tag for tag in tags if tag > middle]


def _look_and_pull(repository: Repository, data: DataSet) -> None:
    for manifest in data.manifests:
        for reference in [manifest.digest, *manifest.tags]:
            for answer in (
                repository.client.head(repository.manifest(reference), ACCEPT),
                repository.client.get(repository.manifest(reference), ACCEPT),
            ):
                assert answer.status == 200
                assert answer["content-type"] == manifest.media_type
                assert answer["docker-content-digest"] == manifest.digest
                assert answer.size == len(manifest.content)
            assert answer.body == manifest.content
    for digest, content in data.blobs.items():
        assert repository.has_blob(digest)
        assert repository.pull_blob(digest) == content
    for digest in data.never_pushed:
        assert not repository.has_blob(digest)


def _list_referrers(repository: Repository, client: Client, data: DataSet) -> None:
    for subject, expected in data.referrers.items():
        assert sorted(repository.referrers(subject), key=_digest) == sorted(expected, key=_digest)
        for kind in {each["artifactType"] for each in expected}:
            answer = client.get(repository.path(f"referrers/{subject}?artifactType={kind.replace('+', '%2B')}"))
            assert answer["oci-filters-applied"] == "artifactType"
            matching = [each for each in expected if each["artifactType"] == kind]
            assert sorted(answer.json["manifests"], key=_digest) == sorted(matching, key=_digest)


def _digest(described: Json) -> str:
    return str(described["digest"])


def _delete(repository: Repository, data: DataSet) -> None:
    client = repository.client
    for manifest in reversed(data.manifests):
        for tag in manifest.tags[:1]:
            assert client.delete(repository.manifest(tag)).status == 202
            assert client.head(repository.manifest(tag)).status == 404
        assert client.delete(repository.manifest(manifest.digest)).status == 202
        for reference in [manifest.digest, *manifest.tags]:
            refused(client.head(repository.manifest(reference)), 404)
    for digest in data.blobs:
        assert client.delete(repository.blob(digest)).status == 202
        assert client.head(repository.blob(digest)).status == 404
    for subject in data.referrers:
        assert repository.referrers(subject) == []


def test_an_image_under_the_digest_of_other_bytes_is_refused(repository: Repository, client: Client) -> None:
    data = DataSet(repository.name)
    fill_all = data.image(0)
    for content in data.blobs.values():
        repository.push_blob(content)
    (manifest,) = data.manifests
    refused(repository.put_manifest(manifest.content + b"  ", fill_all["digest"], chunked=True), 400, "DIGEST_INVALID")
    refused(client.head(repository.manifest(manifest.digest)), 404)


def test_the_empty_descriptor_is_the_one_of_the_image_specification() -> None:
    assert EMPTY_DESCRIPTOR["digest"] == "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    assert digest_of(encoded({})) == EMPTY_DESCRIPTOR["digest"]
