"""What all commands share: the files they are configured by, and how they say what went wrong."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO


def add_config_argument(
    parser: argparse.ArgumentParser, purpose: str = "a TOML file; can be repeated, later files win"
) -> None:
    """``-c FILE``, any number of times."""
    parser.add_argument("-c", "--config", action="append", default=[], type=Path, metavar="FILE", help=purpose)


def complain(message: object, stream: TextIO | None = None) -> None:
    """Say it on standard error."""
    print(f"angos: {message}", file=stream or sys.stderr)


def printable(text: object) -> str:
    """One line, whatever a name that is stored holds: line breaks, sequences that steer a terminal, half characters."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in str(text)
    )


def refuse(problems: Iterable[object]) -> int:
    """Say each of them. Gives the exit code of a command that could not be done."""
    for problem in problems:
        complain(problem)
    return 1
