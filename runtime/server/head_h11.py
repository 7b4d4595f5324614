"""Header fields by h11, the default parser. h11 sees one complete head and never a body."""

from __future__ import annotations

import re
from collections.abc import Sequence

import h11

from angos.runtime.server.framing import Field, HeadRefused

# h11 bounds only what it has to wait for, and it always gets a complete head; the caller has bounded that.
_UNBOUNDED = 1 << 30

_CONTENT_LENGTH = re.compile(rb"\ncontent-length:[ \t]*([^\r]*?)[ \t]*\r", re.IGNORECASE)


def parse_fields(raw: bytes) -> Sequence[Field]:
    """See `angos.runtime.server.framing.ParseFields`."""
    parser = h11.Connection(h11.SERVER, max_incomplete_event_size=_UNBOUNDED)
    try:
        parser.receive_data(raw)
        event = parser.next_event()
    except h11.RemoteProtocolError as error:
        raise HeadRefused(400, "the request is not valid HTTP/1.1") from error
    if not isinstance(event, h11.Request) or parser.trailing_data[0]:
        raise HeadRefused(400, "the request is not valid HTTP/1.1")
    fields: list[Field] = list(event.headers)
    for name, value in fields:
        # h11 makes one of several equal lengths; which bytes of the request are its body must not need any mending.
        if name == b"content-length" and _CONTENT_LENGTH.findall(raw) != [value]:
            raise HeadRefused(400, "the request has more than one Content-Length")
    return fields
