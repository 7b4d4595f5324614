"""Configuration files: found, parsed and laid over one another, each value remembering the file it came from."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

DEPTH_MAX = 16  # of tables within tables; there is no key below five


@dataclass(frozen=True, slots=True)
class Found:
    """A value that is no table, and where it was found."""

    value: object
    file: str


@dataclass(frozen=True, slots=True)
class Table:
    """A table, and the last file that had it."""

    entries: dict[str, Table | Found]
    file: str


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with the configuration."""

    file: str
    path: str
    """The key, with the tables around it: ``global.max_manifest_size``. Empty when it is the file as a whole."""
    message: str

    def __str__(self) -> str:
        return f"{self.file}: {self.path}: {self.message}" if self.path else f"{self.file}: {self.message}"


class BadConfiguration(Exception):
    """The configuration cannot be used; all that is wrong with it."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


class _NotToml(Exception):
    """A file cannot be understood at all."""


def read_files(files: Sequence[Path], contents: Sequence[bytes] | None = None) -> Table:
    """The files as one table. Later files win; tables are merged, everything else is replaced.

    With `contents`, what the files held when somebody read them counts, and they are not read again. Raises
    `BadConfiguration` for files that cannot be read or are not TOML.
    """
    merged: dict[str, Table | Found] = {}
    problems = []
    for index, file in enumerate(files):
        try:
            read = file.read_bytes() if contents is None else contents[index]
            entries = _attributed(_parsed(read), str(file))
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else type(error).__name__
            problems.append(Problem(str(file), "", f"cannot be read: {reason}"))
        except _NotToml as error:
            problems.append(Problem(str(file), "", f"is not TOML: {error}"))
        else:
            merged = _merge(merged, entries)
    if problems:
        raise BadConfiguration(problems)
    return Table(merged, str(files[-1]) if files else "")


def _parsed(content: bytes) -> dict[str, object]:
    import tomllib  # not needed without files, and slow to import

    try:
        return tomllib.loads(content.decode())
    except UnicodeDecodeError:
        raise _NotToml("it is not UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise _NotToml(str(error)) from None
    except RecursionError:
        raise _NotToml("its values are nested too deeply") from None
    except ValueError:
        # tomllib leaves some numbers and dates to Python, which is stricter than the grammar.
        raise _NotToml("it has a number or a date that is out of range") from None


def _attributed(content: dict[str, object], file: str, depth: int = 0) -> dict[str, Table | Found]:
    if depth > DEPTH_MAX:
        raise _NotToml("its tables are nested too deeply")
    return {
        key: Table(_attributed(value, file, depth + 1), file) if isinstance(value, dict) else Found(value, file)
        for key, value in content.items()
    }


def _merge(earlier: dict[str, Table | Found], later: dict[str, Table | Found]) -> dict[str, Table | Found]:
    merged = dict(earlier)
    for key, value in later.items():
        before = merged.get(key)
        if isinstance(before, Table) and isinstance(value, Table):
            value = Table(_merge(before.entries, value.entries), value.file)
        merged[key] = value
    return merged
