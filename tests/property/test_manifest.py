"""What is read in a manifest, and what is refused (image-spec, manifest.md and image-index.md; oci.md 3.6)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from angos.sansio.errors import Invalid
from angos.sansio.oci.digest import Digest
from angos.sansio.oci.manifest import parse_manifest, referrer_descriptor
from angos.sansio.oci.media_type import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST

CONFIG = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": str(Digest.of(b"config")), "size": 6}
LAYER = {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": str(Digest.of(b"layer")), "size": 5}
IMAGE: dict[str, Any] = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": CONFIG, "layers": [LAYER]}
INDEX: dict[str, Any] = {
    "schemaVersion": 2,
    "mediaType": OCI_INDEX,
    "manifests": [{**LAYER, "mediaType": OCI_MANIFEST}],
}


def encoded(document: object) -> bytes:
    return json.dumps(document).encode()


class TestAccepted:
    """A registry must not object to what it does not understand."""

    @pytest.mark.parametrize(
        "document",
        [
            IMAGE,
            INDEX,
            {**IMAGE, "layers": []},
            {**IMAGE, "layers": None},
            {**IMAGE, "layers": [LAYER, LAYER]},
            {**INDEX, "manifests": []},
            {**IMAGE, "future": {"layers": 1}, "x-Size": 3},
            {**IMAGE, "config": {**CONFIG, "mediaType": "application/vnd.unknown+json", "data": "e30=", "extra": True}},
            {**IMAGE, "layers": [{**LAYER, "digest": "sha3-256:abcdef"}]},
            {**INDEX, "manifests": [{**LAYER, "platform": {"os": "unknown", "architecture": "unknown"}}]},
            {"schemaVersion": 2, "config": CONFIG, "layers": [LAYER]},
            {"schemaVersion": 2, "mediaType": DOCKER_MANIFEST, "config": CONFIG, "layers": [LAYER]},
            {"schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": [LAYER]},
            {"mediaType": "application/vnd.oci.artifact.manifest.v1+json", "blobs": [LAYER]},
        ],
    )
    def test_what_is_pushed_in_the_wild(self, document: dict[str, Any]) -> None:
        manifest = parse_manifest(encoded(document), None)
        digests = [reference.digest for reference in manifest.references]
        assert len(digests) == len(set(digests))

    def test_the_type_comes_from_the_body_the_header_or_the_shape(self) -> None:
        bare = {key: value for key, value in IMAGE.items() if key != "mediaType"}
        assert parse_manifest(encoded(IMAGE), None).media_type == OCI_MANIFEST
        assert parse_manifest(encoded(bare), DOCKER_MANIFEST).media_type == DOCKER_MANIFEST
        assert parse_manifest(encoded(bare), "application/json").media_type == OCI_MANIFEST
        assert parse_manifest(encoded({"schemaVersion": 2, "manifests": []}), None).media_type == OCI_INDEX

    def test_content_kept_elsewhere_need_not_be_here(self) -> None:
        foreign = {**LAYER, "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"}
        withheld = {**LAYER, "mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"}
        linked = {**LAYER, "urls": ["https://example.com/layer"]}
        for layer in (foreign, withheld, linked):
            (_, found) = parse_manifest(encoded({**IMAGE, "layers": [layer]}), None).references
            assert found.fetched_elsewhere

    def test_the_artifact_type_of_an_image_falls_back_to_its_config_and_that_of_an_index_does_not(self) -> None:
        assert parse_manifest(encoded(IMAGE), None).artifact_type == CONFIG["mediaType"]
        assert parse_manifest(encoded({**IMAGE, "artifactType": "a/b"}), None).artifact_type == "a/b"
        assert parse_manifest(encoded(INDEX), None).artifact_type is None

    def test_a_referrer_record_says_what_the_list_must_say(self) -> None:
        document = {**IMAGE, "subject": LAYER, "artifactType": "a/b", "annotations": {"k": "v\ud800"}}
        manifest = parse_manifest(encoded(document), None)
        assert manifest.subject == Digest.of(b"layer")
        record = json.loads(referrer_descriptor(manifest, Digest.of(b"x"), 7))
        assert record == {
            "mediaType": OCI_MANIFEST,
            "digest": str(Digest.of(b"x")),
            "size": 7,
            "artifactType": "a/b",
            "annotations": {"k": "v\ud800"},
        }


class TestRefused:
    """What two clients could read as two different things."""

    @pytest.mark.parametrize(
        ("body", "reason"),
        [
            (b"", "not JSON"),
            (b"[]", "not a JSON object"),
            (b"\xff{}", "not UTF-8"),
            (b"\xef\xbb\xbf{}", "not JSON"),
            (b"{" * 100_000, "nested too deeply|not JSON"),
            (b'{"a":' * 100_000, "nested too deeply"),
            (b'{"schemaVersion": NaN}', "NaN"),
            (b"{}", "what kind"),
            (encoded({**IMAGE, "schemaVersion": 1}), "schema 1"),
            (encoded({**IMAGE, "schemaVersion": 3}), "schemaVersion"),
            (encoded({**IMAGE, "schemaVersion": True}), "schemaVersion"),
            (encoded({**IMAGE, "schemaVersion": "2"}), "schemaVersion"),
            (encoded({**IMAGE, "manifests": [LAYER]}), "cannot have both"),
            (encoded({**INDEX, "config": CONFIG}), "cannot have both"),
            (encoded({**INDEX, "manifests": [], "layers": [LAYER]}), "do not belong"),
            (encoded({**IMAGE, "layers": {"0": LAYER}}), "layers must be a list"),
            (encoded({**IMAGE, "layers": [1]}), r"layers\[0\] must be a descriptor"),
            (encoded({**IMAGE, "config": {**CONFIG, "size": -1}}), r"config\.size"),
            (encoded({**IMAGE, "config": {**CONFIG, "size": 1.0}}), r"config\.size"),
            (encoded({**IMAGE, "config": {**CONFIG, "size": True}}), r"config\.size"),
            (encoded({**IMAGE, "config": {"size": 1}}), r"config\.digest"),
            (encoded({**IMAGE, "config": {**CONFIG, "digest": "sha256:short"}}), r"config\.digest"),
            (encoded({**IMAGE, "config": {**CONFIG, "mediaType": "x\r\ny: z"}}), r"config\.mediaType"),
            (encoded({**IMAGE, "mediaType": "text/html\r\nx: y"}), "not a media type"),
            (encoded({**IMAGE, "annotations": {"a": 1}}), "annotations"),
            (encoded({**IMAGE, "artifactType": 5}), "artifactType must be a string"),
            (encoded({**IMAGE, "Layers": []}), "would read it as layers"),
            (b'{"schemaVersion":2,"layers":[],"layers":[]}', "occurs twice"),
            (b'{"mediaType":"application/vnd.docker.distribution.manifest.v1+prettyjws"}', "schema 1"),
        ],
    )
    def test_with_a_reason(self, body: bytes, reason: str) -> None:
        with pytest.raises(Invalid, match=reason):
            parse_manifest(body, None)

    def test_a_body_that_contradicts_its_content_type(self) -> None:
        with pytest.raises(Invalid, match="Content-Type says"):
            parse_manifest(encoded(IMAGE), OCI_INDEX)

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(),
            lambda inner: (
                st.lists(inner)
                | st.dictionaries(
                    st.sampled_from(
                        [
                            "schemaVersion",
                            "mediaType",
                            "config",
                            "layers",
                            "manifests",
                            "subject",
                            "digest",
                            "size",
                            "annotations",
                            "Size",
                        ]
                    ),
                    inner,
                )
            ),
        )
    )
    def test_no_document_whatever_makes_the_parser_fail_otherwise(self, document: object) -> None:
        try:
            parse_manifest(encoded(document), None)
        except Invalid as error:
            assert str(error)
