"""The command line: ``angos server``, ``angos check``, ``angos argon``, ``angos explain``, ``angos prune``,
``angos evict``, ``angos gc``, ``angos tags``, ``angos scrub``, ``angos import``, ``angos export``, ``angos --version``.

Only what a command needs is imported, when it is needed.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from angos.runtime.command_line import add_config_argument, refuse

if TYPE_CHECKING:
    from angos.runtime.config.schema import Configuration

_MAINTENANCE: Final = {
    "check": "check configuration files, and print what they come to",
    "argon": "hash a password for a configuration file",
    "explain": "say what would become of a request, and why",
    "prune": "delete the tags and the untagged manifests that no rule of retention keeps",
    "evict": "let go of what was not pulled for longest from caches that are larger than they may be",
    "gc": "get the space back of what nobody needs",
    "tags": "show what tags named before, and set them back",
    "import": "take over what another registry has stored, where it lies",
    "export": "let another registry serve what was stored here since it was taken over",
    "scrub": "look at everything that is stored, mend what can be derived, move aside what is wrong",
}
"""Commands and what they do. Each is a module of its name, unless that is a word of Python."""
_MODULES: Final = {"import": "take_over"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Gives the exit code: 0 done, 1 could not be done, 2 the command line is wrong."""
    given = sys.argv[1:] if arguments is None else arguments
    parser = _parser(given)
    options = parser.parse_args(given)
    if options.version:
        from importlib.metadata import version

        print(f"angos {version('angos')}")  # noqa: T201
        return 0
    if options.command is None:
        parser.print_help()
        return 2
    try:
        code: int = options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads has seen enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes once more
        return 1
    return code


def _parser(given: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="angos", description="An OCI container registry.")
    parser.add_argument("--version", action="store_true", help="print the version")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    server = commands.add_parser("server", help="serve a registry", description="Serve a registry.")
    add_config_argument(server, "a TOML file; can be repeated, later files win. The options below win over files")
    port, workers = _number(0, 65535), _number(1, 1024)
    server.add_argument("--host", help="the address to listen on (default: 127.0.0.1)")
    server.add_argument("--port", type=port, metavar="PORT", help="the port, 0 for any free one (default: 8000)")
    server.add_argument("--root", type=_folder, metavar="DIR", help="where the data lies (default: ./angos-data)")
    server.add_argument("--workers", type=workers, metavar="N", help="processes, one for each core (default: 1)")
    server.add_argument(
        "--record",
        type=_folder,
        metavar="DIR",
        help="write a trace of every request to this folder, for a bug report: python -m angos.simulator replay FILE",
    )
    server.add_argument("--loop", choices=("asyncio", "trio"), default="asyncio", help="default: asyncio")
    server.set_defaults(run=_serve)
    for name, purpose in _MAINTENANCE.items():
        command = commands.add_parser(name, help=purpose, description=f"{purpose.capitalize()}.")
        if name in given:
            module = import_module(f"angos.runtime.maintenance.{_MODULES.get(name, name)}")
            if hasattr(module, "add_arguments"):
                module.add_arguments(command)
            command.set_defaults(run=module.run)
    return parser


def _serve(arguments: argparse.Namespace) -> int:
    from angos.runtime.config.file import BadConfiguration
    from angos.runtime.config.schema import load_configuration

    files: list[Path] = arguments.config
    contents = _contents(files)
    try:
        configuration = _with_arguments(load_configuration(files, contents), arguments)
    except BadConfiguration as error:
        return refuse(error.problems)
    return _run(configuration, arguments, contents or [b""] * len(files))


def _contents(files: Sequence[Path]) -> list[bytes] | None:
    """Of all configuration files, None if one cannot be read: loading tells which."""
    try:
        return [file.read_bytes() for file in files]
    except OSError:
        return None


def _with_arguments(configuration: Configuration, arguments: argparse.Namespace) -> Configuration:
    from dataclasses import replace

    from angos.runtime.config.file import BadConfiguration, Problem
    from angos.runtime.config.schema import DirectoryConfig

    server = {name: value for name in ("host", "port", "workers") if (value := getattr(arguments, name)) is not None}
    blob_store = configuration.blob_store
    if arguments.root is not None:
        if not isinstance(blob_store, DirectoryConfig):
            where = f"--root {arguments.root}: the blobs are in a bucket; leave out --root or [blob_store.s3]"
            raise BadConfiguration([Problem("command line", "", where)])
        blob_store = replace(blob_store, root_dir=arguments.root)
    return replace(configuration, server=replace(configuration.server, **server), blob_store=blob_store)


def _run(configuration: Configuration, arguments: argparse.Namespace, contents: Sequence[bytes]) -> int:
    import logging
    from contextlib import asynccontextmanager

    from angos.runtime.app import Foundation
    from angos.runtime.observability.logs import configure_logging
    from angos.runtime.opening import loop_problem
    from angos.runtime.server.listener import ListenError
    from angos.runtime.server.serving import NotServable, Serving
    from angos.runtime.server.workers import run
    from angos.runtime.stores.disk import UnusableRoot

    if (problem := loop_problem(configuration, arguments.loop)) is not None:
        return refuse([f"--loop {arguments.loop}: {problem}"])
    configure_logging(configuration.observability.log)
    for warning in configuration.warnings:
        logging.getLogger("angos.configuration").warning("%s", warning)
    where = f"data in {configuration.blob_store.place}"
    if configuration.metadata_store is not None:
        where += f", metadata in {configuration.metadata_store.place}"

    def say_ready(urls: Sequence[str]) -> None:
        if (metrics := foundation.observation.listener) is not None:
            print(f"angos: metrics on {' and '.join(metrics.urls)}")  # noqa: T201
        print(f"angos: listening on {' and '.join(urls)} ({where})", flush=True)  # noqa: T201

    try:
        # Before any worker is forked: an unusable folder is reported once, and nothing has started yet.
        foundation = Foundation(configuration, arguments.record)
        if arguments.config:
            from angos.runtime.reload import ConfigurationReloader

            override = partial(_with_arguments, arguments=arguments)
            reloader = ConfigurationReloader(arguments.config, contents, configuration, foundation, override)
            serving = reloader.serving
        else:
            reloader, serving = None, foundation.build(configuration)

        @asynccontextmanager
        async def open_serving() -> AsyncIterator[Serving]:
            async with foundation.running():
                yield serving if reloader is None else reloader.serving

        return run(
            open_serving,
            configuration.server,
            loop="trio" if arguments.loop == "trio" else "asyncio",
            encrypted=configuration.tls is not None,
            on_ready=say_ready,
            hand_over=foundation.observation.follow,
            reloader=reloader,
        )
    except (UnusableRoot, ListenError, NotServable) as error:
        return refuse([error])
    except KeyboardInterrupt:
        return 0


def _number(least: int, most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if text.isascii() and text.isdigit() and least <= int(text) <= most:
            return int(text)
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from {least} to {most}")

    return read


def _folder(text: str) -> Path:
    if not text.strip():
        raise argparse.ArgumentTypeError("an empty path; the folder must have a name")
    return Path(text)


def _exit() -> NoReturn:
    sys.exit(main())


if __name__ == "__main__":
    _exit()
