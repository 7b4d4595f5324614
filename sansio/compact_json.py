"""JSON without spaces, as it is stored and sent."""

from __future__ import annotations

import json

_encode = json.JSONEncoder(separators=(",", ":")).encode  # made once: it costs as much as encoding a small document


def compact_json(value: object) -> bytes:
    """The document of these dicts, lists, strings and numbers; pure ASCII."""
    return _encode(value).encode()
