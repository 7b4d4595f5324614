"""The command ``angos`` as a person meets it: what it says, where, and how it ends."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.conformance.registry_process import RegistryProcess


def angos(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "angos.runtime", *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def refused(*arguments: str) -> list[str]:
    """The lines that a start which fails leaves on stderr."""
    ended = angos("server", "--port", "0", *arguments)
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert "Traceback" not in ended.stderr
    return ended.stderr.splitlines()


def test_the_version_is_printed() -> None:
    ended = angos("--version")
    assert (ended.returncode, ended.stdout) == (0, f"angos {version('angos')}\n")


def test_without_a_command_the_help_is_shown() -> None:
    ended = angos()
    assert ended.returncode == 2
    assert "server" in ended.stdout


@pytest.mark.parametrize("command", ["server", "check", "argon", "explain"])
def test_each_command_says_what_it_does(command: str) -> None:
    ended = angos(command, "--help")
    assert ended.returncode == 0
    assert ended.stdout.startswith(f"usage: angos {command} ")


def test_help_loads_none_of_the_commands() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "angos.runtime", "--help"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    loaded = {line.rpartition("|")[2].strip() for line in ended.stderr.splitlines()}
    assert "argparse" in loaded
    assert {name for name in loaded if name.startswith("angos.")} == {"angos.runtime", "angos.runtime.command_line"}


WRONG = ("--port 70000", "--port x", "--workers 0", "--root=", "--loop uv", "--what")


@pytest.mark.parametrize("arguments", WRONG)
def test_a_wrong_command_line_is_told_with_the_usage(arguments: str) -> None:
    ended = angos("server", *arguments.split())
    assert ended.returncode == 2
    assert "usage: angos" in ended.stderr


def test_a_bad_configuration_is_told_problem_by_problem(tmp_path: Path) -> None:
    first, second = tmp_path / "a.toml", tmp_path / "b.toml"
    first.write_text("[server]\nprt = 1")
    second.write_text("[global]\nmax_blob_size = 0")
    lines = refused("-c", str(first), "-c", str(second))
    assert len(lines) == 2
    assert lines[0] == f"angos: {first}: server.prt: unknown key; did you mean server.port?"
    assert lines[1].startswith(f"angos: {second}: global.max_blob_size: found 0; allowed is ")


def test_a_root_that_cannot_be_used_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for root in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/angos")):
        for workers in ("1", "2"):
            (line,) = refused("--root", str(root), "--workers", workers)
            assert line.startswith(f"angos: {root} cannot hold a store: ")


def test_a_port_in_use_is_told_in_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        for workers in ("1", "2"):
            (line,) = refused("--root", str(tmp_path / "data"), "--port", port, "--workers", workers)
            assert line.startswith(f"angos: cannot listen on 127.0.0.1:{port}: ")


def test_options_win_over_files(tmp_path: Path) -> None:
    file = tmp_path / "angos.toml"
    metadata = tmp_path / "metadata"
    file.write_text(
        f"[server]\nport = 1\n[blob_store.fs]\nroot_dir = '/proc/no'\n[metadata_store.fs]\nroot_dir = '{metadata}'"
    )
    registry = RegistryProcess.start(tmp_path / "data", arguments=["-c", str(file)])
    try:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", registry.url)
        assert not registry.url.endswith(":1")
        assert metadata.is_dir()
    finally:
        registry.stop()


def test_what_a_server_records_replays_in_the_simulator_and_holds_no_credentials(tmp_path: Path) -> None:
    records = tmp_path / "records"
    registry = RegistryProcess.start(tmp_path / "data", arguments=["--record", str(records)])
    try:
        with urllib.request.urlopen(f"{registry.url}/v2/") as answer:
            assert answer.status == 200
        body = b'{"schemaVersion": 2, "manifests": []}'
        put = urllib.request.Request(f"{registry.url}/v2/a/manifests/x", body, method="PUT")
        put.add_header("Authorization", "Bearer canary-token")
        put.add_header("Content-Type", "application/vnd.oci.image.index.v1+json")
        with urllib.request.urlopen(put) as answer:
            assert answer.status == 201
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{registry.url}/v2/a/manifests/y")
    finally:
        registry.stop()
    traces = sorted(records.iterdir())
    assert len(traces) == 3
    for trace in traces:
        assert "canary-token" not in trace.read_text()
        command = [sys.executable, "-m", "angos.simulator", "replay", str(trace)]
        replayed = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert replayed.returncode == 0, replayed.stderr
        assert "the same effects and gives the same response" in replayed.stdout


def test_a_folder_that_cannot_take_records_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (line,) = refused("--root", str(tmp_path / "data"), "--record", str(tmp_path / "file"))
    assert "cannot take records" in line
