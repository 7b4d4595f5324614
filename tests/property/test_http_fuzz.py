"""A live server under made-up input: every answer is the right refusal, none is a failure, nothing stays behind.

Each test knows from the specification's grammar alone whether an input is valid; the server has to agree.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote_from_bytes

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from tests.conformance.http_client import Answer, Client, Closed, refused
from tests.conformance.oci.content import (
    EMPTY_DESCRIPTOR,
    OCI_INDEX,
    OCI_MANIFEST,
    artifact_of,
    bytes_of,
    digest_of,
    encoded,
)
from tests.conformance.oci.repository import Repository, parts_of
from tests.conformance.registry_process import RegistryProcess, stored_files

COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
NAME = re.compile(rf"{COMPONENT}(?:/{COMPONENT})*")
TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
NAME_LENGTH_MAX = 255
SIZE = 1000

fuzz = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.filter_too_much],
)


@pytest.fixture(scope="module", params=["asyncio", "trio"])
def registry(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryProcess]:
    """A server that must not log a single traceback."""
    registry = RegistryProcess.start(tmp_path_factory.mktemp("fuzz") / "data", loop=request.param)
    yield registry
    registry.stop()


@pytest.fixture
def client(registry: RegistryProcess) -> Iterator[Client]:
    """A client that waits ten seconds at most, so that a hang is a failure."""
    with registry.client() as client:
        client.timeout_seconds = 10
        yield client


@pytest.fixture
def repository(client: Client) -> Repository:
    """A repository with an image in it."""
    repository = Repository(client, "fuzz/repository")
    repository.push_manifest(artifact_of("application/x"), "latest")
    return repository


# Near misses are worth more than noise: pieces of valid input in a wrong order.
name_like = st.lists(
    st.one_of(
        st.sampled_from(
            [
                "a",
                "b0",
                "/",
                "//",
                ".",
                "..",
                "_",
                "__",
                "___",
                "-",
                "--",
                "A",
                "é",
                " ",
                "%",
                ":",
                "\n",
                "\0",
                "a" * 200,
                "v2",
                "blobs",
                "uploads",
                "manifests",
                "tags",
                "list",
            ]
        ),
        st.text(max_size=3),
    ),
    min_size=1,
    max_size=8,
).map("".join)
hexadecimal = st.text("0123456789abcdef", min_size=64, max_size=64)
digest_like = st.one_of(
    st.builds(
        "{}{}{}".format,
        st.sampled_from(["sha256", "sha512", "SHA256", "md5", "", "sha256+x"]),
        st.sampled_from([":", "", "::", "-"]),
        st.one_of(
            hexadecimal, hexadecimal.map(lambda text: text * 2), st.text("0123456789abcdefgABCDEF-_=", max_size=130)
        ),
    ),
    st.text(max_size=80),
)
number_like = st.one_of(
    st.integers(-5, SIZE + 5).map(str),
    st.integers().map(str),
    st.sampled_from(["", "-", "0x1", "1e3", " 1", "٣", "1_0", "+1"]),
)
text_of_headers = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0xFF, blacklist_characters="\x7f"), max_size=60
)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=10)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
    max_leaves=12,
)


def escaped(text: str, safe: str = "") -> str:
    """As it goes into a path or query."""
    return quote_from_bytes(text.encode("utf-8", "surrogatepass"), safe=safe)


def never_a_failure(answer: Answer) -> None:
    """What holds for all answers is checked by the client; here: no 5xx, and a refusal that can be read."""
    assert answer.status < 500, answer
    if answer.status >= 400:
        refused(answer, range(400, 500))


@fuzz
@example("a" * 255)
@example("a" * 256)
@example("a/" * 127 + "a")
@given(name=name_like)
def test_a_name_is_valid_exactly_when_the_grammar_says_so(client: Client, name: str) -> None:
    answer = client.get(f"/v2/{escaped(name, safe='/')}/tags/list")
    longest = max(map(len, name.split("/")))
    if NAME.fullmatch(name) and len(name) <= NAME_LENGTH_MAX and longest <= 240:
        refused(answer, 404, "NAME_UNKNOWN")
    elif NAME.fullmatch(name) and len(name) <= NAME_LENGTH_MAX:  # too long for a file name, a limit of this registry
        refused(answer, (400, 404), {"NAME_INVALID", "NAME_UNKNOWN"})
    else:
        refused(answer, 400, "NAME_INVALID")


@fuzz
@given(data=st.binary(min_size=1, max_size=12))
def test_any_bytes_in_a_path_are_refused(client: Client, registry: RegistryProcess, data: bytes) -> None:
    before = stored_files(registry.root)
    path = quote_from_bytes(data, safe="")
    for method, target in (
        ("GET", f"/{path}"),
        ("GET", f"/v2/{path}"),
        ("PUT", f"/v2/{path}/manifests/{path}"),
        ("POST", f"/v2/A{path}/blobs/uploads/"),
        ("DELETE", f"/v2/a/blobs/{path}"),
        ("PATCH", f"/v2/a/blobs/uploads/{path}"),
    ):
        answer = client.request(method, target)
        never_a_failure(answer)
        assert answer.status >= 400 or data in (b"v2", b"healthz", b"readyz")
    assert stored_files(registry.root) == before


@fuzz
@given(digest=digest_like)
def test_a_digest_is_valid_exactly_when_the_grammar_says_so(
    repository: Repository, client: Client, digest: str
) -> None:
    assume("/" not in digest and digest not in ("", "uploads"))
    target = repository.blob(escaped(digest))
    for method in ("GET", "HEAD", "DELETE"):
        answer = client.request(method, target)
        if DIGEST.fullmatch(digest):
            refused(answer, 404, "BLOB_UNKNOWN")
        else:
            refused(answer, 400, "DIGEST_INVALID")
    answer = client.get(repository.path(f"referrers/{escaped(digest)}"))
    assert answer.status == (200 if DIGEST.fullmatch(digest) else 400)


@fuzz
@given(digest=digest_like, content=st.binary(max_size=20))
def test_a_push_under_any_digest_is_refused_and_stores_nothing(
    repository: Repository, client: Client, registry: RegistryProcess, digest: str, content: bytes
) -> None:
    assume(digest not in (digest_of(content), digest_of(content, "sha512")))
    before = stored_files(registry.root)
    refused(client.post(f"{repository.uploads}?digest={escaped(digest)}", content or b"x"), 400, "DIGEST_INVALID")
    if ":" in digest and "/" not in digest:
        target = repository.manifest(escaped(digest))
        answer = client.put(target, artifact_of("application/x"), [("Content-Type", OCI_MANIFEST)])
        refused(answer, 400, "DIGEST_INVALID")
    assert stored_files(registry.root) == before


@fuzz
@example(":")
@example("a" * 129)
@given(reference=st.one_of(name_like, digest_like))
def test_a_reference_is_a_tag_or_a_digest(repository: Repository, client: Client, reference: str) -> None:
    assume("/" not in reference and reference not in ("", "latest"))
    answer = client.get(repository.manifest(escaped(reference)))
    if TAG.fullmatch(reference) or DIGEST.fullmatch(reference):
        refused(answer, 404, "MANIFEST_UNKNOWN")
    elif ":" in reference:
        refused(answer, 400, "DIGEST_INVALID")
    else:
        refused(answer, (400, 404))


@fuzz
@given(specs=st.lists(st.builds("{}-{}".format, number_like, number_like), max_size=5), noise=text_of_headers)
def test_a_range_gives_its_bytes_or_all_of_them(
    repository: Repository, client: Client, specs: list[str], noise: str
) -> None:
    content = bytes_of("fuzz", SIZE)
    target = repository.blob(digest_of(content))
    if client.head(target).status == 404:
        repository.push_blob(content)
    for value in (f"bytes={','.join(specs)}", f"bytes={noise}", noise):
        answer = client.get(
            target, [("Range", value.encode("utf-8").decode("latin-1").strip())] if value.isprintable() else []
        )
        if answer.status == 200:
            assert answer.body == content
        elif answer.status == 416:
            assert answer["content-range"] == f"bytes */{SIZE}"
        elif answer.status == 206:
            parts = parts_of(answer) if answer.get("content-range") is None else [(dict(answer.headers), answer.body)]
            for fields, part in parts:
                first, last = re.fullmatch(rf"bytes ([0-9]+)-([0-9]+)/{SIZE}", fields["content-range"]).groups()  # type: ignore[union-attr]
                assert part == content[int(first) : int(last) + 1]
                assert part
        else:
            refused(answer, 400)


@fuzz
@given(
    value=st.one_of(st.builds("{}-{}".format, number_like, number_like), text_of_headers),
    content=st.binary(min_size=1, max_size=10),
)
def test_a_content_range_is_kept_to_or_refused(
    repository: Repository, client: Client, value: str, content: bytes
) -> None:
    location = repository.start_upload()
    try:
        answer = client.patch(location, content, [("Content-Range", value.encode().decode("latin-1").strip())])
        status = client.get(location)
        if answer.status == 202:
            assert status["range"] == f"0-{len(content) - 1}"
            assert not (match := re.fullmatch(r"([0-9]+)-([0-9]+)", value)) or match[1] == "0" * len(match[1])
        else:
            refused(answer, (400, 416), {"BLOB_UPLOAD_INVALID", "SIZE_INVALID"})
            assert status["range"] == "0-0"
    finally:
        assert client.delete(location).status == 204


@fuzz
@given(n=number_like, last=st.text(max_size=20), noise=st.text(max_size=10))
def test_a_page_is_given_or_its_size_refused(
    repository: Repository, client: Client, n: str, last: str, noise: str
) -> None:
    query = f"?n={escaped(n)}&last={escaped(last)}&{escaped(noise)}"
    for target, key in ((repository.path("tags/list"), "tags"), ("/v2/_catalog", "repositories")):
        answer = client.get(target + query)
        if answer.status == 200:
            assert n == "" or n.isdecimal()
            assert all(name > last for name in answer.json[key])
        else:
            assert not (n.isascii() and n.isdecimal())
            refused(answer, 400, "UNSUPPORTED")


@fuzz
@given(document=json_values, media_type=st.sampled_from([OCI_MANIFEST, OCI_INDEX, "application/json", ""]))
def test_any_document_is_stored_whole_or_refused(
    repository: Repository, client: Client, registry: RegistryProcess, document: object, media_type: str
) -> None:
    _push(repository, client, registry, encoded(document), media_type)


@fuzz
@given(
    field=st.sampled_from(
        ["schemaVersion", "mediaType", "config", "layers", "manifests", "subject", "annotations", "artifactType"]
    ),
    inner=st.sampled_from(["", "digest", "size", "mediaType", "urls", "annotations", "data", "platform"]),
    value=json_values,
    base=st.sampled_from(["image", "index"]),
)
def test_a_manifest_with_one_field_changed_is_stored_whole_or_refused(
    repository: Repository, client: Client, registry: RegistryProcess, field: str, inner: str, value: object, base: str
) -> None:
    described = {**EMPTY_DESCRIPTOR, inner: value} if inner else value
    changed = [described] if field in ("layers", "manifests") and inner else described if inner else value
    document: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": EMPTY_DESCRIPTOR,
        "layers": [],
    }
    if base == "index":
        document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
    media_type = str(document["mediaType"])
    _push(repository, client, registry, encoded({**document, field: changed}), media_type)


@fuzz
@given(data=st.binary(max_size=200))
def test_any_bytes_are_refused_as_a_manifest(
    repository: Repository, client: Client, registry: RegistryProcess, data: bytes
) -> None:
    _push(repository, client, registry, data, OCI_MANIFEST)


def _push(repository: Repository, client: Client, registry: RegistryProcess, content: bytes, media_type: str) -> None:
    before = stored_files(registry.root)
    digest = digest_of(content)
    headers = [("Content-Type", media_type)] if media_type else []
    answer = client.put(repository.manifest(digest), content, headers)
    if answer.status == 201:
        pulled = repository.pull_manifest(digest)
        assert pulled.body == content
        assert isinstance(json.loads(content), dict)
        if (subject := answer.get("oci-subject")) is not None:
            assert digest in {each["digest"] for each in repository.referrers(subject)}
        assert client.delete(repository.manifest(digest)).status == 202
    else:
        refused(answer, 400, {"MANIFEST_INVALID"})
        assert stored_files(registry.root) == before
        refused(client.get(repository.manifest(digest)), 404, "MANIFEST_UNKNOWN")


heads = st.builds(
    lambda line, fields: line + b"\r\n" + b"".join(field + b"\r\n" for field in fields) + b"\r\n",
    st.one_of(
        st.sampled_from(
            [b"GET /v2/ HTTP/1.1", b"PUT /v2/a/manifests/b HTTP/1.1", b"GET /v2/ HTTP/1.0", b"PATCH /v2/x HTTP/1.1"]
        ),
        st.binary(max_size=40),
    ),
    st.lists(
        st.one_of(
            st.sampled_from(
                [
                    b"Host: a",
                    b"Content-Length: 5",
                    b"Content-Length: 0",
                    b"Transfer-Encoding: chunked",
                    b"Connection: close",
                    b"Connection: upgrade",
                    b"Upgrade: h2c",
                    b"Expect: 100-continue",
                    b"Content-Length: -1",
                    b"Host:",
                ]
            ),
            st.binary(max_size=40),
            st.builds(
                lambda name, value: name + b": " + value,
                st.sampled_from([b"Range", b"If-None-Match", b"Content-Type", b"X"]),
                st.binary(max_size=40),
            ),
        ),
        max_size=6,
    ),
)


@fuzz
@given(head=heads, body=st.binary(max_size=30))
def test_any_head_is_answered_or_the_connection_closed(
    client: Client, registry: RegistryProcess, head: bytes, body: bytes
) -> None:
    before = stored_files(registry.root)
    connection = client.connect()
    connection.send(head + body)
    with contextlib.suppress(OSError):
        connection.socket.shutdown(socket.SHUT_WR)
    with contextlib.suppress(Closed):
        method = head.split(b" ", 1)[0].decode("latin-1")
        answer = connection.answer(method, repr(head))
        assert answer.status < 500 or answer.status in (501, 505), answer
    connection.close()
    assert stored_files(registry.root) == before


@fuzz
@given(
    name=st.sampled_from(
        ["If-None-Match", "If-Range", "Accept", "Content-Type", "Authorization", "Connection", "Expect"]
    ),
    value=text_of_headers,
)
def test_any_value_of_a_header_is_survived(repository: Repository, client: Client, name: str, value: str) -> None:
    headers = [(name, value.strip())]
    never_a_failure(client.get(repository.manifest("latest"), headers))
    answer = client.put(repository.manifest("fuzzed"), artifact_of("application/x"), headers)
    never_a_failure(answer)
    if answer.status == 201:
        assert repository.pull_manifest("fuzzed")["content-type"] == OCI_MANIFEST


@fuzz
@given(
    parameters=st.lists(
        st.tuples(
            st.sampled_from(["mount", "from", "digest", "digest-algorithm", "tag", "ns", "n", "last"]), digest_like
        ),
        max_size=4,
    )
)
def test_any_query_of_an_upload_is_answered(
    repository: Repository, client: Client, parameters: list[tuple[str, str]]
) -> None:
    answer = client.post(repository.uploads + "?" + "&".join(f"{name}={escaped(value)}" for name, value in parameters))
    never_a_failure(answer)
    if answer.status == 202:
        assert client.delete(answer.location).status == 204
    elif answer.status != 201:
        refused(answer, 400, {"DIGEST_INVALID", "NAME_INVALID"})


def test_after_all_this_the_registry_is_as_it_was(repository: Repository, registry: RegistryProcess) -> None:
    assert set(repository.tags()) <= {"latest", "fuzzed"}
    assert repository.client.get("/v2/_catalog").json["repositories"] == ["fuzz/repository"]
    assert not [path for path in stored_files(registry.root) if "_uploads" in path]
