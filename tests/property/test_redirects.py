"""Who is sent to the store for content, and for which content."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from angos.sansio import layout
from angos.sansio.config import RegistryConfig
from angos.sansio.effects import DeleteKeys, SignUrl
from angos.sansio.oci.digest import Digest
from angos.simulator.registry import Answer, SimulatedRegistry
from angos.simulator.scenario import Scenario
from angos.simulator.world.replica import ADDRESS, World

CONTENT = b"0123456789"
DIGEST = Digest.of(CONTENT)
MANIFEST = b'{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []}'
SENDING = RegistryConfig(redirect_blobs=True, redirect_manifests=True)

FIELDS: dict[str, list[str]] = {
    "range": ["bytes=0-4", "bytes=5-", "bytes=-3", "bytes=10-", "bytes=0-1,4-5", "bytes=-", "bytes=4-2", "Bytes=0-4"],
    "if-range": [f'"{DIGEST}"', '"other"'],
    "if-match": [f'"{DIGEST}"'],
    "if-none-match": [f'"{DIGEST}"', '"other"', "*"],
    "if-modified-since": ["Thu, 01 Jan 1970 00:00:00 GMT"],
    "if-unmodified-since": ["Thu, 01 Jan 1970 00:00:00 GMT"],
    "x-angos-no-redirect": ["1", "yes", "0", "FALSE", ""],
}


def registry(config: RegistryConfig = SENDING, **scenario: str) -> SimulatedRegistry:
    """With a blob and a manifest in the namespace ``a``."""
    found = SimulatedRegistry(config, world=World(Scenario(**scenario)))  # type: ignore[arg-type]
    assert found.send("POST", f"/v2/a/blobs/uploads/?digest={DIGEST}", body=CONTENT).status == 201
    assert found.send("PUT", "/v2/a/manifests/1", body=MANIFEST).status == 201
    found.effects.clear()
    return found


def what_the_store_says(asked: str | None) -> tuple[int, bytes]:
    """To a client that comes with this range, which it understands (RFC 9110 section 14.1.2)."""
    if asked is None:
        return 200, CONTENT
    first, _, last = asked.removeprefix("bytes=").partition("-")
    if not first:
        return 206, CONTENT[-int(last) :]
    return 206, CONTENT[int(first) : int(last) + 1 if last else None]


SOME_FIELDS = st.fixed_dictionaries({}, optional={name: st.sampled_from(values) for name, values in FIELDS.items()})


@given(method=st.sampled_from(["GET", "HEAD"]), fields=SOME_FIELDS)
def test_who_is_sent_to_the_store_finds_there_what_the_registry_would_have_answered(
    method: str, fields: dict[str, str]
) -> None:
    answer = registry().send(method, f"/v2/a/blobs/{DIGEST}", fields)
    own = registry(RegistryConfig()).send(method, f"/v2/a/blobs/{DIGEST}", fields)
    opted_out = fields.get("x-angos-no-redirect") in ("1", "yes")
    conditional = bool(fields.keys() & {"if-range", "if-match", "if-modified-since", "if-unmodified-since"})
    if answer.status == 307:
        assert (method, opted_out, conditional) == ("GET", False, False)
        assert (own.status, own.body) == what_the_store_says(fields.get("range"))
        assert answer.header("location") == f"{ADDRESS}{layout.blob_key(DIGEST)}?signature"
        assert (answer.header("cache-control"), answer.header("docker-content-digest")) == ("no-store", str(DIGEST))
    else:
        assert (answer.status, answer.headers, answer.body) == (own.status, own.headers, own.body)
        plain = fields.keys() <= {"x-angos-no-redirect"} and method == "GET"
        assert opted_out or not plain, "nothing was in the way"


@given(
    namespace=st.sampled_from(["a", "b", "c"]),
    owners=st.sets(st.sampled_from(["a", "b", "c"])),
    there=st.booleans(),
    kind=st.sampled_from(["blobs", "manifests"]),
)
def test_a_redirect_is_never_to_what_the_namespace_does_not_own(
    namespace: str, owners: set[str], there: bool, kind: str
) -> None:
    """Whatever else the store holds: only for what is owned, and there, is a URL signed at all."""
    found = SimulatedRegistry(SENDING)
    digest = Digest.of(MANIFEST)
    for owner in sorted(owners):
        assert found.send("PUT", f"/v2/{owner}/manifests/{digest}", body=MANIFEST).status == 201
    key = layout.blob_key(digest)
    if not there:
        found.perform(DeleteKeys((key,)))
    found.effects.clear()
    answer = found.send("GET", f"/v2/{namespace}/{kind}/{digest}")
    signed = [effect for effect in found.effects if isinstance(effect, SignUrl)]
    assert (answer.status == 307) == (namespace in owners and there)
    assert answer.status in (307, 404)
    assert [effect.key for effect in signed] == ([key] if answer.status == 307 else [])


def test_a_manifest_keeps_its_type_and_a_blob_has_none() -> None:
    found = registry()
    for target in ("/v2/a/manifests/1", f"/v2/a/manifests/{Digest.of(MANIFEST)}", f"/v2/a/blobs/{DIGEST}"):
        assert found.send("GET", target).status == 307
    types = [effect.media_type for effect in found.effects if isinstance(effect, SignUrl)]
    assert types == ["application/vnd.oci.image.index.v1+json"] * 2 + ["application/octet-stream"]


def test_a_store_that_cannot_sign_and_a_switch_that_is_off_change_nothing() -> None:
    def answers(found: SimulatedRegistry) -> list[Answer]:
        return [found.send("GET", target) for target in (f"/v2/a/blobs/{DIGEST}", "/v2/a/manifests/1")]

    plain = answers(registry(RegistryConfig()))
    assert [answer.status for answer in plain] == [200, 200]
    assert answers(registry(store="disk")) == plain
    half = answers(registry(RegistryConfig(redirect_manifests=True)))
    assert (half[0], half[1].status) == (plain[0], 307)
