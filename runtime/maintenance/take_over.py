"""``angos import distribution``: take over what CNCF distribution (docker-registry) has stored, where it lies."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from angos.runtime.command_line import refuse
from angos.runtime.maintenance import frame
from angos.sansio.distribution import Imported, import_distribution
from angos.sansio.distribution_export import Exported
from angos.sansio.operation import Operation

UNTAKEN_MAX = 100
"""Things not taken that are shown one by one as text; JSON has all of them."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("what", choices=("distribution",), help="CNCF distribution, also known as docker-registry")
    frame.add_store_arguments(parser)
    parser.add_argument("--json", action="store_true", help="report as JSON")


def content(done: Imported | Exported) -> str:
    """What of a store a run has come to, for a person."""
    counts = ((done.manifests, "manifest"), (done.tags, "tag"), (done.layers, "layer"))
    return ", ".join(frame.counted(number, name) for number, name in counts)


def run(arguments: argparse.Namespace) -> int:
    """Gives the exit code: 0 all of it was taken, 1 something could not be, 130 interrupted."""

    def show(done: Imported) -> int:
        return _show(done, as_json=arguments.json)

    return frame.run(arguments, lambda found: Operation(import_distribution(found.registry.manifest_size_max)), show)


def _show(done: Imported, *, as_json: bool) -> int:
    if as_json:
        print(json.dumps(asdict(done), indent=2))  # noqa: T201
        return 1 if done.untaken else 0
    if not done.namespaces and not done.untaken:
        return refuse(
            [
                "no repository of distribution was found; --root or root_dir has to be the folder that contains v2,"
                " as a rule docker/registry below the rootdirectory of the old registry"
            ]
        )
    what = content(done)
    where = frame.counted(done.namespaces, "repository", "repositories")
    print(f"usable here: {what} in {where}; taken by this run: {done.created}")  # noqa: T201
    if done.deleted_here or done.newer_here:
        changed = frame.counted(done.newer_here, "tag")
        print(f"left as it is here: {done.deleted_here} deleted since, {changed} changed since")  # noqa: T201
    frame.show_some([f"not taken: {left.problem}: {left.key}: {left.detail}" for left in done.untaken], UNTAKEN_MAX)
    return 1 if done.untaken else 0
