"""What the places of stores do of what the registry relies on, wherever they are."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import anyio

from angos.runtime.stores.disk import UnusableRoot
from angos.sansio.findings import Finding, doubts, faults, table

if TYPE_CHECKING:
    from angos.runtime.stores.s3.options import S3Options

_log = logging.getLogger("angos.storage")


def findings_about(name: str, options: S3Options, *, thorough: bool) -> tuple[Finding, ...]:
    """Of a bucket, which is that of the table `name`. Raises `UnusableRoot` for a certificate that cannot be used.

    On a loop of its own, which ends with all its threads: workers may be forked afterwards.
    """
    from angos.runtime.client.trust import ClientTlsUnusable
    from angos.runtime.stores.s3.probe import try_bucket

    async def tried() -> tuple[Finding, ...]:
        return await try_bucket(options, thorough=thorough)

    try:
        return anyio.run(tried)
    except ClientTlsUnusable as error:
        raise UnusableRoot(f"{name}.s3: {error}") from None


def judge(place: str, findings: tuple[Finding, ...]) -> bool:
    """Whether everything was found out that matters; what is short of the best is logged. Raises `UnusableRoot`."""
    if wrong := faults(findings):
        if len(wrong) == 1:
            raise UnusableRoot(f"{place} cannot hold a store: {wrong[0].reason}")
        raise UnusableRoot(f"{place} cannot hold a store:" + "".join(f"\n  {line}" for line in table(wrong)))
    for finding in findings:
        if finding.verdict == "fails":
            _log.warning("%s: %s: it fails, %s", place, finding.need, finding.consequence)
    for finding in doubts(findings)[:1]:
        _log.error("%s was not tried out, which the first write will do: %s", place, finding.reason)
    return not doubts(findings)
