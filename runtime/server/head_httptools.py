"""Header fields by httptools, an optional parser in C. It sees one complete head and never a body."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from angos.runtime.server.framing import Field, HeadRefused, ParseFields, check_field


class ParserMissing(Exception):
    """The chosen head parser is not installed."""


class _Collected:
    __slots__ = ("complete", "fields")

    def __init__(self) -> None:
        self.fields: list[Field] = []
        self.complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        check_field(name)
        self.fields.append((name, value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        self.complete = True


def load_parse_fields() -> ParseFields:
    """A `ParseFields` function; raises `ParserMissing` when httptools is not installed."""
    try:
        httptools: Any = import_module("httptools")
    except ImportError as error:
        raise ParserMissing(
            "the head parser httptools is configured but not installed; install it (pip install httptools) or choose"
            " h11"
        ) from error
    new_parser, failed, upgrade = (
        httptools.HttpRequestParser,
        httptools.HttpParserError,
        httptools.HttpParserUpgrade,
    )

    def parse_fields(raw: bytes) -> Sequence[Field]:
        collected = _Collected()
        try:
            new_parser(collected).feed_data(raw)
        except upgrade:
            pass  # a request to change the protocol: nobody has to follow it
        except failed as error:
            # The parser wraps what its callbacks raise.
            if isinstance(error.__context__, HeadRefused):
                raise error.__context__ from None
            raise HeadRefused(400, "the request is not valid HTTP/1.1") from error
        if not collected.complete:
            raise HeadRefused(400, "the request is not valid HTTP/1.1")
        return collected.fields

    return parse_fields
