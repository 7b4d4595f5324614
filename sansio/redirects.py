"""Sending a client to the store itself for the bytes of a blob or a manifest (RFC 9110 section 15.4.8).

Whoever is shown such a URL can read the value until the URL lapses, and nobody asks the registry again. So a redirect
takes the place of bytes that would be sent otherwise: after the client was let in, the namespace was found to own the
value, and its bytes to be there.

The registry answers itself what the store would answer differently: conditions, because the store has entity tags of
its own, several ranges, and ranges that cannot be satisfied. HEAD is never redirected: it carries no bytes, and clients
want the digest that only the registry tells. A client that cannot follow says so with ``X-Angos-No-Redirect``.
"""

from __future__ import annotations

import re

from angos.sansio.effects import Key, SignUrl
from angos.sansio.http.byte_range import parse_range
from angos.sansio.http.message import Redirect, Request, Response
from angos.sansio.oci.digest import Digest

_CONDITIONS = frozenset({"if-match", "if-modified-since", "if-range", "if-unmodified-since"})
_ONE_RANGE = re.compile(r"bytes=[0-9]*-[0-9]*")


def may_be_sent_elsewhere(request: Request, size: int) -> bool:
    """True when the store would give this client, for a value of `size` bytes, the answer that the registry would."""
    if request.method != "GET":
        return False
    for name, value in request.headers.fields:
        if name in _CONDITIONS:
            return False
        if name == "x-angos-no-redirect" and value.strip().lower() not in ("", "0", "false"):
            return False
    wanted = request.headers.joined("range")
    if wanted is None:
        return True
    return _ONE_RANGE.fullmatch(wanted) is not None and isinstance(parse_range(wanted, size, ranges_max=1), tuple)


async def sent_elsewhere(key: Key, digest: Digest, media_type: str) -> Response | None:
    """The redirect; None when the store cannot sign one. It must not be kept: the URL lapses."""
    signed = await SignUrl(key, media_type)
    if signed is None:
        return None
    headers = (("Docker-Content-Digest", str(digest)), ("Cache-Control", "no-store"))
    return Response(307, headers, Redirect(signed.address, signed.query))
