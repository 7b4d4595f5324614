"""Warnings: what a registry tells people without refusing anything (distribution-spec, Warnings)."""

from tests.conformance.oci.content import OCI_CONFIG, OCI_LAYER_GZIP, descriptor, digest_of, manifest_of
from tests.conformance.oci.repository import Repository


def test_a_complete_image_is_pushed_without_a_warning(repository: Repository) -> None:
    manifest, _ = repository.push_image("latest")
    assert repository.put_manifest(manifest, "again").all("warning") == []


def test_a_push_that_cannot_be_pulled_completely_is_accepted_with_a_warning(repository: Repository) -> None:
    config, layer = repository.fresh_bytes(), repository.fresh_bytes()
    repository.push_blob(config)
    manifest = manifest_of(descriptor(OCI_CONFIG, config), [descriptor(OCI_LAYER_GZIP, layer)])
    answer = repository.put_manifest(manifest, "sparse")
    assert answer.status == 201
    # Their form is checked with every answer: 299, no agent, no date.
    warnings = answer.all("warning")
    assert len(warnings) == 1
    assert digest_of(layer) in warnings[0]
    repository.push_blob(layer)
    assert repository.put_manifest(manifest, "sparse").all("warning") == []


def test_hundreds_of_reasons_to_warn_stay_below_the_limit_of_all_warnings(repository: Repository) -> None:
    layers = [descriptor(OCI_LAYER_GZIP, repository.fresh_bytes(10)) for _ in range(300)]
    answer = repository.put_manifest(manifest_of(descriptor(OCI_CONFIG, b"absent"), layers), "sparse")
    assert answer.status == 201
    assert len(answer.all("warning")) >= 1
    assert sum(map(len, answer.all("warning"))) <= 4096
