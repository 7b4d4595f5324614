"""The values of the Common Expression Language as values of Python, and the operators on them.

========================  ==========================================
CEL                       Python
========================  ==========================================
null, bool, int, double   None, bool, int, float
uint                      `Uint`
string, bytes             str, bytes
list, map                 list or tuple, dict
timestamp, duration       `Timestamp`, `Duration`
type                      `TypeName`
========================  ==========================================

Those are what `json.loads` gives, so an identity or its claims need no conversion. Types are compared exactly: Python's
``True == 1`` must not become CEL's. Keys of maps that are true or false are therefore kept as `BoolKey`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from types import NoneType
from typing import Any

from angos.sansio.access.expression_times import Duration, EvaluationError, Timestamp

INT_MIN, INT_MAX = -(1 << 63), (1 << 63) - 1
UINT_MAX = (1 << 64) - 1


class Uint(int):
    """An unsigned integer. Equal to the int and the float of the same value, and with the same hash, as CEL wants."""

    __slots__ = ()


class BoolKey(Enum):
    """A key of a map that is true or false."""

    FALSE = False
    TRUE = True


@dataclass(frozen=True, slots=True)
class TypeName:
    """A type as a value."""

    name: str


class Meter:
    """How many steps an evaluation may still take."""

    __slots__ = ("left", "most")

    def __init__(self, most: int) -> None:
        self.most = self.left = most

    def spend(self, steps: int) -> None:
        """Raises `EvaluationError` when there are none left, from then on always."""
        self.left -= steps
        if self.left < 0:
            raise EvaluationError(f"the expression took more than {self.most} steps; use fewer or shorter lists")


_KINDS: dict[type, str] = {
    NoneType: "null_type",
    bool: "bool",
    int: "int",
    Uint: "uint",
    float: "double",
    str: "string",
    bytes: "bytes",
    list: "list",
    tuple: "list",
    dict: "map",
    Timestamp: "google.protobuf.Timestamp",
    Duration: "google.protobuf.Duration",
    TypeName: "type",
}

TYPES = frozenset(_KINDS.values())
"""The names of types that an expression can use as values."""


def kind(value: Any) -> str:
    """The name of the value's type."""
    return _KINDS.get(type(value), "unknown")


def no_overload(what: str, *values: Any) -> EvaluationError:
    """The error of an operator or a function that does not take values of these types."""
    kinds = ", ".join(kind(value).removeprefix("google.protobuf.").removesuffix("_type").lower() for value in values)
    return EvaluationError(f"{what} cannot be applied to ({kinds})")


# --- equality and order -----------------------------------------------------------------------------------------------

NUMBERS = frozenset({int, Uint, float})
LISTS = frozenset({list, tuple})
_ORDERED = frozenset({bool, int, Uint, float, str, bytes, Timestamp, Duration})
_PLAIN = _ORDERED | {NoneType, TypeName}


def equal(left: Any, right: Any, meter: Meter | None = None) -> bool:
    """Numbers of different types are compared as numbers, values of other different types are never equal."""
    of_left, of_right = type(left), type(right)
    if of_left is of_right and of_left in _PLAIN:
        return bool(left == right)
    if of_left in NUMBERS and of_right in NUMBERS:
        one, other = _as_one_type(left, right)
        return bool(one == other)
    if of_left in LISTS and of_right in LISTS:
        if meter is not None:
            meter.spend(len(left))
        return len(left) == len(right) and all(equal(*pair, meter) for pair in zip(left, right, strict=True))
    if of_left is dict and of_right is dict:
        if meter is not None:
            meter.spend(len(left))
        return len(left) == len(right) and all(
            key in right and equal(value, right[key], meter) for key, value in left.items()
        )
    return False


def ordered(left: Any, right: Any) -> tuple[Any, Any] | None:
    """The two as values that Python can put in order; None when CEL has no order for their types."""
    of_left, of_right = type(left), type(right)
    if of_left is of_right:
        return (left, right) if of_left in _ORDERED else None
    return _as_one_type(left, right) if of_left in NUMBERS and of_right in NUMBERS else None


def _as_one_type(left: Any, right: Any) -> tuple[Any, Any]:
    """An integer beside a double is taken for the nearest double, although that can make two of them equal: the
    reference implementations do it, and the specification's cases ask for it."""
    try:
        if type(left) is float:
            return left, float(right)
        return (float(left), right) if type(right) is float else (left, right)
    except OverflowError:
        return left, right  # an integer of an activation that is larger than any double: Python is exact


# --- maps and lists ---------------------------------------------------------------------------------------------------


def key_to_make(value: Any) -> Any:
    """The key of a new map. Raises `EvaluationError`: only bool, int, uint and string can be keys."""
    if type(value) in (str, int, Uint):
        return value
    if type(value) is bool:
        return BoolKey(value)
    raise EvaluationError(f"a {kind(value).removesuffix('_type')} cannot be a key of a map")


def key_to_find(value: Any) -> Any:
    """The key of a map that equals a value; None when no key can."""
    if type(value) in (str, int, Uint):
        return value
    if type(value) is bool:
        return BoolKey(value)
    return int(value) if type(value) is float and value.is_integer() else None


def elements(value: Any) -> Iterable[Any]:
    """What a comprehension goes through: the elements of a list, the keys of a map."""
    if type(value) in LISTS:
        return value  # type: ignore[no-any-return]
    if type(value) is dict:
        return (
            key.value if type(key) is BoolKey else key for key in value
        )  # no list: each element is paid for when met
    raise no_overload("a comprehension", value)


def item_of(container: Any, key: Any) -> Any:
    """``container[key]``."""
    if type(container) is dict:
        known = key_to_find(key)
        if known is None or known not in container:
            raise EvaluationError("a map has no such key")
        return container[known]
    if type(container) not in LISTS or type(key) not in NUMBERS:
        raise no_overload("[]", container, key)
    if not 0 <= key < len(container) or key != int(key):
        raise EvaluationError(f"a list of {len(container)} has no such index")
    return container[int(key)]


def contains(element: Any, container: Any, meter: Meter | None = None) -> bool:
    """``element in container``."""
    if type(container) is dict:
        known = key_to_find(element)
        return known is not None and known in container
    if type(container) not in LISTS:
        raise no_overload("in", element, container)
    if meter is not None:
        meter.spend(len(container))
    return any(equal(element, one, meter) for one in container)


# --- arithmetic -------------------------------------------------------------------------------------------------------


def to_int(value: int) -> int:
    """Raises `EvaluationError` when the value does not fit 64 bits."""
    if INT_MIN <= value <= INT_MAX:
        return int(value)
    raise EvaluationError("an int is out of range: 64 bits with a sign")


def to_uint(value: int) -> Uint:
    """Raises `EvaluationError` when the value does not fit 64 bits."""
    if 0 <= value <= UINT_MAX:
        return Uint(value)
    raise EvaluationError("a uint is out of range: 64 bits without a sign")


def _quotient(left: int, right: int) -> int:
    if right == 0:
        raise EvaluationError("a number is divided by zero")
    quotient = abs(left) // abs(right)
    return quotient if (left < 0) == (right < 0) else -quotient


def _remainder(left: int, right: int) -> int:
    return left - right * _quotient(left, right)


def _ratio(left: float, right: float) -> float:
    if right:
        return left / right
    if left == 0 or math.isnan(left):
        return math.nan
    return math.copysign(math.inf, left) * math.copysign(1.0, right)


_Operation = Callable[[Any, Any], Any]


def _numeric(integers: _Operation, floats: _Operation | None = None) -> dict[tuple[type, type], _Operation]:
    """The overloads on two numbers of one type; there are none on two types."""
    overloads: dict[tuple[type, type], _Operation] = {
        (int, int): lambda left, right: to_int(integers(left, right)),
        (Uint, Uint): lambda left, right: to_uint(integers(int(left), int(right))),
    }
    return overloads if floats is None else {**overloads, (float, float): floats}


def _joined(left: Any, right: Any) -> Any:
    return left + right


def _lists(left: Any, right: Any) -> list[Any]:
    return [*left, *right]


ARITHMETIC: Mapping[str, Mapping[tuple[type, type], _Operation]] = {
    "+": {
        **_numeric(lambda left, right: left + right, _joined),
        (str, str): _joined,
        (bytes, bytes): _joined,
        **{(one, other): _lists for one in (list, tuple) for other in (list, tuple)},
        (Timestamp, Duration): lambda left, right: Timestamp(left.nanoseconds + right.nanoseconds),
        (Duration, Timestamp): lambda left, right: Timestamp(left.nanoseconds + right.nanoseconds),
        (Duration, Duration): lambda left, right: Duration(left.nanoseconds + right.nanoseconds),
    },
    "-": {
        **_numeric(lambda left, right: left - right, lambda left, right: left - right),
        (Timestamp, Timestamp): lambda left, right: Duration(left.nanoseconds - right.nanoseconds),
        (Timestamp, Duration): lambda left, right: Timestamp(left.nanoseconds - right.nanoseconds),
        (Duration, Duration): lambda left, right: Duration(left.nanoseconds - right.nanoseconds),
    },
    "*": _numeric(lambda left, right: left * right, lambda left, right: left * right),
    "/": _numeric(_quotient, _ratio),
    "%": _numeric(_remainder),
}


def negative(value: Any) -> Any:
    """``-value``."""
    if type(value) is int:
        return to_int(-value)
    if type(value) is float:
        return -value
    raise no_overload("-", value)
