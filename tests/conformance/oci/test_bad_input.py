"""Requests that no honest client sends: each gets its refusal, at once, and leaves nothing behind."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from tests.conformance.http_client import Client, Closed, refused
from tests.conformance.oci.content import OCI_MANIFEST, artifact_of, digest_of
from tests.conformance.oci.repository import Repository
from tests.conformance.registry_process import RegistryProcess, stored_files

# What stands for the head and body of a request, and the statuses that refuse it. Each ends the connection.
HEADS: dict[str, tuple[bytes, set[int]]] = {
    "no host": (b"GET /v2/ HTTP/1.1\r\n\r\n", {400}),
    "two hosts": (b"GET /v2/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", {400}),
    "space before the colon": (b"GET /v2/ HTTP/1.1\r\nHost: a\r\nX-A : b\r\n\r\n", {400}),
    "header without a name": (b"GET /v2/ HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", {400}),
    "header without a colon": (b"GET /v2/ HTTP/1.1\r\nHost: a\r\nnonsense\r\n\r\n", {400}),
    "header with a zero byte": (b"GET /v2/ HTTP/1.1\r\nHost: a\r\nX-A: b\0c\r\n\r\n", {400}),
    "header name in parentheses": (b"GET /v2/ HTTP/1.1\r\nHost: a\r\n(X): b\r\n\r\n", {400}),
    "no version": (b"GET /v2/\r\n\r\n", {400, 505}),
    "version 0.9 of nothing": (b"GET /v2/ HTTP/0.9\r\n\r\n", {400, 505}),
    "version 3": (b"GET /v2/ HTTP/3.0\r\nHost: a\r\n\r\n", {400, 505}),
    "preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {400, 405, 501, 505}),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 64 + b"\r\n\r\n", {400}),
    "zero bytes": (b"\0" * 200 + b"\r\n\r\n", {400}),
    "spaces in the target": (b"GET /v2/ a HTTP/1.1\r\nHost: a\r\n\r\n", {400}),
    "raw bytes in the target": (b"GET /v2/\xff\xfe/tags/list HTTP/1.1\r\nHost: a\r\n\r\n", {400, 404}),
    "a tab in the target": (b"GET /v2/\ta HTTP/1.1\r\nHost: a\r\n\r\n", {400}),
    "a fragment": (b"GET /v2/a/tags/list#x HTTP/1.1\r\nHost: a\r\n\r\n", {400, 404}),
    "a target without slash": (b"GET v2/ HTTP/1.1\r\nHost: a\r\n\r\n", {400, 404}),
    "a tunnel": (b"CONNECT example.com:443 HTTP/1.1\r\nHost: a\r\n\r\n", {400, 405, 501}),
    "length and chunks": (
        b"PUT /v2/a/manifests/b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
        {400},
    ),
    "two lengths": (
        b"PUT /v2/a/manifests/b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        {400},
    ),
    "a list of lengths": (b"PUT /v2/a/manifests/b HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 6\r\n\r\n", {400}),
    "negative length": (b"PUT /v2/a/manifests/b HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n", {400}),
    "signed length": (b"PUT /v2/a/manifests/b HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nabcde", {400}),
    "hexadecimal length": (b"PUT /v2/a/manifests/b HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\nabcde", {400}),
    "length with an underscore": (
        b"PUT /v2/a/manifests/b HTTP/1.1\r\nHost: a\r\nContent-Length: 1_0\r\n\r\nabcde",
        {400},
    ),
    "absurd length": (
        b"PUT /v2/a/manifests/b HTTP/1.1\r\nHost: a\r\nContent-Length: " + b"9" * 40 + b"\r\n\r\n",
        {400, 413},
    ),
    "unknown transfer coding": (
        b"PUT /v2/a/manifests/b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
        {400, 501},
    ),
    "chunked twice": (
        b"PUT /v2/a/manifests/b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        {400, 501},
    ),
    "chunked of HTTP/1.0": (
        b"PUT /v2/a/manifests/b HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        {400},
    ),
    "chunk size that is no number": (
        b"PUT /v2/a/manifests/b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        {400},
    ),
    "negative chunk size": (
        b"PUT /v2/a/manifests/b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nabcde\r\n",
        {400},
    ),
    "absurd chunk size": (
        b"PUT /v2/a/manifests/b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + b"f" * 100 + b"\r\n",
        {400, 413},
    ),
    "endless chunk extension": (
        b"PUT /v2/a/manifests/b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;" + b"x" * 200_000,
        {400, 413},
    ),
    "chunk longer than it says": (
        b"PUT /v2/a/manifests/b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabcdef\r\n0\r\n\r\n",
        {400},
    ),
    "a long header": (b"GET /v2/ HTTP/1.1\r\nHost: a\r\nX-A: " + b"b" * 100_000 + b"\r\n\r\n", {400, 431}),
    "many headers": (b"GET /v2/ HTTP/1.1\r\nHost: a\r\n" + b"X-A: b\r\n" * 5000 + b"\r\n", {400, 431}),
    "a long target": (b"GET /v2/" + b"a" * 100_000 + b"/tags/list HTTP/1.1\r\nHost: a\r\n\r\n", {414, 431}),
    "an unknown expectation": (b"GET /v2/ HTTP/1.1\r\nHost: a\r\nExpect: nonsense\r\n\r\n", {200, 417}),
}


@pytest.fixture(scope="module", params=["asyncio", "trio"])
def registry(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryProcess]:
    """A server with little in it, so that its files are quickly compared."""
    registry = RegistryProcess.start(tmp_path_factory.mktemp("bad-input") / "data", loop=request.param)
    yield registry
    registry.stop()


@pytest.mark.parametrize("case", HEADS)
def test_a_malformed_request_is_refused_and_stores_nothing(
    client: Client, registry: RegistryProcess, case: str
) -> None:
    before = stored_files(registry.root)
    data, statuses = HEADS[case]
    connection = client.connect()
    connection.send(data)
    answer = connection.answer(data.split(b" ", 1)[0].decode("latin-1")[:20], case)
    if answer.status != 200:
        refused(answer, statuses)
        assert answer["connection"] == "close" or answer.status in (404, 417, 501, 405)
    connection.close()
    assert stored_files(registry.root) == before
    assert client.get("/v2/").status == 200


@pytest.mark.parametrize("folded", [b" folded", b"\tfolded"])
def test_a_folded_header_is_refused_or_read_as_one_line(client: Client, folded: bytes) -> None:
    connection = client.connect()
    connection.send(b"GET /v2/ HTTP/1.1\r\nHost: a\r\nX-A: b\r\n" + folded + b"\r\n\r\n")
    answer = connection.answer("GET", "/v2/")
    assert answer.status in (200, 400)
    connection.close()


def test_the_absolute_form_of_a_target_is_understood(repository: Repository, client: Client) -> None:
    # RFC 9112 section 3.2.2: a server must accept it though clients send it to proxies only.
    manifest, _ = repository.push_image("latest")
    answer = client.get(f"http://{client.host}:{client.port}{repository.manifest('latest')}")
    assert answer.status in (200, 400)
    assert answer.status == 400 or answer.body == manifest


def test_pipelined_requests_are_answered_in_order(repository: Repository, client: Client) -> None:
    manifest, _ = repository.push_image("latest")
    connection = client.connect()
    requests = [("GET", repository.manifest("latest")), ("HEAD", repository.manifest("latest")), ("GET", "/v2/")] * 3
    connection.send(b"".join(f"{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode() for method, target in requests))
    answers = [connection.answer(method, target) for method, target in requests]
    assert [answer.status for answer in answers] == [200] * 9
    assert answers[0].body == answers[3].body == manifest
    connection.finish()


def test_a_body_is_never_taken_for_the_next_request(repository: Repository, client: Client) -> None:
    smuggled = f"DELETE {repository.manifest('latest')} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
    manifest, _ = repository.push_image("latest")
    for method, target in (
        ("GET", repository.manifest("latest")),
        ("GET", repository.path("tags/list")),
        ("DELETE", repository.manifest("absent")),
        ("PATCH", f"{repository.uploads}b28b6d85-6d27-4c9a-8a8f-2cf6ff8a4a51"),
        ("PUT", repository.manifest("sha256:bad")),
        ("POST", repository.uploads),
        ("OPTIONS", "/v2/"),
        ("GET", "/nowhere"),
    ):
        for body in (smuggled, [smuggled], smuggled * 2000):
            answer = client.request(method, target, body)
            assert answer.status < 500
            assert client.get(repository.manifest("latest")).body == manifest


@pytest.mark.parametrize("size", [10, 100_000, 3_000_000])
def test_a_refusal_reaches_a_client_that_is_still_sending(repository: Repository, client: Client, size: int) -> None:
    body = b"x" * size
    missing = f"{repository.uploads}b28b6d85-6d27-4c9a-8a8f-2cf6ff8a4a51"
    for data in (body, [body]):
        refused(client.patch(missing, data), 404, "BLOB_UPLOAD_UNKNOWN")
        refused(client.put(f"{missing}?digest={digest_of(body)}", data), 404, "BLOB_UPLOAD_UNKNOWN")
        refused(client.post(f"{repository.uploads}?digest=bad", data), 400, "DIGEST_INVALID")
        refused(client.request("PUT", "/v2/BAD/manifests/x", data), 400, "NAME_INVALID")
        refused(client.request("PUT", "/nowhere", data), 404)
        refused(client.request("POST", repository.path("tags/list"), data), 405, "UNSUPPORTED")


@pytest.mark.parametrize("cut", [1, 3, 10, 25, 60])
def test_a_request_that_breaks_off_does_nothing(
    repository: Repository, client: Client, registry: RegistryProcess, cut: int
) -> None:
    before = stored_files(registry.root)
    manifest = artifact_of("application/x")
    whole = (
        f"PUT {repository.manifest('cut')} HTTP/1.1\r\nHost: a\r\nContent-Type: {OCI_MANIFEST}\r\n"
        f"Content-Length: {len(manifest)}\r\n\r\n"
    ).encode() + manifest
    for end in range(cut, len(whole), 61):
        connection = client.connect()
        connection.send(whole[:end])
        with contextlib.suppress(OSError):
            connection.socket.shutdown(1)
        with contextlib.suppress(Closed):
            answer = connection.answer("PUT", "cut")
            assert 400 <= answer.status < 500
        connection.close()
    assert client.get(repository.manifest("cut")).status == 404
    assert stored_files(registry.root) == before
