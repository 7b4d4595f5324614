"""What became of one attempt to ask a bucket, and what an effect fails with for it."""

from __future__ import annotations

import re
import time
from email.utils import parsedate_to_datetime

from angos.sansio.bucket.attempts import AttemptFailed
from angos.sansio.effects import EffectError, StorageFull, StorageRefused

_CODE = re.compile(r"[A-Za-z0-9.]{1,64}")

_AGAIN_STATUSES = frozenset({408, 409, 429, 500, 502, 503, 504})
_AGAIN_CODES = frozenset(
    {
        "RequestTimeout",
        "SlowDown",
        "InternalError",
        "ServiceUnavailable",
        "OperationAborted",
        "ConditionalRequestConflict",
    }
)
_FULL_CODES = frozenset({"QuotaExceeded", "XMinioStorageFull", "XMinioBucketQuotaExceeded", "InsufficientStorage"})

_ADVICE = {
    "AccessDenied": "these keys may not do this; look at the policies of the user and of the bucket",
    "AuthorizationHeaderMalformed": "the bucket is in another region than the one configured",
    "ExpiredToken": "the session token has expired",
    "InvalidAccessKeyId": "it does not know this access key id",
    "NoSuchBucket": "there is no such bucket",
    "NotImplemented": "it cannot do this; the registry needs a store that can",
    "PermanentRedirect": "the bucket is at another endpoint or in another region than the one configured",
    "RequestTimeTooSkewed": "its clock and that of this machine differ too much; set them right",
    "SignatureDoesNotMatch": "the secret key does not belong to the access key id",
}

_ADVICE_OF_STATUS = {
    403: "it refuses these keys, and does not say why; look at them, and at the policies of the user and of the bucket",
    404: "the answer is not that of a store of S3; look at the endpoint and what lies in between",
}
SKEW_SECONDS_MAX = 900  # of the time in a signature (Amazon S3 API Reference, Error Responses: RequestTimeTooSkewed)


class Refusal(Exception):
    """A definite no, which asking again will not change."""

    def __init__(self, status: int, code: str, date: str | None) -> None:
        advice = _ADVICE.get(code, "it refuses")
        theirs = seconds_of(date)
        if not code:  # an answer to HEAD has no document
            advice = _ADVICE_OF_STATUS.get(status, advice)
            if status == 403 and theirs is not None and abs(theirs - time.time()) > SKEW_SECONDS_MAX:
                code = "RequestTimeTooSkewed?"
                advice = f"perhaps {_ADVICE['RequestTimeTooSkewed']}"
        if code.startswith("RequestTimeTooSkewed") and theirs is not None:
            advice += f" (its time is {date}, {abs(theirs - time.time()):.0f} s from ours)"
        super().__init__(f"{advice} ({status} {code})" if code else f"{advice} ({status})")
        self.kind: type[EffectError] = StorageFull if status == 507 or code in _FULL_CODES else StorageRefused


def seconds_of(date: str | None) -> float | None:
    """A date of HTTP (RFC 9110 section 5.6.7) in seconds since 1970; None when it is none."""
    try:
        return parsedate_to_datetime(date or "").timestamp()
    except ValueError:
        return None


def failure_of(status: int, code: str, date: str | None = None) -> AttemptFailed | Refusal:
    """What an answer with this status, this code of an error document and this ``Date`` means."""
    if not _CODE.fullmatch(code):  # goes into logs
        code = ""
    if code in _FULL_CODES or status == 507:
        return Refusal(status, code, date)
    if code in _AGAIN_CODES or (status in _AGAIN_STATUSES and code not in _ADVICE):
        return AttemptFailed(f"it answered {status} {code}".rstrip())
    return Refusal(status, code, date)
