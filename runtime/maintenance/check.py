"""``angos check``: what is wrong with configuration files, or what results from them; and what their stores can do."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from angos.runtime.command_line import add_config_argument, complain, refuse
from angos.runtime.config.file import BadConfiguration, Found, Table, read_files
from angos.runtime.config.keys import Entry, Key, Named, Section, Tables
from angos.runtime.config.kinds import Kind
from angos.runtime.config.schema import Configuration, DirectoryConfig
from angos.runtime.config.toml_text import toml_key, toml_path, toml_value

MASK = "***"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    add_config_argument(parser)
    parser.add_argument(
        "--storage",
        action="store_true",
        help="try the folder or bucket of each store for what the registry relies on, and print that instead",
    )
    parser.add_argument("--json-schema", action="store_true", help="print a JSON Schema of the files, for editors")


def run(arguments: argparse.Namespace) -> int:
    """Gives the exit code: 0 when a server would start with the files, 1 when it would not.

    Stores that do not answer are 1 too: a server would start, but nobody can say what they do.
    """
    if arguments.json_schema:
        from angos.runtime.config.reference import json_schema_text

        print(json_schema_text(), end="")  # noqa: T201
        return 0
    from angos.runtime.config.building import build
    from angos.runtime.config.known import SCHEMA

    files: Sequence[Path] = arguments.config
    try:
        table = read_files(files)
        configuration = build(table)
    except BadConfiguration as error:
        return refuse(error.problems)
    for warning in configuration.warnings:
        complain(f"warning: {warning}")
    if arguments.storage:
        return try_stores(configuration)
    print(effective(table, SCHEMA, name_files=len(files) > 1), end="")  # noqa: T201
    return 0


def try_stores(configuration: Configuration) -> int:
    """Try each store out, and print a table about it. Gives the exit code."""
    from angos.runtime.stores.disk import UnusableRoot, try_root
    from angos.runtime.stores.trying_out import findings_about
    from angos.sansio.findings import doubts, faults, table

    code = 0
    for name in ("blob_store", "metadata_store"):
        store = getattr(configuration, name)
        if store is None or (name == "metadata_store" and store == configuration.blob_store):
            continue
        print(f"{name}: {store.place}", flush=True)  # noqa: T201
        try:
            if isinstance(store, DirectoryConfig):
                findings = try_root(store.root_dir, sync=store.sync_to_disk)
            else:
                findings = findings_about(name, store, thorough=True)
        except UnusableRoot as error:
            code = refuse([error])
            continue
        for line in table(findings):
            print(f"  {line}")  # noqa: T201
        if faults(findings):
            complain(f"{name}: {store.place} cannot hold a store")
        elif doubts(findings):
            complain(f"{name}: it is not known whether {store.place} can hold a store")
        if faults(findings) or doubts(findings):
            code = 1
    return code


def effective(table: Table, schema: Section, *, name_files: bool) -> str:
    """The files as one, in TOML, with the defaults of all other keys behind a ``#``. Secrets are masked."""
    blocks = _tables(table, schema, (), name_files)
    return "# Keys behind a # are not in the files and have their defaults.\n" + "".join(blocks)


def _tables(table: Table | None, entry: Section | Named, path: tuple[str, ...], name_files: bool) -> Iterator[str]:
    entries = {} if table is None else table.entries
    below: dict[str, Entry]
    if isinstance(entry, Named):
        below = dict.fromkeys(entries, entry.entry)
    elif table is None and (entry.absent or _needs_values(entry)):
        if entry.absent:
            yield f"\n# without [{toml_path(path)}]: {entry.absent}\n"
        return
    else:
        below = dict(entry.entries)
    keys = {key: one for key, one in below.items() if isinstance(one, Key)}
    if keys or (table is not None and not below and path):
        # The presence of a table may count although nothing is in it.
        yield f"\n{'#' if table is None else ''}[{toml_path(path)}]\n"
    for key, one in keys.items():
        yield _line(key, one, entries.get(key), name_files)
    for key, other in below.items():
        if isinstance(other, Tables):
            yield from _list(entries.get(key), other.entry, (*path, key), name_files)
        elif not isinstance(other, Key):
            inner = entries.get(key)
            yield from _tables(inner if isinstance(inner, Table) else None, other, (*path, key), name_files)


def _list(found: Table | Found | None, section: Section, path: tuple[str, ...], name_files: bool) -> Iterator[str]:
    listed = found.value if isinstance(found, Found) else None
    for one in listed if isinstance(listed, list) else ():
        yield f"\n[[{toml_path(path)}]]\n"
        for key, entry in section.entries.items():
            if isinstance(entry, Key):
                value = Found(one[key], found.file) if found is not None and key in one else None
                yield _line(key, entry, value, name_files)


def _needs_values(section: Section) -> bool:
    return any(isinstance(entry, Key) and entry.required for entry in section.entries.values())


def _line(name: str, key: Key, found: Table | Found | None, name_files: bool) -> str:
    if isinstance(found, Found):
        origin = f"  # {found.file}" if name_files else ""
        return f"{toml_key(name)} = {toml_value(_masked(key.kind, found.value))}{origin}\n"
    if key.default is None:
        return f"# without {toml_key(name)}: {key.unset}\n"
    return f"#{toml_key(name)} = {toml_value(key.default)}\n"


def _masked(kind: Kind, value: object) -> object:
    if kind.secret:
        return MASK
    if isinstance(value, list) and kind.item is not None:
        return [_masked(kind.item, item) for item in value]
    return kind.masked(value) if kind.masked is not None and isinstance(value, str) else value
