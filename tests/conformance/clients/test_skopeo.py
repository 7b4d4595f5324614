"""skopeo: copy, inspect, list-tags, delete, sync."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.conformance.clients.conftest import Program
from tests.conformance.clients.oci_layout import Layout, content_of, image_layout, multi_arch_layout, named_digest
from tests.conformance.http_client import Client
from tests.conformance.oci.content import (
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    artifact_of,
    descriptor,
    digest_of,
)
from tests.conformance.oci.repository import Repository
from tests.conformance.registry_process import RegistryProcess

# skopeo remembers blobs of all registries it ever saw, and would use an equal layer in another compression.
EXACT = ("--preserve-digests",)


@pytest.fixture
def image(registry: RegistryProcess, name: str) -> str:
    """The name of an image, as skopeo spells it."""
    return f"docker://{registry.address}/{name}:latest"


@pytest.fixture
def pushed(skopeo: Program, image: str, tmp_path: Path) -> tuple[Layout, str]:
    """An image of several layers, copied into the registry."""
    layout, digest = image_layout(tmp_path / "image")
    skopeo.run("copy", *EXACT, layout.source, image)
    return layout, digest


def test_an_image_comes_back_with_identical_digests(
    skopeo: Program, image: str, pushed: tuple[Layout, str], tmp_path: Path
) -> None:
    layout, digest = pushed
    skopeo.run("copy", image, f"oci:{tmp_path}/back:test")
    assert named_digest(tmp_path / "back") == digest
    assert content_of(tmp_path / "back") == layout.blobs


def test_an_index_comes_back_with_all_its_images(skopeo: Program, image: str, tmp_path: Path) -> None:
    layout, digest = multi_arch_layout(tmp_path / "multi")
    skopeo.run("copy", "--all", *EXACT, layout.source, image)
    skopeo.run("copy", "--all", *EXACT, image, f"oci:{tmp_path}/back:test")
    assert named_digest(tmp_path / "back") == digest
    assert content_of(tmp_path / "back") == layout.blobs
    for architecture in ("amd64", "arm64", "s390x"):
        config: Any = skopeo.json("--override-arch", architecture, "inspect", "--config", image)
        assert config["architecture"] == architecture


def test_an_image_is_inspected(skopeo: Program, image: str, pushed: tuple[Layout, str]) -> None:
    layout, digest = pushed
    found: Any = skopeo.json("inspect", image)
    assert found["Digest"] == digest
    assert found["RepoTags"] == ["latest"]
    assert found["Architecture"] == "amd64"
    assert set(found["Layers"]) < set(layout.blobs)
    raw: Any = skopeo.json("inspect", "--raw", image)
    assert raw["mediaType"] == OCI_MANIFEST


@pytest.mark.parametrize("registry", ["asyncio"], indirect=True)
def test_tags_are_listed_page_by_page(
    skopeo: Program, image: str, pushed: tuple[Layout, str], client: Client, name: str
) -> None:
    manifest = pushed[0].blobs[pushed[1]]
    tags = [f"t{number:04}" for number in range(1005)]
    for start in range(0, len(tags), 75):
        query = "&".join(f"tag={tag}" for tag in tags[start : start + 75])
        assert Repository(client, name).put_manifest(manifest, f"{pushed[1]}?{query}").status == 201
    found: Any = skopeo.json("list-tags", image.removesuffix(":latest"))
    assert found["Tags"] == ["latest", *tags]


def test_deleting_an_image_removes_it_with_all_its_tags(
    skopeo: Program, image: str, pushed: tuple[Layout, str], client: Client, name: str
) -> None:
    repository = Repository(client, name)
    repository.push_manifest(pushed[0].blobs[pushed[1]], "other")
    skopeo.run("delete", image)
    for reference in ("latest", "other", pushed[1]):
        assert client.get(repository.manifest(reference)).status == 404
    assert "manifest unknown" in skopeo.run("inspect", image, succeeds=False)


def test_copying_inside_the_registry_mounts_the_layers(
    skopeo: Program, image: str, pushed: tuple[Layout, str], client: Client, name: str
) -> None:
    target = image.replace(f"/{name}:", f"/copy/{name}:")
    skopeo.run("copy", *EXACT, image, target)
    found: Any = skopeo.json("inspect", target)
    assert found["Digest"] == pushed[1]
    copy = Repository(client, f"copy/{name}")
    for layer in found["Layers"]:
        assert copy.pull_blob(layer) == pushed[0].blobs[layer]


def test_copying_twice_changes_nothing(skopeo: Program, image: str, pushed: tuple[Layout, str]) -> None:
    skopeo.run("copy", *EXACT, pushed[0].source, image)
    found: Any = skopeo.json("inspect", image)
    assert found["Digest"] == pushed[1]


@pytest.mark.parametrize(
    "way", [("--format", "v2s2"), ("--dest-compress-format", "zstd", "--dest-compress"), ("--dest-precompute-digests",)]
)
def test_other_formats_are_copied_in_and_out(skopeo: Program, image: str, tmp_path: Path, way: tuple[str, ...]) -> None:
    layout, _ = image_layout(tmp_path / "image")
    skopeo.run("copy", *way, layout.source, image)
    raw: Any = skopeo.json("inspect", "--raw", image)
    assert raw["mediaType"] == (DOCKER_MANIFEST if "v2s2" in way else OCI_MANIFEST)
    skopeo.run("copy", image, f"dir:{tmp_path}/back")
    for layer in raw["layers"]:
        content = (tmp_path / "back" / layer["digest"].removeprefix("sha256:")).read_bytes()
        assert digest_of(content) == layer["digest"]


def test_a_repository_is_synchronised_to_a_folder(
    skopeo: Program, image: str, pushed: tuple[Layout, str], registry: RegistryProcess, name: str, tmp_path: Path
) -> None:
    (tmp_path / "synced").mkdir()
    skopeo.run("sync", "--src", "docker", "--dest", "dir", image.removeprefix("docker://"), str(tmp_path / "synced"))
    (manifest,) = (tmp_path / "synced").rglob("manifest.json")
    assert digest_of(manifest.read_bytes()) == pushed[1]
    assert registry.address
    assert name


def test_a_sha512_manifest_is_inspected_by_digest_and_by_tag(
    skopeo: Program, image: str, client: Client, name: str
) -> None:
    # skopeo reads sha512 and never writes it.
    repository = Repository(client, name)
    manifest, described = repository.push_image("latest", algorithm="sha512")
    by_digest = f"{image.removesuffix(':latest')}@{described['digest']}"
    assert skopeo.run("inspect", "--raw", by_digest).encode() == manifest
    assert skopeo.run("inspect", "--raw", image).encode() == manifest


def test_an_artifact_that_refers_to_an_image_is_copied(
    skopeo: Program, image: str, pushed: tuple[Layout, str], client: Client, name: str, tmp_path: Path
) -> None:
    # As oras attach does it: the empty configuration, a layer, the manifest by digest.
    repository = Repository(client, name)
    repository.push_empty_blob()
    subject = descriptor(OCI_MANIFEST, pushed[0].blobs[pushed[1]])
    artifact = artifact_of("application/vnd.example.sbom", subject)
    digest = repository.push_manifest(artifact)
    (listed,) = repository.referrers(pushed[1], "?artifactType=application/vnd.example.sbom")
    assert listed["digest"] == digest
    skopeo.run("copy", f"{image.removesuffix(':latest')}@{digest}", f"oci:{tmp_path}/artifact:test")
    assert content_of(tmp_path / "artifact")[digest] == artifact


def test_an_index_is_copied_without_its_images(skopeo: Program, image: str, tmp_path: Path) -> None:
    layout, digest = multi_arch_layout(tmp_path / "multi")
    skopeo.run("copy", "--multi-arch", "index-only", *EXACT, layout.source, image)
    raw: Any = skopeo.json("inspect", "--raw", image)
    assert raw["mediaType"] == OCI_INDEX
    assert digest_of(skopeo.run("inspect", "--raw", image).encode()) == digest
