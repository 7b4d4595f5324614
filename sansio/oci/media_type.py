"""Media types that a registry has to know (image-spec, media-types.md), and their grammar (RFC 6838 section 4.2)."""

from __future__ import annotations

import re

from angos.sansio.errors import Invalid

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"

IMAGE_TYPES = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
INDEX_TYPES = frozenset({OCI_INDEX, DOCKER_LIST})

SCHEMA_1_TYPES = frozenset(
    {
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
    }
)

UNTELLING_TYPES = frozenset(
    {
        "application/json",
        "application/octet-stream",
        "application/x-www-form-urlencoded",  # what curl sends when nobody says otherwise
        "text/plain",
    }
)
"""Content types that say nothing about a manifest; its own ``mediaType`` or its shape decides."""

_NAME = r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}"
_GRAMMAR = re.compile(rf"{_NAME}/{_NAME}")


def parse_media_type(text: str) -> str:
    """The media type without parameters; raises `Invalid` when it is not one."""
    essence = text.partition(";")[0].strip()
    if _GRAMMAR.fullmatch(essence) is None:
        raise Invalid(f"{text[:200]!r} is not a media type")
    return essence


def is_media_type(text: str) -> bool:
    """True for ``type/subtype`` without parameters."""
    return _GRAMMAR.fullmatch(text) is not None
