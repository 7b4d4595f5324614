"""Expressions of the Common Expression Language as data.

Every node is frozen and made of text, numbers, bytes, None, tuples and other nodes, so that a configuration can be
compared, written into a trace and compiled again elsewhere. `angos.sansio.access.expression` gives them a meaning.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Literal, Union

Kind = Literal["null", "bool", "int", "uint", "double", "string", "bytes", "type"]
Symbol = Literal["==", "!=", "<", "<=", ">", ">=", "in", "+", "-", "*", "/", "%"]
Macro = Literal["all", "exists", "exists_one", "map"]


@dataclass(frozen=True, slots=True)
class Constant:
    """A value that is written in the expression."""

    kind: Kind
    value: bool | int | float | str | bytes | None
    """Of kind ``type``: the name of the type."""


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable of the activation."""

    name: str


@dataclass(frozen=True, slots=True)
class Element:
    """What the innermost enclosing `Comprehension` with this variable is looking at."""

    variable: str


@dataclass(frozen=True, slots=True)
class Select:
    """``operand.field``."""

    operand: Expression
    field: str


@dataclass(frozen=True, slots=True)
class Has:
    """``has(operand.field)``."""

    operand: Expression
    field: str


@dataclass(frozen=True, slots=True)
class Index:
    """``operand[key]``."""

    operand: Expression
    key: Expression


@dataclass(frozen=True, slots=True)
class Call:
    """``function(arguments)``, or ``receiver.function(arguments)``."""

    function: str
    arguments: tuple[Expression, ...]
    receiver: Expression | None = None


@dataclass(frozen=True, slots=True)
class Unary:
    """``!operand`` or ``-operand``."""

    symbol: Literal["!", "-"]
    operand: Expression


@dataclass(frozen=True, slots=True)
class Binary:
    """``left symbol right``."""

    symbol: Symbol
    left: Expression
    right: Expression


@dataclass(frozen=True, slots=True)
class Logical:
    """Operands joined by ``&&``, or by ``||``. A failing operand counts only if no other one decides."""

    symbol: Literal["&&", "||"]
    operands: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Conditional:
    """``condition ? chosen : otherwise``."""

    condition: Expression
    chosen: Expression
    otherwise: Expression


@dataclass(frozen=True, slots=True)
class ListOf:
    """``[items]``."""

    items: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class MapOf:
    """``{key: value, ...}``."""

    entries: tuple[tuple[Expression, Expression], ...]


@dataclass(frozen=True, slots=True)
class Comprehension:
    """A macro over the elements of a list or the keys of a map. ``filter`` is a ``map`` to the element itself."""

    macro: Macro
    range: Expression
    variable: str
    body: Expression
    """The predicate, or what an element is mapped to."""
    condition: Expression | None = None
    """Only of ``map``: elements for which it is false are left out."""


Expression = Union[  # noqa: UP007  the nodes above name it before it exists
    Constant,
    Variable,
    Element,
    Select,
    Has,
    Index,
    Call,
    Unary,
    Binary,
    Logical,
    Conditional,
    ListOf,
    MapOf,
    Comprehension,
]

NODES: tuple[type[Any], ...] = (
    Constant,
    Variable,
    Element,
    Select,
    Has,
    Index,
    Call,
    Unary,
    Binary,
    Logical,
    Conditional,
    ListOf,
    MapOf,
    Comprehension,
)
"""Every type that an expression is made of."""


def walk(expression: Expression) -> Iterator[Expression]:
    """The node itself and all those below it."""
    waiting: list[Any] = [expression]
    while waiting:
        value = waiting.pop()
        if isinstance(value, tuple):
            waiting.extend(reversed(value))
        elif isinstance(value, NODES):
            yield value
            waiting.extend(reversed([getattr(value, field.name) for field in fields(value)]))


def shown(expression: Expression) -> str:
    """How a message names what an expression stands for: only a path of names is written out."""
    match expression:
        case Variable(name) | Element(name):
            return name
        case Select(operand, field):
            return f"{shown(operand)}.{field}"
        case Index(operand, Constant("string", str(key))):
            return f'{shown(operand)}["{key}"]'
        case _:
            return "the value"
