"""Blobs, who owns them, and the manifests among them."""

from __future__ import annotations

from collections.abc import Sequence

from angos.sansio import layout
from angos.sansio.compact_json import parse_json
from angos.sansio.effects import (
    DeleteKeys,
    EffectError,
    HashKey,
    Key,
    ReadKey,
    Stat,
    StatKey,
    StorageCorrupt,
)
from angos.sansio.errors import Invalid
from angos.sansio.manifests import plan_references, recorded_media_type, revision_record
from angos.sansio.oci.digest import Digest
from angos.sansio.oci.manifest import Manifest, is_descriptor, parse_manifest, referrer_descriptor
from angos.sansio.oci.reference import Namespace, Tag
from angos.sansio.scrub.hands import Hands
from angos.sansio.tags import newest_event
from angos.sansio.together import together

READS_AT_ONCE = 4
"""Blobs that are hashed side by side, and keys of one manifest that are looked for."""


async def check_blob(hands: Hands, key: Key, digest: Digest) -> None:
    """Are there bytes, and are they the right ones?"""
    stat = await StatKey(key)
    if stat is None:
        return
    if stat.size == 0:
        if digest != Digest.of(b"", digest.algorithm):
            await hands.quarantine(key, "corrupt", "there is nothing in it", stat)
        return
    if not hands.settings.verify_bytes:
        return
    rate = hands.settings.bytes_per_second
    found = await HashKey(key, digest.algorithm, None if rate is None else max(rate // READS_AT_ONCE, 1))
    hands.tally.bytes_verified += stat.size
    if found is not None and found != digest.hex:
        await hands.quarantine(key, "corrupt", f"its bytes have the digest {digest.algorithm}:{found}", stat)


async def check_owned(hands: Hands, digest: Digest, owners: Sequence[Namespace]) -> None:
    """Whoever owns a blob can read it. Nothing but another push brings lost bytes back."""
    key = layout.blob_key(digest)
    if await StatKey(key) is not None:
        return
    for owner in owners:  # or else the collector has come by
        if await StatKey(layout.owner_key(digest, owner)) is not None:
            whose = ", ".join(owners[:5]) + (f" and {len(owners) - 5} more" if len(owners) > 5 else "")
            hands.note(key, "missing-bytes", f"there are no bytes of a blob of {whose}; push it again")
            return


async def check_revision(hands: Hands, namespace: Namespace, digest: Digest) -> None:
    """Is the manifest whole, and is everything written that a push of it writes?"""
    key = layout.revision_key(namespace, digest)
    stat = await StatKey(key)
    record = None if stat is None else await ReadKey(key)
    if stat is None or record is None:
        return
    media_type = recorded_media_type(record)
    if media_type is None and not _is_object(record):  # one of Angos 1.6 need not say it
        detail = "it does not say the type of the manifest, which is read from the manifest itself"
        hands.note(key, "damaged-record", detail)
    body = await read_manifest(hands, namespace, digest)
    if body is None:
        return
    try:
        manifest = parse_manifest(body, media_type)
    except Invalid:
        return  # stored by another registry under looser rules: it is served as it is
    await _check_written(hands, namespace, digest, body, manifest, stat)


async def _check_written(
    hands: Hands, namespace: Namespace, digest: Digest, body: bytes, manifest: Manifest, stat: Stat
) -> None:
    _, *references = plan_references(namespace, digest, body, manifest, ())
    missing = await _absent(references)
    listed = layout.catalog_key(namespace)
    await hands.create((entry for entry in missing if entry[0] != listed), "missing-reference", _needed(digest))
    detail = f"it is how {namespace} is listed"
    await hands.create((entry for entry in missing if entry[0] == listed), "missing-catalogue", detail)
    if manifest.subject is None or await hands.is_young(stat):  # it is written last
        return
    key = layout.referrer_key(namespace, manifest.subject, digest)
    if await StatKey(key) is not None or await StatKey(layout.revision_key(namespace, digest)) is None:
        return
    record = referrer_descriptor(manifest, digest, len(body))
    await hands.create(((key, record),), "missing-referrer", f"{digest} refers to {manifest.subject}")
    if not hands.settings.dry_run and await StatKey(layout.revision_key(namespace, digest)) is None:
        await DeleteKeys((key,))  # a delete crossed us


def _needed(digest: Digest) -> str:
    return f"the manifest {digest} needs it"


async def _absent(entries: Sequence[tuple[Key, bytes]]) -> list[tuple[Key, bytes]]:
    found = await together((_stat(key) for key, _ in entries), limit=READS_AT_ONCE)
    return [entry for entry, stat in zip(entries, found, strict=True) if stat is None]


async def _stat(key: Key) -> Stat | None:
    return await StatKey(key)


async def read_manifest(hands: Hands, namespace: Namespace, digest: Digest) -> bytes | None:
    """The bytes of a manifest; None, and told, when they are not there or not right."""
    key = layout.blob_key(digest)
    stat = await StatKey(key)
    if stat is None:
        if await StatKey(layout.revision_key(namespace, digest)) is not None:
            detail = f"there are no bytes of a manifest of {namespace}; push it again, or delete it"
            hands.note(key, "missing-bytes", detail)
        return None
    if stat.size > hands.settings.manifest_bytes_max:
        # Nobody can have pushed it as a manifest: perhaps the bytes are wrong, and --verify-bytes will tell.
        detail = f"it has {stat.size} bytes, and is a manifest of {namespace}; have it looked at by --verify-bytes"
        hands.note(key, "damaged-record", detail)
        return None
    body: bytes | None = None
    corrupt = False
    try:
        body = await ReadKey(key)
    except StorageCorrupt:
        corrupt = True
    if not corrupt and (body is None or Digest.of(body, digest.algorithm) == digest):
        return body
    await hands.quarantine(key, "corrupt", f"the bytes of a manifest of {namespace} have another digest", stat)
    return None


def _is_object(record: bytes) -> bool:
    try:
        return isinstance(parse_json(record), dict)
    except ValueError:
        return False


async def check_tag(hands: Hands, namespace: Namespace, tag: Tag) -> None:
    """Does the tag lead somewhere, and would the manifest take it along if it were deleted?"""
    event = await newest_event(namespace, tag)
    if event is None or event.kind == "del":
        return
    digest = event.digest
    reference = layout.tag_reference_key(digest, namespace, tag)
    if await StatKey(reference) is None:
        await hands.create(((reference, b""),), "missing-reference", f"the tag {tag} needs it")
    key = layout.revision_key(namespace, digest)
    stat = await StatKey(Key(f"{layout.tag_events_prefix(namespace, tag)}{event}"))
    if stat is None or await StatKey(key) is not None:
        return
    detail = f"the tag {tag} names {digest}, which {namespace} does not have"
    if await hands.is_young(stat):
        hands.note(key, "missing-revision", detail, "postponed")
        return
    # The digest is no password: only what the namespace has had is given back to it.
    had = await StatKey(layout.revision_reference_key(digest, namespace)) is not None
    body = await read_manifest(hands, namespace, digest) if had else None
    try:
        manifest = None if body is None else parse_manifest(body, None)
    except Invalid:
        manifest = None
    if await newest_event(namespace, tag) != event:
        return
    if manifest is None:
        hands.note(key, "missing-revision", f"{detail}; push it again, or delete the tag")
        return
    await hands.create(((key, revision_record(manifest, event.at_ms)),), "missing-revision", detail)
    if not hands.settings.dry_run:
        await check_revision(hands, namespace, digest)


async def check_referrer(hands: Hands, key: Key, namespace: Namespace, referrer: Digest) -> None:
    """Is it a descriptor of a manifest that is there?"""
    stat = await StatKey(key)
    record = None if stat is None else await ReadKey(key)
    if stat is None or record is None:
        return
    here = await StatKey(layout.revision_key(namespace, referrer)) is not None
    if not here:
        moved = await hands.quarantine(key, "orphan-referrer", f"{namespace} does not have {referrer}", stat)
    else:
        wrong = not is_descriptor(record, referrer)
        moved = wrong and await hands.quarantine(key, "corrupt", f"it is no descriptor of {referrer}", stat)
    if moved:  # it is written anew, also when the manifest has come back meanwhile
        await check_revision(hands, namespace, referrer)


def unreadable(error: EffectError) -> str:
    """For a finding."""
    return f"{error}; run it again when the store answers"
