"""Signature Version 4 in the header of a request (Amazon S3 API Reference, "Authenticating Requests")."""

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
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(at_seconds))
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
    signature = hmac.new(_day_key(credentials.secret_key, day, region), text.encode(), sha256).hexdigest()
    signed["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={credentials.access_key_id}/{scope},SignedHeaders={listed},Signature={signature}"
    )
    return signed


@lru_cache(maxsize=8)
def _day_key(secret: Secret, day: str, region: str) -> bytes:
    key = f"AWS4{secret.value}".encode()
    for text in (day, region, "s3", "aws4_request"):
        key = hmac.new(key, text.encode(), sha256).digest()
    return key
