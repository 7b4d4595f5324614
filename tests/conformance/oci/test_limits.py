"""The sizes that an operator allows: what is larger is refused with 413, and an upload survives it."""

from collections.abc import Iterator

import pytest

from tests.conformance.http_client import Client, refused
from tests.conformance.oci.content import artifact_of, digest_of
from tests.conformance.oci.repository import WAYS, Repository
from tests.conformance.registry_process import RegistryProcess, stored_files

BLOB_SIZE_MAX = 200_000
MANIFEST_SIZE_MAX = 2_000


@pytest.fixture(scope="module", params=["asyncio", "trio"])
def registry(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryProcess]:
    """A registry with small limits."""
    folder = tmp_path_factory.mktemp("limits")
    (folder / "limits.toml").write_text(
        f"[global]\nmax_blob_size = {BLOB_SIZE_MAX}\nmax_manifest_size = {MANIFEST_SIZE_MAX}\n"
    )
    registry = RegistryProcess.start(folder / "data", loop=request.param, arguments=["-c", str(folder / "limits.toml")])
    yield registry
    registry.stop()


@pytest.mark.parametrize("way", WAYS)
def test_a_blob_of_the_greatest_size_is_accepted(repository: Repository, way: str) -> None:
    content = repository.fresh_bytes(BLOB_SIZE_MAX)
    assert repository.pull_blob(repository.push_blob(content, way)) == content


@pytest.mark.parametrize("is_chunked", [False, True])
@pytest.mark.parametrize("size", [BLOB_SIZE_MAX + 1, 3 * BLOB_SIZE_MAX, 3_000_000])
def test_a_blob_above_the_limit_is_refused_however_it_comes(
    repository: Repository, client: Client, registry: RegistryProcess, size: int, is_chunked: bool
) -> None:
    content = repository.fresh_bytes(size)
    digest = digest_of(content)
    body = [content[:1000], content[1000:]] if is_chunked else content
    location = repository.start_upload()
    before = stored_files(registry.root)
    codes = {"SIZE_INVALID", "BLOB_UPLOAD_INVALID"}
    refused(client.post(f"{repository.uploads}?digest={digest}", body), 413, codes)
    refused(client.patch(location, body), 413, codes)
    refused(repository.complete(location, digest, body), 413, codes)
    assert stored_files(registry.root) == before
    assert client.get(location)["range"] == "0-0"
    small = repository.fresh_bytes(100)
    assert repository.complete(location, digest_of(small), small).status == 201
    assert not repository.has_blob(digest)


def test_many_small_chunks_do_not_get_around_the_limit(repository: Repository, client: Client) -> None:
    content = repository.fresh_bytes(BLOB_SIZE_MAX + 1)
    location = repository.start_upload()
    assert client.patch(location, content[:150_000]).status == 202
    refused(client.patch(location, content[150_000:]), 413, {"SIZE_INVALID", "BLOB_UPLOAD_INVALID"})
    assert client.get(location)["range"] == "0-149999"
    assert client.patch(location, content[150_000:BLOB_SIZE_MAX]).status == 202
    answer = repository.complete(location, digest_of(content), content[BLOB_SIZE_MAX:])
    refused(answer, 413, {"SIZE_INVALID", "BLOB_UPLOAD_INVALID"})
    assert repository.complete(location, digest_of(content[:BLOB_SIZE_MAX])).status == 201


def test_the_limit_of_manifests_is_the_one_that_was_set(repository: Repository) -> None:
    filler = MANIFEST_SIZE_MAX - len(artifact_of("application/x", annotations={"filler": ""}))
    repository.push_manifest(artifact_of("application/x", annotations={"filler": "x" * filler}), "largest")
    answer = repository.put_manifest(artifact_of("application/x", annotations={"filler": "x" * (filler + 1)}), "larger")
    refused(answer, 413, "MANIFEST_INVALID")
    assert str(MANIFEST_SIZE_MAX) in answer.json["errors"][0]["message"]
