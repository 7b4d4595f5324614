"""What rules evaluate to, feature by feature, over the identity and the request of a policy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest

from angos.runtime.config.cel import parse_rule
from angos.runtime.config.cel_patterns import re2_matcher, zone_offset
from angos.sansio.access.expression import STEPS_MAX, EvaluationError, compile_expression
from angos.sansio.access.expression_functions import PATTERN_LENGTH_MAX, backtracking_matcher

ACTIVATION = {
    "identity": {
        "id": None,
        "username": "alice",
        "certificate": {"organizations": ["admins", "builders"], "common_names": []},
        "oidc": {"provider_name": "forge", "claims": {"repository": "acme/api", "runs": 3, "secret": "s3cr3t"}},
        "client_ip": "10.0.0.1",
    },
    "request": {"action": "get-manifest", "namespace": "acme/api", "tags": []},
    "nobody": {"oidc": None},
    "true_one": True,
    "number_one": 1,
}


def evaluate(rule: str, activation: Mapping[str, Any] = ACTIVATION) -> Any:
    expression = parse_rule(rule, variables=list(activation))
    return compile_expression(expression, matcher=re2_matcher(), zones=zone_offset)(activation)


def problem(rule: str, activation: Mapping[str, Any] = ACTIVATION) -> str:
    with pytest.raises(EvaluationError) as raised:
        evaluate(rule, activation)
    return str(raised.value)


@pytest.mark.parametrize(
    "rule",
    [
        'identity.username == "alice"',
        'identity.username in ["bob", "alice"]',
        "identity.id == null && identity.username != null",
        'identity.oidc != null && identity.oidc.claims["repository"] == "acme/api"',
        'identity.oidc.claims.repository.startsWith("acme/") && !identity.oidc.claims.repository.endsWith("/")',
        'request.namespace.matches("^acme/(api|web)$") && request.namespace.contains("e/a")',
        'matches(request.namespace, r"\\w+/\\w+")',
        'identity.certificate.organizations.exists(one, one == "admins")',
        "identity.certificate.organizations.all(one, size(one) > 3)",
        'identity.certificate.organizations.exists_one(one, one.startsWith("b"))',
        'identity.certificate.organizations.map(one, one + "!") == ["admins!", "builders!"]',
        'identity.certificate.organizations.map(one, one != "admins", size(one)) == [8]',
        'identity.certificate.organizations.filter(one, one < "b") == ["admins"]',
        'identity.oidc.claims.exists(key, key == "runs")',
        "has(request.namespace) && !has(request.digest)",
        "has(identity.id)",
        "size(request.tags) == 0 && request.tags.size() == 0",
        'request.action in {"get-manifest": 1, "get-blob": 2}',
        '(request.action == "get-blob" ? 1 : 2) == 2',
        '[1, 2, 3][1] == 2 && {"a": 5}.a == 5 && {"a-b": 5}.`a-b` == 5',
        "type(identity.oidc.claims.runs) == int && type(1u) == uint && type([]) == list && type(null) == null_type",
        '"a\\tb" == "a\tb" && r"a\\tb" != "a\tb" && """a"b""" == \'a"b\' && b"\\xff" != b"\\303\\277"',
        '1 == 1.0 && 1u == 1 && 2.5 > 2 && 3u < 4 && !(1 == "1") && [1] == [1.0] && {1: 1} == {1u: 1.0}',
        "7 / 2 == 3 && -7 / 2 == -3 && 7 % 2 == 1 && -7 % 2 == -1 && 0x10 == 16 && 1.5e1 == 15.0",
        'string(12) + string(true) + string(1.5) == "12true1.5" && int("-7") == -7 && double("1e3") == 1000.0',
        'timestamp("2009-02-13T23:31:30.5Z") - duration("90m") == timestamp("2009-02-13T22:01:30.5Z")',
        'timestamp("2026-03-01T00:30:00+01:00").getMonth() == 1 && timestamp(0).getDayOfWeek() == 4',
        'timestamp(1234567890).getHours("Asia/Kathmandu") == 5 && timestamp(1234567890).getHours("-09:30") == 14',
        'duration("123.321456789s").getMilliseconds() == 321 && duration("-1.5s").getSeconds() == -1',
        'duration("1h30m").getMinutes() == 90 && string(duration("-1.5s")) == "-1.5s"',
        'string(timestamp(0)) == "1970-01-01T00:00:00Z" && int(timestamp(9)) == 9 && timestamp(0) < timestamp(9)',
    ],
)
def test_a_rule_is_true(rule: str) -> None:
    assert evaluate(rule) is True


@pytest.mark.parametrize(
    ("rule", "value"),
    [
        ("identity.nothing == 1 || true", True),
        ("true || identity.nothing == 1", True),
        ("identity.nothing == 1 && false", False),
        ('"text" && false', False),
        ("[1, 0, 2].exists(n, 2 / n == 1)", True),
        ("[1, 0, 2].all(n, 2 / n == 1)", False),
        ("false ? identity.nothing : 5", 5),
    ],
)
def test_an_error_counts_only_when_nothing_else_decides(rule: str, value: Any) -> None:
    assert evaluate(rule) == value


@pytest.mark.parametrize(
    "rule",
    [
        "identity.nothing == 1 && true",
        "false || identity.nothing == 1",
        '"text" && true',
        "true && 1",
        "1 || false",
        "!1",
        "1 ? true : false",
        "[1, 0].exists(n, 1 / n == 5)",
        "[1, 0].exists_one(n, 1 / n == 1)",
        "[true, 5].all(n, n)",
        "[1].filter(n, n)",
        "(5).exists(n, true)",
        "nobody.oidc.claims == null",
        "has(nobody.oidc.claims)",
        '1 < "2"',
        "1 + 1.0",
        "1 + 1u",
        "9223372036854775807 + 1",
        "-9223372036854775808 / -1",
        "0u - 1u",
        "1 / 0",
        "1 % 0",
        "[1][1]",
        "[1][-1]",
        "[1][true]",
        "{'a': 1}['b']",
        "{'a': 1, 'a': 2}",
        "{1.5: 1}",
        "null.x",
        'int("1_000")',
        'int(" 1")',
        'bool("yes")',
        'double("1,5")',
        "int(1e30)",
        "uint(-1)",
        'string(b"\\xff")',
        "string([])",
        "timestamp(999999999999999)",
        'timestamp("9999-12-31T23:59:59Z") + duration("1s")',
        "timestamp(0).getHours(identity.username)",
        'duration("1s").getFullYear()',
        "identity.username.matches(5)",
        "size(5)",
    ],
)
def test_what_has_no_value_is_an_error(rule: str) -> None:
    assert problem(rule)


def test_true_is_not_the_number_one() -> None:
    for rule in ["true_one == number_one", "true_one in [number_one]", "{true: 5} == {1: 5}", "true in {1: 5}"]:
        assert evaluate(rule) is False, rule
    assert evaluate("{true: 5, 1: 6}[true] == 5") is True
    assert evaluate("[{true: 5}.exists(key, key), {true: 5}.all(key, type(key) == bool)] == [true, true]") is True


def test_a_name_inside_a_macro_hides_the_one_outside_and_only_there() -> None:
    assert evaluate("[1].all(x, [2].all(x, x == 2) && x == 1)") is True
    assert evaluate("[1].all(identity, identity == 1) && identity.username == 'alice'") is True
    assert evaluate("[1].all(identity, .identity.username == 'alice')") is True


def test_not_a_number_equals_nothing_and_infinity_is_a_value() -> None:
    assert evaluate("0.0 / 0.0 == 0.0 / 0.0") is False
    assert evaluate("[0.0 / 0.0] == [0.0 / 0.0]") is False
    assert evaluate("-1.0 / 0.0") == -math.inf


def test_an_error_names_what_is_missing_and_shows_no_value() -> None:
    assert problem('identity.oidc.claims["ref"] == "main"') == "identity.oidc.claims has no field ref"
    assert problem("nobody.oidc.claims == 1") == "nobody.oidc is null and has no field claims"
    assert problem("[{'a': 1}].all(one, one.b == 1)") == "one has no field b"
    assert problem("[1][0].a") == "a value is of type int and has no field a"
    for rule in [
        "identity.oidc.claims.secret < 1",
        "identity.oidc.claims[identity.oidc.claims.secret]",
        "int(identity.oidc.claims.secret)",
        "timestamp(identity.oidc.claims.secret)",
        "duration(identity.oidc.claims.secret)",
        "timestamp(0).getHours(identity.oidc.claims.secret)",
        "identity.username.matches('(' + identity.oidc.claims.secret)",
        "[identity.oidc.claims.secret].exists(one, one)",
    ]:
        assert "s3cr3t" not in problem(rule), rule


def test_a_function_of_the_host_is_given_the_activation() -> None:
    def ends_in(activation: Mapping[str, Any], part: str) -> bool:
        return str(activation["request"]["namespace"]).endswith(part)

    for rule in ["namespace_ends_in('api')", "['web', 'api'].exists(part, namespace_ends_in(part))"]:
        expression = parse_rule(rule, variables=["request"], functions={"namespace_ends_in": 1})
        assert compile_expression(expression, functions={"namespace_ends_in": ends_in})(ACTIVATION) is True
        with pytest.raises(EvaluationError, match="there is no function namespace_ends_in"):
            compile_expression(expression)(ACTIVATION)


# --- bounds -----------------------------------------------------------------------------------------------------------

TEN = "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]"


@pytest.mark.parametrize(
    "rule",
    [
        f"{TEN}.all(a, {TEN}.all(b, {TEN}.all(c, {TEN}.all(d, {TEN}.all(e, a + b + c + d + e >= 0)))))",
        f"{TEN}.exists(a, {TEN}.exists(b, {TEN}.exists(c, {TEN}.exists(d, {TEN}.exists(e, e / 0 == a)))))",
        f"{TEN}.all(a, {TEN}.all(b, long == longer || a + b >= 0))",
        f"{TEN}.all(a, {TEN}.all(b, {TEN}.all(c, !([] in long))))",
        f"{TEN}.all(a, {TEN}.all(b, {TEN}.all(c, text.contains('y') || text.matches('x$'))))",
        "[long + long].all(b, [b + b].all(c, [c + c].all(d, [d + d].all(e, size(e + e) > 0))))",
        "[text + text].all(b, [b + b].all(c, [c + c].all(d, [d + d].all(e, [e + e].all(f, size(f) > 0)))))",
        "[[0]].all(a0, " + "".join(f"[[a{n}, a{n}]].all(a{n + 1}, " for n in range(20)) + "a20 == a20" + ")" * 21,
    ],
    ids=["iterations", "failures", "comparisons", "searches", "texts", "lists", "growing-texts", "shared-values"],
)
def test_no_expression_takes_more_than_its_steps(rule: str) -> None:
    activation = {"long": [0] * 5000, "longer": [0] * 4999 + [1], "text": "x" * 100_000}
    assert f"more than {STEPS_MAX} steps" in problem(rule, activation)


def test_values_that_are_nested_deeply_are_an_error() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert "nested too deeply" in problem("a == b", {"a": deep, "b": [deep]})


# --- regular expressions ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("matcher", [re2_matcher(), backtracking_matcher], ids=["re2", "standard-library"])
@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        ("^a+$", "aaa", True),
        ("^main$", "main\n", False),
        ("(?m)^main$", "main\nnext", True),
        (r"main\z", "main", True),
        ("a.c", "a\nc", False),
        ("(?i)ACME", "acme/api", True),
        (r"^\d+$", "٣", False),
        (r"^\w+$", "é", False),
        ("[[a]", "[", True),
        (r"[$]", "$", True),
        (r"\$", "$", True),
        ("é+", "caféé", True),
        ("(?P<name>b)c", "abc", True),
    ],
)
def test_a_pattern_is_found_as_by_re2(matcher: Any, pattern: str, text: str, found: bool) -> None:
    assert matcher(pattern)(text) is found


@pytest.mark.parametrize("matcher", [re2_matcher(), backtracking_matcher], ids=["re2", "standard-library"])
@pytest.mark.parametrize(
    "pattern",
    ["(", "[a", "a**", "a++", r"(a)\1", "(?=a)", "(?<!a)b", "(?P=x)", "a{2,1}", "a" * (PATTERN_LENGTH_MAX + 1)],
)
def test_a_pattern_that_re2_does_not_have_is_an_error(matcher: Any, pattern: str) -> None:
    with pytest.raises(EvaluationError, match="regular expression"):
        matcher(pattern)


def test_a_pattern_that_backtracks_forever_elsewhere_is_searched_in_linear_time() -> None:
    assert re2_matcher()("^(a+)+$")("a" * 50_000 + "b") is False


def test_half_a_surrogate_pair_is_an_error_where_utf8_is_needed() -> None:
    """As `json.loads` makes it of the escape ``\\ud800``."""
    for rule in ["text.matches('a')", "bytes(text) == b''", "'a'.matches(text)"]:
        assert problem(rule, {"text": "\ud800"})
    assert evaluate("text != 'a' && size(text) == 1", {"text": "\ud800"}) is True


def test_a_bad_pattern_writes_nothing_to_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(EvaluationError):
        re2_matcher()("(unclosed")
    assert capfd.readouterr().err == ""
