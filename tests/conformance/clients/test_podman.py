"""podman and buildah: push, pull, search, build, multi-architecture manifests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.conformance.clients.conftest import Program
from tests.conformance.clients.oci_layout import image_layout, multi_arch_layout
from tests.conformance.http_client import Client
from tests.conformance.oci.content import OCI_INDEX
from tests.conformance.oci.repository import Repository
from tests.conformance.registry_process import RegistryProcess

INSECURE = "--tls-verify=false"


@pytest.fixture
def image(registry: RegistryProcess, name: str) -> str:
    """The name of an image."""
    return f"{registry.address}/{name}:latest"


def _inspected(podman: Program, image: str) -> dict[str, Any]:
    found: Any = podman.json("image", "inspect", image)
    assert len(found) == 1
    return dict(found[0])


def test_podman_pushes_what_it_loaded_and_pulls_it_again(
    podman: Program, image: str, client: Client, name: str, tmp_path: Path
) -> None:
    layout, digest = image_layout(tmp_path / "image")
    image_id = podman.run("pull", "--quiet", layout.source).strip()
    podman.run("tag", image_id, image)
    podman.run("push", "--quiet", INSECURE, "--digestfile", str(tmp_path / "digest"), image)
    pushed = (tmp_path / "digest").read_text()
    assert Repository(client, name).pull_manifest("latest")["docker-content-digest"] == pushed
    podman.run("rmi", "--all", "--force")
    assert podman.run("pull", "--quiet", INSECURE, image).strip() == image_id
    inspected = _inspected(podman, image)
    assert f"{image.removesuffix(':latest')}@{pushed}" in inspected["RepoDigests"]
    assert digest.startswith("sha256:")
    podman.run("rmi", "--all", "--force")


def test_podman_pulls_its_own_architecture_from_an_index_and_by_digest(
    podman: Program, skopeo: Program, image: str, tmp_path: Path
) -> None:
    layout, digest = multi_arch_layout(tmp_path / "multi")
    skopeo.run("copy", "--all", "--preserve-digests", layout.source, f"docker://{image}")
    for architecture in ("amd64", "arm64"):
        image_id = podman.run("pull", "--quiet", INSECURE, "--arch", architecture, image).strip()
        inspected = _inspected(podman, image_id)
        assert inspected["Architecture"] == architecture
    by_digest = f"{image.removesuffix(':latest')}@{digest}"
    assert podman.run("pull", "--quiet", INSECURE, by_digest).strip()
    podman.run("rmi", "--all", "--force")


def test_podman_searches_and_lists_tags(podman: Program, registry: RegistryProcess, client: Client, name: str) -> None:
    Repository(client, name).push_image("a", "b")
    found: Any = podman.json("search", INSECURE, "--format", "json", "--limit", "1000", f"{registry.address}/{name}")
    assert [each["Name"] for each in found] == [f"{registry.address}/{name}"]
    listed: Any = podman.json("search", INSECURE, "--format", "json", "--list-tags", f"{registry.address}/{name}")
    assert listed[0]["Tags"] == ["a", "b"]


def test_podman_says_what_is_missing(podman: Program, image: str, client: Client, name: str) -> None:
    assert "manifest unknown" in podman.run("pull", INSECURE, image, succeeds=False)
    Repository(client, name).push_image("other")
    assert "there is no tag latest" in podman.run("pull", INSECURE, image, succeeds=False)


def test_buildah_builds_pushes_and_pulls(
    buildah: Program, image: str, client: Client, name: str, tmp_path: Path
) -> None:
    layout, _ = image_layout(tmp_path / "image")
    container = buildah.run("from", layout.source).strip()
    (tmp_path / "added").write_text("added by the test\n")
    buildah.run("copy", container, str(tmp_path / "added"), "/added")
    buildah.run("config", "--label", "made.by=test", container)
    image_id = buildah.run("commit", "--quiet", container, "built").strip()
    buildah.run("push", "--quiet", INSECURE, "built", f"docker://{image}")
    manifest = Repository(client, name).pull_manifest("latest").json
    assert len(manifest["layers"]) == 4
    buildah.run("rm", "--all")
    buildah.run("rmi", "--all", "--force")
    assert buildah.run("pull", "--quiet", INSECURE, image).strip() == image_id
    found: Any = buildah.json("inspect", "--type", "image", image)
    assert found["OCIv1"]["config"]["Labels"]["made.by"] == "test"
    buildah.run("rmi", "--all", "--force")


def test_buildah_makes_an_index_of_two_architectures(
    buildah: Program, image: str, client: Client, name: str, tmp_path: Path
) -> None:
    (tmp_path / "context").mkdir()
    (tmp_path / "context" / "file").write_text("content\n")
    (tmp_path / "context" / "Containerfile").write_text("FROM scratch\nCOPY file /file\nCMD /file\n")
    for architecture in ("amd64", "arm64"):
        buildah.run(
            "bud",
            "--isolation",
            "chroot",
            "--quiet",
            "--arch",
            architecture,
            "--manifest",
            "list",
            str(tmp_path / "context"),
        )
    buildah.run("manifest", "push", "--all", INSECURE, "--format", "oci", "list", f"docker://{image}")
    repository = Repository(client, name)
    answer = repository.pull_manifest("latest")
    assert answer["content-type"] == OCI_INDEX
    assert {each["platform"]["architecture"] for each in answer.json["manifests"]} == {"amd64", "arm64"}
    for child in answer.json["manifests"]:
        manifest = repository.pull_manifest(child["digest"]).json
        for each in (manifest["config"], *manifest["layers"]):
            assert len(repository.pull_blob(each["digest"])) == each["size"]
    buildah.run("rmi", "--all", "--force")
