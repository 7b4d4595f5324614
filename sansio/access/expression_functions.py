"""The standard functions of the Common Expression Language (language definition, List of Standard Definitions)."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from angos.sansio.access.expression_times import (
    PARTS,
    SECOND,
    Duration,
    EvaluationError,
    Timestamp,
    Zones,
    parse_duration,
    parse_timestamp,
    part_of_duration,
    part_of_timestamp,
    timestamp_from_seconds,
)
from angos.sansio.access.expression_values import (
    LISTS,
    NUMBERS,
    TypeName,
    Uint,
    kind,
    no_overload,
    to_int,
    to_uint,
)

Function = Callable[..., Any]
Matcher = Callable[[str], Callable[[str], bool]]
"""From a regular expression of RE2's syntax to a test whether it is found anywhere in a text. Raises `EvaluationError`
for a pattern that is none."""

PATTERN_LENGTH_MAX = 1000
"""In characters: compiling takes time and memory, also with an engine that searches in linear time."""


# --- texts ------------------------------------------------------------------------------------------------------------


def _size(value: Any) -> int:
    if type(value) in (str, bytes, dict) or type(value) in LISTS:
        return len(value)
    raise no_overload("size", value)


def _on_texts(name: str, test: Callable[[str, str], bool]) -> Function:
    def run(text: Any, part: Any) -> bool:
        if type(text) is str and type(part) is str:
            return test(text, part)
        raise no_overload(name, text, part)

    return run


# --- conversions ------------------------------------------------------------------------------------------------------

_WHOLE = re.compile(r"[+-]?[0-9]{1,30}")
_DECIMAL = re.compile(r"[+-]?(?:[0-9]{1,400}(?:\.[0-9]{0,400})?|\.[0-9]{1,400})(?:[eE][+-]?[0-9]{1,9})?")
_NOT_FINITE = re.compile(r"[+-]?(?:inf|infinity|nan)", re.IGNORECASE)
_TRUE, _FALSE = ("1", "t", "true", "TRUE", "True"), ("0", "f", "false", "FALSE", "False")


def _int(value: Any) -> int:
    of = type(value)
    if of is int or of is Uint:
        return to_int(value)
    if of is float and -(2.0**63) < value < 2.0**63:
        return int(value)
    if of is str and _WHOLE.fullmatch(value):
        return to_int(int(value))
    if of is Timestamp:
        return int(value.nanoseconds // SECOND)
    raise _not_converted("int", value, of in (float, str))


def _uint(value: Any) -> Uint:
    of = type(value)
    if of is int or of is Uint:
        return to_uint(value)
    if of is float and 0 <= value < 2.0**64:
        return Uint(value)
    if of is str and _WHOLE.fullmatch(value):
        return to_uint(int(value))
    raise _not_converted("uint", value, of in (float, str))


def _double(value: Any) -> float:
    of = type(value)
    if of in NUMBERS:
        try:
            return float(value)
        except OverflowError:
            raise EvaluationError("a number is out of range of a double") from None
    if of is str and (_DECIMAL.fullmatch(value) or _NOT_FINITE.fullmatch(value)):
        return float(value)
    raise _not_converted("double", value, of is str)


def _bool(value: Any) -> bool:
    if type(value) is bool:
        return value
    if type(value) is str and (value in _TRUE or value in _FALSE):
        return value in _TRUE
    raise _not_converted("bool", value, type(value) is str)


def _string(value: Any) -> str:
    of = type(value)
    if of is str:
        return str(value)
    if of is bool:
        return "true" if value else "false"
    if of is int or of is Uint:
        return str(int(to_int(value) if of is int else value))
    if of is float:
        return _shown_double(value)
    if of is bytes:
        try:
            return str(value, "utf-8")
        except UnicodeDecodeError:
            raise EvaluationError("bytes are not the UTF-8 of a string") from None
    if of is Timestamp or of is Duration:
        return str(value)
    raise no_overload("string", value)


def _shown_double(value: float) -> str:
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return "NaN" if math.isnan(value) else repr(value).removesuffix(".0")


def _bytes(value: Any) -> bytes:
    if type(value) is bytes:
        return value
    if type(value) is str:
        try:
            return value.encode()
        except UnicodeEncodeError:
            raise EvaluationError("a string has half of a surrogate pair, which has no UTF-8") from None
    raise no_overload("bytes", value)


def _timestamp(value: Any) -> Timestamp:
    if type(value) is Timestamp:
        return value
    if type(value) is str:
        return parse_timestamp(value)
    if type(value) is int:
        return timestamp_from_seconds(value)
    raise no_overload("timestamp", value)


def _duration(value: Any) -> Duration:
    if type(value) is Duration:
        return value
    if type(value) is str:
        return parse_duration(value)
    raise no_overload("duration", value)


def _not_converted(to: str, value: Any, of_right_type: bool) -> EvaluationError:
    if not of_right_type:
        return no_overload(to, value)
    return EvaluationError(f"a {kind(value)} has no value as {'an' if to == 'int' else 'a'} {to}")


FUNCTIONS: Mapping[tuple[str, int], Function] = {
    ("size", 1): _size,
    ("int", 1): _int,
    ("uint", 1): _uint,
    ("double", 1): _double,
    ("bool", 1): _bool,
    ("string", 1): _string,
    ("bytes", 1): _bytes,
    ("timestamp", 1): _timestamp,
    ("duration", 1): _duration,
    ("type", 1): lambda value: TypeName(kind(value)),
    ("dyn", 1): lambda value: value,
}
"""By name and number of arguments. ``matches`` is missing: it depends on the `Matcher`."""

METHODS: Mapping[tuple[str, int], Function] = {
    ("size", 0): _size,
    ("contains", 1): _on_texts("contains", str.__contains__),
    ("startsWith", 1): _on_texts("startsWith", str.startswith),
    ("endsWith", 1): _on_texts("endsWith", str.endswith),
}
"""The same for ``receiver.name(arguments)``; the receiver comes first. Those of times are in `methods_of_times`."""


def methods_of_times(zones: Zones) -> dict[tuple[str, int], Function]:
    """The methods that take timestamps and durations apart."""

    def part(name: str) -> Function:
        def run(value: Any, *zone: Any) -> int:
            if type(value) is Timestamp and all(type(one) is str for one in zone):
                return part_of_timestamp(name, value, zone[0] if zone else "UTC", zones)
            found = part_of_duration(name, value) if type(value) is Duration and not zone else None
            if found is None:
                raise no_overload(name, value, *zone)
            return found

        return run

    return {(name, count): part(name) for name in PARTS for count in (0, 1)}


def known_functions() -> frozenset[tuple[str, int]]:
    """Name and number of arguments of every function."""
    return frozenset(FUNCTIONS) | {("matches", 2)}


def known_methods() -> frozenset[tuple[str, int]]:
    """Name and number of arguments, the receiver not counted, of every method."""
    return frozenset(METHODS) | {("matches", 1)} | {(name, count) for name in PARTS for count in (0, 1)}


# --- regular expressions ----------------------------------------------------------------------------------------------

_PIECE = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\(\?(?:[=!>#(]|<[=!]|P=)|[*+?}]\+|.", re.DOTALL)
_BEYOND_RE2 = re.compile(r"\\[1-9]|\(\?.+|[*+?}]\+", re.DOTALL)
_MULTILINE = re.compile(r"\(\?[a-zA-Z]*m")
_SPECIAL_IN_SET = re.compile(r"\\.|[\[&~|]", re.DOTALL)


def backtracking_matcher(pattern: str) -> Callable[[str], bool]:
    """A `Matcher` on the standard library: for tests and simulations, and wherever patterns and texts can be trusted.

    Its time can grow exponentially with the text. What RE2 does not have is refused, and so are the classes that only
    RE2 has. Where the two differ in meaning, RE2's counts: ``\\d``, ``\\s`` and ``\\w`` are ASCII, and ``$`` is the end
    of the text, not a place before its last line feed.
    """
    check_length(pattern)
    pieces = _PIECE.findall(pattern)
    if any(_BEYOND_RE2.fullmatch(piece) or (piece.startswith("[") and "[:" in piece[1:]) for piece in pieces):
        raise bad_pattern()
    ends = {r"\z": r"\Z"} if _MULTILINE.search(pattern) else {r"\z": r"\Z", "$": r"\Z"}
    translated = "".join(_plain_set(piece) if piece[0] == "[" else ends.get(piece, piece) for piece in pieces)
    try:
        search = re.compile(translated, re.ASCII).search
    except (re.error, OverflowError, RecursionError, ValueError):
        raise bad_pattern() from None
    return lambda text: search(text) is not None


def _plain_set(piece: str) -> str:
    """The same set of characters without what Python warns of as a future set operation."""
    inner = _SPECIAL_IN_SET.sub(lambda found: found[0] if found[0][0] == "\\" else f"\\{found[0]}", piece[1:])
    return f"[{inner}"


def check_length(pattern: str) -> None:
    """Raises `EvaluationError` for a pattern that is too long."""
    if len(pattern) > PATTERN_LENGTH_MAX:
        raise EvaluationError(f"a regular expression has {len(pattern)} characters, {PATTERN_LENGTH_MAX} are allowed")


def bad_pattern() -> EvaluationError:
    """The error of a `Matcher`. A pattern can come from the activation, so neither it nor what is wrong is shown."""
    return EvaluationError("a text is no regular expression of RE2")
