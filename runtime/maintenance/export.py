"""``angos export distribution``: let CNCF distribution (docker-registry) serve what was stored here since it was taken
over."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from angos.runtime.command_line import refuse
from angos.runtime.maintenance import frame
from angos.runtime.maintenance.take_over import add_arguments, content
from angos.sansio.distribution_export import Exported, export_distribution
from angos.sansio.operation import Operation

__all__ = ["add_arguments", "run"]

UNEXPORTED_MAX = 100
"""Things left out that are shown one by one as text; JSON has all of them."""


def run(arguments: argparse.Namespace) -> int:
    """Gives the exit code: 0 it serves the same as this one, 1 something differs, 130 interrupted."""

    def show(done: Exported) -> int:
        return _show(done, as_json=arguments.json)

    return frame.run(arguments, lambda _: Operation(export_distribution()), show)


def _show(done: Exported, *, as_json: bool) -> int:
    if as_json:
        print(json.dumps(asdict(done), indent=2))  # noqa: T201
        return 1 if done.unexported else 0
    if not done.namespaces and not done.unexported:
        return refuse(["there is no repository in this store; name its folder by --root, or its configuration"])
    what = content(done)
    print(  # noqa: T201
        f"usable there: {what} in {frame.counted(done.namespaces, 'repository', 'repositories')};"
        f" by this run: {frame.counted(done.written, 'link')} written, {done.removed} removed"
    )
    frame.show_some(
        [f"differs: {left.problem}: {left.what}: {left.detail}" for left in done.unexported], UNEXPORTED_MAX
    )
    return 1 if done.unexported else 0
