"""Listing tags: order, pages, Link (distribution-spec, Listing Tags; end-8)."""

import random
from urllib.parse import quote

import pytest

from tests.conformance.http_client import Client, refused
from tests.conformance.oci.content import artifact_of, digest_of
from tests.conformance.oci.repository import Repository

TAGS = [
    "0",
    "10",
    "9",
    "A",
    "B-1",
    "Z",
    "_",
    "_a",
    "a",
    "a-b",
    "a.b",
    "a_b",
    "aa",
    "b",
    "latest",
    "v1",
    "v1.0",
    "v10",
    "v2",
    "z",
]


def _push_tags(repository: Repository, tags: list[str]) -> None:
    manifest = artifact_of("application/x")
    for start in range(0, len(tags), 100):
        query = "&".join(f"tag={tag}" for tag in tags[start : start + 100])
        assert repository.put_manifest(manifest, f"{digest_of(manifest)}?{query}").status == 201


@pytest.fixture
def tagged(repository: Repository) -> Repository:
    """A repository with all `TAGS`, pushed in another order."""
    _push_tags(repository, random.Random(1).sample(TAGS, len(TAGS)))
    return repository


def test_an_unknown_repository_has_no_list(repository: Repository, client: Client) -> None:
    refused(client.get(repository.path("tags/list")), 404, "NAME_UNKNOWN")
    refused(client.get(repository.path("tags/list?n=5&last=a")), 404, "NAME_UNKNOWN")


def test_tags_are_listed_in_byte_order(tagged: Repository, client: Client) -> None:
    answer = client.get(tagged.path("tags/list"))
    assert answer.json == {"name": tagged.name, "tags": sorted(TAGS)}
    assert answer.next_page is None


def test_a_repository_without_tags_has_an_empty_list(repository: Repository, client: Client) -> None:
    repository.push_image()
    assert client.get(repository.path("tags/list")).json == {"name": repository.name, "tags": []}


@pytest.mark.parametrize("size", [1, 2, 3, 7, len(TAGS) - 1, len(TAGS), len(TAGS) + 1])
def test_pages_joined_are_the_whole_list(tagged: Repository, client: Client, size: int) -> None:
    found: list[str] = []
    target: str | None = tagged.path(f"tags/list?n={size}")
    while target is not None:
        answer = client.get(target)
        assert 0 < len(answer.json["tags"]) <= size
        found += answer.json["tags"]
        target = answer.next_page
        assert target is None or target.startswith(tagged.path("tags/list?"))
        assert target is None or len(answer.json["tags"]) == size
        assert (target is None) == (len(found) == len(TAGS)), "Link exactly when there is more"
    assert found == sorted(TAGS)


@pytest.mark.parametrize("last", [*TAGS[::4], "0.5", "zz", "!", "", "a!", "sp ace", "ü", "../..", "a" * 500])
def test_last_is_where_the_list_starts_though_it_need_not_exist(tagged: Repository, client: Client, last: str) -> None:
    expected = [tag for tag in sorted(TAGS) if tag > last]
    assert client.get(tagged.path(f"tags/list?last={quote(last, safe='')}")).json["tags"] == expected
    answer = client.get(tagged.path(f"tags/list?n=2&last={quote(last, safe='')}"))
    assert answer.json["tags"] == expected[:2]
    assert (answer.next_page is None) == (len(expected) <= 2)


def test_n_zero_is_an_empty_list_without_link(tagged: Repository, client: Client) -> None:
    answer = client.get(tagged.path("tags/list?n=0"))
    assert answer.status == 200
    assert answer.json == {"name": tagged.name, "tags": []}
    assert answer.get("link") is None


@pytest.mark.parametrize(
    "n", ["-1", "abc", "1.5", "1e3", "0x10", "%2B5", "%D9%A5", "1%202", "9" * 5000, "1_000", "NaN"]
)
def test_an_n_that_is_no_number_is_refused(tagged: Repository, client: Client, n: str) -> None:
    answer = client.get(tagged.path(f"tags/list?n={n}"))
    if n.startswith("999") and answer.status == 200:  # a number, if an absurd one: clamped
        assert answer.json["tags"] == sorted(TAGS)
        return
    refused(answer, 400, "UNSUPPORTED")


def test_an_n_without_a_value_is_no_wish(tagged: Repository, client: Client) -> None:
    assert client.get(tagged.path("tags/list?n=&last=")).json["tags"] == sorted(TAGS)


def test_an_n_above_the_maximum_is_clamped(tagged: Repository, client: Client) -> None:
    for n in ("10000", "10001", "1000000", str(2**63 - 1), str(2**64 + 1)):
        answer = client.get(tagged.path(f"tags/list?n={n}"))
        assert answer.status == 200
        assert answer.json["tags"] == sorted(TAGS)


def test_a_page_has_a_thousand_tags_unless_asked_otherwise(repository: Repository, client: Client) -> None:
    tags = [f"tag-{number:04}" for number in range(1100)]
    _push_tags(repository, tags)
    answer = client.get(repository.path("tags/list"))
    assert answer.json["tags"] == tags[:1000]
    assert answer.next_page is not None
    assert client.get(answer.next_page).json["tags"] == tags[1000:]
    assert client.get(answer.next_page).next_page is None
    assert client.get(repository.path("tags/list?n=10000")).json["tags"] == tags
    assert repository.tags("?n=300") == tags


def test_a_deleted_tag_is_not_listed(tagged: Repository, client: Client) -> None:
    gone = {"0", "a", "z", "latest"}
    for tag in gone:
        assert client.delete(tagged.manifest(tag)).status == 202
    assert tagged.tags() == [tag for tag in sorted(TAGS) if tag not in gone]
    assert tagged.tags("?n=1") == tagged.tags()


def test_pages_stay_right_while_tags_come_and_go(tagged: Repository, client: Client) -> None:
    answer = client.get(tagged.path("tags/list?n=5"))
    assert answer.next_page is not None
    last = answer.json["tags"][-1]
    assert client.delete(tagged.manifest(last)).status == 202
    tagged.push_manifest(artifact_of("application/x"), "new")
    rest: list[str] = []
    target: str | None = answer.next_page
    while target is not None:
        answer = client.get(target)
        rest += answer.json["tags"]
        target = answer.next_page
    assert rest == sorted([*(tag for tag in TAGS if tag > last), "new"])


def test_digests_are_not_tags(repository: Repository) -> None:
    manifest = artifact_of("application/x")
    repository.push_manifest(manifest)
    repository.push_manifest(manifest, algorithm="sha512")
    assert repository.tags() == []
