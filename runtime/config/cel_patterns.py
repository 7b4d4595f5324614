"""Regular expressions and time zones for rules: what the core leaves to the runtime."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from typing import Any

from angos.sansio.access.expression_functions import Matcher, bad_pattern, check_length
from angos.sansio.access.expression_times import EvaluationError

PATTERN_MEMORY_MAX = 512 << 10
"""In bytes, for the program of a pattern and the states that searching makes of it."""


@lru_cache(maxsize=1)
def _options() -> Any:
    import re2  # type: ignore[import-untyped]  # it loads a library, and only rules that match need it

    options = re2.Options()
    options.max_mem = PATTERN_MEMORY_MAX
    options.log_errors = False  # otherwise the library writes to standard error by itself
    return options


def re2_matcher() -> Matcher:
    """A `Matcher` on RE2: its time is linear in the text, whatever the pattern."""
    import re2

    options = _options()

    def matcher(pattern: str) -> Callable[[str], bool]:
        check_length(pattern)
        try:
            search = re2.compile(pattern, options).search
        except (re2.error, UnicodeEncodeError):
            raise bad_pattern() from None

        def found(text: str) -> bool:
            try:
                return search(text.encode()) is not None  # found in a str, it would also be placed, for twice the time
            except UnicodeEncodeError:
                raise EvaluationError("a text has half of a surrogate pair and cannot be searched") from None

        return found

    return matcher


def problem_of_pattern(pattern: str) -> str | None:
    """What is wrong with a regular expression of the configuration, for a person; None when nothing is."""
    import re2

    try:
        check_length(pattern)
        re2.compile(pattern, _options())
    except EvaluationError as error:
        return str(error)
    except re2.error as error:
        return str(error.args[0].decode(errors="replace") if isinstance(error.args[0], bytes) else error)
    return None


def zone_offset(name: str, at: int) -> int:
    """A `Zones` on the database of the system."""
    from zoneinfo import ZoneInfo  # read from disk by few rules only

    try:
        offset = datetime.fromtimestamp(at, ZoneInfo(name)).utcoffset()
    except (KeyError, ValueError, OSError, OverflowError):
        raise EvaluationError("a time zone is not known, or has no such time") from None
    assert offset is not None, "a time in a zone has an offset"
    return int(offset.total_seconds())
