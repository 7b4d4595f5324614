"""``Warning`` headers (distribution-spec, Warnings): shown to people by their client, never acted on."""

from __future__ import annotations

from collections.abc import Iterable

from angos.sansio.http.message import Header

WARNINGS_LENGTH_MAX = 4096  # of all warnings of one answer, says the specification


def warnings(texts: Iterable[str]) -> list[Header]:
    """One header for each text, as many as fit. Texts are printable ASCII."""
    headers: list[Header] = []
    left = WARNINGS_LENGTH_MAX
    for text in texts:
        quoted = text.replace("\\", "\\\\").replace('"', '\\"')
        value = f'299 - "{quoted}"'
        left -= len(value)
        if left < 0:
            break
        headers.append(("Warning", value))
    return headers
