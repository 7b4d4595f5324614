"""``angos tags``: what tags named before, and the way back."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from angos.runtime.command_line import printable, refuse
from angos.runtime.config.schema import Configuration
from angos.runtime.maintenance import frame
from angos.sansio.config import RegistryConfig
from angos.sansio.effects import ReadClock
from angos.sansio.errors import Invalid, RegistryError
from angos.sansio.history import Change, Restored, read_changes, restore_tag
from angos.sansio.history_endpoints import are_restorable, described, last_changes, parse_target, timestamp, told
from angos.sansio.oci.digest import Digest
from angos.sansio.oci.reference import Namespace, Tag, parse_namespace
from angos.sansio.operation import Operation

T = TypeVar("T")

BY = "angos tags restore"
"""Recorded as the one who did it."""
CHANGES = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    history = actions.add_parser(
        "history",
        help="show what a tag named, and since when",
        description="Show what a tag named, newest first; without a tag, the last change of every tag there was.",
    )
    history.add_argument("repository", type=_repository, metavar="REPOSITORY")
    history.add_argument("tag", type=_tag, nargs="?", metavar="TAG")
    history.add_argument(
        "-n", type=_number, default=CHANGES, metavar="NUMBER", help=f"so many changes of the tag (default: {CHANGES})"
    )
    restore = actions.add_parser(
        "restore",
        help="set a tag back",
        description="Let a tag name again what it named before, also when the tag or the manifest was deleted.",
    )
    restore.add_argument("repository", type=_repository, metavar="REPOSITORY")
    restore.add_argument("tag", type=_tag, metavar="TAG")
    restore.add_argument(
        "--to",
        type=_target,
        metavar="DIGEST|TIME",
        help="a manifest that the tag named, or the time (2026-01-31T12:00:00Z); default: before the last change",
    )
    for action in (history, restore):
        frame.add_store_arguments(action)
        action.add_argument("--json", action="store_true", help="report as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Gives the exit code: 0 done, 1 it could not be restored, 130 interrupted."""
    return _restore(arguments) if arguments.action == "restore" else _history(arguments)


# --- history ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Line:
    tag: Tag
    change: Change
    restorable: bool


def _history(arguments: argparse.Namespace) -> int:
    namespace, tag, number = arguments.repository, arguments.tag, arguments.n

    def operation(configuration: Configuration) -> Operation[list[_Line]]:
        return Operation(_read(namespace, tag, number, configuration.registry))

    def show(lines: list[_Line]) -> int:
        if arguments.json:
            shown = [{"tag": str(line.tag), **described(line.change), "restorable": line.restorable} for line in lines]
            print(json.dumps({"name": namespace, "events": shown}, indent=2))  # noqa: T201
            return 0
        if not lines:
            return refuse([f"{namespace} never had {'a tag' if tag is None else f'a tag {tag}'}"])
        width = max(len(str(line.tag)) for line in lines)
        for line in lines:
            print(printable(_text(line, width if tag is None else 0)))  # noqa: T201
        return 0

    return frame.run(arguments, operation, show, for_writing=False)


async def _read(namespace: Namespace, tag: Tag | None, number: int, config: RegistryConfig) -> list[_Line]:
    now_ms = await ReadClock()
    lines: list[_Line] = []
    if tag is None:
        after, more = "", True
        while more:
            found, after, more = await last_changes(namespace, after)
            changes = tuple(change for _, change in found)
            restorable = await are_restorable(namespace, changes, now_ms, config)
            lines += [_Line(tag, change, possible) for (tag, change), possible in zip(found, restorable, strict=True)]
        return lines
    after, more = "", True
    while more and len(lines) < number:
        changes, after, more = await read_changes(namespace, tag, after, number - len(lines))
        restorable = await are_restorable(namespace, changes, now_ms, config)
        lines += [_Line(tag, change, possible) for change, possible in zip(changes, restorable, strict=True)]
    return lines


def _text(line: _Line, width: int) -> str:
    change = line.change
    at = timestamp(change.at_ms) if change.at_ms >= 0 else "at an unknown time"
    what = f"{at:24}  {'set to' if change.event.kind == 'set' else 'deleted'} {change.event.digest}"
    if width:
        what = f"{line.tag!s:{width}}  {what}"
    if change.by is not None:
        what += f"  by {change.by}"
    if change.event.kind == "set" and not line.restorable:
        what += "  (its manifest is gone)"
    return what


# --- restore ----------------------------------------------------------------------------------------------------------


def _restore(arguments: argparse.Namespace) -> int:
    namespace, tag = arguments.repository, arguments.tag

    def operation(configuration: Configuration) -> Operation[Restored | RegistryError]:
        return Operation(_try_restoring(namespace, tag, arguments.to, configuration.registry))

    def show(outcome: Restored | RegistryError) -> int:
        if isinstance(outcome, RegistryError):
            return refuse([outcome.message])
        if arguments.json:
            print(json.dumps({"name": namespace, "tag": str(tag), **told(outcome)}, indent=2))  # noqa: T201
            return 0
        print(f"{namespace}:{tag} names {outcome.digest} again; before: {outcome.before or 'no such tag'}")  # noqa: T201
        for digest in outcome.manifests:
            print(f"brought back: {namespace}@{digest}")  # noqa: T201
        return 0

    return frame.run(arguments, operation, show)


async def _try_restoring(
    namespace: Namespace, tag: Tag, to: Digest | int | None, config: RegistryConfig
) -> Restored | RegistryError:
    try:
        return await restore_tag(namespace, tag, to, config, BY)
    except RegistryError as refusal:
        return refusal


# --- the command line -------------------------------------------------------------------------------------------------


def _repository(text: str) -> Namespace:
    return _parsed(parse_namespace, text)


def _tag(text: str) -> Tag:
    return _parsed(Tag.parse, text)


def _target(text: str) -> Digest | int:
    return _parsed(parse_target, text)


def _number(text: str) -> int:
    if text.isascii() and text.isdigit() and 0 < int(text) <= 1_000_000:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 1000000")


def _parsed(parse: Callable[[str], T], text: str) -> T:
    try:
        return parse(text)
    except Invalid as error:
        raise argparse.ArgumentTypeError(str(error)) from None
