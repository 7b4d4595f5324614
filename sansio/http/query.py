"""Query parameters. Unknown ones are ignored: containerd adds ``ns`` to everything it sends to a mirror."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote

from angos.sansio.errors import RegistryError


class Query:
    """The parameters of a request target, decoded once. A ``+`` stays a ``+``: media types have them, spaces never."""

    __slots__ = ("_pairs", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        """As it was sent."""
        self._pairs = [_pair(item) for item in text.split("&") if item] if text else []

    def get(self, name: str) -> str | None:
        """The first value, None when the parameter is absent."""
        for key, value in self._pairs:
            if key == name:
                return value
        return None

    def all(self, name: str) -> list[str]:
        """All values, in order."""
        return [value for key, value in self._pairs if key == name]


def _pair(item: str) -> tuple[str, str]:
    name, _, value = item.partition("=")
    return unquote(name), unquote(value)


_NUMBER = re.compile(r"[0-9]{1,100}")


def asked_page_size(query: Query) -> int | None:
    """The value of ``n``; None when it is absent, empty or no number."""
    text = query.get("n")
    return int(text) if text and _NUMBER.fullmatch(text) is not None else None


def page_size(query: Query, *, default: int, largest: int) -> int:
    """The value of ``n``, cut to `largest`. Raises a 400 for what is no number; an empty ``n=`` counts as absent."""
    size = asked_page_size(query)
    if size is not None:
        return min(size, largest)
    if text := query.get("n"):
        raise RegistryError(400, "UNSUPPORTED", f"n={text[:40]!r} must be a whole number, 0 or more")
    return default


def asked_artifact_types(query: Query) -> list[str]:
    """The values of ``artifactType``. A ``+`` that somebody on the way took for a blank is one again."""
    return [text.replace(" ", "+") for text in query.all("artifactType")]


def next_page(path: str, **parameters: str | int | list[str]) -> tuple[str, str]:
    """The ``Link`` header to the following page (RFC 8288), relative so that it survives proxies."""
    pairs = []
    for name, value in parameters.items():
        values = value if isinstance(value, list) else [value]
        pairs += [f"{name}={quote(str(one), safe='')}" for one in values]
    return ("Link", f'<{path}?{"&".join(pairs)}>; rel="next"')
