"""The functions that compiled expressions consist of: each is made once from the functions of its operands.

Every one takes the scope: the activation itself or, in an expression with macros, a copy of it that belongs to one
evaluation and has the elements under consideration and the meter as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from angos.sansio.access.expression_nodes import Constant
from angos.sansio.access.expression_times import EvaluationError
from angos.sansio.access.expression_values import (
    ARITHMETIC,
    LISTS,
    Meter,
    TypeName,
    Uint,
    elements,
    item_of,
    key_to_make,
    kind,
    negative,
    no_overload,
    ordered,
)

Run = Callable[[Any], Any]

# No identifier contains a blank, so these names are free in a scope.
METER = "the meter"
ACTIVATION = "the activation"


# --- values and names -------------------------------------------------------------------------------------------------


def constant(node: Constant) -> Run:
    """Always the same value."""
    value: Any = node.value
    if node.kind == "uint" and isinstance(value, int):
        value = Uint(value)
    elif node.kind == "type":
        value = TypeName(str(value))
    return lambda scope: value


def failure(text: str) -> Run:
    """Always the same error."""

    def run(scope: Any) -> Any:
        raise EvaluationError(text)

    return run


def path(root: str, fields: Sequence[str], name: str) -> Run:
    """What `root` is in the scope, and fields below it. In messages the root is called `name`.

    Of everything that a scope can have, only dictionaries can be indexed by a text; the rest is a TypeError."""

    def variable(scope: Any) -> Any:
        try:
            return scope[root]
        except KeyError:
            raise _missing(scope, root, fields, name) from None

    def field_of_variable(scope: Any) -> Any:
        try:
            return scope[root][first]
        except (KeyError, TypeError):
            raise _missing(scope, root, fields, name) from None

    def deeper(scope: Any) -> Any:
        try:
            value = scope[root]
            for field in fields:
                value = value[field]
        except (KeyError, TypeError):
            raise _missing(scope, root, fields, name) from None
        return value

    if not fields:
        return variable
    first = fields[0]
    return field_of_variable if len(fields) == 1 else deeper


def _missing(scope: Any, root: str, fields: Sequence[str], name: str) -> EvaluationError:
    if root not in scope:
        return EvaluationError(f"there is no variable {name}")
    value = scope[root]
    for place, field in enumerate(fields):
        if type(value) is not dict or field not in value:
            return _no_field(value, field, ".".join((name, *fields[:place])))
        value = value[field]
    raise AssertionError(f"{name} has all of its fields, {fields}")


def _no_field(value: Any, field: str, name: str) -> EvaluationError:
    if type(value) is dict:
        return EvaluationError(f"{name} has no field {field}")
    what = kind(value).removesuffix("_type")
    return EvaluationError(f"{name} is {'null' if value is None else f'of type {what}'} and has no field {field}")


def selection(operand: Run, field: str) -> Run:
    """A field of anything but a path."""

    def run(scope: Any) -> Any:
        value = operand(scope)
        if type(value) is dict and field in value:
            return value[field]
        raise _no_field(value, field, "a value")

    return run


def has(operand: Run, field: str) -> Run:
    """Whether a map has a field."""

    def run(scope: Any) -> bool:
        value = operand(scope)
        if type(value) is dict:
            return field in value
        raise no_overload("has", value)

    return run


def index(operand: Run, key: Run) -> Run:
    """An item of a list or a map."""
    return lambda scope: item_of(operand(scope), key(scope))


# --- operators --------------------------------------------------------------------------------------------------------


def equal_to(value: object, operand: Run, wanted: bool) -> Run:
    """Equality with a constant for which Python's equality is CEL's: only a string equals a string."""
    if value is None:
        return (lambda scope: operand(scope) is None) if wanted else (lambda scope: operand(scope) is not None)
    return (lambda scope: operand(scope) == value) if wanted else (lambda scope: operand(scope) != value)


def among(operand: Run, strings: frozenset[object]) -> Run:
    """Membership in a list of constant strings."""

    def run(scope: Any) -> bool:
        value = operand(scope)
        return type(value) is str and value in strings

    return run


def order(symbol: Literal["<", "<=", ">", ">="], left: Run, right: Run) -> Run:
    """Comparisons. Written out, because a call for each of them would cost as much as the rest."""

    def operands(scope: Any) -> tuple[Any, Any]:
        one, other = left(scope), right(scope)
        pair = ordered(one, other)
        if pair is None:
            raise no_overload(symbol, one, other)
        return pair

    def less(scope: Any) -> bool:
        one, other = operands(scope)
        return bool(one < other)

    def less_or_equal(scope: Any) -> bool:
        one, other = operands(scope)
        return bool(one <= other)

    def greater(scope: Any) -> bool:
        one, other = operands(scope)
        return bool(one > other)

    def greater_or_equal(scope: Any) -> bool:
        one, other = operands(scope)
        return bool(one >= other)

    return {"<": less, "<=": less_or_equal, ">": greater, ">=": greater_or_equal}[symbol]


def arithmetic(symbol: str, left: Run, right: Run, metered: bool) -> Run:
    """The operators of `ARITHMETIC`. What grows costs steps, or nested macros could double it at every level."""
    overloads = ARITHMETIC[symbol]

    def run(scope: Any) -> Any:
        one, other = left(scope), right(scope)
        operation = overloads.get((type(one), type(other)))
        if operation is None:
            raise no_overload(symbol, one, other)
        if metered:
            if type(one) in LISTS:
                scope[METER].spend(len(one) + len(other))
            elif type(one) in (str, bytes):
                scope[METER].spend((len(one) + len(other)) >> 4)
        return operation(one, other)

    return run


def negation(operand: Run) -> Run:
    """``-operand``."""
    return lambda scope: negative(operand(scope))


def inversion(operand: Run) -> Run:
    """``!operand``."""

    def run(scope: Any) -> bool:
        value = operand(scope)
        if value is True:
            return False
        if value is False:
            return True
        raise no_overload("!", value)

    return run


def logical(symbol: Literal["&&", "||"], operands: Sequence[Run]) -> Run:
    """True decides an ``||`` and false an ``&&``, whatever fails before or after it."""
    deciding: bool = symbol == "||"
    undecided = not deciding

    def run(scope: Any) -> bool:
        problem: str | None = None
        for operand in operands:
            try:
                value: object = operand(scope)
            except EvaluationError as error:
                problem = problem or str(error)
                continue
            if value is deciding:
                return deciding
            if value is not undecided:
                problem = problem or str(no_overload(symbol, value))
        if problem is not None:
            raise EvaluationError(problem)
        return undecided

    return run


def conditional(condition: Run, chosen: Run, otherwise: Run) -> Run:
    """Only the operand that is chosen is evaluated."""

    def run(scope: Any) -> Any:
        value = condition(scope)
        if value is True:
            return chosen(scope)
        if value is False:
            return otherwise(scope)
        raise no_overload("?:", value)

    return run


def list_of(items: Sequence[Run]) -> Run:
    """A new list."""
    return lambda scope: [item(scope) for item in items]


def map_of(entries: Sequence[tuple[Run, Run]]) -> Run:
    """A new map."""

    def run(scope: Any) -> dict[Any, Any]:
        made: dict[Any, Any] = {}
        for key, value in entries:
            known = key_to_make(key(scope))
            if known in made:
                raise EvaluationError("a map has the same key twice")
            made[known] = value(scope)
        return made

    return run


def call(function: Callable[..., Any], arguments: Sequence[Run], metered: bool) -> Run:
    """A function of values only. Going through a text costs steps."""

    def counted(scope: Any) -> Any:
        values = [argument(scope) for argument in arguments]
        scope[METER].spend(sum(len(value) >> 4 for value in values if type(value) in (str, bytes)))
        return function(*values)

    if metered:
        return counted
    if len(arguments) == 1:
        only = arguments[0]
        return lambda scope: function(only(scope))
    if len(arguments) == 2:
        first, second = arguments
        return lambda scope: function(first(scope), second(scope))
    return lambda scope: function(*(argument(scope) for argument in arguments))


# --- macros -----------------------------------------------------------------------------------------------------------


def quantifier(deciding: bool, range_: Run, slot: str, predicate: Run, cost: int) -> Run:
    """``exists``, which true decides, and ``all``, which false decides. An ``||`` or an ``&&`` over the elements."""
    undecided: bool = not deciding
    symbol = "exists" if deciding else "all"

    def run(scope: Any) -> bool:
        meter: Meter = scope[METER]
        problem: str | None = None
        for element in elements(range_(scope)):
            meter.spend(cost)
            scope[slot] = element
            try:
                value: object = predicate(scope)
            except EvaluationError as error:
                problem = problem or str(error)
                continue
            if value is deciding:
                return deciding
            if value is not undecided:
                problem = problem or str(no_overload(symbol, value))
        if problem is not None:
            raise EvaluationError(problem)
        return undecided

    return run


def exactly_one(range_: Run, slot: str, predicate: Run, cost: int) -> Run:
    """``exists_one``: every element is looked at, and an error is an error."""

    def run(scope: Any) -> bool:
        meter: Meter = scope[METER]
        found = 0
        for element in elements(range_(scope)):
            meter.spend(cost)
            scope[slot] = element
            found += _truth(predicate(scope), "exists_one")
        return found == 1

    return run


def mapped(range_: Run, slot: str, body: Run, cost: int, condition: Run | None) -> Run:
    """``map`` and ``filter``."""

    def run(scope: Any) -> list[Any]:
        meter: Meter = scope[METER]
        made: list[Any] = []
        for element in elements(range_(scope)):
            meter.spend(cost)
            scope[slot] = element
            if condition is None or _truth(condition(scope), "a condition"):
                made.append(body(scope))
        return made

    return run


def _truth(value: Any, what: str) -> bool:
    if value is True or value is False:
        return bool(value)
    raise no_overload(what, value)
