"""What policies see of each request, written out in full: rules are written against exactly this (bug class 18)."""

from __future__ import annotations

from typing import Any

import pytest

from angos.sansio.access.action import action_of
from angos.sansio.access.scope import Scope, parse_scopes
from angos.sansio.http.query import Query, page_size
from angos.sansio.http.route import parse_endpoint

D = "sha256:" + "a" * 64
ID = "00000000-0000-4000-8000-000000000001"

GOLDEN: list[tuple[str, str, dict[str, Any] | None]] = [
    ("GET", "/healthz", None),
    ("GET", "/readyz", None),
    ("GET", "/token", None),
    ("POST", "/token", None),
    ("GET", "/v2/", {"action": "get-api-version"}),
    ("HEAD", "/v2/", {"action": "get-api-version"}),
    ("GET", "/v2/_catalog", {"action": "list-catalog"}),
    ("GET", "/v2/_catalog?n=5&last=a", {"action": "list-catalog", "n": 5, "last": "a"}),
    ("GET", "/v2/a/b/tags/list", {"action": "list-tags", "namespace": "a/b"}),
    ("GET", "/v2/a/tags/list?n=x&last=v1", {"action": "list-tags", "namespace": "a", "last": "v1"}),
    ("GET", "/v2/_ext/a/b/_history", {"action": "list-history", "namespace": "a/b"}),
    (
        "GET",
        "/v2/_ext/a/_history?tag=v1&n=5",
        {"action": "list-history", "namespace": "a", "reference": "v1", "n": 5},
    ),
    (
        "POST",
        f"/v2/_ext/a/_restore?tag=v1&to={D}",
        {"action": "put-manifest", "namespace": "a", "reference": "v1", "tags": ["v1"]},
    ),
    ("POST", "/v2/_ext/a/_restore", {"action": "put-manifest", "namespace": "a"}),
    ("POST", "/v2/a/blobs/uploads/", {"action": "start-upload", "namespace": "a"}),
    ("POST", f"/v2/a/blobs/uploads/?digest={D}", {"action": "start-upload", "namespace": "a", "digest": D}),
    (
        "POST",
        "/v2/a/blobs/uploads/?digest-algorithm=sha512",
        {"action": "start-upload", "namespace": "a", "digest_algorithm": "sha512"},
    ),
    ("POST", f"/v2/a/blobs/uploads/?mount={D}", {"action": "mount-blob", "namespace": "a", "digest": D}),
    (
        "POST",
        f"/v2/a/blobs/uploads/?mount={D}&from=b/c",
        {"action": "mount-blob", "namespace": "a", "digest": D, "from": "b/c"},
    ),
    ("GET", f"/v2/a/blobs/uploads/{ID}", {"action": "get-upload", "namespace": "a", "session_id": ID}),
    ("HEAD", f"/v2/a/blobs/uploads/{ID}", {"action": "get-upload", "namespace": "a", "session_id": ID}),
    ("PATCH", f"/v2/a/blobs/uploads/{ID}", {"action": "update-upload", "namespace": "a", "session_id": ID}),
    (
        "PUT",
        f"/v2/a/blobs/uploads/{ID}?digest={D}",
        {"action": "complete-upload", "namespace": "a", "session_id": ID, "digest": D},
    ),
    ("DELETE", f"/v2/a/blobs/uploads/{ID}", {"action": "cancel-upload", "namespace": "a", "session_id": ID}),
    ("GET", f"/v2/a/blobs/{D}", {"action": "get-blob", "namespace": "a", "digest": D}),
    ("HEAD", f"/v2/a/blobs/{D}", {"action": "get-blob", "namespace": "a", "digest": D}),
    ("DELETE", f"/v2/a/blobs/{D}", {"action": "delete-blob", "namespace": "a", "digest": D}),
    ("GET", "/v2/a/manifests/v1", {"action": "get-manifest", "namespace": "a", "reference": "v1"}),
    ("HEAD", f"/v2/a/manifests/{D}", {"action": "get-manifest", "namespace": "a", "reference": D}),
    ("PUT", "/v2/a/manifests/v1", {"action": "put-manifest", "namespace": "a", "reference": "v1", "tags": ["v1"]}),
    (
        "PUT",
        f"/v2/a/manifests/{D}",
        {"action": "put-manifest", "namespace": "a", "reference": D, "digest": D, "tags": []},
    ),
    (
        "PUT",
        f"/v2/a/manifests/{D}?tag=v1&tag=v2",
        {"action": "put-manifest", "namespace": "a", "reference": D, "digest": D, "tags": ["v1", "v2"]},
    ),
    ("DELETE", "/v2/a/manifests/v1", {"action": "delete-manifest", "namespace": "a", "reference": "v1"}),
    ("DELETE", f"/v2/a/manifests/{D}", {"action": "delete-manifest", "namespace": "a", "reference": D}),
    ("GET", f"/v2/a/referrers/{D}", {"action": "get-referrers", "namespace": "a", "digest": D}),
    (
        "GET",
        f"/v2/a/referrers/{D}?artifactType=x/y",
        {"action": "get-referrers", "namespace": "a", "digest": D, "artifact_type": "x/y"},
    ),
]


@pytest.mark.parametrize(("method", "target", "expected"), GOLDEN, ids=[f"{m} {t[:60]}" for m, t, _ in GOLDEN])
def test_the_variable_request_is_exactly_this(method: str, target: str, expected: dict[str, Any] | None) -> None:
    path, _, query = target.partition("?")
    action = action_of(method, parse_endpoint(path), Query(query))
    assert (None if action is None else action.variables()) == expected


@pytest.mark.parametrize("number", ["", "x", "-1", "1" * 101, "\u0661", "1.5"])
def test_a_page_size_that_is_no_number_is_left_out(number: str) -> None:
    action = action_of("GET", parse_endpoint("/v2/_catalog"), Query(f"n={number}"))
    assert action is not None
    assert "n" not in action.variables()


@pytest.mark.parametrize(("number", "expected"), [("0", 0), ("0000000000100", 100), ("9" * 18, 10**18 - 1)])
def test_a_page_size_is_what_the_listing_takes_it_for(number: str, expected: int) -> None:
    query = Query(f"n={number}")
    action = action_of("GET", parse_endpoint("/v2/_catalog"), query)
    assert action is not None
    assert action.variables()["n"] == expected == page_size(query, default=1, largest=expected)


def test_a_page_size_beyond_all_integers_of_rules_is_still_a_large_one() -> None:
    action = action_of("GET", parse_endpoint("/v2/_catalog"), Query("n=" + "9" * 100))
    assert action is not None
    assert action.variables()["n"] == (1 << 63) - 1


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("artifactType=a/b", "a/b"),
        ("artifactType=a/b%20c", "a/b+c"),
        ("artifactType=a/b&artifactType=c/d", None),
        ("artifactType=a/b&artifactType=a/b", None),
    ],
)
def test_an_artifact_type_is_there_when_the_listing_is_of_that_one_only(query: str, expected: str | None) -> None:
    action = action_of("GET", parse_endpoint(f"/v2/a/referrers/{D}"), Query(query))
    assert action is not None
    assert action.variables().get("artifact_type") == expected


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["repository:a/b:pull"], [Scope("repository", "a/b", ("pull",))]),
        (["repository:a:push,pull repository:b:pull"], [("a", ("pull", "push")), ("b", ("pull",))]),
        (["repository:a:pull", "repository:a:push"], [("a", ("pull", "push"))]),
        (["repository:a:*"], [("a", ("delete", "pull", "push"))]),
        (["repository(plugin):a:pull"], [("a", ("pull",))]),
        (["registry:catalog:*"], [Scope("registry", "catalog", ("*",))]),
        (["registry:other:*", "repository:A:pull", "repository:a:fly", "x", "", ":::", "repository::pull"], []),
    ],
)
def test_scopes_are_read_as_far_as_they_mean_something(texts: list[str], expected: list[Any]) -> None:
    found = parse_scopes(texts)
    assert [
        scope if isinstance(wanted, Scope) else (scope.name, scope.verbs)
        for scope, wanted in zip(found, expected, strict=True)
    ] == expected
    assert parse_scopes(map(str, found)) == found


def test_scopes_are_bounded() -> None:
    assert len(parse_scopes(f"repository:a{number}:pull" for number in range(1000))) == 64
