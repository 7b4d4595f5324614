"""Expressions of the Common Expression Language: what they mean.

An expression is compiled once into nested functions over plain values of Python; evaluating it takes about a
microsecond. Semantics are those of the language definition (github.com/google/cel-spec), without messages: a failing
operand of ``&&`` and ``||`` counts only if no other operand decides, numbers of different types are compared as
numbers, and every arithmetic result fits 64 bits or is an error.

What an evaluation may cost is bounded. Without macros it is bounded by the size of the expression; with macros every
node that is evaluated for an element is a step, and so are the elements of lists that are compared or made, and
`STEPS_MAX` steps end it. Nothing is shared between evaluations, so threads may evaluate one expression at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, assert_never

from angos.sansio.access import expression_closures as closures
from angos.sansio.access.expression_closures import ACTIVATION, METER, Run
from angos.sansio.access.expression_functions import (
    FUNCTIONS,
    METHODS,
    Matcher,
    backtracking_matcher,
    methods_of_times,
)
from angos.sansio.access.expression_nodes import (
    NODES,
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
    MapOf,
    Select,
    Unary,
    Variable,
    walk,
)
from angos.sansio.access.expression_times import EvaluationError, Zones, no_zones
from angos.sansio.access.expression_values import Meter, contains, equal, no_overload

__all__ = ["NODES", "STEPS_MAX", "Evaluate", "EvaluationError", "Expression", "HostFunction", "compile_expression"]

Evaluate = Callable[[Mapping[str, Any]], Any]
"""From the activation, values as `json.loads` gives them by the names of variables, to the value of the expression.
Raises `EvaluationError`."""

HostFunction = Callable[..., Any]
"""A function that the host adds: it is given the activation and then the arguments, of which the number is checked when
a rule is loaded and the types are not. Raises `EvaluationError` for those it does not take."""

STEPS_MAX = 100_000
"""Takes some 20 ms: longer than any sensible rule needs, short enough for whoever waits behind it."""

Slots = Mapping[str, str]


def compile_expression(
    expression: Expression,
    *,
    functions: Mapping[str, HostFunction] = MappingProxyType({}),
    matcher: Matcher = backtracking_matcher,
    zones: Zones = no_zones,
) -> Evaluate:
    """The expression as a function. A function it calls that nobody has fails when it is called, not here."""
    metered = any(isinstance(node, Comprehension) for node in walk(expression))
    run = _Compiler(functions, matcher, zones, metered).compile(expression, {})

    def evaluate(activation: Mapping[str, Any]) -> Any:
        scope: Any = activation
        if metered:
            scope = {**activation, METER: Meter(STEPS_MAX), ACTIVATION: activation}
        try:
            return run(scope)
        except RecursionError:
            raise EvaluationError("values are nested too deeply to be compared") from None

    return evaluate


class _Compiler:
    """Makes functions of nodes. `slots` maps the variables of the enclosing comprehensions to their places in the
    scope: equal names get different ones."""

    def __init__(self, functions: Mapping[str, HostFunction], matcher: Matcher, zones: Zones, metered: bool) -> None:
        self._host = functions
        self._matcher = matcher
        self._methods = {**METHODS, **methods_of_times(zones)}
        self._metered = metered
        self._slots_made = 0

    def compile(self, node: Expression, slots: Slots) -> Run:
        match node:
            case Constant():
                return closures.constant(node)
            case Variable() | Element() | Select() | Index():
                return self._access(node, slots)
            case Has(operand, field):
                return closures.has(self.compile(operand, slots), field)
            case Call():
                return self._call(node, slots)
            case Unary(symbol, operand):
                made = self.compile(operand, slots)
                return closures.inversion(made) if symbol == "!" else closures.negation(made)
            case Binary():
                return self._binary(node, slots)
            case Logical(symbol, operands):
                return closures.logical(symbol, [self.compile(operand, slots) for operand in operands])
            case Conditional(condition, chosen, otherwise):
                return closures.conditional(*(self.compile(one, slots) for one in (condition, chosen, otherwise)))
            case ListOf(items):
                return closures.list_of([self.compile(item, slots) for item in items])
            case MapOf(entries):
                return closures.map_of([(self.compile(one, slots), self.compile(to, slots)) for one, to in entries])
            case Comprehension():
                return self._comprehension(node, slots)
            case _:
                assert_never(node)

    def _access(self, node: Variable | Element | Select | Index, slots: Slots) -> Run:
        """Constant fields below a name, as in ``identity.oidc.claims["repository"]``, are one function."""
        fields: list[str] = []
        root: Expression = node
        while True:
            match root:
                case Select(operand, field) | Index(operand, Constant("string", str(field))):
                    fields.insert(0, field)
                    root = operand
                case Variable(name):
                    return closures.path(name, fields, name)
                case Element(variable):
                    return closures.path(slots[variable], fields, variable)
                case _:
                    break
        match node:
            case Select(operand, field) | Index(operand, Constant("string", str(field))):
                return closures.selection(self.compile(operand, slots), field)
            case Index(operand, key):
                return closures.index(self.compile(operand, slots), self.compile(key, slots))
            case _:
                raise AssertionError(f"a name is its own root: {node}")

    def _binary(self, node: Binary, slots: Slots) -> Run:
        left, right = self.compile(node.left, slots), self.compile(node.right, slots)
        match node.symbol:
            case "==" | "!=":
                return self._equality(node, left, right)
            case "in":
                return self._membership(node, left, right)
            case "<" | "<=" | ">" | ">=":
                return closures.order(node.symbol, left, right)
            case _:
                return closures.arithmetic(node.symbol, left, right, self._metered)

    def _equality(self, node: Binary, left: Run, right: Run) -> Run:
        wanted = node.symbol == "=="
        for one, operand in ((node.right, left), (node.left, right)):
            if isinstance(one, Constant) and (one.value is None or one.kind == "string"):
                return closures.equal_to(one.value, operand, wanted)
        if self._metered:
            return lambda scope: equal(left(scope), right(scope), scope[METER]) is wanted
        return lambda scope: equal(left(scope), right(scope)) is wanted

    def _membership(self, node: Binary, left: Run, right: Run) -> Run:
        if isinstance(node.right, ListOf):
            strings = [one for one in node.right.items if isinstance(one, Constant) and one.kind == "string"]
            if len(strings) == len(node.right.items):
                return closures.among(left, frozenset(one.value for one in strings))
        if self._metered:
            return lambda scope: contains(left(scope), right(scope), scope[METER])
        return lambda scope: contains(left(scope), right(scope))

    def _call(self, node: Call, slots: Slots) -> Run:
        name, receiver = node.function, () if node.receiver is None else (node.receiver,)
        arguments = [self.compile(argument, slots) for argument in (*receiver, *node.arguments)]
        if name == "matches" and len(arguments) == 2:
            return self._matches(arguments, node.arguments[-1])
        if not receiver and name in self._host:
            return self._host_call(self._host[name], arguments)
        function = (self._methods if receiver else FUNCTIONS).get((name, len(node.arguments)))
        if function is None:
            return closures.failure(f"there is no function {name} with {len(node.arguments)} arguments")
        return closures.call(function, arguments, self._metered)

    def _host_call(self, function: HostFunction, arguments: list[Run]) -> Run:
        if self._metered:
            return lambda scope: function(scope[ACTIVATION], *(argument(scope) for argument in arguments))
        return lambda scope: function(scope, *(argument(scope) for argument in arguments))

    def _matches(self, arguments: list[Run], pattern: Expression) -> Run:
        matcher = self._matcher

        def matches(text: Any, pattern: Any) -> bool:
            if type(text) is str and type(pattern) is str:
                return matcher(pattern)(text)
            raise no_overload("matches", text, pattern)

        match pattern:
            case Constant("string", str(known)):
                try:
                    found = matcher(known)
                except EvaluationError as error:
                    return closures.failure(str(error))
            case _:
                return closures.call(matches, arguments, self._metered)

        def matches_known(text: Any) -> bool:
            if type(text) is str:
                return found(text)
            raise no_overload("matches", text, known)

        return closures.call(matches_known, arguments[:1], self._metered)

    def _comprehension(self, node: Comprehension, slots: Slots) -> Run:
        slot = f"element {self._slots_made}"
        self._slots_made += 1
        range_ = self.compile(node.range, slots)
        inner = {**slots, node.variable: slot}
        body = self.compile(node.body, inner)
        condition = None if node.condition is None else self.compile(node.condition, inner)
        cost = sum(1 for part in (node.body, node.condition) if part is not None for _ in walk(part))
        match node.macro:
            case "all" | "exists":
                return closures.quantifier(node.macro == "exists", range_, slot, body, cost)
            case "exists_one":
                return closures.exactly_one(range_, slot, body, cost)
            case "map":
                return closures.mapped(range_, slot, body, cost, condition)
            case _:
                assert_never(node.macro)
