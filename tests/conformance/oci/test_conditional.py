"""Conditional requests: If-None-Match and If-Range against the digest as ETag (RFC 9110 sections 13 and 8.8.3)."""

import pytest

from tests.conformance.http_client import Client
from tests.conformance.oci.repository import Repository

MATCHING = ['"{}"', "{}", 'W/"{}"', '"other", "{}"', 'W/"x","{}"', "*", '"a,b", "{}"', '  "{}"  ', '"{}","{}"']
OTHER = ['"other"', "other", 'W/"other"', '""', '"sha256:abc"', ""]


@pytest.fixture
def targets(repository: Repository) -> list[str]:
    """A manifest by tag, by digest, and a blob."""
    _, pushed = repository.push_image("latest")
    blob = repository.push_blob(repository.fresh_bytes())
    return [repository.manifest("latest"), repository.manifest(pushed["digest"]), repository.blob(blob)]


@pytest.mark.parametrize("form", MATCHING)
def test_what_the_client_has_is_not_sent_again(client: Client, targets: list[str], form: str) -> None:
    for target in targets:
        whole = client.get(target)
        digest = whole["docker-content-digest"]
        assert whole["etag"] == f'"{digest}"'
        for method in ("GET", "HEAD"):
            answer = client.request(method, target, headers=[("If-None-Match", form.format(digest, digest))])
            assert answer.status == 304
            assert answer.body == b""
            for name in ("etag", "docker-content-digest", "cache-control"):
                assert answer[name] == whole[name]


@pytest.mark.parametrize("form", OTHER)
def test_what_the_client_has_not_is_sent(client: Client, targets: list[str], form: str) -> None:
    for target in targets:
        answer = client.get(target, [("If-None-Match", form)])
        assert answer.status == 200
        assert answer.body


def test_several_lines_of_if_none_match_are_one_list(client: Client, targets: list[str]) -> None:
    for target in targets:
        etag = client.get(target)["etag"]
        assert client.get(target, [("If-None-Match", '"a"'), ("If-None-Match", etag)]).status == 304


def test_the_etag_of_a_tag_follows_the_tag(repository: Repository, client: Client) -> None:
    repository.push_image("latest")
    etag = client.get(repository.manifest("latest"))["etag"]
    second, _ = repository.push_image("latest")
    answer = client.get(repository.manifest("latest"), [("If-None-Match", etag)])
    assert (answer.status, answer.body) == (200, second)


@pytest.mark.parametrize("form", MATCHING)
def test_what_is_missing_is_404_whatever_the_client_has(repository: Repository, client: Client, form: str) -> None:
    digest = "sha256:" + "0" * 64
    value = form.format(digest, digest)
    for target in (repository.manifest("latest"), repository.manifest(digest), repository.blob(digest)):
        assert client.get(target, [("If-None-Match", value)]).status == 404
        assert client.head(target, [("If-None-Match", value)]).status == 404


def test_if_none_match_comes_before_range(client: Client, targets: list[str]) -> None:
    blob = targets[-1]
    etag = client.get(blob)["etag"]
    assert client.get(blob, [("If-None-Match", etag), ("Range", "bytes=0-5")]).status == 304
    assert client.get(blob, [("If-None-Match", '"other"'), ("Range", "bytes=0-5")]).status == 206


@pytest.mark.parametrize(
    ("form", "status"),
    [
        ('"{}"', 206),
        ('"other"', 200),
        ('W/"{}"', 200),
        ("Wed, 21 Oct 2026 07:28:00 GMT", 200),
        ("nonsense", 200),
    ],
)
def test_if_range_gives_the_range_only_of_the_same_content(
    repository: Repository, client: Client, form: str, status: int
) -> None:
    content = repository.fresh_bytes()
    digest = repository.push_blob(content)
    headers = [("If-Range", form.format(digest)), ("Range", "bytes=10-19")]
    answer = client.get(repository.blob(digest), headers)
    assert answer.status == status
    assert answer.body == (content[10:20] if status == 206 else content)


def test_a_date_never_makes_content_unmodified(client: Client, targets: list[str]) -> None:
    for target in targets:
        answer = client.get(target, [("If-Modified-Since", "Fri, 01 Jan 2100 00:00:00 GMT")])
        assert answer.status == 200
