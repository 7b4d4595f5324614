"""The reference of the configuration, generated from the schema so that it cannot go stale.

``python -m angos.runtime.config.reference docs/reference`` writes ``configuration.md``, an example of every option and
a JSON Schema for editors.
"""

from __future__ import annotations

import json
import re
import sys
import textwrap
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from angos.runtime.config.keys import Entry, Key, Named, Section, Tables
from angos.runtime.config.known import SCHEMA
from angos.runtime.config.toml_text import toml_key, toml_path, toml_value

_LINK = re.compile(r"\[([^\]]+)\]\([^)]+\)")
_WIDTH = 100

INTRODUCTION = """\
# Configuration

<!-- Generated: python -m angos.runtime.config.reference docs/reference -->

Angos needs no configuration. `angos server -c FILE` reads a TOML file; `-c` may be given several times, and later files
win: tables are merged key by key, everything else is replaced, lists as a whole. Options of the command line win over
files. [configuration.example.toml](configuration.example.toml) has every option, and
[configuration.schema.json](configuration.schema.json) lets editors complete and check them.

`angos check -c FILE` prints the configuration that results, defaults included and secrets masked. Whatever is wrong
ends it, as it ends the start of a server, with a line for each problem: the file, the key, what was found and what is
allowed.

```console
$ cat bad.toml
[server]
workers = 0
[global]
max_manifestsize = "5MiB"
access_policy.rules = ["request.tag == 'v1'"]
$ .venv/bin/angos check -c bad.toml
angos: bad.toml: server.workers: found 0; allowed is a number from 1 to 1024
angos: bad.toml: global.max_manifestsize: unknown key; did you mean global.max_manifest_size?
angos: bad.toml: global.access_policy.rules[0]: line 1, column 9: request has no field tag; did you mean request.tags?
    request.tag == 'v1'
            ^
```

- **Sizes** are numbers of bytes or texts with a unit: `"5MiB"` (5 times 1024 times 1024), `"5MB"` (5 million).
- **Seconds** are numbers, `0.5` included.
- **Files and folders** that are not absolute start from the folder of the configuration file that names them. Files are
  read when the configuration is loaded: one that is missing or does not fit is a problem.
- **Reload**: the configuration files, and the certificates and keys that they name, are read again when they change,
  and on SIGHUP. Keys that need a **restart** are marked; the log names those that have changed. A configuration with
  problems is not used, and the old one stays.
"""


def markdown() -> str:
    """``configuration.md``."""
    return INTRODUCTION + "".join(_chapter(SCHEMA, ()))


def _chapter(
    entry: Section | Named | Tables, path: tuple[str, ...], brackets: tuple[str, str] = ("[", "]")
) -> Iterator[str]:
    match entry:
        case Tables(inner):
            yield from _chapter(inner, path, ("[[", "]]"))
        case Section(meaning, entries, absent):
            if path and (meaning or absent):
                yield _heading(path, brackets)
                yield _paragraph(meaning, absent)
            keys = {key: below for key, below in entries.items() if isinstance(below, Key)}
            if keys:
                yield _rows(keys)
            for key, below in entries.items():
                if not isinstance(below, Key):
                    yield from _chapter(below, (*path, key))
        case Named(meaning, _, placeholder, inner):
            if isinstance(inner, Section):
                yield from _chapter(inner, (*path, placeholder))
            else:
                yield _heading(path) + _paragraph(meaning, "") + _rows({placeholder: inner})


def _heading(path: tuple[str, ...], brackets: tuple[str, str] = ("[", "]")) -> str:
    return f"\n## `{brackets[0]}{'.'.join(path)}{brackets[1]}`\n"


def _paragraph(meaning: str, absent: str) -> str:
    text = f"{meaning} Without this table: {absent}." if absent else meaning
    return "\n" + "\n".join(textwrap.wrap(text, 120, break_long_words=False, break_on_hyphens=False)) + "\n"


def _rows(keys: dict[str, Key]) -> str:
    lines = ["", "| key | values | default | meaning |", "|---|---|---|---|"]
    for name, key in keys.items():
        default = "required" if key.required else key.unset if key.default is None else f"`{toml_value(key.default)}`"
        meaning = f"{key.meaning}. Needs a restart" if key.restart else key.meaning
        values = re.sub(r'"(\w+)"', r'`"\1"`', key.kind.name)
        cells = [f"`{name}`", values, default, meaning]
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"


# --- the example ------------------------------------------------------------------------------------------------------

EXAMPLE_INTRODUCTION = """\
# Every option of Angos, with its default or, where there is none, with an example.
# Generated: python -m angos.runtime.config.reference docs/reference
#
# Lines that begin with "# " explain. To use an option, remove the # before it and before the [table] above it.
"""


def example() -> str:
    """``configuration.example.toml``."""
    return EXAMPLE_INTRODUCTION + "".join(_example(SCHEMA, (), ()))


def _example(
    entry: Section | Named | Tables,
    path: tuple[str, ...],
    shown: Collection[str],
    brackets: tuple[str, str] = ("[", "]"),
) -> Iterator[str]:
    """Tables below `path`. Of the first one only the keys in `shown`, unless it is empty."""
    match entry:
        case Tables(inner):
            yield from _example(inner, path, (), ("[[", "]]"))
        case Section(meaning, entries, absent):
            entries = {key: below for key, below in entries.items() if not shown or key in shown}
            keys = {key: below for key, below in entries.items() if isinstance(below, Key)}
            if keys:
                yield "\n" + _comment(f"{meaning} Without this table: {absent}." if absent else meaning)
                yield f"#{brackets[0]}{toml_path(path)}{brackets[1]}\n"
                for name, key in keys.items():
                    yield _option(name, key)
            for name, below in entries.items():
                if not isinstance(below, Key):
                    yield from _example(below, (*path, name), ())
        case Named(meaning, _, _, inner, examples):
            if isinstance(inner, Key):
                yield "\n" + _comment(meaning) + f"#[{toml_path(path)}]\n"
            for name, some in examples.items():
                if isinstance(inner, Section):
                    yield from _example(inner, (*path, name), some)
                else:
                    yield _option(name, inner)


def _option(name: str, key: Key) -> str:
    if key.default is None:
        default = "required" if key.required else f"without it: {key.unset}"
    else:
        default = f"default: {toml_value(key.default)}"
    comment = _comment(f"{key.meaning}{' (restart)' if key.restart else ''}; {default}")
    value = key.default if key.example is None else key.example
    if value is None:
        return f"{comment}# {toml_key(name)} = ...\n"
    return f"{comment}#{toml_key(name)} = {toml_value(value)}\n"


def _comment(text: str) -> str:
    return "".join(f"# {line}\n" for line in textwrap.wrap(_plain(text), _WIDTH, break_on_hyphens=False))


def _plain(text: str) -> str:
    """Without links, for places where nobody can follow them."""
    return _LINK.sub(r"\1", text)


# --- JSON Schema ------------------------------------------------------------------------------------------------------


def json_schema() -> dict[str, Any]:
    """``configuration.schema.json``: what an editor can check. Loading checks more."""
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Configuration of Angos",
        **_json(SCHEMA),
    }


def _json(entry: Entry) -> dict[str, Any]:
    match entry:
        case Tables(inner):
            return {"type": "array", "items": _json(inner)}
        case Key(kind, meaning, default):
            shown = {} if default is None else {"default": default}
            return {"description": _plain(meaning), **kind.json, **shown}
        case Section(meaning, entries):
            required = [key for key, below in entries.items() if isinstance(below, Key) and below.required]
            return {
                **({"description": _plain(meaning)} if meaning else {}),
                "type": "object",
                "properties": {key: _json(below) for key, below in entries.items()},
                **({"required": required} if required else {}),
                "additionalProperties": False,
            }
        case Named(meaning, name, _, below):
            return {
                "description": _plain(meaning),
                "type": "object",
                "propertyNames": dict(name.json),
                "additionalProperties": _json(below),
            }


def json_schema_text() -> str:
    """The same, as it is written."""
    return json.dumps(json_schema(), indent=2) + "\n"


PAGES = {
    "configuration.md": markdown,
    "configuration.example.toml": example,
    "configuration.schema.json": json_schema_text,
}


def main(arguments: list[str]) -> int:
    """Write all of them into a folder."""
    (folder,) = arguments
    for name, page in PAGES.items():
        (Path(folder) / name).write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
