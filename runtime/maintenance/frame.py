"""What the commands that maintain a store have in common: they open what a configuration names, without a server and
beside any, drive one operation of the core, show how far it has come, and end in an orderly way.

A command names its options with `add_store_arguments`, makes its operation and says how it ended::

    def run(arguments):
        return frame.run(arguments, lambda configuration: Operation(collect(...)), show)

Exit codes: 0 done; 1 could not be done, or not all of it; 130 interrupted.
"""

from __future__ import annotations

import argparse
import logging
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TextIO, TypeVar

import anyio

from angos.runtime.command_line import add_config_argument, complain, printable, refuse
from angos.runtime.config.file import BadConfiguration
from angos.runtime.config.schema import Configuration, DirectoryConfig, load_configuration
from angos.runtime.driver import drive
from angos.runtime.observability.logs import configure_logging
from angos.runtime.observability.progress_events import estimate, summary
from angos.runtime.opening import opened_services
from angos.runtime.performer import RequestPerformer
from angos.runtime.stores.disk import UnusableRoot
from angos.sansio.effects import EffectError, StorageFull, Tell
from angos.sansio.errors import RegistryError
from angos.sansio.operation import Operation
from angos.sansio.progress import Passed, Progress

T = TypeVar("T")

INTERRUPTED = 130  # as a shell counts: 128 and the number of SIGINT
BAR_SECONDS = 0.1
LINE_SECONDS = 10.0
BAR_WIDTH = 24
PASSED_MAX = 20
"""Things passed over that are shown one by one."""


def add_store_arguments(parser: argparse.ArgumentParser) -> None:
    """Which store a command works on."""
    add_config_argument(parser, "the configuration of the server; can be repeated, later files win")
    parser.add_argument("--root", type=Path, metavar="DIR", help="where the data lies (default: ./angos-data)")


def run(
    arguments: argparse.Namespace,
    operation: Callable[[Configuration], Operation[T]],
    show: Callable[[T], int],
    *,
    for_writing: bool = True,
) -> int:
    """Do it. `show` prints the result on standard output and gives the exit code. Without `for_writing` the store may
    be read-only, as a snapshot is."""
    try:
        configuration = _configuration(arguments)
    except BadConfiguration as error:
        return refuse(error.problems)
    except UnusableRoot as error:
        return refuse([error])
    configure_logging(configuration.observability.log)
    logging.getLogger("angos.storage").setLevel(logging.CRITICAL)  # what fails is told here, once and for people
    meter = Meter(sys.stderr)
    try:
        result = anyio.run(_drive, configuration, operation, meter, for_writing)
    except (UnusableRoot, EffectError) as error:
        meter.clear()
        hint = (
            "; free some kilobytes there first, for what a command writes down"
            if isinstance(error, StorageFull)
            else ""
        )
        return refuse([f"{printable(error)}{hint}"])
    except RegistryError as error:
        meter.clear()
        complain(printable(error.message))
        return 1
    except KeyboardInterrupt:
        meter.clear()
        complain("interrupted; what was done so far counts, and the next run goes on with the rest")
        return INTERRUPTED
    meter.clear()
    return show(result)


async def _drive(
    configuration: Configuration, operation: Callable[[Configuration], Operation[T]], meter: Meter, for_writing: bool
) -> T:
    async with opened_services(configuration, {Tell: meter.tell}, for_writing=for_writing) as services:
        return await drive(operation(configuration), RequestPerformer(services, {}))


def _configuration(arguments: argparse.Namespace) -> Configuration:
    configuration = load_configuration(arguments.config)
    if arguments.root is not None:
        if not isinstance(configuration.blob_store, DirectoryConfig):
            raise UnusableRoot(f"--root {arguments.root}: the blobs are in a bucket; leave --root out")
        configuration = replace(configuration, blob_store=replace(configuration.blob_store, root_dir=arguments.root))
    store = configuration.blob_store
    if isinstance(store, DirectoryConfig) and not store.root_dir.is_dir():
        # A server makes it. Who maintains what is not there has mistyped its name.
        raise UnusableRoot(f"there is no store in {store.root_dir}; name its folder by --root, or its configuration")
    return configuration


class Meter:
    """Shows progress: a bar that is drawn over on a terminal, else a line now and then."""

    def __init__(self, stream: TextIO, now: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._now = now
        self._terminal = stream.isatty()
        self._began = self._shown = now()
        self._drawn = 0
        self._passed = 0

    def tell(self, effect: Tell) -> None:
        """`Tell`. Other events are for the log of a server."""
        event = effect.event
        if isinstance(event, Passed):
            self._passed += 1
            if self._passed <= PASSED_MAX:
                self.clear()
                complain(printable(f"passed over {event.what}: {event.problem}"), self._stream)
            elif self._passed == PASSED_MAX + 1:
                self.clear()
                complain("more was passed over, only counted from here on", self._stream)
        elif isinstance(event, Progress) and not event.ended:
            now = self._now()
            if now - self._shown >= (BAR_SECONDS if self._terminal else LINE_SECONDS):
                self._shown = now
                self._show(event, now - self._began)

    def _show(self, event: Progress, seconds: float) -> None:
        text = f"{event.stage}: {summary(event)}{estimate(event, seconds)}"
        if not self._terminal:
            print(text, file=self._stream, flush=True)
            return
        if event.total:
            full = BAR_WIDTH * min(event.done, event.total) // event.total
            text = f"[{'#' * full}{'.' * (BAR_WIDTH - full)}] {text}"
        print(f"\r{text[:118]:{self._drawn}}", end="", file=self._stream, flush=True)
        self._drawn = len(text[:118])

    def clear(self) -> None:
        """Make room for something else."""
        if self._drawn:
            print(f"\r{'':{self._drawn}}\r", end="", file=self._stream, flush=True)
            self._drawn = 0


_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)([smhd]?)")


def duration(text: str) -> float:
    """Seconds from ``90``, ``90s``, ``15m``, ``12h`` or ``7d``. For `argparse`."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration; write 90, 90s, 15m, 12h or 7d")
    return float(match[1]) * _UNITS[match[2]]


def size_text(size: int) -> str:
    """For a person: ``1.4 GB``."""
    for unit, scale in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 1000)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size} bytes"


def counted(number: int, one: str, many: str = "") -> str:
    """``1 tag``, ``2 tags``."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def show_some(lines: Sequence[str], most: int) -> None:
    """The first of these lines, and how many were left out."""
    for line in lines[:most]:
        print(printable(line))  # noqa: T201
    if len(lines) > most:
        print(f"and {len(lines) - most} more, all of which --json shows")  # noqa: T201
