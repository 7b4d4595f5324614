"""A bucket that goes wrong in the middle of operations: what clients and the operator are told, and what is lost.

Every kind of request that an operation sends to the bucket goes wrong in turn: all of that kind while one request of a
client is answered, and none of it afterwards. So each operation breaks off at each of its steps, and is tried again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from tests.conformance.configured.configured_registry import ConfiguredRegistry, Start
from tests.conformance.configured.test_buckets import SECRET, bucket
from tests.conformance.contracts.s3_proxy import (
    CUT,
    LOSE,
    RESET,
    SILENT,
    Answer,
    S3Proxy,
    Seen,
    problem,
)
from tests.conformance.http_client import Answer as ClientAnswer
from tests.conformance.http_client import Body, Client, Closed, Fields, refused
from tests.conformance.oci.content import EMPTY, OCI_MANIFEST, artifact_of, bytes_of, descriptor, digest_of
from tests.conformance.oci.repository import with_query
from tests.conformance.replicas.pushing import Image

pytestmark = pytest.mark.xdist_group("configured-bucket-troubles")

CHUNK_BYTES = (5 << 20) + 1  # more than one part of a multipart upload
KEY_PREFIX = "in trouble/"
OLD_DATE = {"date": "Fri, 24 May 2013 00:00:00 GMT"}
ERROR = b"<Error><Code>InternalError</Code><Message>We encountered an internal error.</Message></Error>"


def is_listing(seen: Seen) -> bool:
    return "list-type" in seen.query or ("uploads" in seen.query and seen.method == "GET")


def has_document_of_success(seen: Seen) -> bool:
    """Copying and putting together: their answers begin before their outcome is known."""
    return "x-amz-copy-source" in seen.fields or (seen.method == "POST" and "uploadId" in seen.query)


def is_quick_write(seen: Seen) -> bool:
    return seen.method in ("PUT", "POST") and not has_document_of_success(seen)


@dataclass(frozen=True)
class Trouble:
    """What happens to requests of the kinds that it concerns."""

    strikes: Callable[[Seen], Answer | str]
    said: str
    """In the operator's log."""
    concerns: Callable[[Seen], bool] = lambda _: True
    head_said: str | None = None
    """When the request was a HEAD, whose answer has no document."""


def refusal(status: int, code: str, said: str, head_said: str, **fields: str) -> Trouble:
    answer = problem(status, code, SECRET)
    return Trouble(lambda _: replace(answer, fields=fields), said, head_said=head_said)


WITH_MULTIPART_UPLOADS = {"denied", "reset", "listing without token", "error as success", "nothing as success"}
"""Their chunks are so long that each one is: the others go without, which is faster."""

TROUBLES = {
    "clock": refusal(
        403,
        "RequestTimeTooSkewed",
        "set them right (its time is Fri, 24 May 2013",
        "perhaps its clock and that",
        **OLD_DATE,
    ),
    "denied": refusal(403, "AccessDenied", "these keys may not do this", "it refuses these keys"),
    "wrong key": refusal(403, "InvalidAccessKeyId", "it does not know this access key id", "it refuses these keys"),
    "no bucket": refusal(404, "NoSuchBucket", "there is no such bucket", "there is no such bucket"),
    "lost in a proxy": Trouble(
        lambda _: Answer(404, b"<html>not found</html>"),
        "the answer is not that of a store of S3",
        head_said="there is no such bucket",
    ),
    "slow down": refusal(503, "SlowDown", "it answered 503 SlowDown", "it answered 503"),
    "reset": Trouble(lambda _: RESET, "broke the connection off: connection reset by peer"),
    "answers get lost": Trouble(lambda _: LOSE, "closed the connection without an answer"),
    "silence": Trouble(lambda _: SILENT, "was silent for 0.2 s", is_quick_write),
    "cut short": Trouble(lambda _: CUT, "in the middle of its answer", lambda seen: seen.method == "GET"),
    "listing cut short": Trouble(lambda _: Answer(200, b"<ListBucketResult><IsTrun"), "is not XML", is_listing),
    "listing without token": Trouble(
        lambda seen: Answer(
            200, f"<{_listing_of(seen)}><IsTruncated>true</IsTruncated></{_listing_of(seen)}>".encode()
        ),
        "was cut off without saying where to go on",
        is_listing,
    ),
    "error as success": Trouble(lambda _: Answer(200, ERROR), "it answered 500 InternalError", has_document_of_success),
    "nothing as success": Trouble(lambda _: Answer(200), "the answer is not XML", has_document_of_success),
}


def _listing_of(seen: Seen) -> str:
    return "ListBucketResult" if "list-type" in seen.query else "ListMultipartUploadsResult"


def started(start: Start, proxy: S3Proxy, **options: Any) -> ConfiguredRegistry:
    options = {"key_prefix": KEY_PREFIX, "circuit_breaker_threshold": 1_000_000, "max_attempts": 1, **options}
    return start(
        {
            "global": {"enable_blob_redirect": False, "enable_manifest_redirect": False, "gc_interval_secs": 0},
            "blob_store": {"s3": bucket(proxy, **options)},
        }
    )


@pytest.fixture(scope="module")
def registry(start_shared: Start, shared_proxy: S3Proxy) -> ConfiguredRegistry:
    return started(start_shared, shared_proxy)


_KINDS = ("!own", "!r/", "!rev/", "!tag/", "!sub/", "v2/cat/", "/data", ".session.", ".chunk.", ".part.", "v2/probe/")


def kind_of(seen: Seen) -> tuple[str, ...]:
    """Requests of one kind do the same for the registry."""
    key = seen.key or seen.query.get("prefix", "")
    what = next(
        (kind for kind in _KINDS if kind in key), "upload" if "_uploads" in key else "/".join(key.split("/")[:3])
    )
    how = [name for name in ("uploads", "uploadId", "partNumber", "list-type", "delete") if name in seen.query]
    return (seen.method, *how, "copy" if "x-amz-copy-source" in seen.fields else "", what)


def named_in_log(seen: Seen) -> str:
    """What the registry wanted, as it tells the operator; empty for what nobody waits for."""
    key = seen.key.removeprefix(KEY_PREFIX)
    prefix = seen.query.get("prefix", "").removeprefix(KEY_PREFIX)
    if is_listing(seen):
        return f"listing {'unfinished uploads below ' if 'uploads' in seen.query else ''}{prefix}"
    if seen.method == "DELETE" and "uploadId" in seen.query:
        return ""
    if "delete" in seen.query:
        return "deleting "
    if seen.method == "HEAD" and not key:
        return "looking for "
    if seen.method == "GET":
        return f"{key} in bucket"  # it is read, or looked for only
    return {"HEAD": "looking for ", "DELETE": "deleting "}.get(seen.method, "creating ") + key


def said_of(seen: Seen, trouble: Trouble) -> str:
    """What the operator is told of it."""
    return (seen.method == "HEAD" and trouble.head_said) or trouble.said


@dataclass
class Striker:
    """The rule of the proxy: see the module."""

    trouble: Trouble
    proxy: S3Proxy
    over: set[tuple[str, ...]] = field(default_factory=set)
    struck: list[Seen] = field(default_factory=list)
    groups: list[list[Seen]] = field(default_factory=list)
    """What was struck, by the requests of the client."""

    def __call__(self, seen: Seen) -> Answer | str | None:
        goes_on = not seen.key and seen.method == "HEAD" and self.struck  # what a 404 to a HEAD means is asked there
        if not self.trouble.concerns(seen) or (kind_of(seen) in self.over and not goes_on):
            return None
        self.struck.append(seen)
        return self.trouble.strikes(seen)

    def between_requests(self) -> None:
        if self.struck:
            self.over |= {kind_of(seen) for seen in self.struck}
            self.groups.append(self.struck)
            self.struck = []


@dataclass(slots=True)
class PatientClient(Client):
    """Asks again as long as it is told to come back, and insists that it is never told anything worse."""

    striker: Striker | None = None
    turned_away: int = 0

    def request(self, method: str, target: str, body: Body = None, headers: Fields = ()) -> ClientAnswer:
        """The first answer that does not tell to come back."""
        for _ in range(40):
            answer = self.once(method, target, body, headers)
            if answer is not None and answer.status != 503:
                return answer
        raise AssertionError(f"no end to {method} {target}")

    def once(self, method: str, target: str, body: Body = None, headers: Fields = ()) -> ClientAnswer | None:
        """None when the connection was cut in the middle of content."""
        assert self.striker is not None
        try:
            answer = Client.request(self, method, target, body, headers)
        except Closed:
            assert (method, "/blobs/" in target) == ("GET", True), "only content may be cut off"
            self.close()
            return None
        finally:
            self.striker.between_requests()
        if answer.status == 503:
            refused(answer, 503, "UNAVAILABLE")
            assert answer["retry-after"] == "5"
            assert b"images" not in answer.body
            assert SECRET.encode() not in answer.body
            self.turned_away += 1
        return answer


def push_in_chunks(client: PatientClient, namespace: str, content: bytes, chunk_size: int) -> None:
    """As clients do that go on where the registry says. What was acknowledged stays acknowledged."""
    digest = digest_of(content)
    answer = client.post(f"/v2/{namespace}/blobs/uploads/")
    assert answer.status == 202, answer
    location, acknowledged = answer.location, 0
    while acknowledged < len(content):
        chunk = content[acknowledged : acknowledged + chunk_size]
        fields = [("Content-Range", f"{acknowledged}-{acknowledged + len(chunk) - 1}")]
        sent = client.once("PATCH", location, chunk, fields)
        assert sent is not None
        assert sent.status in (202, 503), sent
        reached = int(client.get(location)["range"].partition("-")[2]) + 1
        assert reached in {acknowledged, 1, acknowledged + len(chunk)}, "half a chunk"
        if sent.status == 202:
            assert reached == acknowledged + len(chunk), "what was acknowledged is lost"
        acknowledged = reached if reached > 1 else acknowledged
    answer = client.put(with_query(location, {"digest": digest}))
    assert (answer.status, answer.get("docker-content-digest")) == (201, digest), answer


def push_at_once(client: PatientClient, namespace: str, content: bytes) -> None:
    answer = client.post(f"/v2/{namespace}/blobs/uploads/?digest={digest_of(content)}", content)
    assert answer.status == 201, answer


@pytest.mark.parametrize("name", sorted(TROUBLES))
def test_a_bucket_that_goes_wrong_at_any_step_costs_only_another_try(
    start: Start, registry: ConfiguredRegistry, shared_proxy: S3Proxy, name: str
) -> None:
    trouble, proxy = TROUBLES[name], shared_proxy
    if name == "silence":
        registry = started(start, proxy, operation_attempt_timeout_secs=0.2)
    logged = len(registry.log)
    striker = Striker(trouble, proxy)
    namespace, other = (f"trouble/{name.replace(' ', '-')}{each}" for each in ("", "/other"))
    chunk_size = CHUNK_BYTES if name in WITH_MULTIPART_UPLOADS else 5000
    image = Image(namespace, "1.0", [bytes_of(name, chunk_size + 1000), bytes_of(f"{name} small", 5000)])
    signature = Image(namespace, "signature", [EMPTY])
    signature.manifest = artifact_of("application/signature", descriptor(OCI_MANIFEST, image.manifest))
    proxy.rule = striker
    try:
        client = PatientClient.of(registry.url)
        client.striker = striker
        with client:
            push_and_pull(client, image, signature, other, chunk_size)
            everything_goes(client, image)
    finally:
        proxy.rule = lambda _: None

    assert striker.groups, "nothing went wrong"
    assert client.turned_away, "nobody was told"
    log = registry.log[logged:]
    assert SECRET not in log
    assert "Traceback" not in log
    lines = [line for line in log.splitlines() if " in bucket images: " in line]
    for group in striker.groups:
        expected = [(named_in_log(seen), said_of(seen, trouble)) for seen in group if named_in_log(seen)]
        found = any(named in line and said in line for named, said in expected for line in lines)
        assert found or not expected, f"{expected}\n{log[-3000:]}"


def push_and_pull(client: PatientClient, image: Image, signature: Image, other: str, chunk_size: int) -> None:
    """Everything that clients do who add something, or look at it."""
    namespace = image.namespace
    push_in_chunks(client, namespace, image.layers[0], chunk_size)
    for content in (image.layers[1], image.config, *signature.layers):
        push_at_once(client, namespace, content)
    fields = [("Content-Type", OCI_MANIFEST)]
    assert client.put(f"/v2/{namespace}/manifests/1.0", image.manifest, fields).status == 201
    assert (
        client.put(f"/v2/{namespace}/manifests/{digest_of(signature.manifest)}", signature.manifest, fields).status
        == 201
    )
    digest = digest_of(image.layers[0])
    assert client.post(f"/v2/{other}/blobs/uploads/?mount={digest}&from={namespace}").status == 201

    for content in (*image.layers, image.config):
        target = f"/v2/{namespace}/blobs/{digest_of(content)}"
        assert client.head(target).size == len(content)
        assert client.get(target).body == content
    assert client.head(f"/v2/{other}/blobs/{digest}").status == 200
    assert client.head(f"/v2/{other}/blobs/{digest_of(b'nobody has it')}").status == 404
    assert client.get(f"/v2/{namespace}/manifests/1.0").body == image.manifest
    assert client.get(f"/v2/{namespace}/tags/list").json["tags"] == ["1.0"]
    referrers = client.get(f"/v2/{namespace}/referrers/{digest_of(image.manifest)}").json["manifests"]
    assert [each["digest"] for each in referrers] == [digest_of(signature.manifest)]
    assert namespace in client.get("/v2/_catalog").json["repositories"]


def everything_goes(client: PatientClient, image: Image) -> None:
    """Tag, manifest and blob are deleted; what another namespace needs stays."""
    namespace = image.namespace
    for target in (
        f"/v2/{namespace}/manifests/1.0",
        f"/v2/{namespace}/manifests/{digest_of(image.manifest)}",
        f"/v2/{namespace}/blobs/{digest_of(image.layers[0])}",
    ):
        assert client.delete(target).status in (202, 404)
        assert client.get(target).status == 404
    digest = digest_of(image.layers[0])
    assert client.get(f"/v2/{namespace}/other/blobs/{digest}").body == image.layers[0]
