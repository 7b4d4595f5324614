"""A folder that nobody can read, whoever runs the tests."""

from __future__ import annotations

import os
from pathlib import Path

NAME = "x" * 250
DEPTH = 20  # 4096 bytes are as long as a path may be


def make_unreadable(folder: Path) -> None:
    """Make it, with a file in a folder below it whose path is too long for the system."""
    folder.mkdir(parents=True)
    descriptor = os.open(folder, os.O_RDONLY)
    for _ in range(DEPTH):
        os.mkdir(NAME, dir_fd=descriptor)
        below = os.open(NAME, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
    os.close(descriptor)
