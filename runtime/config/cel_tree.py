"""From the parser's trees to expressions. Every name is checked on the way."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, cast

from angos.runtime.config.cel_names import Names
from angos.runtime.config.cel_text import Words
from angos.sansio.access.expression_nodes import (
    Binary,
    Call,
    Comprehension,
    Conditional,
    Constant,
    Element,
    Expression,
    Has,
    Index,
    ListOf,
    Logical,
    Macro,
    MapOf,
    Select,
    Symbol,
    Unary,
)
from angos.sansio.access.expression_values import INT_MAX, INT_MIN, UINT_MAX

if TYPE_CHECKING:
    from lark import Token, Tree

    Branch = Tree[Any]

DEPTH_MAX = 64
"""Nodes below nodes: evaluating an expression takes some stack for each."""
NODES_MAX = 1000
"""An expression without macros evaluates each of its nodes at most once, so this bounds its time."""

_SYMBOLS: dict[str, Symbol] = {
    "relation_lt": "<",
    "relation_le": "<=",
    "relation_gt": ">",
    "relation_ge": ">=",
    "relation_eq": "==",
    "relation_ne": "!=",
    "relation_in": "in",
    "addition_add": "+",
    "addition_sub": "-",
    "multiplication_mul": "*",
    "multiplication_div": "/",
    "multiplication_mod": "%",
}
_MACROS: dict[str, Macro] = {
    "all": "all",
    "exists": "exists",
    "exists_one": "exists_one",
    "existsOne": "exists_one",
    "map": "map",
    "filter": "map",
}


class Reader:
    """Reads one rule. A method for each rule of the grammar that means something; the others have one child."""

    def __init__(self, words: Words, names: Names) -> None:
        self._words = words
        self._names = names
        self._count = 0
        self._readers: dict[str, Callable[[Branch, int, frozenset[str]], Expression]] = {
            "expr": self._conditional,
            "conditionalor": self._logical,
            "conditionaland": self._logical,
            "relation": self._binary,
            "addition": self._binary,
            "multiplication": self._binary,
            "unary": self._unary,
            "member_dot": self._member,
            "member_dot_arg": self._method,
            "member_index": self._index,
            "member_object": self._message,
            "ident": self._member,
            "dot_ident": self._member,
            "ident_arg": self._function,
            "dot_ident_arg": self._function,
            "list_lit": self._list,
            "map_lit": self._map,
            "literal": self._literal,
        }

    def read(self, tree: Branch, depth: int = 0, elements: frozenset[str] = frozenset()) -> Expression:
        """`elements` are the variables of the enclosing macros. Raises `BadRule`."""
        tree = _meaningful(tree)
        self._count_one(depth, tree)
        return self._readers[tree.data](tree, depth, elements)

    def _count_one(self, depth: int, tree: Branch) -> None:
        self._count += 1
        if depth > DEPTH_MAX:
            raise self._words.bad(f"the rule is nested more than {DEPTH_MAX} deep; split it", _start(tree))
        if self._count > NODES_MAX:
            raise self._words.bad(f"the rule has more than {NODES_MAX} parts; split it", _start(tree))

    def _all(self, trees: Iterable[Any], depth: int, elements: frozenset[str]) -> tuple[Expression, ...]:
        return tuple(self.read(tree, depth + 1, elements) for tree in trees)

    # --- operators ---

    def _conditional(self, tree: Branch, depth: int, elements: frozenset[str]) -> Expression:
        condition, chosen, otherwise = self._all(tree.children, depth, elements)
        return Conditional(condition, chosen, otherwise)

    def _logical(self, tree: Branch, depth: int, elements: frozenset[str]) -> Expression:
        """``a || b || c`` is one node: its trees lean to the left, as deep as there are operands."""
        operands = []
        rest = tree
        while rest.data == tree.data and len(rest.children) == 2:
            operands.append(rest.children[1])
            rest = rest.children[0]
        operands.append(rest)
        operands.reverse()
        return Logical("||" if tree.data == "conditionalor" else "&&", self._all(operands, depth, elements))

    def _binary(self, tree: Branch, depth: int, elements: frozenset[str]) -> Expression:
        left, right = self._all((tree.children[0].children[0], tree.children[1]), depth, elements)
        return Binary(_SYMBOLS[tree.children[0].data], left, right)

    def _unary(self, tree: Branch, depth: int, elements: frozenset[str]) -> Expression:
        (operand,) = self._all(tree.children[1:], depth, elements)
        return Unary("!" if tree.children[0].data == "unary_not" else "-", operand)

    # --- names ---

    def _member(self, tree: Branch, depth: int, elements: frozenset[str]) -> Expression:
        """A name with the fields below it, or a field of anything else."""
        names: list[Token] = []
        rest = tree
        while rest.data == "member_dot":
            names.insert(0, _token(rest, 1))
            rest = _meaningful(rest.children[0])
        if rest.data not in ("ident", "dot_ident"):
            (operand,) = self._all(tree.children[:1], depth, elements)
            return self._selected(operand, _token(tree, 1))
        root = _token(rest, 0)
        plain = [str(name) for name in itertools.takewhile(lambda name: _at(name) not in self._words.fields, names)]
        found: Expression
        if rest.data == "ident" and str(root) in elements:  # with a dot before it, it is a variable all the same
            found, used = Element(str(root)), 0
        else:
            found, used = self._names.resolve(_place(root), plain, elements)
        for level, name in enumerate(names[used:], start=depth + 1):
            self._count_one(level, tree)
            found = self._selected(found, name)
        return found

    def _selected(self, operand: Expression, name: Token) -> Expression:
        field = self._words.fields.get(_at(name), str(name))
        self._names.require_field(operand, field, _at(name))
        return Select(operand, field)

    def _index(self, tree: Branch, depth: int, elements: frozenset[str]) -> Expression:
        operand, key = self._all(tree.children, depth, elements)
        if isinstance(key, Constant) and isinstance(key.value, str):
            self._names.require_field(operand, key.value, _start(tree.children[1]))
        return Index(operand, key)

    # --- calls ---

    def _function(self, tree: Branch, depth: int, elements: frozenset[str]) -> Expression:
        name, given = _token(tree, 0), _arguments(tree, 1)
        if name == "has":
            return self._has(name, given, depth, elements)
        self._names.require_function(_place(name), len(given))
        call = Call(str(name), self._all(given, depth, elements))
        self._names.check_constant(call, _start(given[-1]) if given else 0)
        return call

    def _has(self, name: Token, given: list[Branch], depth: int, elements: frozenset[str]) -> Expression:
        operand = self.read(given[0], depth + 1, elements) if len(given) == 1 else None
        if not isinstance(operand, Select):
            raise self._words.bad("has takes one field, as in has(request.digest)", _at(name))
        return Has(operand.operand, operand.field)

    def _method(self, tree: Branch, depth: int, elements: frozenset[str]) -> Expression:
        name, given = _token(tree, 1), _arguments(tree, 2)
        if _at(name) in self._words.fields:
            raise self._words.bad("a quoted name is a field and cannot be called", _at(name))
        if name in _MACROS:
            return self._comprehension(tree, name, given, depth, elements)
        self._names.require_method(_place(name), len(given), _MACROS)
        receiver, *arguments = self._all((tree.children[0], *given), depth, elements)
        call = Call(str(name), tuple(arguments), receiver)
        self._names.check_constant(call, _start(given[-1]) if given else 0)
        return call

    def _comprehension(
        self, tree: Branch, name: Token, given: list[Branch], depth: int, elements: frozenset[str]
    ) -> Expression:
        if len(given) not in ((2, 3) if name == "map" else (2,)):
            raise self._words.bad(f"{name} is written as list.{name}(element, expression)", _at(name))
        (range_,) = self._all(tree.children[:1], depth, elements)
        variable = _meaningful(given[0])
        if variable.data != "ident":
            raise self._words.bad(f"the first argument of {name} is a name for the element", _start(given[0]))
        element = str(variable.children[0])
        parts = self._all(given[1:], depth, elements | {element})
        if name == "filter":
            return Comprehension("map", range_, element, Element(element), parts[0])
        return Comprehension(_MACROS[str(name)], range_, element, parts[-1], parts[0] if len(parts) == 2 else None)

    # --- values ---

    def _message(self, tree: Branch, depth: int, elements: frozenset[str]) -> Expression:
        raise self._words.bad("messages cannot be made in a rule; a map is written as {key: value}", _start(tree))

    def _list(self, tree: Branch, depth: int, elements: frozenset[str]) -> Expression:
        return ListOf(self._all(_arguments(tree, 0), depth, elements))

    def _map(self, tree: Branch, depth: int, elements: frozenset[str]) -> Expression:
        parts = self._all(_arguments(tree, 0), depth, elements)
        return MapOf(tuple(zip(parts[::2], parts[1::2], strict=True)))

    def _literal(self, tree: Branch, depth: int, elements: frozenset[str]) -> Expression:
        token = _token(tree, 0)
        position, text = _at(token), str(token)
        if position in self._words.literals:
            return self._words.literals[position]
        match token.type:
            case "NULL_LIT":
                return Constant("null", None)
            case "FLOAT_LIT":
                return self._double(text, position)
            case _:
                return self._integer(text, position)

    def _double(self, text: str, position: int) -> Constant:
        value = float(text)
        if text.endswith(".") or ".e" in text.lower():
            raise self._words.bad("digits must follow the point of a number", position)
        if value in (float("inf"), float("-inf")):
            raise self._words.bad("this number is too large for a double", position)
        return Constant("double", value)

    def _integer(self, text: str, position: int) -> Constant:
        digits = text.rstrip("uU")
        value = int(digits, 16 if "0x" in digits else 10)
        if digits == text and INT_MIN <= value <= INT_MAX:
            return Constant("int", value)
        if digits != text and 0 <= value <= UINT_MAX and not text.startswith("-"):
            return Constant("uint", value)
        what = "an int" if digits == text else "a uint"
        raise self._words.bad(f"this number is out of range for {what} of 64 bits", position)


# --- trees ------------------------------------------------------------------------------------------------------------

_LEVELS = "expr conditionalor conditionaland relation addition multiplication unary member primary paren_expr"
_ONE_CHILD = frozenset(_LEVELS.split())


def _meaningful(tree: Branch) -> Branch:
    """Every operator that is not there has a tree with one child. Passed in a loop: they would take all the stack."""
    while tree.data in _ONE_CHILD and len(tree.children) == 1:
        tree = tree.children[0]
    return tree


def _arguments(tree: Branch, at: int) -> list[Branch]:
    """The expressions of the list that is child number `at`, which is missing when the list is empty."""
    return list(tree.children[at].children) if len(tree.children) > at else []


def _token(tree: Branch, at: int) -> Token:
    """The child number `at`, where the grammar has a name or a literal."""
    leaf: Any = tree.children[at]
    return cast("Token", leaf)


def _place(name: Token) -> tuple[str, int]:
    return str(name), _at(name)


def _start(tree: Branch) -> int:
    return getattr(tree.meta, "start_pos", 0) or 0


def _at(token: Token) -> int:
    return token.start_pos or 0
