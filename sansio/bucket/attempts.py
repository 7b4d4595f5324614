"""How often a request is sent, and what the failures of its attempts amount to.

An attempt without a usable answer may have been carried out, or may be yet. So what a later attempt is told counts with
that doubt: "it is there already" may be the work of an earlier one, and a refusal is not definite any more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from angos.sansio.bucket.requests import BackOff
from angos.sansio.effects import StorageFull, StorageRefused, StorageUnavailable
from angos.sansio.steps import Step


class AttemptFailed(Exception):
    """No usable answer to one attempt. Whether it was carried out is not known; another one may succeed."""


@dataclass(frozen=True, slots=True)
class Attempt(Step[Any]):
    """Send the request once. Fails with `AttemptFailed`, `StorageRefused` or `StorageFull`."""

    again: bool
    """An earlier attempt had no answer."""


async def in_attempts(attempts: int) -> Any:
    """The answer to a request that is sent up to so many times."""
    doubtful, why = False, ""
    for number in range(attempts):
        if number:
            await BackOff(number)
        try:
            return await Attempt(doubtful)
        except AttemptFailed as error:
            doubtful, why = True, str(error)
        except (StorageRefused, StorageFull) as error:
            if doubtful:
                raise StorageUnavailable(str(error)) from None
            raise
    raise StorageUnavailable(why)
