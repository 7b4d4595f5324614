"""Digests, names and references follow their grammars (distribution-spec, Pulling Manifests; image-spec, Digests)."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from angos.sansio.errors import Invalid
from angos.sansio.oci.digest import Digest, is_digest
from angos.sansio.oci.reference import Namespace, Tag, parse_namespace, parse_reference, referrers_tag

from .values import digests, namespaces, tags

NAME = re.compile(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*")
NEAR_NAMES = st.text("ab0._-/A!é", max_size=12)


class TestDigest:
    """``digest ::= algorithm ":" encoded``; sha256 and sha512 take lower-case hex of their length."""

    @given(digests())
    def test_what_is_written_is_read_back(self, digest: Digest) -> None:
        assert Digest.parse(str(digest)) == digest

    @given(digests(), st.integers(0, 200), st.characters())
    def test_a_changed_character_is_another_digest_or_none(self, digest: Digest, at: int, character: str) -> None:
        text = str(digest)
        at %= len(text)
        changed = text[:at] + character + text[at + 1 :]
        try:
            assert (Digest.parse(changed) == digest) == (changed == text)
        except Invalid:
            assert changed != text

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "sha256",
            "sha256:",
            ":" + "a" * 64,
            "sha256:" + "a" * 63,
            "sha256:" + "a" * 65,
            "sha256:" + "A" * 64,
            "SHA256:" + "a" * 64,
            "sha256:" + "g" * 64,
            "sha256:" + "a" * 63 + "\n",
            "sha256:" + "a" * 64 + "\n",
            "sha512:" + "a" * 64,
            "sha256:../../../etc/passwd",
            "md5:d41d8cd98f00b204e9800998ecf8427e",
            "blake3:" + "a" * 64,
        ],
    )
    def test_what_cannot_be_stored_is_refused_with_a_reason(self, text: str) -> None:
        with pytest.raises(Invalid, match="digest"):
            Digest.parse(text)

    def test_digests_of_unregistered_algorithms_are_well_formed(self) -> None:
        assert is_digest("multihash+base58:QmRZxt2b1FVZPNqd8hsiykDL3TdBDeTSPX9Kv46HmX4Gx8")
        assert not is_digest("sha256:short")
        assert not is_digest("sha256+b64u:")


class TestNamespace:
    """``<name>``: components of ``[a-z0-9]+((\\.|_|__|-+)[a-z0-9]+)*`` joined by ``/``."""

    @given(namespaces())
    def test_every_name_of_the_grammar_is_accepted(self, namespace: Namespace) -> None:
        assert parse_namespace(namespace) == namespace

    @given(NEAR_NAMES)
    @example("a___b")
    @example("a--b")
    @example("a..b")
    @example("a\n")
    def test_exactly_the_grammar_is_accepted(self, text: str) -> None:
        try:
            parse_namespace(text)
            accepted = True
        except Invalid:
            accepted = False
        assert accepted == (NAME.fullmatch(text) is not None)

    def test_names_longer_than_a_store_can_hold_are_refused(self) -> None:
        assert parse_namespace("a" * 240 + "/" + "b" * 14)
        with pytest.raises(Invalid, match="256 characters"):
            parse_namespace("a/" * 127 + "aa")
        with pytest.raises(Invalid, match="component"):
            parse_namespace("a" * 241)


class TestReference:
    """A reference is a tag or a digest; a colon can only mean a digest."""

    @given(tags())
    def test_a_tag_is_a_tag(self, tag: Tag) -> None:
        assert parse_reference(str(tag)) == tag

    @given(digests())
    def test_a_digest_is_a_digest(self, digest: Digest) -> None:
        assert parse_reference(str(digest)) == digest

    @pytest.mark.parametrize("text", ["", "-a", ".a", "a" * 129, "ä", "a b", "a/b", "latest\n", "\u0663"])
    def test_other_texts_are_refused(self, text: str) -> None:
        with pytest.raises(Invalid):
            parse_reference(text)

    @given(digests())
    def test_the_fallback_tag_of_a_subject_is_a_tag(self, subject: Digest) -> None:
        tag = referrers_tag(subject)
        assert Tag.parse(tag.name) == tag
        assert tag.name.endswith(subject.hex[:64])
