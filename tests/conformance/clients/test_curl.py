"""curl: what people write into scripts, and what only it does, such as waiting for 100 Continue."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.conformance.clients.conftest import Program
from tests.conformance.oci.content import OCI_MANIFEST, artifact_of, bytes_of, descriptor, digest_of
from tests.conformance.registry_process import RegistryProcess


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("way", ["length", "chunked", "continue"])
def test_a_blob_is_uploaded_and_downloaded(
    curl: Program, registry: RegistryProcess, name: str, tmp_path: Path, algorithm: str, way: str
) -> None:
    content = bytes_of(name, 3_000_000)
    (tmp_path / "blob").write_bytes(content)
    digest = digest_of(content, algorithm)
    headers = curl.run("--dump-header", "-", "--request", "POST", f"{registry.url}/v2/{name}/blobs/uploads/")
    (location,) = [line.split(" ", 1)[1] for line in headers.splitlines() if line.lower().startswith("location:")]
    more = {
        "length": [],
        "chunked": ["--header", "Transfer-Encoding: chunked"],
        "continue": ["--expect100-timeout", "30"],
    }
    expect = "Expect: 100-continue" if way == "continue" else "Expect:"
    arguments = [*more[way], "--header", expect, "--upload-file", str(tmp_path / "blob"), "--write-out", "%{http_code}"]
    assert curl.run(*arguments, f"{registry.url}{location}?digest={digest}") == "201"
    curl.run("--output", str(tmp_path / "back"), f"{registry.url}/v2/{name}/blobs/{digest}")
    assert (tmp_path / "back").read_bytes() == content
    curl.run("--output", str(tmp_path / "range"), "--range", "1000-1999", f"{registry.url}/v2/{name}/blobs/{digest}")
    assert (tmp_path / "range").read_bytes() == content[1000:2000]


def test_a_broken_download_is_resumed(curl: Program, registry: RegistryProcess, name: str, tmp_path: Path) -> None:
    content = bytes_of(name, 2_000_000)
    (tmp_path / "blob").write_bytes(content)
    target = f"{registry.url}/v2/{name}/blobs/uploads/?digest={digest_of(content)}"
    curl.run("--request", "POST", "--data-binary", f"@{tmp_path}/blob", target)
    (tmp_path / "back").write_bytes(content[:700_001])
    curl.run(
        "--continue-at", "-", "--output", str(tmp_path / "back"), f"{registry.url}/v2/{name}/blobs/{digest_of(content)}"
    )
    assert (tmp_path / "back").read_bytes() == content


def test_an_artifact_with_a_subject_is_pushed_and_found(
    curl: Program, registry: RegistryProcess, name: str, tmp_path: Path
) -> None:
    subject = artifact_of("application/vnd.example.subject")
    artifact = artifact_of("application/vnd.example.sbom", descriptor(OCI_MANIFEST, subject))
    for content, reference in ((subject, "latest"), (artifact, digest_of(artifact))):
        (tmp_path / "manifest").write_bytes(content)
        headers = curl.run(
            "--dump-header", "-", "--request", "PUT", "--header", f"Content-Type: {OCI_MANIFEST}",
            "--data-binary", f"@{tmp_path}/manifest", f"{registry.url}/v2/{name}/manifests/{reference}",
        )  # fmt: skip
    assert f"oci-subject: {digest_of(subject)}" in headers.lower()
    target = f"{registry.url}/v2/{name}/referrers/{digest_of(subject)}?artifactType=application/vnd.example.sbom"
    found: Any = curl.json(target)
    assert [each["digest"] for each in found["manifests"]] == [digest_of(artifact)]
    assert curl.run(f"{registry.url}/v2/{name}/manifests/latest").encode() == subject


def test_an_error_is_readable_on_a_terminal(curl: Program, registry: RegistryProcess, name: str) -> None:
    said = curl.run(f"{registry.url}/v2/{name}/manifests/nothing", succeeds=False)
    assert "MANIFEST_UNKNOWN" in said
    assert "there is no tag nothing" in said
