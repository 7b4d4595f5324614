"""Conditional requests for content whose entity tag is its digest (RFC 9110 section 13)."""

from __future__ import annotations

from angos.sansio.http.message import Headers
from angos.sansio.oci.digest import Digest


def entity_tag(digest: Digest) -> str:
    """The strong entity tag of content: its digest in quotes."""
    return f'"{digest}"'


def is_unmodified(headers: Headers, digest: Digest) -> bool:
    """True when ``If-None-Match`` names this content: quoted, bare or weak, in a list, or as ``*``."""
    wanted = headers.joined("if-none-match")
    if wanted is None:
        return False
    tags = (tag.strip().removeprefix("W/").strip('"') for tag in wanted.split(","))
    return any(tag in ("*", str(digest)) for tag in tags)


def range_applies(headers: Headers, digest: Digest) -> bool:
    """False when ``If-Range`` names other content (or a date): then the whole of it has to be sent."""
    wanted = headers.get("if-range")
    return wanted is None or wanted.strip().strip('"') == str(digest)
