"""Whatever is written as a rule: it is refused with a place in the text, or it can be evaluated."""

from __future__ import annotations

from contextlib import suppress

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from angos.runtime.config.cel import BadRule, parse_rule
from angos.runtime.config.cel_patterns import re2_matcher, zone_offset
from angos.sansio.access.expression import EvaluationError, compile_expression

ACTIVATION = {"identity": {"username": "alice", "oidc": None}, "request": {"action": "get-blob", "tags": ["1", "2"]}}
SHAPES = {"identity": {"username", "oidc"}, "request": {"action", "tags"}}
WORDS = """
    identity request identity.username request.tags oidc tags x e in true null has
    size matches startsWith exists all map filter timestamp duration getHours int
    ( ) [ ] { } , : ? . && || ! == != < <= + - * / %
    "a" 'b' r"\\d" \"\"\"c\"\"\" b"d" "\\n" "\\q" ''' " ` `f` \\ // ; =
    0 1 1u 1.5 1e3 .5 0x1f -9223372036854775808 9223372036854775808 1. 5a é
"""
PIECES = [*WORDS.split(), "\n", "\0", "\ud800"]
WHOLE = [
    'identity.username == "alice"',
    'request.tags.exists(e, e.startsWith("1")) && !has(identity.oidc)',
    'request.action in ["get-blob", "get-manifest"] ? size(request.tags) > 1 : identity.username.matches("^a+$")',
    "request.tags.map(e, int(e) > 1, e + e) == [r'22'] || {'a': 1}.`a` == 0x1 // why",
    'timestamp("2026-11-23T10:00:00Z").getHours("Europe/Paris") < 12 && duration("1h") > duration("1m")',
]


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """A rule from which something was cut, or into which something was put."""
    text = draw(st.sampled_from(WHOLE))
    start = draw(st.integers(0, len(text)))
    end = draw(st.integers(start, min(len(text), start + 5)))
    return text[:start] + draw(st.sampled_from(["", *PIECES])) + text[end:]


texts = st.one_of(
    damaged(),
    st.lists(st.sampled_from(PIECES), max_size=12).map(" ".join),
    st.lists(st.sampled_from(PIECES), max_size=12).map("".join),
    st.text(st.characters(exclude_categories=()), max_size=30),
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(texts, st.booleans())
@example("r'''\\'''", True)
@example('"\\', True)
@example("identity.true", True)
@example(".", False)
@example("has(identity.`username`)", True)
def test_a_text_is_refused_with_its_place_or_can_be_evaluated(text: str, checked: bool) -> None:
    try:
        expression = parse_rule(text, variables=SHAPES, checked=checked)
    except BadRule as refusal:
        lines = text.split("\n")
        assert 1 <= refusal.line <= len(lines)
        assert 1 <= refusal.column <= len(lines[refusal.line - 1]) + 1
        assert str(refusal).count("\n") == 2
        return
    with suppress(EvaluationError):
        compile_expression(expression, matcher=re2_matcher(), zones=zone_offset)(ACTIVATION)
