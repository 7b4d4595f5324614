"""Pulling through a mirror whose upstream does everything right."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conformance.http_client import refused
from tests.conformance.oci.content import OCI_INDEX, OCI_MANIFEST
from tests.conformance.scripted_server import Asked, Said, said
from tests.conformance.upstream.scripted_upstream import Case, Held

pytestmark = pytest.mark.xdist_group("mirror")


def test_a_manifest_is_fetched_once_and_a_tag_is_compared_by_head(case: Case) -> None:
    content, digest = case.manifest("v1")
    first = case.get("manifests/v1")
    assert (first.status, first.body, first["docker-content-digest"]) == (200, content, digest)
    again = case.get("manifests/v1")
    assert (again.status, again.body) == (200, content)
    assert case.get(f"manifests/{digest}").body == content
    assert case.lines() == ["GET manifests/v1", "HEAD manifests/v1"]


def test_a_tag_follows_the_one_of_the_upstream(case: Case) -> None:
    case.manifest("latest", "old")
    case.get("manifests/latest")
    content, _ = case.manifest("latest", "new")
    assert case.get("manifests/latest").body == content
    del case.content["manifests/latest"]
    refused(case.get("manifests/latest"), 404, "MANIFEST_UNKNOWN")


def test_a_blob_crosses_the_link_once(case: Case) -> None:
    content, path = case.blob(200_000)
    assert case.get(path).body == content
    assert case.get(path).body == content
    assert case.lines() == [f"GET {path}"]


def test_an_empty_blob_is_a_blob(case: Case) -> None:
    content, path = case.blob(0)
    assert (case.get(path).status, case.get(path).body) == (200, content)


def test_what_the_upstream_does_not_have_is_not_here(case: Case) -> None:
    refused(case.get("manifests/none"), 404, "MANIFEST_UNKNOWN")
    refused(case.get(f"blobs/sha256:{'0' * 64}"), 404, "BLOB_UNKNOWN")
    refused(case.get(f"manifests/sha256:{'0' * 64}"), 404, "MANIFEST_UNKNOWN")


def test_head_of_a_blob_fetches_nothing(case: Case) -> None:
    content, path = case.blob()
    with case.client() as client:
        answer = client.head(case.target(path))
    assert (answer.status, answer.size) == (200, len(content))
    assert case.lines() == [f"HEAD {path}"]


def test_a_range_of_a_blob_that_is_not_here_yet(case: Case) -> None:
    content, path = case.blob(5000)
    answer = case.get(path, [("Range", "bytes=100-199")])
    assert (answer.status, answer.body, answer["content-range"]) == (206, content[100:200], "bytes 100-199/5000")
    assert case.get(path).body == content
    assert case.lines() == [f"GET {path}"]


def test_nothing_can_be_pushed(case: Case) -> None:
    with case.client() as client:
        refused(client.post(case.target("blobs/uploads/")), 405, "UNSUPPORTED")
        refused(client.put(case.target("manifests/v1"), b"{}"), 405, "UNSUPPORTED")


def test_tags_are_those_of_the_upstream(case: Case) -> None:
    case.content["tags/list"] = b'{"name": "x", "tags": ["a", "b"]}', "application/json"
    answer = case.get("tags/list")
    assert answer.json == {"name": f"{case.name}/image", "tags": ["a", "b"]}


def test_tags_that_are_here_are_listed_when_nobody_can_be_asked(case: Case) -> None:
    case.manifest("v1")
    case.get("manifests/v1")
    case.script = lambda _: said(b"", "500 Internal Server Error")
    answer = case.get("tags/list")
    assert answer.json["tags"] == ["v1"]
    assert "these are the tags that are stored here" in answer["warning"]


def test_pages_of_tags_are_those_of_the_upstream(case: Case) -> None:
    def paged(asked: Asked) -> Said | None:
        last = "last=a" in asked.target
        fields = ["Content-Type: application/json"]
        if not last:
            fields.append(f'Link: </v2/{case.name}/image/tags/list?last=a&n=1>; rel="next"')
        return said(b'{"tags": ["b"]}' if last else b'{"tags": ["a"]}', "200 OK", *fields)

    case.script = paged
    with case.client() as client:
        first = client.get(case.target("tags/list?n=1"))
        assert (first.json["tags"], first.next_page) == (["a"], case.target("tags/list?last=a&n=1"))
        second = client.get(first.next_page or "")
        assert (second.json["tags"], second.next_page) == (["b"], None)


@pytest.mark.parametrize("by", ["the API", "the fallback tag"])
def test_referrers_of_the_upstream_are_listed(case: Case, by: str) -> None:
    _, digest = case.manifest("v1")
    _, referrer = case.manifest("signature", "of v1")
    descriptor = {"mediaType": OCI_MANIFEST, "digest": referrer, "size": 7, "artifactType": "application/x"}
    index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [descriptor]}).encode()
    path = f"referrers/{digest}" if by == "the API" else f"manifests/{digest.replace(':', '-')}"
    case.content[path] = index, OCI_INDEX
    answer = case.get(f"referrers/{digest}")
    assert [each["digest"] for each in answer.json["manifests"]] == [referrer]
    case.script = lambda _: said(b"", "500 Internal Server Error")
    answer = case.get(f"referrers/{digest}")
    assert answer.json["manifests"] == []
    assert "these are the referrers that are stored here" in answer["warning"]


def test_clients_get_bytes_while_they_come_and_from_one_transfer(case: Case) -> None:
    """The first one sees the beginning before the upstream has sent the end, and so does one that comes later."""
    content, path = case.blob(400_000)
    held = Held(content, 300_000)
    case.script = lambda _: held.said()
    connections = [case.client().connect() for _ in range(3)]
    for connection in connections:
        connection.send(f"GET {case.target(path)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert connection.answer("GET", head_only=True).size == len(content)
        assert connection.receive(200_000) == content[:200_000]
    assert not held.go.is_set()
    held.go.set()
    for connection in connections:
        assert connection.receive(200_000) == content[200_000:]
        connection.finish()
    assert case.lines() == [f"GET {path}"]


def test_a_client_that_leaves_does_not_stop_what_others_and_the_cache_need(case: Case) -> None:
    content, path = case.blob(400_000)
    held = Held(content, 300_000)
    case.script = lambda _: held.said()
    leaving, staying = (case.client().connect() for _ in range(2))
    for connection in (leaving, staying):
        connection.send(f"GET {case.target(path)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        connection.answer("GET", head_only=True)
    leaving.close()
    held.go.set()
    assert staying.receive(len(content)) == content
    staying.finish()
    assert case.get(path).body == content
    assert case.lines() == [f"GET {path}"]


def test_a_blob_is_stored_although_the_only_client_has_left(case: Case) -> None:
    content, path = case.blob(400_000)
    held = Held(content, 300_000)
    case.script = lambda _: held.said()
    leaving = case.client().connect()
    leaving.send(f"GET {case.target(path)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    leaving.answer("GET", head_only=True)
    leaving.close()
    held.go.set()
    assert case.get(path).body == content
    assert case.lines() == [f"GET {path}"]


def test_many_clients_at_once_are_one_transfer(case: Case) -> None:
    content, path = case.blob(300_000)

    def slow(asked: Asked) -> Said | None:
        time.sleep(0.05)
        return None

    case.script = slow
    with ThreadPoolExecutor(12) as clients:
        bodies = list(clients.map(lambda _: case.get(path).body, range(12)))
    assert bodies == [content] * 12
    assert case.lines() == [f"GET {path}"]


def test_deleting_gives_up_what_is_here_and_no_more(case: Case) -> None:
    content, digest = case.manifest("v1")
    case.get("manifests/v1")
    with case.client() as client:
        assert client.delete(case.target(f"manifests/{digest}")).status == 202
    assert case.get("manifests/v1").body == content
