"""The names that a rule may use, and what is wrong with those it does use."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Union

from angos.runtime.config.cel_patterns import problem_of_pattern, zone_offset
from angos.runtime.config.cel_text import BadRule, Words
from angos.sansio.access.expression_functions import known_functions, known_methods
from angos.sansio.access.expression_nodes import Call, Constant, Expression, Index, Select, Variable, shown
from angos.sansio.access.expression_times import (
    PARTS,
    EvaluationError,
    Timestamp,
    parse_duration,
    parse_timestamp,
    part_of_timestamp,
)
from angos.sansio.access.expression_values import TYPES

Shape = Union[Mapping[str, "Shape"], Collection[str], None]  # noqa: UP007  it names itself
"""The fields of a value, each with its shape. None: whatever there is at run time, as in the claims of a token."""

ANY: Shape = None

Place = tuple[str, int]
"""A name and where it stands in the rule."""


class Names:
    """What an activation will have and which functions there are. Without `checked` only what would have no meaning at
    all is refused."""

    def __init__(
        self, words: Words, variables: Mapping[str, Shape], functions: Mapping[str, int], checked: bool
    ) -> None:
        self._words = words
        self._variables = variables
        self._checked = checked
        self._functions = known_functions() | frozenset(functions.items()) | {("has", 1)}
        self._methods = known_methods()

    def resolve(self, root: Place, fields: Sequence[str], elements: Collection[str]) -> tuple[Expression, int]:
        """What a name stands for, and how many of the `fields` after it are part of the name: a variable or a type can
        have dots in its name, and the longest one counts (language definition, Name Resolution)."""
        name, position = root
        for count in range(len(fields), -1, -1):
            full = ".".join((name, *fields[:count]))
            if full in self._variables:
                return Variable(full), count
            if full in TYPES:
                return Constant("type", full), count
        if not self._checked:
            return Variable(name), 0
        raise self._unknown(f"there is no variable {name}", name, {*self._variables, *elements}, "", position)

    def require_field(self, operand: Expression, field: str, position: int) -> None:
        """A field of something whose fields are known must be one of them."""
        shape = self._shape(operand)
        if shape is not None and field not in shape and self._checked:
            of = shown(operand)
            raise self._unknown(f"{of} has no field {field}", field, shape, f"{of}.", position)

    def _shape(self, expression: Expression) -> Shape:
        match expression:
            case Variable(name):
                return self._variables.get(name)
            case Select(operand, field) | Index(operand, Constant("string", str(field))):
                shape = self._shape(operand)
                return shape.get(field) if isinstance(shape, Mapping) else ANY
            case _:
                return ANY

    def require_function(self, name: Place, count: int) -> None:
        """There is a function of this name that takes so many arguments."""
        self._require(name, count, self._functions, self._methods, "value.{}(...)")

    def require_method(self, name: Place, count: int, macros: Collection[str]) -> None:
        """The same for what is written after a receiver. `macros` are only known as what may have been meant."""
        self._require(name, count, self._methods | {(macro, 2) for macro in macros}, self._functions, "{}(...)")

    def _require(
        self,
        place: Place,
        count: int,
        known: Collection[tuple[str, int]],
        elsewhere: Collection[tuple[str, int]],
        form: str,
    ) -> None:
        name, position = place
        if (name, count) in known or not self._checked:
            return
        if counts := sorted(one for function, one in known if function == name):
            wanted = " or ".join(str(one) for one in counts) + (" argument" if counts == [1] else " arguments")
            given = "1 is" if count == 1 else f"{count} are"
            raise self._words.bad(f"{name} takes {wanted}, and {given} given", position)
        if any(function == name for function, _ in elsewhere):
            raise self._words.bad(f"{name} is written as {form.format(name)}", position)
        names = {function for function, _ in known}
        raise self._unknown(f"there is no function {name}", name, names, "", position)

    def check_constant(self, call: Call, position: int) -> None:
        """Refuses now what would fail at every evaluation. The last argument stands at `position`."""
        argument = call.arguments[-1] if call.arguments else None
        if isinstance(argument, Constant) and isinstance(argument.value, str):
            problem = _problem(call.function, argument.value)
            if problem is not None:
                raise self._words.bad(problem, position)

    def _unknown(self, problem: str, name: str, known: Collection[str], prefix: str, position: int) -> BadRule:
        from difflib import get_close_matches  # only needed for a person who has to wait anyway

        if near := get_close_matches(name, sorted(known), n=1):
            return self._words.bad(f"{problem}; did you mean {prefix}{near[0]}?", position)
        listed = f"; known: {', '.join(sorted(known))}" if known else ""
        return self._words.bad(f"{problem}{listed}", position)


def _problem(function: str, text: str) -> str | None:
    try:
        if function == "timestamp":
            parse_timestamp(text)
        elif function == "duration":
            parse_duration(text)
        elif function in PARTS:
            part_of_timestamp(function, Timestamp(0), text, zone_offset)
        elif function == "matches" and (problem := problem_of_pattern(text)):
            return f"this is no regular expression of RE2: {problem}"
    except EvaluationError as error:
        return str(error)
    return None
