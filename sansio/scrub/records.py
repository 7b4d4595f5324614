"""How far a scrub has come, so that the next one goes on there.

A record is a key of its own, named by the time; what an interrupted scrub leaves behind is its newest one. Nothing but
the order of the work depends on it: whatever is done twice is done once.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass

from angos.sansio import layout
from angos.sansio.compact_json import compact_json, parse_json
from angos.sansio.effects import CreateKeys, DeleteKeys, ListKeys, ReadClock, ReadKey
from angos.sansio.scrub.hands import Settings
from angos.sansio.scrub.report import Finding, Tally

FORMAT = 1
RECORD_AGE_MAX_MS = 7 * 86_400_000
"""What was looked at longer ago is looked at again."""


@dataclass(slots=True)
class Place:
    """Where in the store a scrub is."""

    stage: int
    after: str
    """The last name that is done."""


async def load(settings: Settings) -> tuple[Place, Tally] | None:
    """Where an earlier scrub was interrupted, and what it had found; None when there is none to go on with."""
    now_ms = await ReadClock()
    for at_ms in await _times():
        if not 0 <= now_ms - at_ms <= RECORD_AGE_MAX_MS:
            continue
        value = await ReadKey(layout.scrub_key(at_ms))
        found = None if value is None else _parse(value, settings)
        if found is not None:
            return found
    return None


async def store(place: Place, tally: Tally, settings: Settings) -> None:
    """Note it, instead of what was noted before."""
    earlier = await _times()
    key = layout.scrub_key(max([await ReadClock(), *(at_ms + 1 for at_ms in earlier)]))
    record = {
        "format": FORMAT,
        "verify_bytes": settings.verify_bytes,
        "stage": place.stage,
        "after": place.after,
        "objects": tally.objects,
        "bytes_verified": tally.bytes_verified,
        "findings": [asdict(finding) for finding in tally.findings.values()],
        "problems": tally.problems,
        "actions": tally.actions,
    }
    await CreateKeys(((key, compact_json(record)),))
    await _remove(earlier)


async def forget() -> None:
    """It has come to its end."""
    await _remove(await _times())


async def _times() -> list[int]:
    """Of the records that there are. Whatever else lies there is none of ours."""
    page = await ListKeys(layout.SCRUB_PREFIX)
    return [at_ms for name in page.names if (at_ms := layout.parse_ordered_name(name)) is not None]


async def _remove(times: list[int]) -> None:
    if times:
        await DeleteKeys(tuple(layout.scrub_key(at_ms) for at_ms in times))


def _parse(value: bytes, settings: Settings) -> tuple[Place, Tally] | None:
    try:
        record = parse_json(value)
        if record["format"] != FORMAT or record["verify_bytes"] != settings.verify_bytes:
            return None
        place = Place(int(record["stage"]), str(record["after"]))
        if place.stage < 0 or not all(isinstance(text, str) for each in record["findings"] for text in each.values()):
            return None
        findings = [Finding(**each) for each in record["findings"]]
        tally = Tally(
            _counter(record["objects"]),
            int(record["bytes_verified"]),
            {(finding.key, finding.problem): finding for finding in findings},
            _counter(record["problems"]),
            _counter(record["actions"]),
        )
        return place, tally
    except (AttributeError, ValueError, KeyError, TypeError):
        return None  # begin anew


def _counter(value: dict[str, int]) -> Counter[str]:
    return Counter({name: int(number) for name, number in value.items()})
