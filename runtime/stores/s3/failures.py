"""What became of one attempt to ask a bucket, and what an effect fails with for it."""

from __future__ import annotations

import re

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


class Refusal(Exception):
    """A definite no, which asking again will not change."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(f"{_ADVICE.get(code, 'it refuses')} ({status} {code})" if code else f"it refuses ({status})")
        self.kind: type[EffectError] = StorageFull if status == 507 or code in _FULL_CODES else StorageRefused


def failure_of(status: int, code: str) -> AttemptFailed | Refusal:
    """What an answer with this status and this code of an error document means."""
    if not _CODE.fullmatch(code):  # goes into logs
        code = ""
    if code in _FULL_CODES or status == 507:
        return Refusal(status, code)
    if code in _AGAIN_CODES or (status in _AGAIN_STATUSES and code not in _ADVICE):
        return AttemptFailed(f"it answered {status} {code}".rstrip())
    return Refusal(status, code)
