"""Rules of retention as operators write them: what is refused when they are loaded, and what they keep."""

from __future__ import annotations

from pathlib import Path

import pytest

from angos.runtime.config.file import BadConfiguration
from angos.sansio.layout import TagEvent
from angos.sansio.oci.digest import Digest
from angos.sansio.oci.reference import Namespace, Tag
from angos.sansio.retention import RetentionConfig, TagFacts, judge
from tests.conformance.runtime.example_configuration import load

DAY = 86_400
NOW = 1_800_000_000


def retention(folder: Path, *rules: str) -> RetentionConfig:
    found = load(folder, {"global": {"retention_policy": {"rules": list(rules)}}}).retention
    assert found is not None
    return found


AGES = {"latest": 90, "v1.0": 60, "v1.1": 40, "v2.0": 20, "dev-1": 10, "dev-2": 5, "dev-3": 1}
"""Tags, and how many days ago they were pushed."""


@pytest.mark.parametrize(
    ("rules", "kept"),
    [
        (["true"], {*AGES}),
        (["false"], set()),
        (["image.tag == 'latest'"], {"latest"}),
        (["image.tag == 'latest'", "now() - image.pushed_at < days(15)"], {"latest", "dev-1", "dev-2", "dev-3"}),
        (["image.pushed_at > now() - hours(24 * 21)"], {"v2.0", "dev-1", "dev-2", "dev-3"}),
        (["image.pushed_at > now() - minutes(24 * 60 * 2)"], {"dev-3"}),
        (["top_pushed(2)"], {"dev-2", "dev-3"}),
        (["top_pushed_with_prefix('dev-', 2) || top_pushed_with_prefix('v', 1)"], {"v2.0", "dev-2", "dev-3"}),
        (["image.tag.matches('^v[0-9]+[.]') || top_pushed(1)"], {"v1.0", "v1.1", "v2.0", "dev-3"}),
        (["image.tag.startsWith('v') && !image.tag.endsWith('.0')"], {"v1.1"}),
        (["timestamp(image.pushed_at).getFullYear() < 1990"], set()),
        (["image.tag != null"], {*AGES}),
        (["image.tag == null"], set()),
        (["image['tag'] == 'v1.0'"], {"v1.0"}),
        (["int(image.tag) > 3"], {*AGES}),  # fails, and so keeps
        (["image.tag"], {*AGES}),
        (["1 / 0 == 1"], {*AGES}),
    ],
)
def test_what_rules_keep(rules: list[str], kept: set[str], tmp_path: Path) -> None:
    config = retention(tmp_path, *rules)
    tags = [
        TagFacts(Tag(tag), TagEvent((NOW - days * DAY) * 1000, "set", Digest.of(b""))) for tag, days in AGES.items()
    ]
    verdicts = judge(tags, config.rules_for(Namespace("a")), NOW * 1000)
    assert {verdict.facts.tag.name for verdict in verdicts if not verdict.goes} == kept


PULLED = {"latest": 1, "v1.0": 1, "v1.1": 30, "v2.0": None, "dev-1": 3, "dev-2": None, "dev-3": 60}
"""Tags, and how many days ago they were pulled."""


@pytest.mark.parametrize(
    ("rules", "kept"),
    [
        (["now() - image.last_pulled_at < days(10)"], {"latest", "v1.0", "dev-1"}),
        (["image.last_pulled_at == 0"], {"v2.0", "dev-2"}),
        (["top_pulled(3)"], {"latest", "v1.0", "dev-1"}),
        # Of two of the same time nobody knows which is later.
        (["top_pulled(1)"], {"latest", "v1.0"}),
        (["top_pulled(2)"], {"latest", "v1.0"}),
        (["top_pulled(0)"], set()),
        (["top_pulled(10)"], {tag for tag, days in PULLED.items() if days}),
        (["top_pulled_with_prefix('v', 1) || top_pulled_with_prefix('dev-', 1)"], {"v1.0", "dev-1"}),
        (["top_pulled('a')"], {*AGES}),  # fails, and so keeps
    ],
)
def test_what_rules_about_pulls_keep(rules: list[str], kept: set[str], tmp_path: Path) -> None:
    document = {"global": {"update_pull_time": True, "retention_policy": {"rules": rules}}}
    config = load(tmp_path, document).retention
    assert config is not None
    found = config.rules_for(Namespace("a"))
    assert all(rule.asks_for_pulls for rule in found)
    tags = [
        TagFacts(
            Tag(tag),
            TagEvent((NOW - age * DAY) * 1000, "set", Digest.of(b"")),
            pulled_ms=None if (days := PULLED[tag]) is None else (NOW - days * DAY) * 1000,
        )
        for tag, age in AGES.items()
    ]
    verdicts = judge(tags, found, NOW * 1000)
    assert {verdict.facts.tag.name for verdict in verdicts if not verdict.goes} == kept


def test_rules_of_a_repository_about_pulls_need_the_recording_too(tmp_path: Path) -> None:
    document: dict[str, object] = {"repository": {"a": {"retention_policy": {"rules": ["true", "top_pulled(1)"]}}}}
    with pytest.raises(BadConfiguration) as caught:
        load(tmp_path, document)
    (problem,) = caught.value.problems
    assert problem.path == "repository.a.retention_policy.rules[1]"
    assert load(tmp_path, {**document, "global": {"update_pull_time": True}}).retention is not None


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        (
            "image.last_pulled_at > 0",
            "asks for image.last_pulled_at, and pulls are not recorded; set global.update_pull",
        ),
        ("image['last_pulled_at'] > 0", "asks for image.last_pulled_at"),
        ("has(image.last_pulled_at)", "asks for image.last_pulled_at"),
        ("top_pulled(3)", "asks for top_pulled, and pulls are not recorded; set global.update_pull_time to true"),
        ("image.tag == 'a' || top_pulled_with_prefix('v', 3)", "asks for top_pulled_with_prefix"),
        ("image.pushedat > 0", "image has no field pushedat; did you mean image.pushed_at?"),
        ("identity.username == 'a'", "there is no variable identity"),
        ("top_pushed()", "top_pushed takes 1 argument"),
        ("top_pushed_with_prefix(3)", "top_pushed_with_prefix takes 2 arguments"),
        ("day(3) > 1", "did you mean days?"),
        ("", "the rule is empty"),
    ],
)
def test_what_cannot_be_meant_is_refused_when_it_is_loaded(rule: str, problem: str, tmp_path: Path) -> None:
    with pytest.raises(BadConfiguration) as caught:
        retention(tmp_path, rule)
    (found,) = caught.value.problems
    assert problem in str(found)
    assert "global.retention_policy.rules[0]" in str(found)


def test_rules_of_a_repository_stand_beside_the_global_ones(tmp_path: Path) -> None:
    own = {"a": {"retention_policy": {"rules": ["true"]}}}
    found = load(tmp_path, {"global": {"retention_policy": {"rules": ["top_pushed(1)"]}}, "repository": own}).retention
    assert found is not None
    assert [rule.where for rule in found.rules_for(Namespace("a/b"))] == [
        "global.retention_policy.rules[0]",
        "repository.a.retention_policy.rules[0]",
    ]
    assert len(found.rules_for(Namespace("ab"))) == 1


def test_tables_without_rules_are_no_retention(tmp_path: Path) -> None:
    own: dict[str, object] = {"a": {"retention_policy": {}}}
    assert load(tmp_path, {"global": {"retention_policy": {"min_age": 5}}, "repository": own}).retention is None


@pytest.mark.parametrize(("policy", "warned"), [({"interval": 60}, 1), ({"interval": 0}, 0)])
def test_an_interval_without_rules_is_hardly_meant(policy: dict[str, object], warned: int, tmp_path: Path) -> None:
    own = {"a": {"retention_policy": {"rules": ["true"]}}}
    assert len(load(tmp_path, {"global": {"retention_policy": policy}}).warnings) == warned
    assert not load(tmp_path, {"global": {"retention_policy": policy}, "repository": own}).warnings
