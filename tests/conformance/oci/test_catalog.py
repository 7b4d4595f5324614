"""Listing repositories: ``/v2/_catalog``, which the specification reserves and every client expects."""

import pytest

from tests.conformance.http_client import Client, refused
from tests.conformance.oci.content import artifact_of
from tests.conformance.oci.repository import Repository


@pytest.fixture
def names(client: Client, name: str) -> list[str]:
    """Repositories that hold a manifest each, in byte order."""
    names = [f"{name}{suffix}" for suffix in ("", "-a", ".b", "/a", "/a/b", "/b", "0", "_c", "__c", "a", "a/b")]
    for each in names:
        Repository(client, each).push_manifest(artifact_of("application/x"), "latest")
    return sorted(names)


def _walk(client: Client, target: str | None) -> list[str]:
    found: list[str] = []
    while target is not None:
        answer = client.get(target)
        assert answer.status == 200
        assert answer["content-type"].startswith("application/json")
        assert set(answer.json) == {"repositories"}
        found += answer.json["repositories"]
        target = answer.next_page
        assert target is None or target.startswith("/v2/_catalog?")
    return found


def test_the_catalogue_lists_every_repository_in_byte_order(client: Client, names: list[str]) -> None:
    found = _walk(client, "/v2/_catalog")
    assert found == sorted(set(found))
    assert [each for each in found if each in names] == names


@pytest.mark.parametrize("size", [1, 2, 5, 10, 11, 12])
def test_pages_of_the_catalogue_joined_are_the_whole(client: Client, names: list[str], size: int) -> None:
    before = f"{names[0][:-1]}"
    found: list[str] = []
    target: str | None = f"/v2/_catalog?n={size}&last={before}"
    while target is not None and len(found) < len(names):
        answer = client.get(target)
        assert 0 < len(answer.json["repositories"]) <= size
        found += answer.json["repositories"]
        target = answer.next_page
    assert [each for each in found if each in names] == names


def test_last_of_the_catalogue_need_not_exist(client: Client, names: list[str]) -> None:
    for last in (names[3], names[3] + "!", names[0][:-1]):
        expected = [each for each in names if each > last]
        answer = client.get(f"/v2/_catalog?n=10000&last={last}")
        assert [each for each in answer.json["repositories"] if each in names] == expected


def test_n_zero_of_the_catalogue_is_empty_without_link(client: Client, names: list[str]) -> None:
    answer = client.get("/v2/_catalog?n=0")
    assert (answer.status, answer.json) == (200, {"repositories": []})
    assert answer.get("link") is None
    assert names


@pytest.mark.parametrize("n", ["-1", "abc", "1.5"])
def test_an_n_of_the_catalogue_that_is_no_number_is_refused(client: Client, n: str) -> None:
    refused(client.get(f"/v2/_catalog?n={n}"), 400, "UNSUPPORTED")


def test_an_n_of_the_catalogue_above_the_maximum_is_clamped(client: Client, names: list[str]) -> None:
    found = client.get(f"/v2/_catalog?n=1000000&last={names[0][:-1]}").json["repositories"]
    assert set(names) <= set(found)


def test_the_catalogue_ends(client: Client, names: list[str]) -> None:
    assert client.get("/v2/_catalog?n=5&last=zzzzzzzz").json == {"repositories": []}
    assert names


def test_search_of_podman_is_refused_quickly(client: Client) -> None:
    refused(client.get("/v1/search?q=alpine&n=25"), 404)
