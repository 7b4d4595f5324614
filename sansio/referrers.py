"""Referrers: the manifests that point at a subject (distribution-spec end-12).

Every push of a manifest with a subject writes a record, so the list needs no search. Registries that came before this
endpoint leave lists made by clients under a tag (Referrers Tag Schema); what such a list names is shown as well, when
the manifest is here and really has this subject.
"""

from __future__ import annotations

from bisect import bisect_right

from angos.sansio import layout
from angos.sansio.compact_json import parse_json
from angos.sansio.config import RegistryConfig
from angos.sansio.effects import Key, ListKeys, ReadKey, StorageCorrupt
from angos.sansio.errors import Invalid, RegistryError
from angos.sansio.http.message import Inline, Response
from angos.sansio.http.query import Query, asked_artifact_types, next_page, page_size
from angos.sansio.manifests import read_media_type
from angos.sansio.oci.digest import Digest
from angos.sansio.oci.manifest import is_descriptor, parse_manifest, referrer_descriptor
from angos.sansio.oci.media_type import INDEX_TYPES, OCI_INDEX, is_media_type
from angos.sansio.oci.reference import Namespace, referrers_tag
from angos.sansio.tags import resolve_tag
from angos.sansio.together import together

PAGE_BYTES_MAX = 2 << 20  # clients read at most 4 MiB of one answer; annotations can be long
CANDIDATES_MAX = 100


async def list_referrers(namespace: Namespace, subject: Digest, query: Query, config: RegistryConfig) -> Response:
    """An image index of the referrers, ordered by digest, filtered by ``artifactType`` if asked. Never a 404."""
    limit = page_size(query, default=CANDIDATES_MAX, largest=CANDIDATES_MAX)
    wanted = asked_artifact_types(query)
    if not all(is_media_type(text) for text in wanted):
        raise RegistryError(400, "UNSUPPORTED", "artifactType must be a media type")

    names, more = await _candidates(namespace, subject, query.get("last") or "", limit)
    descriptors = await together(_descriptor(namespace, subject, name) for name in names)
    shown: list[bytes] = []
    size = 0
    last = ""
    for name, descriptor in zip(names, descriptors, strict=True):
        if descriptor is not None and (not wanted or parse_json(descriptor).get("artifactType") in wanted):
            if shown and size + len(descriptor) > PAGE_BYTES_MAX:
                more = True
                break
            shown.append(descriptor)
            size += len(descriptor)
        last = name

    headers = [("Content-Type", OCI_INDEX)]
    if wanted:
        headers.append(("OCI-Filters-Applied", "artifactType"))
    if more and last:
        path = f"/v2/{namespace}/referrers/{subject}"
        headers.append(next_page(path, n=limit, last=last, **({"artifactType": wanted} if wanted else {})))
    body = b'{"schemaVersion":2,"mediaType":"%s","manifests":[%s]}' % (OCI_INDEX.encode(), b",".join(shown))
    return Response(200, tuple(headers), Inline(body))


async def _candidates(namespace: Namespace, subject: Digest, last: str, limit: int) -> tuple[list[str], bool]:
    """The names of at most `limit` possible referrers after `last`, and whether there are more."""
    if limit == 0:
        return [], False
    page = await ListKeys(layout.referrers_prefix(namespace, subject), last, limit)
    recorded = [name for name in page.names if layout.parse_referrer_name(name) is not None]
    listed = await _listed_by_clients(namespace, subject)
    listed = listed[bisect_right(listed, last) :]
    if page.more:  # the rest of them belongs to the pages behind this one
        listed = listed[: bisect_right(listed, page.names[-1])]
    names = sorted({*recorded, *listed})
    return names[:limit], page.more or len(names) > limit


async def _listed_by_clients(namespace: Namespace, subject: Digest) -> list[str]:
    """The referrers that the fallback tag of the subject names, as sorted names of records."""
    index = await resolve_tag(namespace, referrers_tag(subject))
    try:
        if index is None or await read_media_type(namespace, index) not in INDEX_TYPES:
            return []
        value = await ReadKey(layout.blob_key(index))
        children = parse_manifest(value or b"{}", None).references
    except (Invalid, StorageCorrupt):
        return []
    return sorted(layout.referrer_name(child.storable) for child in children if child.storable is not None)


async def _descriptor(namespace: Namespace, subject: Digest, name: str) -> bytes | None:
    """The record of a referrer, or what it would be; None when it is none."""
    record = await ReadKey(Key(layout.referrers_prefix(namespace, subject) + name))
    digest = layout.parse_referrer_name(name)
    if digest is None or (record is not None and is_descriptor(record, digest)):
        return record
    try:
        media_type = await read_media_type(namespace, digest)
        body = await ReadKey(layout.blob_key(digest)) if media_type is not None else None
        if body is None:
            return None
        manifest = parse_manifest(body, media_type)
    except (Invalid, StorageCorrupt):
        return None
    return referrer_descriptor(manifest, digest, len(body)) if manifest.subject == subject else None
