"""One effect at a time on a folder, and what lies in it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import anyio

from angos.runtime.stores.disk import TEMPORARY_FOLDER
from angos.sansio.effects import (
    Effect,
    HashState,
    Prefix,
)
from tests.conformance.contracts.store import Sent, perform, services_on

UPLOAD = Prefix("v2/repositories/n/_uploads/u/u.")
PREFIX = Prefix("v2/ns/n!rev/")
FRESH = HashState("sha256", "", None)


def do(root: Path, effect: Effect[Any], sent: Sent | None = None) -> Any:
    """One effect by a process of its own, as it were: nothing is remembered from earlier ones."""
    return anyio.run(perform, effect, services_on(root, sync=True), sent)


def open_files() -> set[str]:
    """What this process has open below temporary folders."""
    found = set()
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{descriptor}")
        except FileNotFoundError:
            continue
        if "/pytest-" in target:
            found.add(target)
    return found


def files_below(root: Path) -> set[str]:
    """Everything there that is no folder, relative to it."""
    return {str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir()}


def left_behind(root: Path) -> set[str]:
    """The temporary files, except the one that lends its content to empty keys."""
    return {name for name in files_below(root) if name.startswith(TEMPORARY_FOLDER) and not name.endswith(".empty")}
