"""The catalogue of repositories: ``/v2/_catalog``, outside the specification and expected by everyone."""

from __future__ import annotations

from angos.sansio import layout
from angos.sansio.compact_json import compact_json
from angos.sansio.config import RegistryConfig
from angos.sansio.effects import ListKeys
from angos.sansio.http.message import Inline, Response
from angos.sansio.http.query import Query, next_page, page_size
from angos.sansio.oci.reference import Namespace
from angos.sansio.tags import has_content
from angos.sansio.together import together


async def list_catalog(query: Query, config: RegistryConfig) -> Response:
    """The names of the repositories that hold a manifest, in byte order, a page at a time."""
    size = page_size(query, default=config.page_size_default, largest=config.page_size_max)
    last = query.get("last") or ""
    found: list[Namespace] = []
    after, more = layout.catalog_name(last) if last else "", size > 0
    while more and len(found) <= size:
        page = await ListKeys(layout.CATALOG_PREFIX, after, size + 1 - len(found))
        names = [name for text in page.names if (name := layout.parse_catalog_name(text)) is not None]
        held = await together(has_content(name) for name in names)
        found += [name for name, holds in zip(names, held, strict=True) if holds]
        after, more = page.last, page.more
    shown = found[:size]
    headers = [("Content-Type", "application/json")]
    if len(found) > size and shown:
        headers.append(next_page("/v2/_catalog", n=size, last=shown[-1]))
    body = compact_json({"repositories": shown})
    return Response(200, tuple(headers), Inline(body))
