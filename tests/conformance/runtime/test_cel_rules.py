"""What is refused when a rule is loaded, and how that is said."""

from __future__ import annotations

import subprocess
import sys

import pytest

from angos.runtime.config.cel import ANY, BadRule, parse_rule
from angos.runtime.config.cel_text import NESTING_MAX, RESERVED, TEXT_LENGTH_MAX
from angos.runtime.config.cel_tree import DEPTH_MAX, NODES_MAX
from angos.sansio.access.expression import compile_expression
from angos.sansio.access.expression_nodes import Binary, Constant, Expression, Select, Variable

VARIABLES = {
    "identity": {
        "id": ANY,
        "username": ANY,
        "certificate": {"organizations", "common_names"},
        "oidc": {"provider_name": ANY, "claims": ANY},
    },
    "request": {"action", "namespace", "digest", "tags"},
}
FUNCTIONS = {"has_repository_policy": 0, "top_pushed": 1}


def parse(rule: str) -> Expression:
    return parse_rule(rule, variables=VARIABLES, functions=FUNCTIONS)


def refusal(rule: str) -> BadRule:
    with pytest.raises(BadRule) as raised:
        parse(rule)
    return raised.value


def test_a_rule_becomes_frozen_data() -> None:
    assert parse('identity.username == "alice"') == Binary(
        "==", Select(Variable("identity"), "username"), Constant("string", "alice")
    )


def test_a_refusal_shows_the_place_and_what_may_have_been_meant() -> None:
    assert str(refusal('true ||\n  identity.usernam == "alice"')) == (
        "line 2, column 12: identity has no field usernam; did you mean identity.username?\n"
        '      identity.usernam == "alice"\n'
        "               ^"
    )


@pytest.mark.parametrize(
    ("rule", "column", "problem"),
    [
        ("identty.id == null", 1, "there is no variable identty; did you mean identity?"),
        ("user == 'alice'", 1, "there is no variable user; known: identity, request"),
        ("identity.oidc.claim.sub == 'a'", 15, "did you mean identity.oidc.claims?"),
        ("identity['usernam'] == 'a'", 10, "did you mean identity.username?"),
        ("has(request.digst)", 13, "did you mean request.digest?"),
        ("request.x == 1", 9, "request has no field x; known: action, digest, namespace, tags"),
        ("request.`act ion`", 9, "did you mean request.action?"),
        ("request.tags.all(tag, tga == 'a')", 23, "there is no variable tga; did you mean tag?"),
        ("request.tags.exist(tag, true)", 14, "there is no function exist; did you mean exists?"),
        ("request.action.startswith('a')", 16, "did you mean startsWith?"),
        ("has_repositry_policy()", 1, "did you mean has_repository_policy?"),
        ("has_repository_policy(1)", 1, "has_repository_policy takes 0 arguments, and 1 is given"),
        ("top_pushed()", 1, "top_pushed takes 1 argument, and 0 are given"),
        ("startsWith(request.action, 'a')", 1, "startsWith is written as value.startsWith(...)"),
        ("request.action.type() == string", 16, "type is written as type(...)"),
        ("has(identity)", 1, "has takes one field"),
        ("request.tags.map(tag)", 14, "map is written as list.map(element, expression)"),
        ("request.tags.all(1, true)", 18, "the first argument of all is a name"),
        ("request.action.`size`()", 16, "cannot be called"),
    ],
)
def test_a_name_that_does_not_exist_is_refused(rule: str, column: int, problem: str) -> None:
    error = refusal(rule)
    assert (error.line, error.column) == (1, column)
    assert problem in error.problem


@pytest.mark.parametrize(
    ("rule", "column", "problem"),
    [
        ("", 1, "the rule is empty"),
        (" \n ", 1, "the rule is empty"),
        ("// true", 1, "the rule is empty"),
        ("true &&", 8, "ends too early"),
        ("true && && false", 9, 'unexpected "&&"'),
        ("true false", 6, 'unexpected "false"'),
        ("true; false", 5, 'unexpected ";": a rule is one expression'),
        ('true "x"', 6, "unexpected text"),
        ("(true", 1, "this ( is never closed"),
        ("[true)", 6, 'the "[" in column 1 is open'),
        ("true)", 5, "nothing was opened"),
        ('"abc', 1, "this text does not end"),
        ('"a\nb"', 1, "this text does not end"),
        ("request.action = 'a'", 16, "two values are compared with =="),
        ("true & false", 6, "conditions are joined with &&"),
        ("true and false", 6, 'unexpected "and": conditions are joined with &&'),
        ("true not", 6, 'unexpected "not"'),
        ("tr\u00fce", 3, "it has no meaning in a rule"),
        ("request.in", 9, "write .`in` for the field"),
        ('"\\d"', 2, "there is no escape \\d"),
        ('"\\ud800"', 2, "is no character of Unicode"),
        ('"\ud800"', 1, "half of a surrogate pair"),
        ('b"\\u0041"', 3, "stands for a character, and bytes have none"),
        ("1. == 1.0", 1, "digits must follow the point"),
        ("5a == 5", 2, 'a number ends in "a"'),
        ("9223372036854775808 > 0", 1, "out of range for an int"),
        ("-1u == 1u", 1, "out of range for a uint"),
        ("1e999 > 0.0", 1, "too large for a double"),
        ("request{action: 'a'} == 1", 1, "messages cannot be made"),
        ("request.action.matches('(a')", 24, "no regular expression of RE2: missing )"),
        ("matches(request.action, r'(a)\\1')", 25, "no regular expression of RE2: invalid escape"),
        ("timestamp('today') == timestamp(0)", 11, "no timestamp of RFC 3339"),
        ("duration('5 minutes') == duration('1s')", 10, "no duration"),
        ("timestamp(0).getHours('Europe/Pariss') == 1", 23, "a time zone is not known"),
    ],
)
def test_a_text_that_is_no_expression_is_refused(rule: str, column: int, problem: str) -> None:
    error = refusal(rule)
    assert error.column == column
    assert problem in error.problem


@pytest.mark.parametrize("word", sorted(RESERVED))
def test_a_reserved_word_is_no_variable(word: str) -> None:
    with pytest.raises(BadRule, match="a word of the language"):
        parse_rule(f"{word} == 1", variables=[word])


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        ("(" * 60 + "true" + ")" * 60, f"nested more than {NESTING_MAX} deep"),
        ("[" * 60 + "]" * 60, f"nested more than {NESTING_MAX} deep"),
        ("!" * 1000 + "true", f"nested more than {DEPTH_MAX} deep"),
        ("-" * 1000 + "1 == 1", f"nested more than {DEPTH_MAX} deep"),
        ("1 + " * 500 + "1 == 1", f"nested more than {DEPTH_MAX} deep"),
        ("true ? true : " * 200 + "true", f"nested more than {DEPTH_MAX} deep"),
        ("identity.oidc.claims" + ".a" * 500 + " == 1", f"nested more than {DEPTH_MAX} deep"),
        ("[" + "1," * NODES_MAX + "1] == []", f"more than {NODES_MAX} parts"),
        ("true //" + "x" * TEXT_LENGTH_MAX, f"{TEXT_LENGTH_MAX} are allowed"),
    ],
    ids=["brackets", "lists", "not", "minus", "plus", "conditional", "fields", "parts", "text"],
)
def test_a_rule_that_is_too_large_is_refused(rule: str, problem: str) -> None:
    error = refusal(rule)
    assert problem in error.problem
    assert len(str(error)) < 500, "a long line is cut"


def test_a_rule_at_the_limits_is_evaluated() -> None:
    nested = "(" * NESTING_MAX + "true" + ")" * NESTING_MAX
    many = " || ".join(["false"] * 250 + ["identity.id == null"])
    deep = "!" * DEPTH_MAX + "true"
    for rule in (nested, many, deep):
        assert compile_expression(parse(rule))({"identity": {"id": None}}) is True


def test_a_variable_with_dots_is_found_before_its_fields() -> None:
    expression = parse_rule("a.b.c == 1", variables=["a", "a.b"])
    assert expression == Binary("==", Select(Variable("a.b"), "c"), Constant("int", 1))


def test_reading_rules_leaves_the_process_as_it_is() -> None:
    """cel-python is not imported without a rule; with one, it neither deepens the stack nor writes a log."""
    program = """
import logging, sys
from angos.runtime.config.cel import parse_rule
assert not {"celpy", "lark", "re2", "pendulum"} & sys.modules.keys(), "imported without a rule"
limit = sys.getrecursionlimit()
parse_rule("a.startsWith('b')", variables=["a"])
assert sys.getrecursionlimit() == limit, "the recursion limit was changed"
assert not logging.getLogger().handlers and not logging.getLogger("celpy").handlers, "a log was set up"
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
