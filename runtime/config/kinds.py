"""What the values of keys may be: how they are checked, converted and described."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from angos.runtime.config.toml_text import toml_value

SECONDS_MAX = 366 * 24 * 3600  # clocks and system calls have limits too; no time of a registry is longer than a year
_INT_MAX = (1 << 63) - 1  # what TOML can say


class NotAllowed(Exception):
    """A value that a key cannot have. The text is what is allowed."""


class Flawed(Exception):
    """A value that is nearly right. The text is what is wrong with it, after the value."""


class Unusable(Exception):
    """A value of the right form that cannot be used. The text says why by itself."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of values."""

    name: str
    """For the reference."""
    read: Callable[[Any, Path], Any]
    """From what TOML gave, and the folder that relative paths start from, to what the program uses.

    Raises `NotAllowed`, `Flawed` or `Unusable`; no text quotes a secret.
    """
    json: Mapping[str, Any]
    """JSON Schema, as far as that can say it."""
    secret: bool = False
    """Its values are never shown."""
    masked: Callable[[str], str] | None = None
    """Makes a text fit to be shown, when parts of it may be secret."""
    item: Kind | None = None
    """Of a list: what is in it. Then `read` is only called for values that are no list."""
    items_min: int = 0

    def problem(self, value: object, error: NotAllowed | Flawed | Unusable) -> str:
        """What was found, and what is allowed instead."""
        match error:
            case NotAllowed():
                return f"found {self.shown(value)}; allowed is {error}"
            case Flawed():
                return f"found {self.shown(value)}; {error}"
            case Unusable():
                return str(error)

    def shown(self, value: object) -> str:
        """The value for a person, in one short line; of a secret what it is like."""
        if self.secret:
            return described(value)
        if self.masked is not None and isinstance(value, str):
            value = self.masked(value)
        return shortened(toml_value(value))


def shortened(text: str) -> str:
    """At most 80 characters of it."""
    return text if len(text) <= 80 else f"{text[:77]}..."


def described(value: object) -> str:
    """What a value is like, and nothing of what it is."""
    match value:
        case str():
            return f"a text of {len(value)} characters"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case list():
            return f"a list of {len(value)}"
        case dict():
            return "a table"
        case _:
            return "a date or a time"


def list_of(item: Kind, name: str, items_min: int = 0) -> Kind:
    """A list; becomes a tuple. `name` is a plural."""

    def read(_value: object, _folder: Path) -> object:
        raise NotAllowed("a list in square brackets")

    json = {"type": "array", "items": dict(item.json), **({"minItems": items_min} if items_min else {})}
    return Kind(f"list of {name}", read, json, item.secret, item.masked, item, items_min)


def secret(kind: Kind) -> Kind:
    """The same, never shown."""
    return replace(kind, secret=True)


# --- the simple ones --------------------------------------------------------------------------------------------------


def _flag(value: object, _folder: Path) -> bool:
    if isinstance(value, bool):
        return value
    raise NotAllowed("true or false")


FLAG = Kind("true or false", _flag, {"type": "boolean"})


def _text(value: object, _folder: Path) -> str:
    if isinstance(value, str) and value.isprintable():
        return value
    raise NotAllowed("a text without line breaks and control characters")


TEXT = Kind("text", _text, {"type": "string"})


def _some_text(value: object, _folder: Path) -> str:
    if isinstance(value, str) and value and value.isprintable():
        return value
    raise NotAllowed("a text that is not empty and has no line breaks and control characters")


SOME_TEXT = Kind("text", _some_text, {"type": "string", "minLength": 1})


def whole(least: int, most: int = _INT_MAX) -> Kind:
    """A whole number within bounds."""
    allowed = f"a whole number of at least {least}" if most == _INT_MAX else f"a number from {least} to {most}"

    def read(value: object, _folder: Path) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
            return value
        raise NotAllowed(allowed)

    bounds = {"minimum": least, **({"maximum": most} if most != _INT_MAX else {})}
    return Kind("whole number", read, {"type": "integer", **bounds})


def _seconds(least_excluded: bool) -> Callable[[object, Path], float]:
    allowed = "a number of seconds above 0" if least_excluded else "a number of seconds, 0 or more"

    def read(value: object, _folder: Path) -> float:
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            if value > SECONDS_MAX:
                raise NotAllowed(f"{allowed}, up to {SECONDS_MAX}")
            if value > 0 or (value == 0 and not least_excluded):
                return float(value)
        raise NotAllowed(allowed)

    return read


SECONDS = Kind("seconds", _seconds(True), {"type": "number", "exclusiveMinimum": 0, "maximum": SECONDS_MAX})
SECONDS_OR_ZERO = Kind("seconds", _seconds(False), {"type": "number", "minimum": 0, "maximum": SECONDS_MAX})

_SIZE = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,18})?) ?(?:([KkMGT])(i?)B|B)?")


def _size(value: object, _folder: Path) -> int:
    """``5MiB`` is 5 times 1024 times 1024, ``5MB`` 5 million."""
    found: float = 0
    if type(value) is int:
        found = value
    elif isinstance(value, str) and (match := _SIZE.fullmatch(value)):
        power = " KMGT".index((match[2] or " ").upper())
        factor = (1024 if match[3] else 1000) ** power
        found = int(match[1]) * factor if match[1].isdigit() else float(match[1]) * factor
    if 1 <= found <= _INT_MAX:
        return int(found)
    raise NotAllowed('a size of at least one byte, such as "5MiB" or "100GiB"')


SIZE = Kind(
    "size",
    _size,
    {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": f"^{_SIZE.pattern}$"}]},
)


def one_of(*choices: str) -> Kind:
    """One of some words."""
    shown = " or ".join(f'"{choice}"' for choice in choices)

    def read(value: object, _folder: Path) -> str:
        if isinstance(value, str) and value in choices:
            return value
        raise NotAllowed(shown)

    return Kind(shown, read, {"type": "string", "enum": list(choices)})


# --- places -----------------------------------------------------------------------------------------------------------


def _path(value: object, folder: Path, what: str) -> Path:
    """An empty path would mean the folder of the configuration file, which nobody wants."""
    if isinstance(value, str) and value.strip() and "\0" not in value:
        return folder / value
    raise NotAllowed(f"the path of a {what}")


def _folder_path(value: object, folder: Path) -> Path:
    return _path(value, folder, "folder")


def _file_path(value: object, folder: Path) -> Path:
    from angos.runtime.config.watch import Unreadable, read_content

    path = _path(value, folder, "file")
    try:
        read_content(path)
    except Unreadable as error:
        raise Unusable(f"{path} {error}") from None
    return path


FOLDER = Kind("folder", _folder_path, {"type": "string", "minLength": 1})
FILE = Kind("file", _file_path, {"type": "string", "minLength": 1})
