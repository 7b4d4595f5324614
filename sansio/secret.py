"""Text that must not be seen: passwords, tokens, keys."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, repr=False)
class Secret:
    """Wraps a secret so that no log, traceback, trace or printed configuration can show it by accident."""

    value: str

    def __repr__(self) -> str:
        return "Secret(...)"

    __str__ = __repr__
