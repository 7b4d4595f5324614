"""Retention: what a list of rules keeps, and what is kept whatever they say."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from angos.sansio.access.expression import EvaluationError
from angos.sansio.access.expression_nodes import Constant
from angos.sansio.effects import Effect, ListKeys, StatKey, StorageUnavailable
from angos.sansio.layout import TagEvent, revision_key
from angos.sansio.oci.digest import Digest
from angos.sansio.oci.reference import Namespace, Tag
from angos.sansio.operation import Operation
from angos.sansio.prune import Pruned, prune
from angos.sansio.retention import (
    FUNCTIONS,
    RetentionConfig,
    RetentionRule,
    TagFacts,
    Verdict,
    judge,
    named_subject,
)
from angos.simulator.registry import SimulatedRegistry

DAY_MS = 86_400_000
NOW_MS = 100 * DAY_MS
DIGEST = Digest.of(b"somebody's manifest")
Variables = Mapping[str, Any]


def rule(evaluate: Callable[[Variables], Any], where: str = "rules[0]") -> RetentionRule:
    """A rule that is written in Python."""
    return RetentionRule("(in Python)", where, Constant("bool", False), evaluate)


def fails(_variables: Variables) -> bool:
    raise EvaluationError("there is no key x")


def top(count: int) -> RetentionRule:
    return rule(lambda variables: FUNCTIONS["top_pushed"](variables, count))


NEVER, ALWAYS, FAILING = rule(lambda _: False), rule(lambda _: True), rule(fails)


def facts(tag: str, days_old: float = 50.0, *, has_subject: bool = False) -> TagFacts:
    return TagFacts(Tag(tag), TagEvent(int(NOW_MS - days_old * DAY_MS), "set", DIGEST), has_subject)


def going(verdicts: Iterable[Verdict]) -> list[str]:
    return [str(verdict.facts.tag) for verdict in verdicts if verdict.goes]


def judged(tags: Sequence[TagFacts], *rules: RetentionRule, min_age_ms: int = 0) -> list[str]:
    return going(judge(tags, rules, NOW_MS, min_age_ms=min_age_ms))


# --- rules ------------------------------------------------------------------------------------------------------------


def test_without_rules_everything_stays() -> None:
    assert judged([facts("v1", 10_000)]) == []


def test_the_first_rule_that_is_true_keeps_and_is_named() -> None:
    rules = [rule(lambda _: False, "a"), rule(lambda variables: variables["image"]["tag"] == "v1", "b"), ALWAYS]
    (verdict,) = judge([facts("v1")], rules, NOW_MS)
    assert (verdict.why, verdict.rule) == ("rule", rules[1])


@pytest.mark.parametrize("value", [None, 1, 0, "", "true", [], {}, 0.5])
def test_a_rule_that_is_neither_true_nor_false_keeps(value: object) -> None:
    (verdict,) = judge([facts("v1")], [rule(lambda _: value), NEVER], NOW_MS)
    assert verdict.why == "rule failed"
    assert "instead of true or false" in verdict.problem


def test_a_rule_that_fails_keeps_and_says_why() -> None:
    (verdict,) = judge([facts("v1")], [NEVER, FAILING], NOW_MS)
    assert (verdict.why, verdict.rule, verdict.problem) == ("rule failed", FAILING, "there is no key x")


def test_rules_see_the_tag_and_its_time_in_seconds() -> None:
    seen: list[Variables] = []
    judge([facts("v1", 1.0)], [rule(seen.append)], NOW_MS)
    assert seen[0]["image"] == {"tag": "v1", "pushed_at": (NOW_MS - DAY_MS) // 1000, "last_pulled_at": 0}
    assert FUNCTIONS["now"](seen[0]) == NOW_MS // 1000
    assert [FUNCTIONS[name](seen[0], 3) for name in ("days", "hours", "minutes")] == [259_200, 10_800, 180]


@pytest.mark.parametrize("name", ["days", "hours", "minutes", "top_pushed", "top_pulled"])
@pytest.mark.parametrize("argument", ["3", None, 3.0, True])
def test_functions_take_whole_numbers_only(name: str, argument: object) -> None:
    with pytest.raises(EvaluationError):
        FUNCTIONS[name]({}, argument)


def test_a_time_that_does_not_fit_is_an_error_and_keeps() -> None:
    assert judged([facts("v1")], rule(lambda variables: FUNCTIONS["days"](variables, 2**62))) == []


def test_the_newest_are_counted_among_all_tags_of_the_repository() -> None:
    tags = [facts("a", 3), facts("b", 1), facts("c", 4), facts("d", 2)]
    assert judged(tags, top(2)) == ["a", "c"]
    assert judged(tags, top(0)) == ["a", "b", "c", "d"]
    assert judged(tags, top(9)) == []


def test_of_tags_pushed_at_once_the_same_ones_are_the_newest_every_time() -> None:
    tags = [facts(name, 5) for name in "abcd"]
    assert judged(tags, top(2)) == ["c", "d"]
    assert judged(tags[::-1], top(2)) == ["d", "c"]


def test_the_newest_are_counted_among_those_that_begin_alike() -> None:
    tags = [facts(f"{kind}-{age}", age) for kind in ("dev", "v") for age in (1, 2, 3)] + [facts("d", 0.5)]

    def with_prefix(prefix: object, count: object) -> RetentionRule:
        return rule(lambda variables: FUNCTIONS["top_pushed_with_prefix"](variables, prefix, count))

    assert judged(tags, with_prefix("dev-", 2)) == ["dev-3", "v-1", "v-2", "v-3", "d"]
    assert judged(tags, with_prefix("dev-", 1), with_prefix("v-", 2)) == ["dev-2", "dev-3", "v-3", "d"]
    assert judged(tags, with_prefix("", 3)) == judged(tags, top(3))
    assert judged(tags, with_prefix("x", 3)) == [str(one.tag) for one in tags]
    for wrong in (with_prefix(3, 3), with_prefix("dev-", "3"), with_prefix(None, None)):
        assert judged(tags, wrong) == []


def test_a_rule_that_counts_for_every_tag_apart_fails_and_keeps_before_it_takes_for_ever() -> None:
    tags = [facts(f"t{number:04}", 5) for number in range(500)]
    each = rule(lambda variables: not FUNCTIONS["top_pushed_with_prefix"](variables, variables["image"]["tag"], 1))
    verdicts = judge(tags, [each], NOW_MS)
    assert sum(verdict.goes for verdict in verdicts) == 100
    assert verdicts[-1].problem == "rules ask for more than 100 beginnings of tags"


def test_what_has_no_known_time_takes_no_place_among_the_newest() -> None:
    """Bug class 65: rankings counted what had no time, and kept or dropped the wrong ones."""
    tags = [TagFacts(Tag("lost"), None), TagFacts(Tag("undated"), TagEvent(-1, "set", DIGEST)), facts("a"), facts("b")]
    assert judged(tags, top(1)) == ["b"]


# --- what stays whatever rules say ------------------------------------------------------------------------------------


def test_an_unknown_push_time_keeps() -> None:
    """Bug class 65: it was read as 1970, so that everything of an older store went."""
    (verdict,) = judge([TagFacts(Tag("v1"), TagEvent(-1, "set", DIGEST))], [NEVER], NOW_MS)
    assert verdict.why == "undated"


def test_a_tag_that_could_not_be_read_stays() -> None:
    (verdict,) = judge([TagFacts(Tag("v1"), None)], [NEVER], NOW_MS)
    assert verdict.why == "unreadable"


def test_what_was_pushed_a_moment_ago_stays() -> None:
    tags = [facts("old", 0.5), facts("edge", 0.25), facts("new", 0.2499), facts("of tomorrow", -1)]
    assert judged(tags, NEVER, min_age_ms=DAY_MS // 4) == ["old", "edge"]


def test_signatures_of_what_is_here_stay_and_take_no_place_among_the_newest() -> None:
    signature = f"sha256-{DIGEST.hex}.sig"
    tags = [facts(signature, 1, has_subject=True), facts("a", 2), facts("b", 3)]
    assert judged(tags, top(1)) == ["b"]


@pytest.mark.parametrize(
    ("tag", "subject"),
    [
        (f"sha256-{'a' * 64}", Digest("sha256", "a" * 64)),
        (f"sha256-{'a' * 64}.sig", Digest("sha256", "a" * 64)),
        (f"sha256-{'a' * 64}.att", Digest("sha256", "a" * 64)),
        (f"sha512-{'a' * 118}", None),
        (f"sha256-{'a' * 63}", None),
        (f"sha256-{'a' * 65}", None),
        (f"sha256-{'A' * 64}", None),
        (f"x-sha256-{'a' * 64}", None),
        (f"sha256-{'a' * 64}-sig", None),
        ("v1", None),
    ],
)
def test_a_tag_made_from_a_digest_belongs_to_it(tag: str, subject: Digest | None) -> None:
    assert named_subject(Tag(tag)) == subject


RULES = st.sampled_from([NEVER, ALWAYS, FAILING, top(1), top(3), rule(lambda v: v["image"]["tag"] < "c")])
TAGS = st.lists(
    st.builds(
        facts,
        st.text("abcdef", min_size=1, max_size=2),
        st.integers(-1, 50).map(float),
        has_subject=st.booleans(),
    ),
    max_size=8,
    unique_by=lambda one: one.tag,
)


@given(TAGS, st.lists(RULES, min_size=1, max_size=4), RULES, st.data())
def test_another_rule_only_keeps_more(
    tags: list[TagFacts], rules: list[RetentionRule], another: RetentionRule, data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(rules)))
    assert set(judged(tags, *rules[:at], another, *rules[at:])) <= set(judged(tags, *rules))


@given(TAGS, st.lists(RULES, max_size=4))
def test_every_tag_is_judged_once_and_a_tag_goes_only_if_each_rule_was_asked_and_said_no(
    tags: list[TagFacts], rules: list[RetentionRule]
) -> None:
    verdicts = judge(tags, rules, NOW_MS, min_age_ms=DAY_MS)
    assert [verdict.facts for verdict in verdicts] == tags
    for verdict in verdicts:
        if verdict.goes:
            assert rules
            assert not any(rule is FAILING or rule is ALWAYS for rule in rules)
            assert not verdict.facts.has_subject
            assert verdict.facts.pushed_ms is not None
            assert NOW_MS - verdict.facts.pushed_ms >= DAY_MS


# --- repositories -----------------------------------------------------------------------------------------------------


def test_rules_of_a_repository_are_added_to_the_global_ones() -> None:
    own, everywhere = rule(lambda _: False, "own"), rule(lambda _: False, "everywhere")
    config = RetentionConfig((everywhere,), (("team", (own,)),))
    assert config.rules_for(Namespace("team")) == (everywhere, own)
    assert config.rules_for(Namespace("team/app")) == (everywhere, own)
    assert config.rules_for(Namespace("teamwork")) == (everywhere,)
    assert RetentionConfig((), (("team", (own,)),)).rules_for(Namespace("other")) == ()


# --- the store --------------------------------------------------------------------------------------------------------

INDEX = "application/vnd.oci.image.index.v1+json"


def push(world: SimulatedRegistry, namespace: str, tag: str, number: int = 0) -> Digest:
    """Push an index of nothing."""
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [], "annotations": {"n": str(number)}}
    body = json.dumps(index).encode()
    assert world.send("PUT", f"/v2/{namespace}/manifests/{tag}", {"Content-Type": INDEX}, body).status == 201
    return Digest.of(body)


def run(world: SimulatedRegistry, *rules: RetentionRule, wanted: tuple[str, ...] = ()) -> Pruned:
    """A dry one."""
    return world.run(Operation(prune(RetentionConfig(rules, min_age_seconds=0), wanted, dry_run=True)))


def named(done: Pruned, *, goes: bool = True) -> list[str]:
    return [f"{one.namespace}:{one.verdict.facts.tag}" for one in done.tags if one.verdict.goes is goes]


def test_every_live_tag_is_looked_at() -> None:
    world = SimulatedRegistry()
    for namespace in ("a", "a/b", "ab", "c"):
        push(world, namespace, "v1")
        push(world, namespace, "gone")
        assert world.send("DELETE", f"/v2/{namespace}/manifests/gone").status == 202
    done = run(world, NEVER)
    assert named(done) == ["a:v1", "a/b:v1", "ab:v1", "c:v1"]
    assert (done.namespaces, done.passed) == (4, 0)
    assert named(run(world, NEVER, wanted=("a", "c"))) == ["a:v1", "a/b:v1", "c:v1"]
    assert named(run(world, NEVER, wanted=("b",))) == []


def test_a_tag_of_many_events_is_as_old_as_its_newest_one() -> None:
    """However the pages of the listing cut them."""
    world = SimulatedRegistry()
    for number in range(40):
        for tag in ("a", "b.c", "b", "b-c"):
            push(world, "a", tag, number % 3)
            world.world.clock.now_ms += 1000
    done = run(world, rule(lambda variables: variables["image"]["pushed_at"] > variables["now()"] - 4))
    assert named(done) == ["a:a"]
    assert sorted(named(done, goes=False)) == ["a:b", "a:b-c", "a:b.c"]


def test_looking_changes_nothing() -> None:
    world = SimulatedRegistry()
    push(world, "a", "v1")
    before = world.world.store.names("")
    run(world, NEVER)
    assert world.world.store.names("") == before


def test_a_run_that_is_not_dry_deletes_what_the_dry_one_showed() -> None:
    world = SimulatedRegistry()
    for number, tag in enumerate(("v1", "v2", "v3")):
        push(world, "a", tag, number)
    rules = (rule(lambda variables: variables["image"]["tag"] == "v2"),)
    shown = run(world, *rules)
    done = world.run(Operation(prune(RetentionConfig(rules, min_age_seconds=0))))
    assert [(one.verdict.facts.tag.name, one.outcome) for one in done.tags] == [
        ("v1", "deleted"),
        ("v2", "kept"),
        ("v3", "deleted"),
    ]
    assert [one.outcome for one in shown.tags] == [one.outcome for one in done.tags]
    assert json.loads(world.send("GET", "/v2/a/tags/list").body)["tags"] == ["v2"]


def test_a_signature_belongs_to_its_image_for_as_long_as_that_is_here() -> None:
    world = SimulatedRegistry()
    image = push(world, "a", "v1")
    push(world, "a", f"sha256-{image.hex}.sig", 1)
    assert named(run(world, NEVER)) == ["a:v1"]
    assert world.send("DELETE", f"/v2/a/manifests/{image}").status == 202
    assert named(run(world, NEVER)) == [f"a:sha256-{image.hex}.sig"]


SIGNATURE = f"sha256-{DIGEST.hex}.sig"


class Failing(SimulatedRegistry):
    """Fails to answer some questions."""

    fails: Callable[[Effect[Any]], bool] = staticmethod(lambda effect: False)

    def perform(self, effect: Effect[Any]) -> Any:
        if self.fails(effect):
            raise StorageUnavailable("the disk is away")
        return super().perform(effect)


def failing_on(*fails: str) -> Failing:
    """Cannot list what begins so, or look at it."""
    world = Failing()
    for namespace in ("a", "b"):
        for number, tag in enumerate(("v1", "v2", SIGNATURE)):
            push(world, namespace, tag, number)
    world.fails = lambda effect: (
        (isinstance(effect, ListKeys) and effect.prefix in fails)
        or (isinstance(effect, StatKey) and effect.key in fails)
    )
    return world


def test_a_tag_about_which_something_cannot_be_read_costs_nothing_but_itself() -> None:
    """Bug classes 49 and 58: nothing is deleted because something could not be read, and the rest goes on."""
    done = run(failing_on(revision_key(Namespace("a"), DIGEST)), NEVER)
    assert named(done) == ["a:v1", "a:v2", f"b:{SIGNATURE}", "b:v1", "b:v2"]
    assert named(done, goes=False) == [f"a:{SIGNATURE}"]
    assert done.passed == 1


def test_a_repository_whose_tags_cannot_be_listed_is_passed_over() -> None:
    done = run(failing_on("v2/ns/a!tag/"), NEVER)
    assert named(done) == [f"b:{SIGNATURE}", "b:v1", "b:v2"]
    assert done.passed == 1


def test_without_the_list_of_repositories_there_is_no_verdict() -> None:
    with pytest.raises(StorageUnavailable):
        run(failing_on("v2/cat/"), NEVER)
