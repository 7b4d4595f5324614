"""Listings of a bucket, one answer at a time: complete as far as it goes, or no answer at all."""

from __future__ import annotations

from angos.runtime.stores.s3.bucket import Asked, Bucket
from angos.runtime.stores.s3.documents import DocumentDamaged, parse_listing, parse_uploads
from angos.sansio.bucket.requests import List, Listed, ListedUploads, ListUploads


async def list_keys(bucket: Bucket, step: List) -> Listed:
    """`List`."""
    whole, doing = bucket.options.key_prefix + step.prefix, f"listing {step.prefix}"
    query = {"list-type": "2", "prefix": whole, "max-keys": str(step.limit), "encoding-type": "url"}
    if step.after:
        query["start-after"] = whole + step.after
    if step.token:
        query["continuation-token"] = step.token
    if step.folders:
        query["delimiter"] = "/"
    told = await bucket.ask(Asked(doing, "GET", query=query))
    try:
        listed = parse_listing(told.body)
    except DocumentDamaged as error:
        raise bucket.unavailable(doing, error) from None
    if not all(key.startswith(whole) for key in (*listed.folders, *(key for key, _ in listed.keys))):
        raise bucket.unavailable(doing, "the listing has keys that were not asked for")
    cut = len(whole)
    keys = tuple((key[cut:], size) for key, size in listed.keys)
    return Listed(keys, tuple(folder[cut:] for folder in listed.folders), listed.next_token, listed.modified_ms)


async def list_uploads(bucket: Bucket, step: ListUploads) -> ListedUploads:
    """`ListUploads`."""
    root, doing = bucket.options.key_prefix, f"listing unfinished uploads below {step.prefix}"
    query = {"uploads": "", "prefix": root + step.prefix, "encoding-type": "url"}
    if step.markers[0]:
        query |= {"key-marker": step.markers[0], "upload-id-marker": step.markers[1]}
    told = await bucket.ask(Asked(doing, "GET", query=query))
    try:
        listed = parse_uploads(told.body)
    except DocumentDamaged as error:
        raise bucket.unavailable(doing, error) from None
    found = [
        ((key.removeprefix(root), upload), began_ms)
        for (key, upload), began_ms in zip(listed.uploads, listed.began_ms, strict=True)
        if key.startswith(root + step.prefix)
    ]
    began = tuple(began_ms for _, began_ms in found)
    return ListedUploads(tuple(upload for upload, _ in found), listed.next_markers, began)
