"""Many clients at once: the same digest, the same tag, images that share layers. On one worker and on several."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pytest

from tests.conformance.http_client import Client
from tests.conformance.oci.content import (
    OCI_INDEX,
    OCI_LAYER_GZIP,
    artifact_of,
    descriptor,
    digest_of,
    index_of,
    manifest_of,
)
from tests.conformance.oci.repository import WAYS, Repository
from tests.conformance.registry_process import RegistryProcess

T = TypeVar("T")


@pytest.fixture(scope="module", params=["asyncio-1", "trio-1", "asyncio-3"])
def registry(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryProcess]:
    """A registry of one process, or of several that share nothing but the disk."""
    loop, _, workers = request.param.partition("-")
    registry = RegistryProcess.start(tmp_path_factory.mktemp("many") / "data", loop=loop, workers=int(workers))
    yield registry
    registry.stop()


def _at_once(client: Client, jobs: list[Callable[[Client], T]]) -> list[T]:
    def run(job: Callable[[Client], T]) -> T:
        with Client(client.host, client.port) as own:
            return job(own)

    with ThreadPoolExecutor(len(jobs)) as threads:
        return list(threads.map(run, jobs))


def test_the_same_blob_may_be_pushed_by_everybody_at_once(
    repository: Repository, other: Repository, client: Client
) -> None:
    content = repository.fresh_bytes(300_000)
    digest = digest_of(content)

    def job(name: str, way: str) -> Callable[[Client], int]:
        return lambda own: Repository(own, name).upload(content, way).status

    jobs = [job(name, way) for way in WAYS for name in (repository.name, other.name)]
    assert _at_once(client, jobs) == [201] * len(jobs)
    assert repository.pull_blob(digest) == content
    assert other.pull_blob(digest) == content


def test_images_of_one_index_share_layers_while_they_are_pushed(repository: Repository, client: Client) -> None:
    shared = [repository.fresh_bytes(50_000) for _ in range(3)]

    def job(architecture: str) -> Callable[[Client], bytes]:
        def push(own: Client) -> bytes:
            mine = Repository(own, repository.name)
            config = f'{{"architecture":"{architecture}","os":"linux"}}'.encode()
            for content in (*shared, config):
                mine.push_blob(content, "stream")
            layers = [descriptor(OCI_LAYER_GZIP, content) for content in shared]
            manifest = manifest_of(descriptor("application/vnd.oci.image.config.v1+json", config), layers)
            mine.push_manifest(manifest)
            return manifest

        return push

    manifests = _at_once(client, [job(architecture) for architecture in ("amd64", "arm64", "riscv64", "s390x")])
    index = index_of([descriptor("application/vnd.oci.image.manifest.v1+json", each) for each in manifests])
    repository.push_manifest(index, "latest", OCI_INDEX)
    for child in repository.pull_manifest("latest").json["manifests"]:
        for layer in repository.pull_manifest(child["digest"]).json["layers"]:
            assert repository.has_blob(layer["digest"])


def test_a_tag_pushed_by_many_ends_at_one_of_them(repository: Repository, client: Client) -> None:
    manifests = [artifact_of(f"application/x{number}") for number in range(8)]

    def job(manifest: bytes) -> Callable[[Client], int]:
        return lambda own: Repository(own, repository.name).put_manifest(manifest, "latest").status

    assert _at_once(client, [job(manifest) for manifest in manifests]) == [201] * len(manifests)
    seen = {repository.pull_manifest("latest").body for _ in range(10)}
    assert len(seen) == 1
    assert seen <= set(manifests)
    for manifest in manifests:
        assert repository.pull_manifest(digest_of(manifest)).body == manifest
    repository.push_manifest(manifests[3], "latest")
    assert repository.pull_manifest("latest").body == manifests[3]


def test_many_tags_pushed_at_once_are_all_listed(repository: Repository, client: Client) -> None:
    tags = [f"tag-{number:02}" for number in range(12)]

    def job(tag: str) -> Callable[[Client], int]:
        return lambda own: Repository(own, repository.name).put_manifest(artifact_of(f"a/{tag}"), tag).status

    assert _at_once(client, [job(tag) for tag in tags]) == [201] * len(tags)
    assert repository.tags() == tags


def test_many_referrers_pushed_at_once_are_all_listed(repository: Repository, client: Client) -> None:
    _, subject = repository.push_image("latest")
    referrers = [artifact_of(f"application/x{number}", subject) for number in range(10)]

    def job(referrer: bytes) -> Callable[[Client], int]:
        return lambda own: Repository(own, repository.name).put_manifest(referrer, digest_of(referrer)).status

    assert _at_once(client, [job(referrer) for referrer in referrers]) == [201] * len(referrers)
    listed = {each["digest"] for each in repository.referrers(subject["digest"])}
    assert listed == {digest_of(referrer) for referrer in referrers}


def test_one_of_many_deletes_succeeds_and_the_others_find_nothing(repository: Repository, client: Client) -> None:
    for _ in range(3):
        _, pushed = repository.push_image("latest")
        target = repository.manifest(pushed["digest"])

        def delete(own: Client, target: str = target) -> int:
            return own.delete(target).status

        statuses = _at_once(client, [delete] * 4)
        assert 202 in statuses
        assert set(statuses) <= {202, 404}
        assert client.get(target).status == 404
        assert client.get(repository.manifest("latest")).status == 404


def test_readers_see_a_tag_at_every_moment_of_its_moves(repository: Repository, client: Client) -> None:
    manifests = [artifact_of(f"application/x{number}") for number in range(2)]
    repository.push_manifest(manifests[0], "latest")

    def write(own: Client) -> set[bytes]:
        for number in range(20):
            Repository(own, repository.name).push_manifest(manifests[number % 2], "latest")
        return set()

    def read(own: Client) -> set[bytes]:
        return {Repository(own, repository.name).pull_manifest("latest").body for _ in range(40)}

    seen = set[bytes]().union(*_at_once(client, [write, read, read, read]))
    assert seen <= set(manifests)


def test_writers_of_one_upload_on_several_connections_never_mix(repository: Repository, client: Client) -> None:
    for _ in range(5):
        contents = [repository.fresh_bytes(60_000) for _ in range(6)]
        location = repository.start_upload()

        def append(content: bytes, location: str = location) -> Callable[[Client], int]:
            return lambda own: Repository(own, repository.name).append(location, content, 0).status

        statuses = _at_once(client, [append(content) for content in contents])
        assert statuses.count(202) == 1, statuses
        assert set(statuses) <= {202, 409, 416, 429, 503}
        assert client.get(location)["range"] == "0-59999"
        content = contents[statuses.index(202)]

        def close(own: Client, location: str = location, content: bytes = content) -> int:
            return Repository(own, repository.name).complete(location, digest_of(content)).status

        assert _at_once(client, [close] * 4) == [201] * 4
        assert repository.pull_blob(digest_of(content)) == content


def test_cancelling_while_another_writes_leaves_no_upload(repository: Repository, client: Client) -> None:
    for _ in range(5):
        content = repository.fresh_bytes(60_000)
        location = repository.start_upload()

        def write(own: Client, location: str = location, content: bytes = content) -> int:
            return Repository(own, repository.name).append(location, content, 0).status

        def cancel(own: Client, location: str = location) -> int:
            return own.delete(location).status

        written, cancelled = _at_once(client, [write, cancel])
        assert written in (202, 404)
        assert cancelled == 204
        assert client.get(location).status == 404


def test_pushing_and_deleting_a_manifest_at_once_ends_in_one_of_both(repository: Repository, client: Client) -> None:
    manifest = artifact_of("application/x")
    target = repository.manifest(digest_of(manifest))
    for _ in range(8):
        repository.push_manifest(manifest, "latest")

        def push(own: Client) -> int:
            return Repository(own, repository.name).put_manifest(manifest, "latest").status

        def delete(own: Client) -> int:
            return own.delete(target).status

        pushed, *deleted = _at_once(client, [push, delete, delete])
        assert pushed == 201
        assert set(deleted) <= {202, 404}
        by_tag, by_digest = client.get(repository.manifest("latest")), client.get(target)
        assert by_tag.status in (200, 404)
        if by_tag.status == 200:
            assert by_digest.status == 200, "a tag that names a manifest which is gone"
            assert by_tag.body == by_digest.body == manifest
