"""Whether a bucket does what the registry relies on: found out by doing it, under keys that nobody else uses.

Stores that speak the S3 protocol differ, and the worst of them do not refuse what they cannot do: they take no notice
of ``If-None-Match`` and overwrite. So nothing is believed that was not seen. What was seen once is not proven, though:
a store that lets two writers win a race now and then passes when they do not meet.

A start tries only what would fail in silence, in about a dozen small requests: keys that are created at most once,
listings that show them at once, deletion, clocks, signed URLs. Copies, pieces and ranges fail with an error when they
are used; the operator's command tries them too.

A try leaves nothing behind. What is left of one that was killed is removed by another one, `REMAINS_MS` later. So any
number of replicas may try the same bucket at the same time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

from angos.sansio import layout
from angos.sansio.bucket.listing import sizes_below, uploads_below
from angos.sansio.bucket.plans import complete, create, delete
from angos.sansio.bucket.requests import (
    AbortPieces,
    BeginPieces,
    CompareClocks,
    Copy,
    CopyPiece,
    DrawWriter,
    Fetch,
    FetchSigned,
    Get,
    List,
    Put,
    PutPiece,
    SideBySide,
    Terms,
)
from angos.sansio.effects import EffectError, Prefix, StorageFull, StorageRefused, StorageUnavailable
from angos.sansio.findings import Fails, Finding, doubts, faults

REMAINS_MS = 3600 * 1000  # no store takes a signature from a clock that is wrong by more than 15 minutes
CLOCKS_MS = 60 * 1000
RACERS = 4
VALUE = b"angos tries out what this bucket does"
MEDIA_TYPE = "application/vnd.angos.probe+json"
NAMES = ("B.c!", "b!/d", "b-c/d!", "b.c", "b/c!/d", "b_c")  # in the order of their code points
FOLDERS = ("b!/", "b-c/", "b/")

LETS_CLIENTS_IN = "lets clients in with signed URLs"

Check = Callable[["_Place"], Awaitable[str | None]]
"""What is worth knowing of something that works."""


class _Place:
    """Where one try takes place."""

    def __init__(self, prefix: Prefix, terms: Terms, at_ms: int) -> None:
        self.prefix = prefix
        self.terms = terms
        self.at_ms = at_ms
        self.remains: tuple[str, ...] = ()
        """Folders of earlier tries."""

    def key(self, name: str) -> str:
        return f"{self.prefix}{name}"

    def shown(self, error: Exception) -> str:
        """What it says, without the part of keys that nobody will ever see."""
        return str(error).replace(self.prefix, layout.PROBES_PREFIX)


async def probe(terms: Terms, at_ms: int, *, thorough: bool) -> tuple[Finding, ...]:
    """What the bucket does and what it does not. Never fails. `thorough` tries everything, and sends some megabytes."""
    place = _Place(layout.probe_prefix(at_ms, await DrawWriter()), terms, at_ms)
    findings: list[Finding] = []
    for need, check, without in _EVERYTHING if thorough else _SILENT:
        if any(each.verdict != "works" for each in findings[:2]):  # there is nothing to try the rest with
            findings.append(Finding(need, "not tried", "", without))
        else:
            findings.append(await _tried(place, need, check, without))
    if findings[0].verdict == "works":
        with suppress(EffectError):  # a later try removes what is left
            await _remove(place.prefix, terms)
            await _remove_remains(place, uploads=thorough)
    return tuple(findings)


async def ensure(terms: Terms, at_ms: int) -> None:
    """For a process that is about to write and does not know whether the bucket can be trusted with it.

    Fails with `StorageRefused` when it cannot, and with `StorageUnavailable` when that cannot be found out now.
    """
    findings = await probe(terms, at_ms, thorough=False)
    for finding in faults(findings):
        raise StorageRefused(f"nothing is written to {terms.name}: {finding.reason}")
    for finding in doubts(findings):
        raise terms.unavailable("trying out before anything is written", finding.reason)


async def _tried(place: _Place, need: str, check: Check, without: str) -> Finding:
    try:
        return Finding(need, "works", await check(place) or "", without)
    except (StorageUnavailable, StorageFull) as error:
        return Finding(need, "unknown", place.shown(error), without)
    except (Fails, EffectError) as error:
        return Finding(need, "fails", place.shown(error), without)


async def _remove(prefix: Prefix, terms: Terms) -> None:
    keys = [prefix + name for name in await sizes_below(prefix, terms)]
    if keys:
        await delete(keys, terms)


async def _remove_remains(place: _Place, *, uploads: bool) -> None:
    for folder in place.remains:
        await _remove(Prefix(layout.PROBES_PREFIX + folder), place.terms)
    for key, upload_id in await uploads_below(layout.PROBES_PREFIX, place.terms) if uploads else ():
        folder = key.removeprefix(layout.PROBES_PREFIX).partition("/")[0]
        if _is_old(folder, place.at_ms):
            await AbortPieces(key, upload_id)


def _is_old(folder: str, at_ms: int) -> bool:
    began_ms = layout.parse_probe_folder(folder)
    return began_ms is not None and began_ms < at_ms - REMAINS_MS


# --- the checks -------------------------------------------------------------------------------------------------------


async def _lets_us_in(place: _Place) -> None:
    listed = await List(layout.PROBES_PREFIX, "", "", place.terms.listing_max, folders=True)
    place.remains = tuple(each for each in listed.folders if _is_old(each.removesuffix("/"), place.at_ms))


async def _has_our_time(_place: _Place) -> str | None:
    ahead_ms = await CompareClocks()
    if ahead_ms is None:
        return "it does not tell its time"
    seconds = abs(ahead_ms) / 1000
    if abs(ahead_ms) > CLOCKS_MS:
        raise Fails(f"its clock is {seconds:.0f} s {'ahead of' if ahead_ms > 0 else 'behind'} that of this machine")
    return None


async def _keeps(place: _Place) -> None:
    if await Get(place.key("absent")) is not None:
        raise Fails("it has an object under a key that nobody has used")
    await Put(place.key("original"), (VALUE,))
    await _expect(place.key("original"), VALUE)


async def _creates_at_most_once(place: _Place) -> None:
    key = place.key("contended")
    values = [b"writer %d" % number for number in range(RACERS)]
    won = await SideBySide(tuple(partial(create, key, value) for value in values), RACERS)
    if sum(won) != 1:
        raise Fails(
            f"{sum(won)} of {RACERS} writers were told that they created the same key; it takes no notice of"
            " If-None-Match, or not at once, and the registry needs a store with conditional writes"
        )
    if await create(key, VALUE):
        raise Fails("it overwrites in spite of If-None-Match, and the registry needs a store with conditional writes")
    await _expect(key, values[won.index(True)])


async def _lists(place: _Place) -> None:
    found = await sizes_below(place.prefix, place.terms)
    if missing := {"contended", "original"} - set(found):
        raise Fails(f"a key that was just created is not listed: {place.key(min(missing))}")


async def _deletes(place: _Place) -> None:
    await delete([place.key("contended"), place.key("absent")], place.terms)
    if "contended" in await sizes_below(place.prefix, place.terms):
        raise Fails("a key that was just deleted is still listed")
    if await Get(place.key("contended")) is not None:
        raise Fails("a key that was just deleted is still there")


async def _lists_in_order(place: _Place) -> None:
    inside, terms = Prefix(place.key("listed/")), place.terms
    await SideBySide(tuple(partial(create, inside + name, b"") for name in reversed(NAMES)), terms.requests_at_once)
    found, _ = await _pages(inside, "", len(NAMES) // 2)
    if found != NAMES:
        missing = sorted(set(NAMES) - set(found))
        raise Fails(
            f"a key that was just created is not listed: {missing[0]}"
            if missing
            else "keys are not listed once each in the order of their code points"
        )
    found, _ = await _pages(inside, NAMES[3], terms.listing_max)
    if found != NAMES[4:]:
        raise Fails("a listing does not begin after the key that it is told to (start-after)")
    _, folders = await _pages(inside, "", terms.listing_max, folders=True)
    if folders != FOLDERS:
        raise Fails("a listing does not roll keys up into folders (delimiter)")


async def _pages(
    inside: Prefix, after: str, limit: int, *, folders: bool = False
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    keys: list[str] = []
    rolled: list[str] = []
    token: str | None = ""
    while token is not None and len(keys) + len(rolled) <= len(NAMES):  # a store may go round in circles
        listed = await List(inside, after, token, limit, folders)
        keys += (name for name, _ in listed.keys)
        rolled += listed.folders
        token = listed.next_token
    return tuple(keys), tuple(rolled)


async def _gives_ranges(place: _Place) -> None:
    if await Fetch(place.key("original"), 6, 5) != VALUE[6:11]:
        raise Fails("it gave other bytes than those that were asked for (Range)")


async def _copies(place: _Place) -> None:
    if not await Copy(place.key("original"), place.key("copy")):
        raise Fails("it does not find the object to copy")
    await _expect(place.key("copy"), VALUE)


async def _joins_pieces(place: _Place) -> None:
    """Several pieces, sent in another order than theirs, the last one copied."""
    key, size = place.key("joined"), place.terms.piece_bytes_min
    upload_id = await BeginPieces(key)
    third = await CopyPiece(key, upload_id, 3, place.key("original"), 0, len(VALUE))
    if third is None:
        raise Fails("it does not find the object to copy a piece from")
    second = await PutPiece(key, upload_id, 2, (b"2" * size,))
    first = await PutPiece(key, upload_id, 1, (b"1" * size,))
    if (key, upload_id) not in await uploads_below(place.prefix, place.terms):
        raise Fails("a multipart upload that has begun is not listed")
    await complete(key, upload_id, (first, second, third), place.terms, new_size=2 * size + len(VALUE))
    for start, expected in ((size - 2, b"1122"), (2 * size - 2, b"22" + VALUE)):
        if await Fetch(key, start, len(expected)) != expected:
            raise Fails("what it made of several pieces has other bytes than these")


async def _forgets_pieces(place: _Place) -> None:
    key = place.key("aborted")
    upload_id = await BeginPieces(key)
    await PutPiece(key, upload_id, 1, (VALUE,))
    await AbortPieces(key, upload_id)
    if (key, upload_id) in await uploads_below(place.prefix, place.terms):
        raise Fails("a multipart upload that was aborted is still listed")


async def _lets_clients_in(place: _Place) -> None:
    if await FetchSigned(place.key("original"), MEDIA_TYPE) != VALUE:
        raise Fails("it gave other bytes than those of the object")


async def _expect(key: str, value: bytes) -> None:
    found = await Get(key)
    if found != value:
        raise Fails("an object that was just written is absent" if found is None else "an object has other bytes")


_SILENT: tuple[tuple[str, Check, str], ...] = (
    ("lets the registry in", _lets_us_in, ""),
    ("keeps what it is given", _keeps, ""),
    ("creates a key at most once", _creates_at_most_once, ""),
    ("lists what was just created", _lists, ""),
    ("deletes", _deletes, ""),
    (
        "has the time of this machine",
        _has_our_time,
        "it may refuse signatures, all of them from 15 minutes on, and pushes of one tag through several machines may"
        " be taken in the wrong order; set both clocks right",
    ),
    (
        LETS_CLIENTS_IN,
        _lets_clients_in,
        "no client is sent there (enable_blob_redirect, enable_manifest_redirect): all bytes go through the registry",
    ),
)
_EVERYTHING: tuple[tuple[str, Check, str], ...] = (
    *_SILENT,
    ("lists keys in order and in pages", _lists_in_order, ""),
    ("gives ranges of objects", _gives_ranges, ""),
    ("copies objects", _copies, ""),
    ("joins pieces, sent or copied", _joins_pieces, ""),
    ("forgets pieces", _forgets_pieces, "pieces of uploads that fail may cost space until a lifecycle rule ends them"),
)
