"""``retention_policy``, of ``[global]`` and of repositories."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from angos.runtime.config.keys import Key, Section
from angos.runtime.config.kinds import SECONDS_OR_ZERO, Kind, NotAllowed, Unusable, list_of

if TYPE_CHECKING:
    from angos.sansio.access.expression import Expression

VARIABLES = {"image": ("tag", "pushed_at", "last_pulled_at")}
"""What rules may name."""
FUNCTIONS = {
    "now": 0,
    "days": 1,
    "hours": 1,
    "minutes": 1,
    "top_pushed": 1,
    "top_pushed_with_prefix": 2,
    "top_pulled": 1,
    "top_pulled_with_prefix": 2,
}
"""What they may call beside the functions of the language, with the number of arguments."""


def _rule(value: object, _folder: Path) -> tuple[str, Expression]:
    if not isinstance(value, str):
        raise NotAllowed("""a rule such as 'image.tag == "latest"'""")
    from angos.runtime.config.cel import BadRule, parse_rule

    try:
        expression = parse_rule(value, variables=VARIABLES, functions=FUNCTIONS)
    except BadRule as error:
        raise Unusable(str(error)) from None
    return value, expression


RETENTION_RULE = Kind("rule", _rule, {"type": "string", "minLength": 1})


def retention_policy(meaning: str, rule: str, more: Mapping[str, Key] = MappingProxyType({})) -> Section:
    """What is kept, in the whole registry or in a repository."""
    return Section(
        meaning,
        {
            "rules": Key(
                list_of(RETENTION_RULE, "rules"),
                "expressions of CEL over `image`; a tag, or a manifest without one, for which none is true may be"
                " deleted. Without any rule, here and there, all of them stay",
                [],
                example=[rule],
            ),
            **more,
        },
    )


GLOBAL_RETENTION = retention_policy(
    "Which tags, and manifests without one, are kept when `angos prune` or the server deletes; see"
    " [retention](retention.md).",
    "now() - image.pushed_at < days(30)",
    {
        "min_age": Key(
            SECONDS_OR_ZERO,
            "seconds since its push during which a tag or a manifest stays whatever the rules say",
            3600,
        ),
        "interval": Key(
            SECONDS_OR_ZERO,
            "seconds from the start of a server, or from the end of the last run, until it deletes by itself what"
            " `angos prune` would; 0: it never does",
            0,
            example=3600,
        ),
    },
)
REPOSITORY_RETENTION = retention_policy(
    "What is kept in this repository beside what the global rules keep.", "top_pushed(10)"
)
