"""Trying a bucket out, before anything is kept in it."""

from __future__ import annotations

from anyio import move_on_after

from angos.runtime.clock import SystemClock
from angos.runtime.stores.s3.bucket import Bucket
from angos.runtime.stores.s3.carrying_out import carry_out
from angos.runtime.stores.s3.options import S3Options
from angos.sansio.bucket.probe import probe
from angos.sansio.effects import ReadClock
from angos.sansio.findings import Finding

START_SECONDS = 10.0
"""How long a start waits for a store that does not answer. The first write tries it out then."""
THOROUGH_SECONDS = 120.0
"""For some 60 requests, and 10 MiB."""


async def try_bucket(options: S3Options, *, thorough: bool) -> tuple[Finding, ...]:
    """What it does and what it does not. Never fails but with `ClientTlsUnusable`."""
    bucket = Bucket(options)
    seconds = THOROUGH_SECONDS if thorough else START_SECONDS
    findings: tuple[Finding, ...] = (
        Finding("answers in time", "unknown", f"trying out {bucket.terms.name} was given up after {seconds:g} s"),
    )
    try:
        with move_on_after(seconds):
            findings = await carry_out(bucket, probe(bucket.terms, SystemClock().read(ReadClock()), thorough=thorough))
    finally:
        await bucket.close()
    return findings
