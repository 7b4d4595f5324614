"""`make`, as somebody meets it who has just cloned the repository."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
MAKE = shutil.which("make")

pytestmark = pytest.mark.skipif(MAKE is None, reason="make is not installed")


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(
        [MAKE or "make", *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "a checkout"
    folder.mkdir()
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copyfile(ROOT / name, folder / name)
    return folder


def test_run_serves_on_the_loopback_address_by_default(checkout: Path) -> None:
    printed = make(checkout, "--dry-run", "run").stdout
    assert "angos.runtime server --host '127.0.0.1' --port '8000' --root './angos-data'" in printed


def test_run_takes_host_port_and_root_from_its_command_line_only(checkout: Path) -> None:
    printed = make(checkout, "--dry-run", "run", "PORT=9000", "HOST=::1", "ROOT=a folder", "ARGS=--workers 2").stdout
    assert "--host '::1' --port '9000' --root 'a folder' --workers 2" in printed


def test_python_that_is_missing_is_named_with_what_to_do(checkout: Path) -> None:
    done = make(checkout, "run", "PYTHON=/nowhere/python3")
    assert done.returncode != 0
    assert "Python 3.11 or newer" in done.stderr
    assert "PYTHON=" in done.stderr
    assert not (checkout / ".venv").exists()


def test_nothing_is_installed_again_until_the_versions_change(checkout: Path) -> None:
    (checkout / ".venv").mkdir()
    now = (checkout / "Makefile").stat().st_mtime
    for age, stamp in enumerate((".installed-all", ".installed", ".created")):
        (checkout / ".venv" / stamp).touch()
        os.utime(checkout / ".venv" / stamp, (now + 10 - age, now + 10 - age))
    assert "pip install" not in make(checkout, "--dry-run", "test").stdout
    os.utime(checkout / "constraints.txt", (now + 20, now + 20))
    assert "pip install" in make(checkout, "--dry-run", "test").stdout


def test_every_version_is_exact_and_no_address_is_named() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert lines
    assert [line for line in lines if re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line) is None] == []


def test_every_dependency_is_pinned() -> None:
    pinned = {line.partition("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines()}
    needed = re.findall(r'"([a-z0-9-]+)>=', (ROOT / "pyproject.toml").read_text())
    assert needed
    assert [name for name in needed if name not in pinned] == []
