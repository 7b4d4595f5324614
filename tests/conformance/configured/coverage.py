"""Which tests show that a key of the configuration changes what a client or an operator can see."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

Test = TypeVar("Test", bound=Callable[..., None])

SHOWN: dict[str, list[str]] = {}
"""The tests of each key, by its pattern as in ``auth.oidc.*.issuer``."""


def changes_with(*patterns: str) -> Callable[[Test], Test]:
    """The decorated test starts a server with these keys in its file and sees them at work."""

    def note(test: Test) -> Test:
        for pattern in patterns:
            SHOWN.setdefault(pattern, []).append(f"{test.__module__}.{test.__name__}")
        return test

    return note
