"""A wheel built from the sdist holds every module. A wrong mapping of folders to packages fails without any message."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
LAYERS = ("sansio", "runtime", "simulator")


def files_of_layers() -> list[str]:
    """Modules and type markers of the three folders, relative to the checkout."""
    folders = [ROOT / layer for layer in LAYERS]
    found = [
        path for folder in folders for path in folder.rglob("*") if path.suffix == ".py" or path.name == "py.typed"
    ]
    return sorted(str(path.relative_to(ROOT)) for path in found)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built in a copy of the checkout: what is left of earlier builds would end up in the wheel."""
    copy = tmp_path_factory.mktemp("checkout with a space")
    for name in (*files_of_layers(), "pyproject.toml", "README.md", "LICENSE"):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, copy / name)
    for step in ("build_sdist('sdist')", "build_wheel('wheel')"):
        subprocess.run(
            [sys.executable, "-c", f"from setuptools import build_meta; build_meta.{step}"],
            cwd=copy,
            check=True,
            capture_output=True,
        )
        if step.startswith("build_sdist"):
            (archive,) = (copy / "sdist").iterdir()
            subprocess.run([sys.executable, "-m", "tarfile", "-e", archive, copy / "unpacked"], check=True)
            (copy,) = (copy / "unpacked").iterdir()
    (built,) = (copy / "wheel").iterdir()
    return built


def test_wheel_holds_every_module_and_type_marker_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert sorted(name for name in names if ".dist-info/" not in name) == [
        f"angos/{name}" for name in files_of_layers()
    ]


def test_every_layer_is_marked_as_typed() -> None:
    assert {f"{layer}/py.typed" for layer in LAYERS} <= set(files_of_layers())


def test_layers_are_importable_from_the_wheel_alone(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    program = "; ".join(
        [
            "import sys",
            f"sys.path.insert(0, {str(tmp_path)!r})",
            *(f"import angos.{layer}" for layer in LAYERS),
            "print(*(module.__file__ for name, module in sys.modules.items() if name.startswith('angos.')), sep='\\n')",
        ]
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    places = done.stdout.split()
    assert len(places) >= len(LAYERS)
    assert all(place.startswith(str(tmp_path)) for place in places), places
