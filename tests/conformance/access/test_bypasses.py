"""Other spellings of a request, and other ways to it: the policy and the registry always mean the same thing."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from tests.conformance.access.guarded_registry import ALICE, PASSWORD, Issuer, basic, bearer
from tests.conformance.http_client import Answer, Client, Connection, request_head
from tests.conformance.oci.content import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, descriptor, digest_of, manifest_of
from tests.conformance.registry_process import RegistryProcess

LAYER, OTHER, CONFIG = b"the secret layer", b"another secret", b"{}"
MANIFEST = manifest_of(descriptor(OCI_CONFIG, CONFIG), [descriptor(OCI_LAYER, LAYER)])
AS_MANIFEST = ("Content-Type", OCI_MANIFEST)


@pytest.fixture(scope="module", autouse=True)
def secrets(guarded: RegistryProcess) -> None:
    """An image of Alice's own."""
    with guarded.client() as client:
        for blob in (LAYER, OTHER, CONFIG):
            answer = client.post(f"/v2/private/app/blobs/uploads/?digest={digest_of(blob)}", blob, [ALICE])
            assert answer.status == 201
        assert client.put("/v2/private/app/manifests/1", MANIFEST, [ALICE, AS_MANIFEST]).status == 201
        assert client.get("/v2/private/app/manifests/1", [ALICE]).body == MANIFEST


def shows_nothing(answer: Answer) -> bool:
    """A refusal that could be about anything, whether it exists or not."""
    hidden = (LAYER, OTHER, MANIFEST)
    told = [value for name, value in answer.headers if name in ("etag", "docker-content-digest", "location")]
    return answer.status >= 400 and not told and not any(each in answer.body for each in hidden)


# --- spellings --------------------------------------------------------------------------------------------------------

PATHS = [
    "/v2/private/app/manifests/1",
    "/v2/priv%61te/app/manifests/1",
    "/v2/priv%2561te/app/manifests/1",
    "/v2/private%2Fapp/manifests/1",
    "/v2/private%2fapp%2fmanifests%2f1",
    "/%76%32/private/app/manifests/1",
    "/v2/private/app/%6danifests/1",
    "/v2/private/app/manifests/%31",
    "/v2/public/../private/app/manifests/1",
    "/v2/public/%2e%2e/private/app/manifests/1",
    "/v2/public/..%2fprivate/app/manifests/1",
    "/v2/public/x/manifests/..%2F..%2F..%2Fprivate%2Fapp%2Fmanifests%2F1",
    "/v2/public/..;/private/app/manifests/1",
    "/v2/public%00/private/app/manifests/1",
    "/v2//private/app/manifests/1",
    "//v2/private/app/manifests/1",
    "/./v2/private/app/manifests/1",
    "/v2/./private/app/manifests/1",
    "/v2/private/app/manifests/1/",
    "/v2/private/app/manifests//1",
    "/V2/private/app/manifests/1",
    "/v2/PRIVATE/app/manifests/1",
    "/v2/private/APP/MANIFESTS/1",
    "/v2/private/app/manifests/1%20",
    "/v2/private/app/manifests/1%0a",
    "/v2/private/app/manifests/1;public",
    "/v2/%ef%bd%90rivate/app/manifests/1",
    "/v2/private/app/manifests/1?ns=public/app",
    "/v2/private/app/manifests/1?name=public/app&from=public/app",
    "/v2/private/app/manifests/1??",
    "http://public/v2/private/app/manifests/1",
    "HTTPS://127.0.0.1/v2/private/app/manifests/1",
    f"/v2/private/app/manifests/{digest_of(MANIFEST)}",
    f"/v2/private/app/manifests/{quote(digest_of(MANIFEST), safe='')}",
    f"/v2/private/app/manifests/{digest_of(MANIFEST).upper()}",
    f"/v2/private/app/blobs/{digest_of(MANIFEST)}",
    f"/v2/private/app/blobs/{digest_of(LAYER)}",
    f"/v2/public/app/blobs/{digest_of(LAYER)}",
    f"/v2/open/tags/blobs/{digest_of(LAYER)}",
    f"/v2/public/app/manifests/{digest_of(MANIFEST)}",
    f"/v2/private/app/referrers/{digest_of(MANIFEST)}",
    "/v2/private/app/tags/list",
    "/v2/private/app/tags/list/",
    "/v2/_catalog",
    "/v2/_catalog?n=1",
    "/v2/%5Fcatalog",
    "/v2/_catalog/",
]


@pytest.mark.parametrize("path", PATHS)
def test_no_spelling_of_a_path_leads_around_the_policy(attacker: Client, path: str) -> None:
    for method in ("GET", "HEAD", "DELETE", "OPTIONS", "TRACE", "POST", "PATCH"):
        assert shows_nothing(attacker.request(method, path)), method
    assert attacker.get("/v2/private/app/manifests/1", [ALICE]).body == MANIFEST


@pytest.mark.parametrize("method", ["get", "Get", "CONNECT", "PROPFIND", "M-SEARCH", "QUERY", "GETX", "GET\t"])
def test_no_other_method_leads_around_the_policy(attacker: Client, method: str) -> None:
    assert shows_nothing(attacker.request(method, "/v2/private/app/manifests/1"))


@pytest.mark.parametrize(
    "field",
    [
        ("X-HTTP-Method-Override", "GET"),
        ("X-Original-URL", "/v2/public/app/manifests/1"),
        ("X-Rewrite-URL", "/v2/public/app/manifests/1"),
        ("X-Registry-Username", "alice"),
        ("X-Registry-Identity-ID", "alice"),
        ("X-Remote-User", "alice"),
        ("X-Forwarded-User", "alice"),
        ("X-Forwarded-Client-Cert", 'Subject="CN=alice"'),
        ("X-SSL-Client-S-DN", "CN=alice"),
        ("Proxy-Authorization", ALICE[1]),
        ("Cookie", f"Authorization={ALICE[1]}"),
        ("Forwarded", "for=192.0.2.7"),
        ("Host", "localhost:0"),
    ],
)
def test_no_field_makes_somebody_of_nobody(attacker: Client, field: tuple[str, str]) -> None:
    fields = [field] if field[0] != "Host" else []
    for method, target in (("GET", "/v2/private/app/manifests/1"), ("POST", "/v2/private/app/blobs/uploads/")):
        assert shows_nothing(attacker.request(method, target, headers=fields))
    assert attacker.get("/v2/only/office/tags/list", fields).status == 401


def test_what_is_there_and_what_is_not_are_refused_alike(attacker: Client, issuer: Issuer) -> None:
    nothing = "sha256:" + "0" * 64
    pairs = [
        ("GET", "/v2/private/app/manifests/1", "/v2/private/app/manifests/2"),
        ("HEAD", f"/v2/private/app/blobs/{digest_of(LAYER)}", f"/v2/private/app/blobs/{nothing}"),
        ("GET", "/v2/private/app/tags/list", "/v2/private/none/tags/list"),
        ("DELETE", f"/v2/private/app/blobs/{digest_of(LAYER)}", f"/v2/private/none/blobs/{nothing}"),
        ("GET", f"/v2/public/app/blobs/{digest_of(LAYER)}", f"/v2/public/app/blobs/{nothing}"),
    ]
    for fields in ([], [basic("alice", "wrong")], [bearer(issuer.token())]):
        for method, there, absent in pairs:
            first, second = (attacker.request(method, target, headers=fields) for target in (there, absent))
            assert (first.status, first.size > 0) == (second.status, second.size > 0)
            if "private" in there:
                names = there.split("/")[3], absent.split("/")[3]
                assert first.body.replace(names[0].encode(), b"") == second.body.replace(names[1].encode(), b"")
                assert first.status in (401, 403)


# --- queries ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    [
        "mount={0}&from=private/app",
        "mount={0}",
        "mount={0}&from=",
        "mount={0}&from=private%2Fapp",
        "from=private/app&mount={0}",
        "mount={0}&from=open/target&from=private/app",
        "mount={0}&from=private/app&from=open/target",
        "mount={0}&mount={1}&from=private/app",
        "mount={0}&from=PRIVATE/app",
        "mount={0}&from=private/app/",
        "mount={0}&digest={0}&from=private/app",
        "digest={0}&mount={0}&from=private/app",
        "m%6Funt={0}&fr%6Fm=private/app",
        "mount={2}&from=private/app",
        "mount={3}&from=private/app",
    ],
)
def test_nothing_is_mounted_that_cannot_be_read(attacker: Client, query: str) -> None:
    one, two = digest_of(LAYER), digest_of(OTHER)
    answer = attacker.post("/v2/open/target/blobs/uploads/?" + query.format(one, two, one.upper(), digest_of(MANIFEST)))
    assert answer.status in (202, 400)
    for blob in (LAYER, OTHER, MANIFEST):
        assert attacker.get(f"/v2/open/target/blobs/{digest_of(blob)}", [ALICE]).status == 404


def test_a_manifest_makes_nothing_readable_that_it_names(attacker: Client) -> None:
    assert attacker.put("/v2/open/tags/manifests/dev-theft", MANIFEST, [AS_MANIFEST]).status == 201
    for blob in (LAYER, CONFIG):
        assert attacker.get(f"/v2/open/tags/blobs/{digest_of(blob)}").status == 404
        mounted = attacker.post(f"/v2/open/target/blobs/uploads/?mount={digest_of(blob)}&from=open/tags")
        assert mounted.status == 202


@pytest.mark.parametrize(
    "query",
    [
        "tag=prod",
        "tag=dev-1&tag=prod",
        "tag=prod&tag=dev-1",
        "ta%67=prod",
        "tag=dev-1&&&tag=prod",
        "&tag=prod",
        "tag=dev-1%26tag=prod",
        "tag=dev-1;tag=prod",
        "tag=dev-1,prod",
        "tag=dev-1%2Cprod",
        "tag=dev-1%00prod",
        "tag=dev-1%0aprod",
        "tag=",
        "tag",
        "&".join([*(f"tag=dev-{number}" for number in range(100)), "tag=prod"]),
    ],
)
def test_every_tag_that_would_be_set_is_shown_to_the_policy(attacker: Client, query: str) -> None:
    answer = attacker.put(f"/v2/open/tags/manifests/{digest_of(MANIFEST)}?{query}", MANIFEST, [AS_MANIFEST])
    assert answer.status in (400, 401)
    assert attacker.get("/v2/open/tags/manifests/prod").status == 404


def test_tags_that_are_not_set_do_not_count(attacker: Client) -> None:
    target = "/v2/open/tags/manifests/"
    assert attacker.put(f"{target}prod?tag=dev-1", MANIFEST, [AS_MANIFEST]).status == 401
    assert attacker.put(f"{target}dev-2?tag=prod", MANIFEST, [AS_MANIFEST]).status == 201
    for query in ("TAG=prod", "tag[]=prod", "tags=prod"):
        digest = digest_of(MANIFEST)
        assert attacker.put(f"{target}{digest}?{query}", MANIFEST, [AS_MANIFEST]).get("oci-tag") is None
    assert attacker.get(f"{target}prod").status == 404


@pytest.mark.parametrize("number", ["6", "100", "9999999999", "0000000000000100", "%31%30%30", "9" * 100])
def test_a_long_page_is_one_in_every_spelling(attacker: Client, number: str) -> None:
    assert attacker.get("/v2/only/pages/tags/list?n=5").status == 404
    assert attacker.get(f"/v2/only/pages/tags/list?n={number}").status == 401
    assert attacker.get(f"/v2/only/pages/tags/list?n={number}&n=1").status == 401


def test_one_artifact_type_does_not_open_the_others(attacker: Client) -> None:
    listing = f"/v2/only/sboms/referrers/{digest_of(LAYER)}"
    for query in ("artifactType=application/spdx%2Bjson", "artifactType=application/spdx+json"):
        assert attacker.get(f"{listing}?{query}").status == 200
        for other in ("application/x", "application/spdx%2Bjson"):
            assert attacker.get(f"{listing}?{query}&artifactType={other}").status == 401
            assert attacker.get(f"{listing}?artifactType={other}&{query}").status == 401


# --- uploads ----------------------------------------------------------------------------------------------------------


def test_the_upload_of_one_repository_is_none_of_another(attacker: Client) -> None:
    location = attacker.post("/v2/private/app/blobs/uploads/", None, [ALICE]).location
    session = location.rpartition("/")[2]
    try:
        for method, query in (("GET", ""), ("PATCH", ""), ("PUT", f"?digest={digest_of(LAYER)}"), ("DELETE", "")):
            for namespace, allowed in (("private/app", False), ("open/tags", True), ("public/app", False)):
                target = f"/v2/{namespace}/blobs/uploads/{session}{query}"
                body = LAYER if method in ("PATCH", "PUT") else None
                assert attacker.request(method, target, body).status == (404 if allowed else 401)
        assert attacker.get(location, [ALICE]).status == 204
    finally:
        assert attacker.delete(location, [ALICE]).status == 204


# --- connections ------------------------------------------------------------------------------------------------------


def test_an_identity_ends_with_its_request(guarded: RegistryProcess, issuer: Issuer) -> None:
    """Sent at once, on one connection, by many."""
    with guarded.client() as client:
        connection = client.connect()
        host = ("Host", "registry")
        everybody = [
            ([ALICE], 200),
            ([], 401),
            ([bearer(issuer.token())], 403),
            ([basic("alice", "wrong")], 401),
            ([ALICE], 200),
            ([("authorization", "")], 401),
            ([basic("ci", issuer.token())], 403),
            ([], 401),
        ] * 5
        target = "/v2/private/app/manifests/1"
        connection.send(b"".join(request_head("GET", target, [host, *fields]) for fields, _ in everybody))
        assert [connection.answer("GET", target).status for _ in everybody] == [status for _, status in everybody]
        connection.finish()


@pytest.mark.parametrize(
    "body",
    [
        b"GET /v2/private/app/manifests/1 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"0\r\n\r\nGET /v2/private/app/manifests/1 HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
@pytest.mark.parametrize("credentials", [[ALICE], []])
def test_the_body_of_a_request_is_never_another_request(
    guarded: RegistryProcess, body: bytes, credentials: list[tuple[str, str]]
) -> None:
    with guarded.client() as client:
        connection = client.connect()
        length = ("Content-Length", str(len(body)))
        for target in ("/v2/private/app/manifests/odd", "/token", "/v2/public/app/blobs/uploads/"):
            method = "PUT" if "manifests" in target else "POST"
            connection.send(request_head(method, target, [("Host", "x"), length, *credentials]) + body)
            connection.answer(method, target)
        connection.finish()


@pytest.mark.parametrize(
    "framing",
    [
        [("Content-Length", "5"), ("Transfer-Encoding", "chunked")],
        [("Content-Length", "0"), ("Content-Length", "52")],
        [("Transfer-Encoding", "xchunked")],
        [("Transfer-Encoding", "chunked, identity")],
        [("Transfer-Encoding ", "chunked")],
        [("Content-Length", "+52")],
    ],
)
def test_a_request_of_two_lengths_is_the_last_of_its_connection(
    guarded: RegistryProcess, framing: list[tuple[str, str]]
) -> None:
    with guarded.client() as client:
        connection = client.connect()
        head = request_head("POST", "/token", [("Host", "x"), *framing])
        connection.send(head + b"0\r\n\r\nGET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.answer("POST").status == 400
        assert connection.closed_by_server()


# --- proxies ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def stranger(guarded: RegistryProcess) -> Iterator[Connection]:
    """Somebody who comes from an address of no proxy."""
    with guarded.client() as client:
        connection = client.connect()
        connection.socket.close()
        connection.socket = socket.create_connection((client.host, client.port), 30, source_address=("127.0.0.2", 0))
        yield connection
        connection.finish()


OFFICE = "/v2/only/office/tags/list"


def test_anybody_can_write_a_forwarded_address_and_it_counts_for_nothing(stranger: Connection) -> None:
    for name in ("X-Forwarded-For", "X-Real-IP", "Forwarded", "Client-IP", "True-Client-IP", "CF-Connecting-IP"):
        stranger.send(request_head("GET", OFFICE, [("Host", "x"), (name, "192.0.2.7")]))
        assert stranger.answer("GET", OFFICE).status == 401
    stranger.send(request_head("GET", OFFICE, [("Host", "registry.example"), ("X-Forwarded-Proto", "https")]))
    assert 'realm="http://registry.example/token"' in stranger.answer("GET", OFFICE)["www-authenticate"]


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ([("X-Forwarded-For", "192.0.2.7")], 404),
        ([("X-Forwarded-For", "198.51.100.1, 192.0.2.7, 10.0.0.3")], 404),
        ([("X-Forwarded-For", "198.51.100.1"), ("X-Forwarded-For", "192.0.2.7")], 404),
        ([("X-Forwarded-For", "::ffff:192.0.2.7")], 404),
        ([("X-Forwarded-For", "[::ffff:c000:0207]:443")], 404),
        ([("X-Real-IP", "192.0.2.7")], 404),
        ([("X-Forwarded-For", "192.0.2.7, 198.51.100.1")], 401),
        ([("X-Forwarded-For", "192.0.2.7"), ("X-Forwarded-For", "198.51.100.1")], 401),
        ([("X-Forwarded-For", "192.0.2.7, unknown")], 401),
        ([("X-Forwarded-For", "192.0.2.7,")], 401),
        ([("X-Forwarded-For", "192.0.2.7 198.51.100.1")], 401),
        ([("X-Forwarded-For", "192.0.2.07")], 401),
        ([("X-Forwarded-For", "3221225991")], 401),
        ([("X-Forwarded-For", "198.51.100.1"), ("X-Real-IP", "192.0.2.7")], 401),
        ([("X-Real-IP", "192.0.2.7"), ("X-Real-IP", "198.51.100.1")], 401),
        ([("X-Real-IP", "192.0.2.7, 198.51.100.1")], 401),
        ([("X-Forwarded-For", "127.0.0.1")], 401),
    ],
)
def test_of_a_proxy_the_address_counts_that_it_adds(
    attacker: Client, fields: list[tuple[str, str]], status: int
) -> None:
    assert attacker.get(OFFICE, fields).status == status


# --- where to get a token ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "realm"),
    [
        ("registry.example", "http://registry.example/token"),
        ("registry.example:8443", "http://registry.example:8443/token"),
        ("[::1]:80", "http://[::1]:80/token"),
        ("a,b", None),
        ("%22x", None),
        ("", None),
    ],
)
def test_a_host_that_is_none_is_not_repeated(guarded: RegistryProcess, host: str, realm: str | None) -> None:
    with guarded.client() as client:
        connection = client.connect()
        connection.send(request_head("GET", "/v2/", [("Host", host)]))
        shown = connection.answer("GET")["www-authenticate"]
        assert shown.startswith(f'Bearer realm="{realm}",' if realm else "Basic realm=")
        connection.finish()


@pytest.mark.parametrize("host", ['x", error="y', "a b", "user@host", "host/path", "é", "x\ty"])
def test_a_host_that_cannot_be_one_is_refused(guarded: RegistryProcess, host: str) -> None:
    with guarded.client() as client:
        connection = client.connect()
        connection.send(request_head("GET", "/v2/", [("Host", host)]))
        answer = connection.answer("GET")
        assert answer.status == 400
        assert answer.get("www-authenticate") is None


def test_the_password_is_in_no_answer(attacker: Client) -> None:
    for answer in (attacker.get("/v2/", [ALICE]), attacker.get("/token", [ALICE]), attacker.get("/v2/x", [ALICE])):
        assert PASSWORD not in f"{answer.headers}{answer.body!r}"
