"""What a registry reads in a manifest (image-spec, manifest.md and image-index.md), and what it refuses.

A manifest is stored byte for byte; this only looks. Unknown fields, unknown media types, empty lists and missing
platforms are all fine: the specification forbids registries to object to what they do not understand. What is refused
would make two clients read two different things: JSON that is not I-JSON in the fields that matter, a document that is
both an image and an index, a body that contradicts its Content-Type.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from angos.sansio.compact_json import compact_json, parse_json
from angos.sansio.errors import Invalid
from angos.sansio.oci.digest import Digest, is_digest
from angos.sansio.oci.media_type import (
    IMAGE_TYPES,
    INDEX_TYPES,
    OCI_INDEX,
    OCI_MANIFEST,
    SCHEMA_1_TYPES,
    UNTELLING_TYPES,
    is_media_type,
)

TELLING_FIELDS = frozenset(
    {
        "schemaVersion",
        "mediaType",
        "artifactType",
        "config",
        "layers",
        "manifests",
        "blobs",
        "subject",
        "annotations",
        "digest",
        "size",
        "urls",
    }
)
"""Fields whose meaning must not depend on the reader. Go takes the last of duplicates and ignores case."""

_FOLDED = {field.casefold(): field for field in TELLING_FIELDS}


class SchemaOne(Invalid):
    """The manifest is of the first schema of Docker, from before 2016."""


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A reference to content (image-spec, descriptor.md)."""

    digest: str
    """Valid by the grammar; possibly under an algorithm that we cannot store."""
    storable: Digest | None
    """The digest, when content under it can be stored here."""
    size: int
    media_type: str
    fetched_elsewhere: bool
    """The content has ``urls`` or a non-distributable type: nobody pushes it here."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """The fields of a manifest that matter to a registry."""

    media_type: str
    """As pushed, and as answered to whoever pulls."""
    artifact_type: str | None
    """What referrers lists show: the manifest's own, else the config's type for an image, else None."""
    references: tuple[Descriptor, ...]
    """Config, layers, children: what the manifest needs to be complete. Without duplicates, in document order."""
    subject: Digest | None
    annotations: Mapping[str, str] | None


def parse_manifest(body: bytes, content_type: str | None) -> Manifest:
    """Read a pushed manifest. `content_type` is without parameters. Raises `Invalid` with what is wrong."""
    document = _parse_json(body)
    version = document.get("schemaVersion")
    outdated = type(version) is int and version == 1  # as a rule they do not say what they are
    media_type = "" if outdated else _media_type(document, content_type)
    if outdated or media_type in SCHEMA_1_TYPES:
        raise SchemaOne("Docker image manifests of schema 1 are not supported; push schema 2 or OCI")
    known = media_type in IMAGE_TYPES or media_type in INDEX_TYPES
    if (known or "schemaVersion" in document) and not (type(version) is int and version == 2):
        raise Invalid(f"schemaVersion must be 2, not {json.dumps(version)[:40]}")

    config = _optional_descriptor(document, "config")
    layers = _descriptors(document, "layers")
    manifests = _descriptors(document, "manifests")
    blobs = _descriptors(document, "blobs")
    if (config is not None or layers) and manifests:
        raise Invalid("a manifest cannot have both config or layers (an image) and manifests (an index)")
    if media_type in IMAGE_TYPES and manifests:
        raise Invalid(f"manifests does not belong into {media_type}")
    if media_type in INDEX_TYPES and (config is not None or layers):
        raise Invalid(f"config and layers do not belong into {media_type}")

    subject = _optional_descriptor(document, "subject")
    artifact_type = _text(document, "artifactType") or None
    if artifact_type is None and config is not None and media_type not in INDEX_TYPES:
        artifact_type = config.media_type or None
    references = ([config] if config is not None else []) + layers + manifests + blobs
    return Manifest(
        media_type=media_type,
        artifact_type=artifact_type,
        references=tuple({descriptor.digest: descriptor for descriptor in references}.values()),
        subject=subject.storable if subject is not None else None,
        annotations=_annotations(document),
    )


def referrer_descriptor(manifest: Manifest, digest: Digest, size: int) -> bytes:
    """The entry of a manifest in the referrers list of its subject (distribution-spec, Listing Referrers), as JSON."""
    descriptor: dict[str, object] = {"mediaType": manifest.media_type, "digest": str(digest), "size": size}
    if manifest.artifact_type is not None:
        descriptor["artifactType"] = manifest.artifact_type
    if manifest.annotations:
        descriptor["annotations"] = dict(manifest.annotations)
    return compact_json(descriptor)


def is_descriptor(record: bytes, digest: Digest) -> bool:
    """True for the JSON of a descriptor of content with this digest, as a list of referrers can show it."""
    try:
        value = parse_json(record)
    except ValueError:
        return False
    if not isinstance(value, dict) or value.get("digest") != str(digest):
        return False
    return isinstance(value.get("mediaType"), str) and type(value.get("size")) is int


def _parse_json(body: bytes) -> dict[str, Any]:
    try:
        document = _decoder.decode(body.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise Invalid(f"the manifest is not UTF-8 (byte {error.start})") from None
    except RecursionError:
        raise Invalid("the manifest is nested too deeply") from None
    except Invalid:
        raise
    except ValueError as error:
        raise Invalid(f"the manifest is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise Invalid("the manifest is not a JSON object")
    _check_spelling(document, "the manifest")
    return document


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        names = [name for name, _ in pairs]
        for name in TELLING_FIELDS.intersection(names):
            if names.count(name) > 1:
                raise Invalid(f"the field {name} occurs twice in one object of the manifest")
    return value


def _refuse_constant(name: str) -> object:
    raise Invalid(f"the manifest is not JSON: {name} is no number")


_decoder = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_refuse_constant)


def _check_spelling(value: dict[str, Any], where: str) -> None:
    for name in value:
        if name not in TELLING_FIELDS and (meant := _FOLDED.get(name.casefold())) is not None:
            raise Invalid(f"{where} has a field {name!r}; some clients would read it as {meant}, others not at all")


def _media_type(document: dict[str, Any], content_type: str | None) -> str:
    inside = _text(document, "mediaType") or None
    outside = content_type if content_type not in UNTELLING_TYPES else None
    if inside is not None and not is_media_type(inside):
        raise Invalid(f"mediaType {inside[:200]!r} is not a media type")
    if inside is not None and outside is not None and inside != outside:
        raise Invalid(f"mediaType is {inside}, but Content-Type says {outside}")
    if inside is not None or outside is not None:
        return inside or outside or ""
    if "manifests" in document:
        return OCI_INDEX
    if "config" in document or "layers" in document:
        return OCI_MANIFEST
    raise Invalid("neither mediaType nor Content-Type nor its fields tell what kind of manifest this is")


def _text(document: dict[str, Any], field: str) -> str | None:
    value = document.get(field)
    if value is not None and not isinstance(value, str):
        raise Invalid(f"{field} must be a string")
    return value


def _optional_descriptor(document: dict[str, Any], field: str) -> Descriptor | None:
    value = document.get(field)
    return None if value is None else _descriptor(value, field)


def _descriptors(document: dict[str, Any], field: str) -> list[Descriptor]:
    value = document.get(field)
    if value is None:
        return []
    if not isinstance(value, list):
        raise Invalid(f"{field} must be a list")
    return [_descriptor(item, f"{field}[{index}]") for index, item in enumerate(value)]


def _descriptor(value: object, where: str) -> Descriptor:
    if not isinstance(value, dict):
        raise Invalid(f"{where} must be a descriptor, an object with mediaType, digest and size")
    _check_spelling(value, where)
    digest, size, media_type = value.get("digest"), value.get("size"), value.get("mediaType", "")
    if not isinstance(digest, str) or ((storable := _storable(digest)) is None and not is_digest(digest)):
        raise Invalid(f"{where}.digest must be a digest such as sha256:44136fa3...")
    if type(size) is not int or size < 0:
        raise Invalid(f"{where}.size must be a whole number of bytes, 0 or more")
    if not isinstance(media_type, str) or (media_type and not is_media_type(media_type)):
        raise Invalid(f"{where}.mediaType must be a media type")
    elsewhere = bool(value.get("urls")) or "nondistributable" in media_type or ".foreign." in media_type
    return Descriptor(digest, storable, size, media_type, elsewhere)


def _storable(digest: str) -> Digest | None:
    try:
        return Digest.parse(digest)
    except Invalid:
        return None


def _annotations(document: dict[str, Any]) -> dict[str, str] | None:
    value = document.get("annotations")
    if value is None:
        return None
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise Invalid("annotations must be an object whose values are strings")
    return value
