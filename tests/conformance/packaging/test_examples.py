"""Examples for deploying the registry, as operators copy them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

_SINGLE_FILE = re.compile(
    r"""
    ^\s*-?\s*subPath:.*               # Kubernetes: follows no change of its ConfigMap or Secret
    | ["'\s\[-][^\s"':]*\.toml:[^\s"']+\.toml   # compose, docker run -v: goes on showing a file that was replaced
    """,
    re.MULTILINE | re.VERBOSE,
)


def single_file_mounts(text: str) -> list[str]:
    """Where a configuration is mounted in such a way that a running server never sees it change."""
    return [match.strip(" -[\"'") for match in _SINGLE_FILE.findall(text)]


def test_no_example_mounts_a_single_file() -> None:
    """Bug class 107: mount the folder, so that the registry sees a file that is replaced."""
    files = [path for folder in ("deploy", "docs") for path in sorted((ROOT / folder).rglob("*")) if path.is_file()]
    assert len(files) > 20
    assert [
        (path.relative_to(ROOT).as_posix(), found) for path in files for found in single_file_mounts(path.read_text())
    ] == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("volumeMounts:\n  - name: x\n    subPath: angos.toml\n", ["subPath: angos.toml"]),
        ('volumes: ["./angos.toml:/etc/angos/angos.toml:ro"]', ["./angos.toml:/etc/angos/angos.toml"]),
        ("docker run -v ./angos.toml:/etc/angos.toml angos", ["./angos.toml:/etc/angos.toml"]),
        ('volumes: ["./configuration:/etc/angos:ro"]', []),
        ("Mounted with `subPath`, a file never changes.", []),
    ],
)
def test_such_a_mount_is_noticed(text: str, found: list[str]) -> None:
    assert single_file_mounts(text) == found
