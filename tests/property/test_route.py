"""Paths name endpoints (distribution-spec, Endpoints), and nothing else gets in."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from angos.sansio.errors import RegistryError
from angos.sansio.http.query import Query
from angos.sansio.http.route import Blob, Endpoint, ManifestOf, Referrers, Tags, Upload, Uploads, parse_endpoint
from angos.sansio.oci.digest import Digest
from angos.sansio.oci.reference import Namespace, Tag

from .values import digests, namespaces, tags

UPLOAD_ID = "0f0f0f0f-1111-4222-8333-444444444444"
CONFUSING = st.lists(
    st.sampled_from(["a", "blobs", "uploads", "manifests", "tags", "list", "referrers"]), min_size=1
).map(lambda components: Namespace("/".join(components)))


@given(namespaces() | CONFUSING, tags(), digests())
def test_every_endpoint_is_found_whatever_the_repository_is_called(
    namespace: Namespace, tag: Tag, digest: Digest
) -> None:
    expected: dict[str, Endpoint] = {
        f"/v2/{namespace}/manifests/{tag}": ManifestOf(namespace, tag),
        f"/v2/{namespace}/manifests/{digest}": ManifestOf(namespace, digest),
        f"/v2/{namespace}/blobs/{digest}": Blob(namespace, digest),
        f"/v2/{namespace}/referrers/{digest}": Referrers(namespace, digest),
        f"/v2/{namespace}/blobs/uploads/": Uploads(namespace),
        f"/v2/{namespace}/blobs/uploads": Uploads(namespace),
        f"/v2/{namespace}/blobs/uploads/{UPLOAD_ID}": Upload(namespace, UPLOAD_ID),
    }
    for path, endpoint in expected.items():
        assert parse_endpoint(path) == endpoint
    assert isinstance(parse_endpoint(f"/v2/{namespace}/tags/list"), Tags | ManifestOf)


@given(namespaces(), digests())
def test_percent_encoding_changes_nothing(namespace: Namespace, digest: Digest) -> None:
    path = f"/v2/{quote(namespace, safe='')}/blobs/{quote(str(digest), safe='')}"
    assert parse_endpoint(path) == Blob(namespace, digest)


@given(st.text(max_size=60))
def test_every_other_path_is_a_clear_refusal(text: str) -> None:
    try:
        parse_endpoint("/v2/" + text)
    except RegistryError as error:
        assert error.status in (400, 404)


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/", 404, "UNSUPPORTED"),
        ("/v1/search", 404, "UNSUPPORTED"),
        ("/v2/a", 404, "UNSUPPORTED"),
        ("/v2/manifests/latest", 404, "UNSUPPORTED"),
        ("/v2/%FF/manifests/x", 400, "NAME_INVALID"),
        ("/v2/a/blobs/sha256:%80", 400, "DIGEST_INVALID"),
        ("/v2/A/tags/list", 400, "NAME_INVALID"),
        ("/v2/a//b/tags/list", 400, "NAME_INVALID"),
        ("/v2/../../etc/manifests/x", 400, "NAME_INVALID"),
        ("/v2/a%2F..%2Fb/manifests/x", 400, "NAME_INVALID"),
        ("/v2/a%00/manifests/x", 400, "NAME_INVALID"),
        ("/v2/a/manifests/sha256:short", 400, "DIGEST_INVALID"),
        ("/v2/a/blobs/latest", 400, "DIGEST_INVALID"),
        ("/v2/a/referrers/x", 400, "DIGEST_INVALID"),
        ("/v2/a/blobs/uploads/nonsense", 404, "BLOB_UPLOAD_UNKNOWN"),
        (f"/v2/a/blobs/uploads/{UPLOAD_ID.upper()}", 404, "BLOB_UPLOAD_UNKNOWN"),
    ],
)
def test_refusals_have_the_code_of_the_specification(path: str, status: int, code: str) -> None:
    with pytest.raises(RegistryError) as caught:
        parse_endpoint(path)
    assert (caught.value.status, caught.value.code) == (status, code)


def test_a_plus_in_a_query_stays_a_plus() -> None:
    assert Query("artifactType=application/vnd.x+json").get("artifactType") == "application/vnd.x+json"
    assert Query("artifactType=application%2Fvnd.x%2Bjson").get("artifactType") == "application/vnd.x+json"
    assert Query("tag=a&tag=b&ns=docker.io").all("tag") == ["a", "b"]
