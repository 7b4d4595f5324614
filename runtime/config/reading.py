"""The files against the schema: values converted, and everything that is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from angos.runtime.config.file import Found, Problem, Table
from angos.runtime.config.keys import Entry, Key, Named, Section, Tables, has_secret
from angos.runtime.config.kinds import Flawed, Kind, NotAllowed, Unusable, described, shortened
from angos.runtime.config.known import Pattern, advice
from angos.runtime.config.toml_text import Numbered, toml_path, toml_text, toml_value

Keys = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Values:
    """What a table holds, converted; without what has problems."""

    keys: Keys = ()
    file: str = ""
    """The last file that had it; empty when none had."""
    entries: Mapping[str, Any] = field(default_factory=dict)
    """Values, `Values` for tables, and tuples of them for lists of tables."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Which file each key comes from, those with problems included."""

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a key."""
        return self.entries.get(key, default)

    def table(self, key: str) -> Values:
        """A table; an empty one when there is none."""
        found = self.entries.get(key)
        return found if isinstance(found, Values) else Values((*self.keys, key))

    def tables(self, key: str) -> Mapping[str, Values]:
        """The tables in a table, by name."""
        return {name: found for name, found in self.table(key).entries.items() if isinstance(found, Values)}

    def several(self, key: str) -> tuple[Values, ...]:
        """The tables of a list."""
        found: tuple[Values, ...] = self.entries.get(key, ())
        return found

    def has(self, key: str) -> bool:
        """Whether a file has this key, even with a value that is not allowed."""
        return key in self.files

    def path(self, key: str) -> str:
        """The full name of a key."""
        return toml_path((*self.keys, key))

    def problem(self, key: str, message: str) -> Problem:
        """Something is wrong with the value of a key."""
        return Problem(self.files.get(key, self.file), self.path(key), message)

    def problem_of_table(self, message: str) -> Problem:
        """Something is wrong with the table."""
        return Problem(self.file, toml_path(self.keys), message)


def read_values(table: Table, schema: Section) -> tuple[Values, list[Problem]]:
    """Convert and check each value by itself."""
    problems: list[Problem] = []
    return _read_section(table, schema, (), (), problems), problems


def _read_section(table: Table, section: Section, keys: Keys, pattern: Pattern, problems: list[Problem]) -> Values:
    values: dict[str, Any] = {}
    for key, found in table.entries.items():
        path = (*keys, key)
        entry = section.entries.get(key)
        if entry is None:
            message = advice(path, (*pattern, key), section)
            problems.append(Problem(found.file, _shown_path(path), message))
        else:
            _read_entry(found, entry, path, (*pattern, key), values, problems)
    for key, entry in section.entries.items():
        if isinstance(entry, Key) and entry.required and key not in table.entries:
            problems.append(Problem(table.file, _shown_path((*keys, key)), "is missing"))
    return _values(keys, table, values)


def _read_named(table: Table, named: Named, keys: Keys, pattern: Pattern, problems: list[Problem]) -> Values:
    values: dict[str, Any] = {}
    for name, found in table.entries.items():
        path = (*keys, name)
        try:
            named.name.read(name, Path())
        except NotAllowed as allowed:
            problems.append(Problem(found.file, _shown_path(path), f"cannot be called that; allowed is {allowed}"))
        except Flawed as flawed:
            problems.append(Problem(found.file, _shown_path(path), str(flawed)))
        else:
            _read_entry(found, named.entry, path, (*pattern, "*"), values, problems)
    return _values(keys, table, values)


def _values(keys: Keys, table: Table, values: dict[str, Any]) -> Values:
    return Values(keys, table.file, values, {key: found.file for key, found in table.entries.items()})


def _read_entry(
    found: Table | Found, entry: Entry, path: Keys, pattern: Pattern, values: dict[str, Any], problems: list[Problem]
) -> None:
    key, where = path[-1], _shown_path(path)
    if isinstance(entry, Key):
        if isinstance(found, Table):
            problems.append(Problem(found.file, where, _table_instead(found, path, pattern)))
        else:
            _read_value(found, entry.kind, path, values, problems)
    elif isinstance(entry, Tables):
        values[key] = _read_tables(found, entry, path, pattern, problems)
    elif isinstance(found, Found):
        # Somebody may have put a secret where the table with it should be.
        shown = described(found.value) if has_secret(entry) else shortened(toml_value(found.value))
        problems.append(Problem(found.file, where, f"found {shown}; a table [{where}] is needed"))
    elif isinstance(entry, Section):
        values[key] = _read_section(found, entry, path, pattern, problems)
    else:
        values[key] = _read_named(found, entry, path, pattern, problems)


def _read_tables(
    found: Table | Found, tables: Tables, path: Keys, pattern: Pattern, problems: list[Problem]
) -> tuple[Values, ...]:
    listed = found.value if isinstance(found, Found) else None
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        where = _shown_path(path)
        problems.append(Problem(found.file, where, f"is a list of tables: each of them begins with [[{where}]]"))
        return ()
    *outer, name = path
    read = []
    for number, one in enumerate(listed):
        # No table belongs into one of these.
        entries = {
            key: Table({}, found.file) if isinstance(value, dict) else Found(value, found.file)
            for key, value in one.items()
        }
        numbered = (*outer, Numbered(f"{name}[{number}]"))
        read.append(_read_section(Table(entries, found.file), tables.entry, numbered, pattern, problems))
    return tuple(read)


def _table_instead(found: Table, path: Keys, pattern: Pattern) -> str:
    message = "found a table, a value is needed"
    if pattern[-1] == "*" and len(found.entries) == 1:
        (inner,) = found.entries
        message += f"; a name with a dot in it stands in quotes: {toml_text(f'{path[-1]}.{inner}')}"
    return message


def _read_value(found: Found, kind: Kind, path: Keys, values: dict[str, Any], problems: list[Problem]) -> None:
    folder, where = Path(found.file).parent, _shown_path(path)
    if kind.item is None or not isinstance(found.value, list):
        try:
            values[path[-1]] = kind.read(found.value, folder)
        except (NotAllowed, Flawed, Unusable) as error:
            problems.append(Problem(found.file, where, kind.problem(found.value, error)))
        return
    items, known = [], len(problems)
    if len(found.value) < kind.items_min:
        problems.append(Problem(found.file, where, f"found []; at least {kind.items_min} must be in the list"))
    for index, item in enumerate(found.value):
        try:
            items.append(kind.item.read(item, folder))
        except (NotAllowed, Flawed, Unusable) as error:
            problems.append(Problem(found.file, f"{where}[{index}]", kind.item.problem(item, error)))
    if len(problems) == known:
        values[path[-1]] = tuple(items)


def _shown_path(path: Keys) -> str:
    return toml_path(key if len(key) <= 80 else f"{key[:77]}..." for key in path)
