"""How a scrub takes wrong bytes away from under a digest that somebody may be pushing right now.

As a collector does, whose module says why that is enough: under a mark, by a permit, and within a time. Whoever pushes
the bytes writes them, then looks for marks. If ours was there he waits, and looks at the end whether his bytes are; if
not, they were there before our mark, and so before our last look at what lies under the digest: we see them and leave
them alone.
"""

from __future__ import annotations

from angos.sansio import layout
from angos.sansio.collection.collector import REMOVAL_SECONDS, SETTLED_SECONDS
from angos.sansio.collection.presence import mark_value
from angos.sansio.effects import (
    CreateKeys,
    DeleteKeys,
    DeleteKeysWithin,
    DrawId,
    EffectError,
    Key,
    Sleep,
    Stat,
    StatKey,
)
from angos.sansio.oci.digest import Digest


async def remove_bytes(digest: Digest, judged: Stat) -> bool:
    """Remove the bytes that were like this when they were judged. False: somebody has replaced them, or forbids it."""
    permit, mark = layout.permit_key(await DrawId()), layout.mark_key(await DrawId())
    await CreateKeys(((permit, b""),))
    await CreateKeys(((mark, mark_value((digest,))),))
    failure: EffectError | None = None
    removed = False
    try:
        removed = await _remove_marked(layout.blob_key(digest), judged, permit)
    except EffectError as error:
        failure = error
    if failure is not None:  # it may still happen, and whoever pushes has to wait for that too
        await Sleep(SETTLED_SECONDS)
    await DeleteKeys((mark,))
    await DeleteKeys((permit,))
    if failure is not None:
        raise failure
    return removed


async def _remove_marked(key: Key, judged: Stat, permit: Key) -> bool:
    if await StatKey(key) != judged or await StatKey(permit) is None:
        return False
    await DeleteKeysWithin((key,), REMOVAL_SECONDS)
    return True
