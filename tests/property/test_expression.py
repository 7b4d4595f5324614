"""Whatever a rule says and whatever a request brings, an evaluation ends with a value or an `EvaluationError`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from angos.sansio import trace
from angos.sansio.access.expression import Evaluate, EvaluationError, Expression, compile_expression
from angos.sansio.access.expression_functions import known_functions, known_methods
from angos.sansio.access.expression_nodes import (
    Binary,
    Call,
    Comprehension,
    Conditional,
    Constant,
    Element,
    Has,
    Index,
    ListOf,
    Logical,
    Macro,
    MapOf,
    Select,
    Symbol,
    Unary,
    Variable,
)
from angos.sansio.access.expression_values import INT_MAX, INT_MIN, TYPES, UINT_MAX, equal

NAMES = ("a", "b", "c")
FIELDS = ("x", "y", "")
FAILS = Select(Variable("missing"), "x")
TRUE, FALSE = Constant("bool", True), Constant("bool", False)

any_text = st.text(st.characters(exclude_categories=()), max_size=6)  # json.loads makes surrogates, too
whole = st.integers(INT_MIN, INT_MAX) | st.integers(-3, 3)
activations = st.dictionaries(
    st.sampled_from(NAMES),
    st.recursive(
        st.none() | st.booleans() | whole | st.integers() | st.floats() | any_text,
        lambda values: (
            st.lists(values, max_size=3) | st.dictionaries(st.sampled_from(FIELDS) | any_text, values, max_size=3)
        ),
        max_leaves=8,
    ),
)
constants = st.one_of(
    st.just(Constant("null", None)),
    st.builds(Constant, st.just("bool"), st.booleans()),
    st.builds(Constant, st.just("int"), whole),
    st.builds(Constant, st.just("uint"), st.integers(0, 3) | st.integers(0, UINT_MAX)),
    st.builds(Constant, st.just("double"), st.floats(allow_nan=False, allow_infinity=False)),
    st.builds(Constant, st.just("string"), st.text(max_size=4)),
    st.builds(Constant, st.just("string"), st.sampled_from(["2026-11-23T10:00:00Z", "1h30m", "+02:00", "(a|b)*", "1"])),
    st.builds(Constant, st.just("bytes"), st.binary(max_size=4)),
    st.builds(Constant, st.just("type"), st.sampled_from(sorted(TYPES))),
)
operators: st.SearchStrategy[Symbol] = st.sampled_from(
    ["==", "!=", "<", "<=", ">", ">=", "in", "+", "-", "*", "/", "%"]
)
macros: st.SearchStrategy[Macro] = st.sampled_from(["all", "exists", "exists_one", "map"])
functions = st.sampled_from([*sorted(known_functions()), ("unknown", 2)])
methods = st.sampled_from([*sorted(known_methods()), ("unknown", 0)])


@st.composite
def expressions(draw: st.DrawFn, depth: int = 4, elements: tuple[str, ...] = ()) -> Expression:
    """Any expression, most of them without sense."""

    def below(*more: str) -> Expression:
        return draw(expressions(depth - 1, elements + more))

    def several(least: int, most: int) -> tuple[Expression, ...]:
        return tuple(below() for _ in range(draw(st.integers(least, most))))

    if depth == 0 or draw(st.integers(0, 4)) == 0:
        names = st.builds(Variable, st.sampled_from((*NAMES, "missing")))
        inner = [st.builds(Element, st.sampled_from(elements))] if elements else []
        leaf: Expression = draw(st.one_of(constants, names, *inner))
        return leaf
    match draw(st.integers(0, 11)):
        case 0:
            return Select(below(), draw(st.sampled_from(FIELDS)))
        case 1:
            return Has(below(), draw(st.sampled_from(FIELDS)))
        case 2:
            return Index(below(), below())
        case 3:
            name, count = draw(functions)
            return Call(name, several(count, count))
        case 4:
            name, count = draw(methods)
            return Call(name, several(count, count), below())
        case 5:
            return Unary(draw(st.sampled_from(["!", "-"])), below())
        case 6 | 7:
            return Binary(draw(operators), below(), below())
        case 8:
            return Logical(draw(st.sampled_from(["&&", "||"])), several(2, 3))
        case 9:
            return Conditional(below(), below(), below())
        case 10:
            return ListOf(several(0, 3)) if draw(st.booleans()) else MapOf(tuple((below(), below()) for _ in range(2)))
        case _:
            name = draw(st.sampled_from(NAMES))
            macro = draw(macros)
            condition = below(name) if macro == "map" and draw(st.booleans()) else None
            return Comprehension(macro, below(), name, below(name), condition)


def outcome(evaluate: Evaluate, activation: Mapping[str, Any]) -> str:
    """Comparable also when it is not a number."""
    try:
        return repr(evaluate(activation))
    except EvaluationError as error:
        return f"error: {error}"


@given(expressions(), activations)
def test_an_evaluation_gives_a_value_or_an_evaluation_error(expression: Expression, activation: Any) -> None:
    evaluate = compile_expression(expression)
    assert outcome(evaluate, activation) == outcome(evaluate, activation), "nothing is remembered between evaluations"


@given(expressions(), activations)
def test_an_expression_out_of_a_trace_means_the_same(expression: Expression, activation: Any) -> None:
    recorded = json.loads(json.dumps(trace.encode(expression)))
    again = trace.decode(recorded)
    assert again == expression
    assert outcome(compile_expression(again), activation) == outcome(compile_expression(expression), activation)


@given(expressions(), activations)
def test_an_evaluation_changes_nothing_in_the_activation(expression: Expression, activation: Any) -> None:
    before = repr(activation)
    outcome(compile_expression(expression), activation)
    assert repr(activation) == before


@given(expressions(), activations)
def test_what_needs_a_failing_expression_is_never_true(other: Expression, activation: Any) -> None:
    for needing in (
        FAILS,
        Unary("!", FAILS),
        Logical("&&", (FAILS, other)),
        Logical("&&", (other, FAILS)),
        Conditional(FAILS, TRUE, TRUE),
        Comprehension("all", ListOf((FAILS,)), "e", TRUE),
        Comprehension("exists_one", ListOf((TRUE, FALSE)), "e", FAILS),
        Binary("==", FAILS, FAILS),
    ):
        assert outcome(compile_expression(needing), activation) != "True"


@given(st.lists(st.sampled_from([TRUE, FALSE, FAILS, Constant("int", 1)]), min_size=2, max_size=6))
def test_logic_has_three_values(operands: list[Expression]) -> None:
    """And ``exists`` and ``all`` are the same over the elements of a list."""
    for symbol, macro, deciding in (("||", "exists", TRUE), ("&&", "all", FALSE)):
        fails = any(operand not in (TRUE, FALSE) for operand in operands)
        undecided = FALSE if deciding is TRUE else TRUE
        expected = deciding if deciding in operands else None if fails else undecided
        joined = Logical(symbol, tuple(operands))  # type: ignore[arg-type]
        choices = [
            Conditional(
                Binary("==", Element("e"), Constant("int", place)), operand, FALSE if macro == "exists" else TRUE
            )
            for place, operand in enumerate(operands)
        ]
        numbers = ListOf(tuple(Constant("int", place) for place in range(len(operands))))
        over_elements = Comprehension(macro, numbers, "e", Logical(symbol, tuple(choices)))  # type: ignore[arg-type]
        for expression in (joined, over_elements):
            found = outcome(compile_expression(expression), {})
            if expected is None:
                assert found.startswith("error: ")
            else:
                assert isinstance(expected, Constant)
                assert found == repr(expected.value)


@given(activations, activations)
def test_equality_is_symmetric_and_what_is_copied_is_equal(left: Any, right: Any) -> None:
    assert equal(left, right) is equal(right, left)
    if "nan" not in repr(left).lower():
        assert equal(left, json.loads(json.dumps(left)))


@pytest.fixture
def eager_switching() -> Any:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("eager_switching")
def test_threads_that_evaluate_one_expression_get_their_own_results() -> None:
    """The runner of cel-python mixes them up, which is why it is not used."""
    name = Select(Variable("a"), "x")
    squares = Comprehension("map", Select(Variable("a"), "y"), "e", Binary("*", Element("e"), Element("e")))
    evaluate = compile_expression(ListOf((name, squares, Comprehension("exists", squares, "e", TRUE))))

    def check(number: int) -> None:
        for round_ in range(50):
            numbers = list(range(number, number + round_))
            expected = [number, [one * one for one in numbers], round_ > 0]
            assert evaluate({"a": {"x": number, "y": numbers}}) == expected

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(check, range(64)))
