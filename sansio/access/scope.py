"""Scopes of tokens: what a token may be used for at most (distribution, "Token Scope Documentation")."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from angos.sansio.errors import Invalid
from angos.sansio.oci.reference import parse_namespace

SCOPES_MAX = 64  # of one token; a mount asks for two
_VERBS = {"repository": ("delete", "pull", "push"), "registry": ("*",)}


@dataclass(frozen=True, slots=True, order=True)
class Scope:
    """``repository:<name>:<verbs>`` or ``registry:catalog:*``."""

    kind: str
    name: str
    verbs: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}:{','.join(self.verbs)}"

    def covers(self, needed: Scope) -> bool:
        """True when a token of this scope is good for what needs the other one."""
        return self.kind == needed.kind and self.name == needed.name and set(needed.verbs) <= set(self.verbs)


def parse_scopes(texts: Iterable[str]) -> tuple[Scope, ...]:
    """The scopes in values of ``scope`` parameters, each a list with blanks between; those that mean nothing are left
    out, since a client that asks for more than there is must still get what there is."""
    found: dict[tuple[str, str], set[str]] = {}
    for text in texts:
        for word in text.split(" "):
            if len(found) < SCOPES_MAX and (scope := _parse(word)) is not None:
                found.setdefault((scope.kind, scope.name), set()).update(scope.verbs)
    return tuple(Scope(kind, name, tuple(sorted(verbs))) for (kind, name), verbs in sorted(found.items()))


def _parse(word: str) -> Scope | None:
    kind, colon, rest = word.partition(":")
    name, last_colon, verbs = rest.rpartition(":")
    kind = kind.partition("(")[0]  # repository(plugin)
    if not colon or not last_colon or kind not in _VERBS:
        return None
    wanted = set(verbs.split(","))
    known = tuple(verb for verb in _VERBS[kind] if verb in wanted or "*" in wanted)
    if kind == "registry":
        return Scope(kind, name, known) if name == "catalog" and known else None
    try:
        return Scope(kind, str(parse_namespace(name)), known) if known else None
    except Invalid:
        return None
