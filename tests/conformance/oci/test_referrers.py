"""Manifests with a subject, and the list of them (distribution-spec, Listing Referrers; end-12)."""

from urllib.parse import quote

import pytest

from tests.conformance.http_client import Client, refused
from tests.conformance.oci.content import (
    DOCKER_MANIFEST,
    EMPTY_DESCRIPTOR,
    OCI_CONFIG,
    OCI_EMPTY,
    OCI_INDEX,
    OCI_MANIFEST,
    Json,
    artifact_of,
    descriptor,
    digest_of,
    index_of,
    manifest_of,
)
from tests.conformance.oci.repository import Repository

SBOM, SIGNATURE = "application/vnd.example.sbom+json", "application/vnd.example.signature"


def _by_digest(descriptors: list[Json]) -> list[Json]:
    return sorted(descriptors, key=lambda each: str(each["digest"]))


def test_an_unknown_repository_and_an_unknown_subject_have_an_empty_list(
    repository: Repository, client: Client
) -> None:
    for algorithm in ("sha256", "sha512"):
        subject = digest_of(repository.fresh_bytes(), algorithm)
        answer = client.get(repository.path(f"referrers/{subject}"))
        assert answer.status == 200
        assert answer["content-type"] == OCI_INDEX
        assert answer.json == {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
        assert answer.get("oci-filters-applied") is None
    repository.push_image("latest")
    assert repository.referrers(subject) == []


@pytest.mark.parametrize(
    "digest", ["nonsense", "sha256:short", "md5:abc", "latest", "sha256:" + "G" * 64, "sha256:%2e%2e"]
)
def test_a_malformed_subject_is_refused(repository: Repository, client: Client, digest: str) -> None:
    refused(client.get(repository.path(f"referrers/{digest}")), 400, "DIGEST_INVALID")


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("by", ["tag", "digest"])
def test_every_kind_of_manifest_with_a_subject_is_listed(repository: Repository, by: str, algorithm: str) -> None:
    _, subject = repository.push_image(algorithm=algorithm)
    annotations = {"org.example.a": "1", "org.opencontainers.image.created": "2026-01-01T00:00:00Z"}
    docker = manifest_of(descriptor("application/x-config", b"{}"), [], DOCKER_MANIFEST, subject=subject)
    pushes: list[tuple[bytes, Json]] = [
        (
            content := artifact_of(SBOM, subject, annotations=annotations),
            descriptor(OCI_MANIFEST, content, artifactType=SBOM, annotations=annotations),
        ),
        (content := artifact_of(None, subject), descriptor(OCI_MANIFEST, content, artifactType=OCI_EMPTY)),
        (
            content := manifest_of(descriptor(OCI_CONFIG, b"{}"), [], subject=subject),
            descriptor(OCI_MANIFEST, content, artifactType=OCI_CONFIG),
        ),
        (content := index_of([], subject=subject), descriptor(OCI_INDEX, content)),
        (
            content := index_of([], subject=subject, artifactType=SIGNATURE, annotations={"b": ""}),
            descriptor(OCI_INDEX, content, artifactType=SIGNATURE, annotations={"b": ""}),
        ),
        (docker, descriptor(DOCKER_MANIFEST, docker, artifactType="application/x-config")),
    ]
    for number, (content, expected) in enumerate(pushes):
        reference = f"tag-{number}" if by == "tag" else expected["digest"]
        answer = repository.put_manifest(content, reference, expected["mediaType"])
        assert answer.status == 201
        assert answer["oci-subject"] == subject["digest"]
    assert _by_digest(repository.referrers(subject["digest"])) == _by_digest([expected for _, expected in pushes])


def test_a_manifest_without_subject_has_no_oci_subject(repository: Repository) -> None:
    assert repository.put_manifest(artifact_of(SBOM), "latest").get("oci-subject") is None


def test_a_referrer_may_come_before_its_subject(repository: Repository) -> None:
    subject_content = artifact_of("application/x", annotations={"unique": repository.name})
    subject = descriptor(OCI_MANIFEST, subject_content)
    referrer = artifact_of(SBOM, subject)
    answer = repository.put_manifest(referrer, digest_of(referrer))
    assert (answer.status, answer["oci-subject"]) == (201, subject["digest"])
    assert [each["digest"] for each in repository.referrers(subject["digest"])] == [digest_of(referrer)]
    repository.push_manifest(subject_content)
    assert [each["digest"] for each in repository.referrers(subject["digest"])] == [digest_of(referrer)]


def test_a_referrer_is_listed_once_however_often_it_is_pushed(repository: Repository) -> None:
    _, subject = repository.push_image()
    referrer = artifact_of(SBOM, subject)
    for reference in (None, None, "a", "b"):
        repository.push_manifest(referrer, reference)
    assert len(repository.referrers(subject["digest"])) == 1


def test_referrers_belong_to_their_repository(repository: Repository, other: Repository) -> None:
    manifest, subject = repository.push_image()
    other.push_manifest(manifest)
    repository.push_manifest(artifact_of(SBOM, subject))
    assert len(repository.referrers(subject["digest"])) == 1
    assert other.referrers(subject["digest"]) == []


def test_a_deleted_referrer_is_not_listed_and_a_deleted_subject_keeps_its_referrers(
    repository: Repository, client: Client
) -> None:
    _, subject = repository.push_image()
    first = repository.push_manifest(artifact_of(SBOM, subject), "first")
    second = repository.push_manifest(artifact_of(SIGNATURE, subject))
    assert client.delete(repository.manifest(first)).status == 202
    assert [each["digest"] for each in repository.referrers(subject["digest"])] == [second]
    assert client.delete(repository.manifest(subject["digest"])).status == 202
    assert [each["digest"] for each in repository.referrers(subject["digest"])] == [second]


def test_deleting_a_tag_of_a_referrer_keeps_it_listed(repository: Repository, client: Client) -> None:
    _, subject = repository.push_image()
    digest = repository.push_manifest(artifact_of(SBOM, subject), "tagged")
    assert client.delete(repository.manifest("tagged")).status == 202
    assert [each["digest"] for each in repository.referrers(subject["digest"])] == [digest]


def test_the_list_is_filtered_by_artifact_type(repository: Repository, client: Client) -> None:
    _, subject = repository.push_image()
    sbom = repository.push_manifest(artifact_of(SBOM, subject))
    signature = repository.push_manifest(artifact_of(SIGNATURE, subject))
    by_config = repository.push_manifest(manifest_of(descriptor(OCI_CONFIG, b"{}"), [], subject=subject))
    repository.push_manifest(index_of([], subject=subject), media_type=OCI_INDEX)
    path = repository.path(f"referrers/{subject['digest']}")
    for query, expected in (
        (f"artifactType={quote(SBOM, safe='')}", {sbom}),
        (f"artifactType={SBOM}", {sbom}),  # a bare + reads as a space
        (f"artifactType={SIGNATURE}", {signature}),
        (f"artifactType={quote(OCI_CONFIG, safe='')}", {by_config}),
        (f"artifactType={SIGNATURE}&artifactType={quote(SBOM, safe='')}", {sbom, signature}),
        ("artifactType=application/absent", set()),
    ):
        answer = client.get(f"{path}?{query}")
        assert answer.status == 200
        assert answer["oci-filters-applied"] == "artifactType"
        assert {each["digest"] for each in answer.json["manifests"]} == expected, query
    answer = client.get(f"{path}?unknownFilter=x")
    assert answer.get("oci-filters-applied") is None
    assert len(answer.json["manifests"]) == 4


def test_a_long_list_comes_in_pages_that_clients_can_read(repository: Repository, client: Client) -> None:
    _, subject = repository.push_image()
    expected = set()
    for number in range(24):
        kind = (SBOM, SIGNATURE)[number % 2]
        filler = f"{number} {'x' * 250_000}"
        expected.add(repository.push_manifest(artifact_of(kind, subject, annotations={"filler": filler})))
    first = client.get(repository.path(f"referrers/{subject['digest']}"))
    assert first.next_page is not None
    assert first.next_page.startswith(repository.path(f"referrers/{subject['digest']}?"))
    found = [each["digest"] for each in repository.referrers(subject["digest"])]
    assert len(found) == len(set(found))
    assert set(found) == expected
    filtered = repository.referrers(subject["digest"], f"?artifactType={quote(SBOM, safe='')}")
    assert len(filtered) == 12
    assert {each["artifactType"] for each in filtered} == {SBOM}


def test_a_referrer_too_large_for_a_page_is_listed_nevertheless(repository: Repository, client: Client) -> None:
    _, subject = repository.push_image()
    sizes = (4_700_000, 10, 4_700_001, 10)
    manifests = [artifact_of(SBOM, subject, annotations={str(n): "x" * size}) for n, size in enumerate(sizes)]
    for manifest in manifests:
        repository.push_manifest(manifest)
    found: list[str] = []
    target: str | None = repository.path(f"referrers/{subject['digest']}")
    while target is not None:
        answer = client.get(target)
        assert answer.status == 200
        assert answer.json["manifests"]
        found += [each["digest"] for each in answer.json["manifests"]]
        target = answer.next_page
    assert sorted(found) == sorted(digest_of(manifest) for manifest in manifests)


def test_a_wish_for_small_pages_is_granted_or_ignored(repository: Repository) -> None:
    _, subject = repository.push_image()
    expected = {repository.push_manifest(artifact_of(f"application/x{number}", subject)) for number in range(5)}
    for n in (1, 2, 5, 100):
        found = [each["digest"] for each in repository.referrers(subject["digest"], f"?n={n}")]
        assert sorted(found) == sorted(expected)


def test_the_fallback_tag_of_old_clients_is_an_ordinary_tag(repository: Repository) -> None:
    _, subject = repository.push_image()
    referrer = artifact_of(SBOM, subject)
    repository.push_manifest(referrer)
    tag = subject["digest"].replace(":", "-")
    for entries in ([], [descriptor(OCI_MANIFEST, referrer, artifactType=SBOM)]):
        repository.push_manifest(index_of(entries), tag, OCI_INDEX)
        assert repository.pull_manifest(tag).body == index_of(entries)
    assert [each["digest"] for each in repository.referrers(subject["digest"])] == [digest_of(referrer)]
    assert tag in repository.tags()


def test_a_subject_may_be_pushed_under_another_algorithm(repository: Repository) -> None:
    manifest, _ = repository.push_image()
    subject = descriptor(OCI_MANIFEST, manifest, "sha512")
    referrer = repository.push_manifest(artifact_of(SBOM, subject), algorithm="sha512")
    listed = repository.referrers(subject["digest"])
    assert [each["digest"] for each in listed] == [referrer]
    assert repository.referrers(digest_of(manifest)) == []


def test_head_of_a_list_of_referrers_has_its_headers(repository: Repository, client: Client) -> None:
    _, subject = repository.push_image()
    repository.push_manifest(artifact_of(SBOM, subject))
    path = repository.path(f"referrers/{subject['digest']}")
    got, headed = client.get(path), client.head(path)
    if headed.status == 200:
        assert headed.size == got.size
        assert headed["content-type"] == OCI_INDEX
    else:
        refused(headed, 405)


def test_the_descriptor_of_a_referrer_carries_no_data(repository: Repository) -> None:
    _, subject = repository.push_image()
    repository.push_manifest(artifact_of(SBOM, {**subject, "data": "e30=", "annotations": {"not": "copied"}}))
    (listed,) = repository.referrers(subject["digest"])
    assert set(listed) == {"mediaType", "digest", "size", "artifactType"}
    assert EMPTY_DESCRIPTOR["digest"] not in listed.values()
