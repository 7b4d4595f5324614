"""The generated example of a configuration, in use: every option, with files for those that name one."""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from angos.runtime.config.keys import Entry, Key, Named, Section, Tables
from angos.runtime.config.known import SCHEMA
from angos.runtime.config.reference import example
from angos.runtime.config.schema import Configuration, load_configuration
from angos.runtime.config.toml_text import toml_key, toml_value
from tests.conformance.certificates import Authority

Pattern = tuple[str, ...]


def uncommented(text: str) -> str:
    """With every option in use."""
    return "".join(
        line[1:] if line.startswith("#") and line[1:2] not in (" ", "\n") else line
        for line in text.splitlines(keepends=True)
    )


STORES = ("blob_store", "metadata_store")


def example_document(store: str = "fs") -> dict[str, Any]:
    """What the example says, with each store of one kind: ``fs`` or ``s3``."""
    document = whole_example_document()
    return {**document, **{name: {store: document[name][store]} for name in STORES}}


def whole_example_document() -> dict[str, Any]:
    """What the example says; both kinds of stores are in it."""
    return tomllib.loads(uncommented(example()))


def write_files(folder: Path) -> None:
    """The files that the example names, and as many others."""
    (folder / "tls").mkdir()
    (folder / "tokens").mkdir()
    (folder / "tokens" / "issuer").write_text("token")
    (folder / "tokens" / "issuer-copy").write_text("token")
    authority = Authority(folder)
    for name in ("clients", "internal-ca"):
        _write_twice(folder / "tls" / f"{name}.pem", authority.bundle)
    for name in ("server", "registry"):
        issued = authority.issue("localhost", common_names=(name,))
        _write_twice(folder / "tls" / f"{name}.pem", issued.certificate)
        _write_twice(folder / "tls" / f"{name}.key", issued.key)


def _write_twice(path: Path, content: Path) -> None:
    """There, and with ``-copy`` in its name, so that it can be named in two ways."""
    for name in (path, path.with_stem(f"{path.stem}-copy")):
        name.write_bytes(content.read_bytes())


def written(document: Mapping[str, Any]) -> str:
    """As TOML."""
    return "".join(f"{toml_key(key)} = {toml_value(value)}\n" for key, value in document.items())


def load(folder: Path, document: Mapping[str, Any]) -> Configuration:
    """What a file with this in it configures."""
    file = folder / "angos.toml"
    return load_configuration([file], [written(document).encode()])


def with_value(document: Mapping[str, Any], pattern: Pattern, value: object) -> dict[str, Any]:
    """A copy with another value; a ``*`` stands for the last name that has the key, or the first one of all. Of a list
    of tables the last one is changed."""
    changed: dict[str, Any] = copy.deepcopy(dict(document))
    table = changed
    for index, part in enumerate(pattern[:-1]):
        if part == "*":
            names = [name for name, entry in table.items() if pattern[index + 1] in entry]
            part = names[-1] if names else next(iter(table))
        table = table.setdefault(part, {})
        if isinstance(table, list):
            table = table[-1]
    table[next(iter(table)) if pattern[-1] == "*" else pattern[-1]] = value
    return changed


def keys(entry: Entry = SCHEMA, pattern: Pattern = ()) -> Iterator[tuple[Pattern, Key]]:
    """Every key there is."""
    match entry:
        case Key():
            yield pattern, entry
        case Section(_, entries):
            for name, below in entries.items():
                yield from keys(below, (*pattern, name))
        case Named():
            yield from keys(entry.entry, (*pattern, "*"))
        case Tables():
            yield from keys(entry.entry, pattern)


def file_with(folder: Path, text: str, name: str = "angos.toml") -> Path:
    """A configuration file."""
    file = folder / name
    file.write_text(text)
    return file
