"""Pages of names out of a bucket: complete, in order, each name once, or no page at all.

A store lists keys by code point, 1,000 at a time, and can roll up those below a folder into one entry ``folder/``. That
is the order of keys, but not always that of the names of folders: ``a!/`` and ``a./`` come before ``a/``, because
``!`` and ``.`` sort before ``/``. So a folder can be in a page only when no shorter one can still come up.
"""

from __future__ import annotations

from angos.runtime.stores.s3.bucket import Asked, Bucket
from angos.runtime.stores.s3.documents import DocumentDamaged, Listed, ListedUploads, parse_listing, parse_uploads
from angos.sansio.effects import ListFolders, ListKeys, Page, Prefix

LISTING_MAX = 1000  # what a store gives at once (Amazon S3 API Reference, ListObjectsV2)


async def page_of_keys(bucket: Bucket, effect: ListKeys) -> Page:
    """`ListKeys`."""
    names: list[str] = []
    token: str | None = ""
    while token is not None and len(names) <= effect.limit:
        room = effect.limit + 1 - len(names)
        listed = await _listed(bucket, effect.prefix, effect.after, token, limit=min(LISTING_MAX, room))
        for name, _ in listed.keys:
            # The prefix itself, and names that end with a slash, are what consoles show as empty folders.
            if name and not name.endswith("/"):
                _check_order(bucket, effect.prefix, names[-1] if names else effect.after, name)
                names.append(name)
        token = listed.next_token
    more = len(names) > effect.limit or token is not None
    return Page(tuple(names[: effect.limit]), more)


async def page_of_folders(bucket: Bucket, effect: ListFolders) -> Page:
    """`ListFolders`."""
    found: set[str] = set()
    passed = ""
    token: str | None = ""
    while True:
        listed = await _listed(bucket, effect.prefix, effect.after, token or "", delimiter="/")
        for folder in listed.folders:
            _check_order(bucket, effect.prefix, passed, folder)
            passed = folder
            if folder[:-1] > effect.after:
                found.add(folder[:-1])
        if listed.keys:
            passed = max(passed, listed.keys[-1][0])
        token = listed.next_token
        names = sorted(found)
        if token is None:
            return Page(tuple(names[: effect.limit]), len(names) > effect.limit)
        settled = next((index for index, name in enumerate(names) if not _is_settled(name, passed)), len(names))
        if settled > effect.limit:
            return Page(tuple(names[: effect.limit]), more=True)


async def sizes_below(bucket: Bucket, prefix: Prefix) -> dict[str, int]:
    """All keys below a prefix, relative to it, with their sizes in bytes."""
    sizes: dict[str, int] = {}
    token: str | None = ""
    while token is not None:
        listed = await _listed(bucket, prefix, "", token)
        sizes.update(listed.keys)
        token = listed.next_token
    return sizes


async def uploads_below(bucket: Bucket, prefix: Prefix) -> list[tuple[str, str]]:
    """The multipart uploads that are open below a prefix: key (as the core names it) and upload id."""
    root, doing = bucket.options.key_prefix, f"listing unfinished uploads below {prefix}"
    found: list[tuple[str, str]] = []
    markers: tuple[str, str] | None = ("", "")
    while markers is not None:
        query = {"uploads": "", "prefix": root + prefix, "encoding-type": "url"}
        if markers[0]:
            query |= {"key-marker": markers[0], "upload-id-marker": markers[1]}
        told = await bucket.ask(Asked(doing, "GET", query=query))
        try:
            page: ListedUploads = parse_uploads(told.body)
        except DocumentDamaged as error:
            raise bucket.unavailable(doing, error) from None
        found += [(key.removeprefix(root), upload) for key, upload in page.uploads if key.startswith(root + prefix)]
        markers = page.next_markers
    return found


async def _listed(
    bucket: Bucket, prefix: Prefix, after: str, token: str, *, delimiter: str = "", limit: int = LISTING_MAX
) -> Listed:
    """One answer, its names relative to the prefix."""
    whole = bucket.options.key_prefix + prefix
    query = {"list-type": "2", "prefix": whole, "max-keys": str(limit), "encoding-type": "url"}
    if after:
        query["start-after"] = whole + after
    if token:
        query["continuation-token"] = token
    if delimiter:
        query["delimiter"] = delimiter
    told = await bucket.ask(Asked(f"listing {prefix}", "GET", query=query))
    try:
        listed = parse_listing(told.body)
    except DocumentDamaged as error:
        raise bucket.unavailable(f"listing {prefix}", error) from None
    if not all(key.startswith(whole) for key in (*listed.folders, *(key for key, _ in listed.keys))):
        raise bucket.unavailable(f"listing {prefix}", "the listing has keys that were not asked for")
    cut = len(whole)
    keys = tuple((key[cut:], size) for key, size in listed.keys)
    return Listed(keys, tuple(folder[cut:] for folder in listed.folders), listed.next_token)


def _check_order(bucket: Bucket, prefix: Prefix, before: str, name: str) -> None:
    if name <= before:
        raise bucket.unavailable(
            f"listing {prefix}", "the names are not in order of their code points, as the registry needs them"
        )


def _is_settled(name: str, passed: str) -> bool:
    """True when no folder that is a beginning of `name`, and so belongs before it, can come after `passed`."""
    if name.find("!") == len(name) - 1:
        # The layout ends names with this mark, which is in none of them: none of them begins another one.
        return True
    first = next((index for index, character in enumerate(name) if character < "/"), None)
    return first is None or passed > f"{name[:first]}/"
