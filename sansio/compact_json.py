"""JSON as it is stored and sent."""

from __future__ import annotations

import json
from typing import Any

_encode = json.JSONEncoder(separators=(",", ":")).encode  # made once: it costs as much as encoding a small document


def compact_json(value: object) -> bytes:
    """The document of these dicts, lists, strings and numbers, without spaces; pure ASCII."""
    return _encode(value).encode()


def parse_json(document: bytes | str) -> Any:
    """What a document says that is stored or that somebody sent. Raises `ValueError` for what is no JSON, and for what
    is nested too deeply to be read."""
    try:
        return json.loads(document)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
