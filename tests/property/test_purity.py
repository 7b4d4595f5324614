"""What keeps the layers apart and the core deterministic, checked on the source itself."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import angos.runtime
import angos.sansio
import angos.simulator

ALLOWED = frozenset(
    {
        "__future__",
        "base64",
        "binascii",
        "bisect",
        "collections",
        "contextlib",
        "dataclasses",
        "datetime",
        "enum",
        "functools",
        "hashlib",
        "ipaddress",
        "itertools",
        "json",
        "math",
        "re",
        "string",
        "types",
        "typing",
        "urllib",
    }
)
"""The pure part of the standard library: no clock, entropy, file, socket, loop or log."""

PURE_PARTS = {"urllib": {"urllib.parse"}, "datetime": {"datetime"}}
CLOCKS = {"now", "utcnow", "today"}


def _files(package: str) -> list[Path]:
    folder = Path(package)
    return sorted(path for path in folder.rglob("*.py"))


SANSIO = _files(angos.sansio.__path__[0])
RUNTIME = _files(angos.runtime.__path__[0])
SIMULATOR = _files(angos.simulator.__path__[0])


def _imports(tree: ast.AST) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "", node.lineno


@pytest.mark.parametrize("path", SANSIO, ids=lambda path: path.name)
def test_the_core_imports_only_what_is_pure(path: Path) -> None:
    for name, line in _imports(ast.parse(path.read_text())):
        if name.startswith("angos."):
            assert name.startswith("angos.sansio"), f"{path.name}:{line} imports {name}"
            continue
        top = name.partition(".")[0]
        assert top in ALLOWED, f"{path.name}:{line} imports {name}, which is not on the list"
        assert name in PURE_PARTS.get(top, {name}), f"{path.name}:{line} imports {name}"


@pytest.mark.parametrize("path", SANSIO, ids=lambda path: path.name)
def test_the_core_reads_no_clock(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            assert node.func.attr not in CLOCKS, f"{path.name}:{node.lineno} reads a clock"


@pytest.mark.parametrize("path", [one for one in SANSIO if one.name != "scopes.py"], ids=lambda path: path.name)
def test_the_core_awaits_nothing_while_it_cleans_up(path: Path) -> None:
    """An abandoned operation must not issue effects, so ``finally`` and ``except`` await nothing.

    Plans on a disk are no operations: nobody abandons them but a crash, which takes no further step."""
    if path.parent.name == "disk":
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Try):
            continue
        for statement in [*node.finalbody, *node.handlers]:
            for inner in ast.walk(statement):
                assert not isinstance(inner, ast.Await | ast.AsyncWith | ast.AsyncFor), f"{path.name}:{inner.lineno}"


@pytest.mark.parametrize("path", SANSIO, ids=lambda path: path.name)
def test_the_core_reads_json_in_one_way(path: Path) -> None:
    """`json.loads` fails with a `RecursionError` on what is nested deeply. A record of that kind in the store ended a
    scrub, and requests in 500."""
    if path.name in ("compact_json.py", "trace.py"):
        return
    for node in ast.walk(ast.parse(path.read_text())):
        assert not (isinstance(node, ast.Attribute) and node.attr == "loads"), f"{path.name}:{node.lineno}: parse_json"


@pytest.mark.parametrize("path", SANSIO, ids=lambda path: path.name)
def test_the_core_has_no_asynchronous_generators(path: Path) -> None:
    """Their end belongs to the loop that runs them, and the core has none."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.AsyncFunctionDef):
            own = [inner for inner in _own_nodes(node) if isinstance(inner, ast.Yield | ast.YieldFrom)]
            assert not own, f"{path.name}:{node.lineno} {node.name} is an asynchronous generator"


def _own_nodes(function: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(function):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from _own_nodes(child)


@pytest.mark.parametrize("path", [*SANSIO, *SIMULATOR], ids=lambda path: f"{path.parent.name}/{path.name}")
def test_nothing_depends_on_the_order_of_a_set(path: Path) -> None:
    """Strings hash differently in every process, so whoever iterates over a set of them is another run each time."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.For | ast.AsyncFor | ast.comprehension):
            assert not _is_set(node.iter), f"{path.name}:{node.iter.lineno} iterates over a set"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("list", "tuple"):
            assert not any(_is_set(argument) for argument in node.args), f"{path.name}:{node.lineno} orders a set"


def _is_set(node: ast.expr) -> bool:
    if isinstance(node, ast.Set | ast.SetComp):
        return True
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("set", "frozenset")


@pytest.mark.parametrize(
    ("files", "forbidden"),
    [(RUNTIME, "angos.simulator"), (SIMULATOR, "angos.runtime")],
    ids=["runtime", "simulator"],
)
def test_the_runtime_and_the_simulator_do_not_know_each_other(files: list[Path], forbidden: str) -> None:
    for path in files:
        for name, line in _imports(ast.parse(path.read_text())):
            assert not name.startswith(forbidden), f"{path.name}:{line} imports {name}"
