"""The look at everything: names for the collector what nobody needs and nobody has named.

Needed once for a store from before there was a collector, and perhaps after crashes, which may leave bytes that were
never named. Costs what is stored, not what has changed; removes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

from angos.sansio import layout
from angos.sansio.collection.collector import ASKED_AT_ONCE, GROUP, GROUPS_AT_ONCE, PAGE, WORK, why_not
from angos.sansio.collection.examination import Examined, Revisions, examine
from angos.sansio.collection.presence import suspect
from angos.sansio.config import RegistryConfig
from angos.sansio.effects import EffectError, ListKeys, Page, Prefix, ReadClock, StatKeys, Tell
from angos.sansio.oci.digest import Digest
from angos.sansio.progress import Passed, Progress
from angos.sansio.together import together


@dataclass(frozen=True, slots=True)
class Swept:
    """What a look at everything has come to."""

    examined: int
    """Blobs, and blobs that are not there but have names, that were looked at; each of them once."""
    named: int
    """Those that the collector will look at after the grace period."""
    passed_over: int
    """What could not be read."""
    refused: str = ""
    """Why nothing was done, in a sentence."""


async def suspect_needless(config: RegistryConfig, *, dry_run: bool = False) -> Swept:
    """Look at every blob, and then at every name of a blob that is not there."""
    if (refusal := await why_not()) is not None:
        return Swept(0, 0, 0, refusal)
    examined = named = passed_over = 0
    for prefix in (layout.BLOBS_PREFIX, layout.REFERENCES_PREFIX):
        after, more, last = "", True, None
        while more:
            page, behind, problem = await _page(prefix, after)
            if problem:
                passed_over += 1
                await Tell(Passed(WORK, prefix + behind[:-1], problem))
            after, more = behind, page.more
            digests = [digest for digest in _digests(prefix, page.names) if digest != last]
            last = digests[-1] if digests else last
            if prefix == layout.REFERENCES_PREFIX:
                digests = await _without_bytes(digests)
            looks = await _look(digests, config)
            for each in looks:
                if each.problem:
                    passed_over += 1
                    await Tell(Passed(WORK, str(each.digest), each.problem))
            needless = [each.digest for each in looks if each.excuse is None or each.void or each.again]
            if not dry_run:
                await suspect(needless)
            examined, named = examined + len(digests), named + len(needless)
            await Tell(Progress(WORK, "looking at everything", examined, None, (("named", named),)))
    await Tell(Progress(WORK, "", examined, None, (("examined", examined), ("named", named)), ended=True))
    return Swept(examined, named, passed_over)


async def _page(prefix: Prefix, after: str) -> tuple[Page, str, str]:
    """A page, behind what the next one comes, and, when a folder comes next that cannot be read, the reason."""
    try:
        page = await ListKeys(prefix, after, PAGE)
    except EffectError as error:
        if not error.behind:
            raise
        return Page((), more=True), error.behind, str(error)
    return page, page.last, ""


async def _without_bytes(digests: Sequence[Digest]) -> list[Digest]:
    """The others have been looked at, if that can be told."""
    try:
        stats = await StatKeys(tuple(map(layout.blob_key, digests))) if digests else ()
    except EffectError:
        return list(digests)
    return [digest for digest, stat in zip(digests, stats, strict=True) if stat is None]


async def _look(digests: Sequence[Digest], config: RegistryConfig) -> tuple[Examined, ...]:
    """What a collector would find if nobody had touched anything for long. Blobs that it will look at anyway are left
    out."""
    suspected = await together(map(_is_suspected, digests), limit=ASKED_AT_ONCE)
    unsuspected = [digest for digest, is_one in zip(digests, suspected, strict=True) if not is_one]
    now_ms = await ReadClock()
    revisions = Revisions(now_ms, config.history_seconds)
    looks = (
        examine(unsuspected[start : start + GROUP], {}, now_ms, None, revisions)
        for start in range(0, len(unsuspected), GROUP)
    )
    return tuple(chain.from_iterable(await together(looks, limit=GROUPS_AT_ONCE)))


async def _is_suspected(digest: Digest) -> bool:
    return bool((await ListKeys(layout.suspects_prefix(digest), limit=1)).names)


def _digests(prefix: Prefix, names: Iterable[str]) -> list[Digest]:
    parse = layout.parse_blob_key if prefix == layout.BLOBS_PREFIX else layout.parse_reference_digest
    found = (parse(prefix + name) for name in names)
    return list(dict.fromkeys(digest for digest in found if digest is not None))
