"""Timestamps and durations of the Common Expression Language (language definition, Timestamps and Durations).

Both are counted in nanoseconds. Named time zones need a database, which the core does not have: whoever has one gives
`Zones`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

SECOND = 1_000_000_000
_MILLISECOND = 1_000_000
_EPOCH = datetime(1970, 1, 1)
_FIRST = -62_135_596_800 * SECOND  # 0001-01-01T00:00:00Z
_LAST = 253_402_300_800 * SECOND - 1  # 9999-12-31T23:59:59.999999999Z
_DURATION_MAX = (1 << 63) - 1  # in nanoseconds, about 292 years, as in the implementation in Go

Zones = Callable[[str, int], int]
"""The offset from UTC, in seconds, that a named zone has at a time in seconds since 1970. Raises `EvaluationError` for
a name that is not known."""


class EvaluationError(Exception):
    """An expression has no value. The text says why, without any value of the activation."""


def no_zones(name: str, at: int) -> int:
    """For whoever has no database of time zones."""
    raise EvaluationError("only UTC and offsets such as +02:00 are known as time zones here")


@dataclass(frozen=True, slots=True, order=True)
class Timestamp:
    """A point in time, from the year 1 to the year 9999."""

    nanoseconds: int
    """Since 1970."""

    def __post_init__(self) -> None:
        if not _FIRST <= self.nanoseconds <= _LAST:
            raise EvaluationError("a timestamp is out of range: the year must be 1 to 9999")

    def __str__(self) -> str:
        seconds, fraction = divmod(self.nanoseconds, SECOND)
        return f"{(_EPOCH + timedelta(seconds=seconds)).isoformat()}{_fraction(fraction)}Z"


@dataclass(frozen=True, slots=True, order=True)
class Duration:
    """A span of time; may be negative."""

    nanoseconds: int

    def __post_init__(self) -> None:
        if abs(self.nanoseconds) > _DURATION_MAX:
            raise EvaluationError("a duration is out of range: about 292 years are the most")

    def __str__(self) -> str:
        seconds, fraction = divmod(abs(self.nanoseconds), SECOND)
        return f"{'-' if self.nanoseconds < 0 else ''}{seconds}{_fraction(fraction)}s"


def _fraction(nanoseconds: int) -> str:
    return f".{nanoseconds:09d}".rstrip("0") if nanoseconds else ""


# --- reading ----------------------------------------------------------------------------------------------------------

_TIMESTAMP = re.compile(
    r"([0-9]{4,5})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,9}))?(?:Z|([+-])([0-9]{2}):([0-9]{2}))"
)
_PART = re.compile(r"([0-9]{0,20})(?:\.([0-9]{0,20}))?(h|ms|m|s|us|µs|μs|ns)")
_UNITS = {
    "h": 3600 * SECOND,
    "m": 60 * SECOND,
    "s": SECOND,
    "ms": _MILLISECOND,
    "us": 1000,
    "µs": 1000,
    "μs": 1000,
    "ns": 1,
}
_OFFSET = re.compile(r"([+-]?)([01][0-9]|2[0-3]):([0-5][0-9])")


def timestamp_from_seconds(seconds: int) -> Timestamp:
    """Seconds since 1970."""
    return Timestamp(seconds * SECOND)


def parse_timestamp(text: str) -> Timestamp:
    """RFC 3339, such as ``2009-02-13T23:31:30.5Z``."""
    found = _TIMESTAMP.fullmatch(text)
    if found is None:
        raise EvaluationError("a text is no timestamp of RFC 3339, such as 2009-02-13T23:31:30Z")
    try:
        moment = datetime(*(int(part) for part in found.group(1, 2, 3, 4, 5, 6)))  # type: ignore[arg-type]
    except ValueError:
        raise EvaluationError("a timestamp is out of range: it has a year, month, day or time that is none") from None
    seconds = (moment - _EPOCH) // timedelta(seconds=1)
    if found[8]:
        offset = int(found[9]) * 3600 + int(found[10]) * 60
        seconds += offset if found[8] == "-" else -offset
    return Timestamp(seconds * SECOND + int((found[7] or "0").ljust(9, "0")))


def parse_duration(text: str) -> Duration:
    """Numbers with units, such as ``1h30m``, ``1.5s`` or ``-20ms``."""
    negative, rest = text.startswith("-"), text.removeprefix("-") if text.startswith("-") else text.removeprefix("+")
    if rest == "0":
        return Duration(0)
    total, at = 0, 0
    while at < len(rest):
        found = _PART.match(rest, at)
        if found is None or not (found[1] or found[2]) or at > 100:
            break
        unit = _UNITS[found[3]]
        total += int(found[1] or "0") * unit
        if found[2]:
            total += int(found[2]) * unit // 10 ** len(found[2])
        at = found.end()
    if at < len(rest) or not rest:
        raise EvaluationError('a text is no duration, such as "1h30m", "90s" or "250ms"')
    return Duration(-total if negative else total)


# --- parts ------------------------------------------------------------------------------------------------------------


def _local(timestamp: Timestamp, zone: str, zones: Zones) -> datetime:
    seconds = timestamp.nanoseconds // SECOND
    if found := _OFFSET.fullmatch(zone):
        offset = int(found[2]) * 3600 + int(found[3]) * 60
        offset = -offset if found[1] == "-" else offset
    else:
        offset = 0 if zone == "UTC" else zones(zone, seconds)
    try:
        return _EPOCH + timedelta(seconds=seconds + offset)
    except OverflowError:
        raise EvaluationError("a timestamp is out of range in its time zone") from None


_FROM_TIMESTAMP: dict[str, Callable[[datetime], int]] = {
    "getFullYear": lambda local: local.year,
    "getMonth": lambda local: local.month - 1,
    "getDate": lambda local: local.day,
    "getDayOfMonth": lambda local: local.day - 1,
    "getDayOfWeek": lambda local: local.isoweekday() % 7,
    "getDayOfYear": lambda local: local.timetuple().tm_yday - 1,
    "getHours": lambda local: local.hour,
    "getMinutes": lambda local: local.minute,
    "getSeconds": lambda local: local.second,
}

_FROM_DURATION = {"getHours": 3600 * SECOND, "getMinutes": 60 * SECOND, "getSeconds": SECOND}

PARTS = (*_FROM_TIMESTAMP, "getMilliseconds")
"""The methods that take a timestamp or a duration apart."""


def part_of_timestamp(part: str, timestamp: Timestamp, zone: str, zones: Zones) -> int:
    """One of `PARTS`. Months, days of the month and of the year count from 0, days of the week from Sunday, 0."""
    local = _local(timestamp, zone, zones)
    if part == "getMilliseconds":
        return timestamp.nanoseconds % SECOND // _MILLISECOND
    return _FROM_TIMESTAMP[part](local)


def part_of_duration(part: str, duration: Duration) -> int | None:
    """The whole duration in a unit, towards zero, but of the milliseconds only those beyond whole seconds: so says the
    specification. None for a part that durations do not have."""
    size = abs(duration.nanoseconds)
    if part == "getMilliseconds":
        found = size % SECOND // _MILLISECOND
    elif part in _FROM_DURATION:
        found = size // _FROM_DURATION[part]
    else:
        return None
    return -found if duration.nanoseconds < 0 else found
