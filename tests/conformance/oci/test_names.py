"""Names of repositories: the grammar, its limits, and names made to confuse a router (distribution-spec, end-3)."""

from urllib.parse import quote

import pytest

from tests.conformance.http_client import Client, refused
from tests.conformance.oci.content import artifact_of, digest_of
from tests.conformance.oci.repository import Repository

VALID = [
    "a",
    "0",
    "a0",
    "a/b",
    "a.b",
    "a_b",
    "a__b",
    "a-b",
    "a--b",
    "a-----b",
    "a.b_c__d-e--f/0.1/x",
    "library/alpine",
    "1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16",
    "deep/er/and/deep-er__x.y",
]
CONFUSING = [
    "blobs",
    "manifests",
    "tags",
    "uploads",
    "referrers",
    "list",
    "v2",
    "latest",
    "blobs/uploads",
    "manifests/latest",
    "tags/list",
    "a/blobs",
    "a/manifests",
    "a/tags",
    "a/tags/list",
    "a/referrers",
    "a/uploads",
    "a/blobs/uploads",
    "blobs/uploads/blobs/uploads",
    "manifests/manifests/manifests",
    "a/blobs/b",
    "a/manifests/b",
    "v2/blobs/sha256",
    "healthz",
    "readyz",
    "metrics",
    "data",
    "own",
    "con",
]
INVALID = [
    "A",
    "aB/c",
    "a//b",
    "a/",
    "-a",
    "a-",
    ".a",
    "a.",
    "_a",
    "a_",
    "a___b",
    "a..b",
    "a._b",
    "a.-b",
    "a/../b",
    "../a",
    "..",
    ".",
    "a/./b",
    "a b",
    "a+b",
    "a:b",
    "a@b",
    "a!b",
    "a~b",
    "a*b",
    "a\\b",
    "ü",
    "\u0430",  # Cyrillic a
    "\u0663",  # Arabic-Indic three, a digit to Unicode
    "a\u2028b",
    "a\x00b",
    "a\nb",
    "a\n",
    "%61",
    "a%2Fb",
    "a/" * 200 + "a",
    "a" * 256,
]


@pytest.mark.parametrize("prefix", VALID + CONFUSING)
def test_every_name_of_the_grammar_works(client: Client, name: str, prefix: str) -> None:
    # What makes a name unique goes in front, in the middle of the test the plain name is used as well.
    for each in (f"{name}/{prefix}", f"{prefix}/{name}"):
        repository = Repository(client, each)
        manifest, pushed = repository.push_image("latest", "list", "uploads")
        assert repository.pull_manifest("latest").body == manifest
        assert repository.pull_manifest("uploads").body == manifest
        assert repository.tags() == ["latest", "list", "uploads"]
        assert repository.referrers(pushed["digest"]) == []
        content = repository.fresh_bytes()
        assert repository.pull_blob(repository.push_blob(content, "several chunks")) == content
        assert client.delete(repository.manifest("list")).status == 202
        assert client.delete(repository.manifest(pushed["digest"])).status == 202


@pytest.mark.parametrize("prefix", CONFUSING)
def test_a_name_inside_another_name_is_another_repository(client: Client, name: str, prefix: str) -> None:
    outer, inner = Repository(client, name), Repository(client, f"{name}/{prefix}")
    manifest = artifact_of("application/outer")
    outer.push_manifest(manifest, "latest")
    refused(client.get(inner.manifest("latest")), 404)
    refused(client.get(inner.path("tags/list")), 404, "NAME_UNKNOWN")
    inner.push_manifest(artifact_of("application/inner"), "inner")
    assert outer.tags() == ["latest"]
    assert inner.tags() == ["inner"]
    assert outer.pull_manifest("latest").body == manifest


@pytest.mark.parametrize("name_", INVALID, ids=range(len(INVALID)))
def test_a_name_outside_the_grammar_is_refused_everywhere(client: Client, name_: str) -> None:
    path = quote(name_, safe="/")
    digest = digest_of(b"")
    for method, rest in (
        ("GET", "manifests/latest"),
        ("HEAD", "manifests/latest"),
        ("PUT", "manifests/latest"),
        ("DELETE", "manifests/latest"),
        ("GET", f"blobs/{digest}"),
        ("DELETE", f"blobs/{digest}"),
        ("POST", "blobs/uploads/"),
        ("POST", f"blobs/uploads/?digest={digest}"),
        ("PATCH", "blobs/uploads/b28b6d85-6d27-4c9a-8a8f-2cf6ff8a4a51"),
        ("GET", "tags/list"),
        ("GET", f"referrers/{digest}"),
    ):
        body = artifact_of("application/x") if method == "PUT" else None
        refused(client.request(method, f"/v2/{path}/{rest}", body), 400, "NAME_INVALID")


@pytest.mark.parametrize("length", [200, 240, 255])
def test_a_name_of_the_greatest_length_works(client: Client, name: str, length: int) -> None:
    start = f"{name}/"
    rest = "b" * (length - len(start))
    long = start + "/".join(rest[i : i + 99].ljust(1, "b") for i in range(0, len(rest), 100))
    long = long.ljust(length, "c")
    assert len(long) == length
    repository = Repository(client, long)
    manifest, _ = repository.push_image("t" * 128)
    assert repository.pull_manifest("t" * 128).body == manifest


def test_slashes_inside_a_name_may_be_percent_encoded(repository: Repository, client: Client) -> None:
    manifest, _ = repository.push_image("latest")
    name = repository.name.replace("/", "%2F")
    assert client.get(f"/v2/{name}/manifests/latest").body == manifest
    assert client.get(f"/v2/{name}/tags/list").json["name"] == repository.name
    assert client.get(f"/v2/{quote(repository.name[0])}{repository.name[1:]}/manifests/l%61test").body == manifest


def test_a_name_is_decoded_only_once(repository: Repository, client: Client) -> None:
    repository.push_image("latest")
    name = repository.name.replace("/", "%252F")
    refused(client.get(f"/v2/{name}/manifests/latest"), 400, "NAME_INVALID")


@pytest.mark.parametrize("escape", ["%", "%2", "%zz", "%80", "%ff%fe", "%c0%af", "%00", "%0d%0a", "%ed%a0%80"])
def test_a_broken_escape_is_refused(repository: Repository, client: Client, escape: str) -> None:
    repository.push_image("latest")
    refused(client.get(f"/v2/{repository.name}{escape}/manifests/latest"), 400, "NAME_INVALID")
    refused(client.get(repository.manifest(f"latest{escape}")), (400, 404))
    refused(client.get(repository.blob(f"sha256:{escape}")), 400, "DIGEST_INVALID")


@pytest.mark.parametrize("rest", ["tags/list", "manifests/latest", "referrers/{}", "blobs/{}"])
def test_a_trailing_slash_never_redirects(repository: Repository, client: Client, rest: str) -> None:
    _, pushed = repository.push_image("latest")
    answer = client.get(repository.path(rest.format(pushed["digest"])) + "/")
    assert answer.status in (200, 400, 404)


def test_names_that_differ_in_separators_do_not_meet(client: Client, name: str) -> None:
    names = [f"{name}{suffix}" for suffix in ("/a/b", "/a-b", "/a_b", "/a__b", "/a.b", "/ab", "/a", "/a/b/c")]
    for each in names:
        Repository(client, each).push_manifest(artifact_of(f"application/{names.index(each)}"), "latest")
    for each in names:
        document = Repository(client, each).pull_manifest("latest").json
        assert document["artifactType"] == f"application/{names.index(each)}"
