"""Refusals: their statuses, their codes, and a body that a client can read (distribution-spec, Error Codes)."""

import pytest

from tests.conformance.http_client import Client, refused
from tests.conformance.oci.repository import Repository

UNKNOWN_ROUTES = [
    "/",
    "/v1/",
    "/v1/search?q=x",
    "/v3/",
    "/v2/x",
    "/v2/x/y/z",
    "/v2/x/blobs",
    "/v2/x/blobs/",
    "/v2/x/manifests",
    "/v2/x/manifests/",
    "/v2/x/tags",
    "/v2/x/tags/",
    "/v2/x/referrers/",
    "/v2/x/unknown/y",
    "/v2/_catalog/x",
    "/v2/_unknown/",
    "/v2/x/_oci/unknown/y",
    "/v2//",
    "/v2/x/_oci/ext/discover",
    "/favicon.ico",
    "/healthz/x",
]


@pytest.mark.parametrize("target", UNKNOWN_ROUTES)
@pytest.mark.parametrize("method", ["GET", "PUT", "POST", "DELETE", "HEAD"])
def test_an_unknown_route_is_404_or_a_malformed_name(client: Client, target: str, method: str) -> None:
    answer = client.request(method, target, b"" if method in ("PUT", "POST") else None)
    if target.startswith("/v2/") and answer.status == 400:
        refused(answer, 400, {"NAME_INVALID", "DIGEST_INVALID", "MANIFEST_INVALID"})
    else:
        refused(answer, 404)


@pytest.mark.parametrize(
    ("methods", "rest"),
    [
        ({"POST", "PUT", "PATCH", "DELETE"}, None),
        ({"POST", "PATCH"}, "manifests/latest"),
        ({"POST", "PUT", "PATCH"}, "blobs/sha256:" + "0" * 64),
        ({"GET", "PUT", "PATCH", "DELETE"}, "blobs/uploads/"),
        ({"POST"}, "blobs/uploads/b28b6d85-6d27-4c9a-8a8f-2cf6ff8a4a51"),
        ({"POST", "PUT", "PATCH", "DELETE"}, "tags/list"),
        ({"POST", "PUT", "PATCH", "DELETE"}, "referrers/sha256:" + "0" * 64),
    ],
)
def test_a_wrong_method_is_405_and_told_which_are_right(
    repository: Repository, client: Client, methods: set[str], rest: str | None
) -> None:
    target = "/v2/" if rest is None else repository.path(rest)
    for method in sorted(methods | {"OPTIONS", "TRACE"}):
        answer = client.request(method, target)
        refused(answer, 405, "UNSUPPORTED")
        allowed = {each.strip() for each in answer["allow"].split(",")}
        assert method not in allowed
        assert allowed <= {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"}


@pytest.mark.parametrize("method", ["FOO", "get", "G-E-T", "PROPFIND"])
def test_a_method_that_nobody_knows_is_refused(client: Client, method: str) -> None:
    refused(client.request(method, "/v2/"), (405, 501), "UNSUPPORTED")


def test_a_wrong_method_of_the_catalogue_is_405(client: Client) -> None:
    for method in ("POST", "DELETE", "PUT"):
        answer = client.request(method, "/v2/_catalog")
        refused(answer, 405, "UNSUPPORTED")
        assert "GET" in answer["allow"]


def test_every_error_has_a_body_of_its_true_length(repository: Repository, client: Client) -> None:
    for target in (repository.manifest("latest"), "/nowhere", "/v2/UPPER/tags/list"):
        got, headed = client.get(target), client.head(target)
        assert got.status == headed.status
        assert got.size == len(got.body) > 0
        assert headed.body == b""


def test_an_error_names_what_was_asked_for(repository: Repository, client: Client) -> None:
    repository.push_image("latest")
    error = client.get(repository.manifest("no-such-tag")).json["errors"][0]
    assert "no-such-tag" in str(error)
    absent = "sha256:" + "0" * 64
    assert absent in str(client.get(repository.blob(absent)).json["errors"][0])
    assert "9fZ" in str(client.get("/v2/9fZ/tags/list").json["errors"][0])


def test_an_error_body_cannot_carry_script(client: Client) -> None:
    answer = client.get("/v2/%3Cscript%3Ealert(1)%3C%2Fscript%3E/manifests/latest")
    refused(answer, (400, 404))
    assert answer["content-type"].startswith("application/json")


def test_no_error_shows_where_the_data_lies(repository: Repository, client: Client, registry: object) -> None:
    root = str(getattr(registry, "root", ""))
    assert root
    for target in (repository.manifest("latest"), "/nowhere", repository.blob("sha256:x"), f"{repository.uploads}x"):
        assert root not in client.get(target).body.decode()


@pytest.mark.parametrize(
    "headers",
    [
        [("Content-Type", "application/json")],
        [("Authorization", "Basic Og==")],
        [("Docker-Distribution-API-Version", "registry/2.0")],
        [("User-Agent", "x" * 2000)],
        [("Cookie", "a=b")],
        [("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "e.com")],
        [("Origin", "https://example.com")],
        [("Connection", "keep-alive")],
    ],
)
def test_headers_that_mean_nothing_here_are_ignored(
    repository: Repository, client: Client, headers: list[tuple[str, str]]
) -> None:
    repository.push_image("latest")
    answer = client.get(repository.manifest("latest"), headers)
    assert answer.status == 200
    answer = client.post(repository.uploads, None, headers)
    assert answer.status == 202
    assert answer.location.startswith("/v2/")
