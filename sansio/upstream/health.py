"""Which upstreams are well: remembered, so that nobody waits for a dead one again and again.

After `FAILURES_MAX` failures in a row an upstream is left alone for a while, then one request probes it while the
others go on to leave it alone; as long as it fails the while doubles. One that answers 429 is not asked for that kind
of thing until it says, which for Docker Hub leaves HEAD and blobs possible while manifests are not. All of it is a
memory that may be lost, and rests in a cache.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from angos.sansio.compact_json import compact_json, parse_json
from angos.sansio.effects import ReadCache, ReadClock, Tell, WriteCache
from angos.sansio.upstream.config import Upstream
from angos.sansio.upstream.effects import Opened, UpstreamAnswer
from angos.sansio.upstream.events import RateLimitSeen, UpstreamSkipped
from angos.sansio.upstream.failure import UpstreamFailure

FAILURES_MAX = 3
SKIP_SECONDS = 5.0
SKIP_SECONDS_MAX = 60.0
FORGET_SECONDS = 600.0
LIMIT_SECONDS = 30.0  # of a 429 that does not say for how long
LIMIT_SECONDS_MAX = 6 * 3600.0  # Docker Hub counts over six hours

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DATE = re.compile(r"[A-Za-z]{3}, ([0-9]{2}) ([A-Za-z]{3}) ([0-9]{4}) ([0-9]{2}):([0-9]{2}):([0-9]{2}) GMT")
_LIMIT = re.compile(r"([0-9]{1,9})(?:\s*;\s*w=([0-9]{1,9}))?")


@dataclass(frozen=True, slots=True)
class _Health:
    failures: int = 0
    until_ms: int = 0
    problem: str = ""


async def check_health(upstream: Upstream, what: str) -> UpstreamFailure | None:
    """Why the upstream is not asked now; None when it is."""
    now_ms = await ReadClock()
    limited = await ReadCache(_name(upstream, f"limit:{what}"))
    if limited is not None and (left := _left(limited, now_ms, LIMIT_SECONDS_MAX)) > 0:
        problem = f"it has had enough requests, the next one is possible in {left:.0f} s"
        return UpstreamFailure("limited", problem, status=503, retry_seconds=left)
    health = _parse(await ReadCache(_name(upstream, "health")))
    if health.failures < FAILURES_MAX:
        return None
    left = (health.until_ms - now_ms) / 1000
    if 0 < left <= SKIP_SECONDS_MAX:
        problem = f"it has failed {health.failures} times, the last time with: {health.problem}"
        return UpstreamFailure("unavailable", problem, status=503, retry_seconds=left)
    # This request is the probe.
    await _remember(upstream, _Health(health.failures, now_ms + int(_skip(health.failures) * 1000), health.problem))
    return None


async def note_failure(upstream: Upstream, what: str, failure: UpstreamFailure) -> None:
    """It failed; remember it if it says that it may fail again. An answer that cannot be used is about what was asked
    for: whoever can ask for that could take the upstream from everybody else."""
    if failure.outcome == "limited":
        seconds = max(failure.retry_seconds, 1.0)
        until_ms = await ReadClock() + int(seconds * 1000)
        await WriteCache(_name(upstream, f"limit:{what}"), str(until_ms).encode(), seconds)
        await Tell(UpstreamSkipped(upstream.name, what, seconds, failure.problem))
    elif failure.outcome == "unavailable":
        failures = _parse(await ReadCache(_name(upstream, "health"))).failures + 1
        seconds = _skip(failures)
        until_ms = await ReadClock() + int(seconds * 1000)
        await _remember(upstream, _Health(failures, until_ms, failure.problem[:200]))
        if failures >= FAILURES_MAX:
            await Tell(UpstreamSkipped(upstream.name, "request", seconds, failure.problem))


async def note_success(upstream: Upstream) -> None:
    """It answered."""
    if await ReadCache(_name(upstream, "health")):
        await WriteCache(_name(upstream, "health"), b"", 1.0)


async def note_limits(upstream: Upstream, answer: UpstreamAnswer | Opened) -> None:
    """What it says about how much more may be asked of it."""
    limit, remaining = (_LIMIT.match(answer.get(f"ratelimit-{name}") or "") for name in ("limit", "remaining"))
    if limit is not None and remaining is not None:
        window = int(limit[2] or remaining[2] or 0)
        await Tell(RateLimitSeen(upstream.name, int(limit[1]), int(remaining[1]), window))


def retry_after(text: str | None, now_ms: int) -> float:
    """The seconds that ``Retry-After`` means (RFC 9110 section 10.2.3); a default when it means nothing, and never more
    than anybody counts over."""
    return min(_seconds(text, now_ms), LIMIT_SECONDS_MAX)


def _seconds(text: str | None, now_ms: int) -> float:
    if text is None:
        return LIMIT_SECONDS
    if text.strip().isdecimal() and len(text) < 10:
        return float(text)
    match = _DATE.fullmatch(text.strip())
    if match is None or match[2].lower() not in _MONTHS:
        return LIMIT_SECONDS
    day, year, hour, minute, second = (int(match[group]) for group in (1, 3, 4, 5, 6))
    try:
        at = datetime(year, _MONTHS.index(match[2].lower()) + 1, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        return LIMIT_SECONDS
    return max(0.0, at.timestamp() - now_ms / 1000)


def _skip(failures: int) -> float:
    return min(SKIP_SECONDS * 2.0 ** min(max(failures - FAILURES_MAX, 0), 10), SKIP_SECONDS_MAX)


async def _remember(upstream: Upstream, health: _Health) -> None:
    value = compact_json({"failures": health.failures, "until_ms": health.until_ms, "problem": health.problem})
    await WriteCache(_name(upstream, "health"), value, FORGET_SECONDS)


def _parse(value: bytes | None) -> _Health:
    try:
        return _Health(**parse_json(value)) if value else _Health()
    except (ValueError, TypeError):
        return _Health()


def _left(value: bytes, now_ms: int, most: float) -> float:
    try:
        left = (int(value) - now_ms) / 1000
    except ValueError:
        return 0.0
    return left if left <= most else 0.0  # the clock has been set back


def _name(upstream: Upstream, what: str) -> str:
    return f"upstream:{what}:{upstream.name}:{upstream.url}"
