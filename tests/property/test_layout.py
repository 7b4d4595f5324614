"""Storage keys parse back, never collide, and sort as what they name."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from angos.sansio import layout
from angos.sansio.layout import TagEvent
from angos.sansio.oci.digest import Digest
from angos.sansio.oci.reference import Namespace, Tag

from .values import digests, namespaces, tags


@given(digests())
def test_a_blob_key_names_its_digest(digest: Digest) -> None:
    assert layout.parse_blob_key(layout.blob_key(digest)) == digest
    assert layout.store_of(layout.blob_key(digest)) == "blobs"


@given(digests(), namespaces(), tags(), digests())
def test_references_parse_back(digest: Digest, namespace: Namespace, tag: Tag, manifest: Digest) -> None:
    prefix = layout.references_prefix(digest, namespace)
    by_tag = layout.tag_reference_key(digest, namespace, tag).removeprefix(prefix)
    by_manifest = layout.manifest_reference_key(digest, namespace, manifest).removeprefix(prefix)
    assert layout.parse_tag_reference_name(by_tag) == tag
    assert layout.parse_manifest_reference_name(by_tag) is None
    assert layout.parse_manifest_reference_name(by_manifest) == manifest
    assert layout.parse_tag_reference_name(by_manifest) is None
    owner = layout.owner_key(digest, namespace).removeprefix(layout.blob_references_prefix(digest))
    assert layout.parse_owner_name(owner) == namespace


@given(namespaces(), digests(), digests())
def test_revisions_and_referrers_parse_back(namespace: Namespace, digest: Digest, subject: Digest) -> None:
    revision = layout.revision_key(namespace, digest).removeprefix(layout.revisions_prefix(namespace))
    assert layout.parse_revision_name(revision) == digest
    prefix = layout.referrers_prefix(namespace, subject)
    assert layout.parse_referrer_name(layout.referrer_key(namespace, subject, digest).removeprefix(prefix)) == digest


@given(st.lists(tags(), unique=True))
def test_folders_sort_as_their_tags(found: list[Tag]) -> None:
    folders = sorted(layout.tag_folder(tag.name) for tag in found)
    assert [layout.parse_tag_folder(folder) for folder in folders] == sorted(found)


@given(st.lists(namespaces(), unique=True))
def test_catalogue_keys_sort_as_their_namespaces(found: list[Namespace]) -> None:
    keys = sorted(layout.catalog_key(namespace) for namespace in found)
    names = [layout.parse_catalog_name(key.removeprefix(layout.CATALOG_PREFIX)) for key in keys]
    assert names == sorted(found)


@given(st.integers(0, 2**42), st.sampled_from(["set", "del"]), digests())
def test_tag_events_parse_back(at_ms: int, kind: str, digest: Digest) -> None:
    event = TagEvent(at_ms, "set" if kind == "set" else "del", digest)
    assert layout.parse_tag_event(str(event)) == event


@given(st.lists(st.tuples(st.integers(0, 2**42), digests()), min_size=1, unique_by=lambda found: found[0]))
def test_the_newest_event_sorts_first(found: list[tuple[int, Digest]]) -> None:
    names = sorted(str(TagEvent(at_ms, "set", digest)) for at_ms, digest in found)
    parsed = [layout.parse_tag_event(name) for name in names]
    assert [event.at_ms for event in parsed if event] == sorted((at_ms for at_ms, _ in found), reverse=True)


@given(namespaces(), st.integers(0, 2**42), digests())
def test_names_of_a_namespace_parse_back(namespace: Namespace, at_ms: int, digest: Digest) -> None:
    event = TagEvent(at_ms, "set", digest)
    revision = layout.revision_key(namespace, digest).removeprefix(layout.NAMESPACES_PREFIX)
    tagged = f"{layout.tag_events_prefix(namespace, Tag('v1'))}{event}".removeprefix(layout.NAMESPACES_PREFIX)
    history = f"{layout.tag_history_prefix(namespace, Tag('v1'))}{event}".removeprefix(layout.NAMESPACES_PREFIX)
    parsed = [layout.parse_namespace_revision(name) for name in (revision, tagged, history)]
    assert parsed == [(namespace, digest), None, None]
    events = [layout.parse_namespace_event(name) for name in (revision, tagged, history)]
    assert events == [None, (namespace, Tag("v1"), event), None]
    assert revision < tagged, "manifests come before tags"


@given(st.text(max_size=60))
def test_stray_names_are_recognised_as_such(name: str) -> None:
    for parse in (
        layout.parse_tag_event,
        layout.parse_tag_folder,
        layout.parse_revision_name,
        layout.parse_referrer_name,
        layout.parse_blob_key,
    ):
        assert parse(name) is None or layout.parse_tag_folder(name) is not None


@given(namespaces(), namespaces(), digests())
def test_keys_of_different_namespaces_never_meet(one: Namespace, other: Namespace, digest: Digest) -> None:
    if one == other:
        return
    prefixes = [
        layout.tags_prefix(one),
        layout.revisions_prefix(one),
        layout.references_prefix(digest, one),
        layout.upload_prefix(one, "00000000-0000-4000-8000-000000000000"),
    ]
    keys = [
        f"{layout.tags_prefix(other)}x!/y",
        layout.revision_key(other, digest),
        layout.owner_key(digest, other),
        layout.tag_reference_key(digest, other, Tag("x")),
        layout.upload_prefix(other, "00000000-0000-4000-8000-000000000000") + "part.x",
    ]
    assert not any(key.startswith(prefix) for key in keys for prefix in prefixes)
