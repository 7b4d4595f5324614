"""Signature Version 4 (Amazon S3 API Reference, "Authenticating Requests"): of our own requests, in their header, and
of requests that somebody else is to make, in their query."""

from __future__ import annotations

import hmac
import time
from collections.abc import Mapping
from functools import lru_cache
from hashlib import sha256
from urllib.parse import quote

from angos.runtime.stores.s3.options import Credentials
from angos.sansio.secret import Secret

UNSIGNED_PAYLOAD = "UNSIGNED-PAYLOAD"
"""Instead of the digest of a body that TLS protects anyway."""


def percent_encoded(text: str, safe: str = "") -> str:
    """As the signature wants it: all but letters, digits and ``-._~``."""
    return quote(text, safe=safe)


def query_text(query: Mapping[str, str]) -> str:
    """A query in the order in which it is signed."""
    return "&".join(f"{name}={value}" for name, value in sorted(_encoded(query)))


def _encoded(query: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(percent_encoded(name), percent_encoded(value)) for name, value in query.items()]


def signed_fields(
    method: str,
    path: str,
    query: str,
    fields: Mapping[str, str],
    payload_digest: str,
    *,
    credentials: Credentials,
    region: str,
    at_seconds: float,
) -> dict[str, str]:
    """`fields` (names in lower case, ``host`` among them) and those that sign all of them.

    `path` and `query` are encoded already, `payload_digest` is SHA-256 in hex or `UNSIGNED_PAYLOAD`. `at_seconds` is
    wall-clock time: a store refuses what is more than 15 minutes from its own.
    """
    moment = _moment(at_seconds)
    signed = {**fields, "x-amz-content-sha256": payload_digest, "x-amz-date": moment}
    if credentials.session_token is not None:
        signed["x-amz-security-token"] = credentials.session_token.value
    names = sorted(signed)
    listed = ";".join(names)
    lines = "".join(f"{name}:{signed[name].strip()}\n" for name in names)
    request = f"{method}\n{path}\n{query}\n{lines}\n{listed}\n{payload_digest}"
    day = moment[:8]
    scope = f"{day}/{region}/s3/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{sha256(request.encode()).hexdigest()}"
    signature = hmac.digest(_day_key(credentials.secret_key, day, region), text.encode(), "sha256").hex()
    signed["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={credentials.access_key_id}/{scope},SignedHeaders={listed},Signature={signature}"
    )
    return signed


def presigned_query(
    path: str,
    host: str,
    media_type: str | None = None,
    *,
    credentials: Credentials,
    region: str,
    at_seconds: float,
    lifetime_seconds: int,
) -> str:
    """The query with which anybody may GET this path from now on, for so long; the answer is then of this media type.

    `path` is encoded already. Takes some microseconds: most of what goes into it stays the same for a second.
    """
    query, beginning, key = _standing(credentials, region, int(at_seconds), lifetime_seconds)
    if media_type is not None:
        query = f"{query}&response-content-type={_encoded_type(media_type)}"
    request = f"GET\n{path}\n{query}\nhost:{host}\n\nhost\n{UNSIGNED_PAYLOAD}"
    text = f"{beginning}{sha256(request.encode()).hexdigest()}"
    return f"{query}&X-Amz-Signature={hmac.digest(key, text.encode(), 'sha256').hex()}"


@lru_cache(maxsize=8)
def _standing(credentials: Credentials, region: str, at_seconds: int, lifetime_seconds: int) -> tuple[str, str, bytes]:
    """What all URLs of a second share: the beginning of the query and of what is signed, and the key that signs it."""
    moment = _moment(at_seconds)
    scope = f"{moment[:8]}/{region}/s3/aws4_request"
    token = credentials.session_token
    query = {
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
        "X-Amz-Credential": f"{credentials.access_key_id}/{scope}",
        "X-Amz-Date": moment,
        "X-Amz-Expires": str(lifetime_seconds),
        **({} if token is None else {"X-Amz-Security-Token": token.value}),
        "X-Amz-SignedHeaders": "host",
    }
    key = _day_key(credentials.secret_key, moment[:8], region)
    return query_text(query), f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n", key


def _moment(at_seconds: float) -> str:
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(at_seconds))


@lru_cache(maxsize=256)
def _encoded_type(media_type: str) -> str:
    return percent_encoded(media_type)


@lru_cache(maxsize=8)
def _day_key(secret: Secret, day: str, region: str) -> bytes:
    key = f"AWS4{secret.value}".encode()
    for text in (day, region, "s3", "aws4_request"):
        key = hmac.digest(key, text.encode(), "sha256")
    return key
