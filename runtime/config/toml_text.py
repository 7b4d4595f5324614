"""Values as TOML, for what people read: problems, the effective configuration, examples."""

from __future__ import annotations

import re
from collections.abc import Iterable

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
_BITS_MAX = 64  # larger numbers are mistakes, and Python refuses to print very large ones


def toml_value(value: object) -> str:
    """A value as it can stand behind an equals sign, in one line and without control characters."""
    match value:
        case bool():
            return "true" if value else "false"
        case int() if value.bit_length() > _BITS_MAX:
            return "a number of more than 64 bits"
        case int() | float():
            return str(value)
        case str():
            return toml_text(value)
        case list() | tuple():
            return f"[{', '.join(map(toml_value, value))}]"
        case dict():
            return f"{{{', '.join(f'{toml_key(key)} = {toml_value(one)}' for key, one in value.items())}}}"
        case _:
            return str(value)  # dates and times: TOML writes them as Python does


def toml_text(text: str) -> str:
    """A literal string where that is easier to read, a basic one otherwise."""
    if ('"' in text or "\\" in text) and "'" not in text and text.isprintable():
        return f"'{text}'"
    return f'"{"".join(map(_escaped, text))}"'


class Numbered(str):
    """Names one table of a list to a person: ``upstream[0]``."""

    __slots__ = ()


def toml_key(key: str) -> str:
    """One key, in quotes only where it needs them."""
    return key if isinstance(key, Numbered) or _BARE.fullmatch(key) else toml_text(key)


def toml_path(keys: Iterable[str]) -> str:
    """A dotted key."""
    return ".".join(map(toml_key, keys))


def _escaped(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\u{code:04X}" if code < 0x10000 else f"\\U{code:08X}"
