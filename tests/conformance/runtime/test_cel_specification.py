"""Rules mean what the specification of the Common Expression Language says, on the cases of its conformance tests.

The cases are not part of the repository. They are read from ``shared/cel_cases.jsonl`` beside the checkout, one JSON
object a line: the expression, typed bindings, and the typed value or error that is expected.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from angos.runtime.config.cel import BadRule, parse_rule
from angos.runtime.config.cel_patterns import re2_matcher, zone_offset
from angos.sansio import trace
from angos.sansio.access.expression import EvaluationError, compile_expression
from angos.sansio.access.expression_values import Uint, equal, key_to_make

FILE = next(
    (
        found
        for folder in Path(__file__).resolve().parents
        if (found := folder.parent / "shared" / "cel_cases.jsonl").exists()
    ),
    None,
)

CONTRADICTS_THE_DEFINITION = {
    "parse/bytes_literals/triple_single_quoted_unescaped_punctuation": "a ? that nothing escapes would become \\?",
}


def _cases() -> list[Any]:
    if FILE is None:
        reason = "shared/cel_cases.jsonl with the cases of the specification is not beside this checkout"
        return [pytest.param({}, marks=pytest.mark.skip(reason=reason), id="absent")]
    cases = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]
    return [pytest.param(case, id=_name(case)) for case in cases]


def _name(case: dict[str, Any]) -> str:
    return f"{case['file']}/{case['section']}/{case['name']}"


def _value(typed: dict[str, Any]) -> Any:
    """What is written as ``{"type": value}``."""
    ((kind, value),) = typed.items()
    match kind:
        case "uint":
            return Uint(value)
        case "double":
            return float(value)
        case "bytes":
            return bytes.fromhex(value)
        case "list":
            return [_value(item) for item in value]
        case "map":
            return {key_to_make(_value(key)): _value(item) for key, item in value}
        case _:
            return value


def _outcome(case: dict[str, Any]) -> Any:
    """The value, or the error with which the expression is refused or fails."""
    bindings = {name: _value(typed) for name, typed in case.get("bindings", {}).items()}
    try:
        expression = parse_rule(case["expr"], variables=list(bindings), checked=not case.get("unchecked"))
        as_recorded = trace.decode(json.loads(json.dumps(trace.encode(expression))))
        assert as_recorded == expression
        return compile_expression(as_recorded, matcher=re2_matcher(), zones=zone_offset)(bindings)
    except (BadRule, EvaluationError) as error:
        return error


def _is(outcome: Any, expected: Any) -> bool:
    if type(outcome) is float and type(expected) is float:
        return repr(outcome) == repr(expected)  # -0.0 is not 0.0 here, and NaN is NaN
    return type(outcome) is type(expected) and equal(outcome, expected)


@pytest.mark.parametrize("case", _cases())
def test_an_expression_has_the_value_of_the_specification(case: dict[str, Any]) -> None:
    outcome = _outcome(case)
    if _name(case) in CONTRADICTS_THE_DEFINITION:
        assert not _is(outcome, _value(case["expect"])), "the case was corrected: it is no exception any more"
    elif "error" in case["expect"]:
        assert isinstance(outcome, Exception), f"{case['expr']} is {outcome!r}"
    else:
        assert _is(outcome, _value(case["expect"])), f"{case['expr']} is {outcome!r}"
