"""What a schema is made of: keys, tables of them, and tables whose names are free."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from angos.runtime.config.kinds import Kind


@dataclass(frozen=True, slots=True)
class Key:
    """A key with a value."""

    kind: Kind
    meaning: str
    """For operators, in Markdown."""
    default: object = None
    """As it would be written; None: there is none, and `unset` says what holds then."""
    unset: str = ""
    required: bool = False
    """Its table cannot do without it."""
    restart: bool = False
    """A running server does not change it when the configuration is reloaded."""
    example: object = None
    """As it would be written, where the default does not show it. A secret key never has one that could be used."""


@dataclass(frozen=True, slots=True)
class Section:
    """A table with known keys."""

    meaning: str
    entries: Mapping[str, Key | Section | Named | Tables]
    absent: str = ""
    """What holds without the table, where its presence counts and not only what is in it."""


@dataclass(frozen=True, slots=True)
class Named:
    """A table whose keys are names that the operator chooses."""

    meaning: str
    name: Kind
    placeholder: str
    """Stands for the name where it is not known."""
    entry: Section | Key
    examples: Mapping[str, Collection[str]] = field(default_factory=dict)
    """Names for the example, each with the keys to show; none: all."""


@dataclass(frozen=True, slots=True)
class Tables:
    """A list of tables, each written as ``[[name]]``; their order counts."""

    entry: Section


Entry = Key | Section | Named | Tables


def has_secret(entry: Entry) -> bool:
    """Whether a value in here, or one in its place, may be secret."""
    match entry:
        case Key(kind):
            return kind.secret
        case Section(_, entries):
            return any(map(has_secret, entries.values()))
        case Named() | Tables():
            return has_secret(entry.entry)
