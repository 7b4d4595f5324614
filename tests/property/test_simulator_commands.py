"""The command line of the simulator: what it finds, writes and says, and its exit codes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from angos.simulator.__main__ import main
from tests.property.test_planted_bugs import owner_before_bytes

RECORDED = Path(__file__).parent / "recorded"


def test_a_search_that_finds_nothing_says_what_it_did(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["search", "--seeds", "0..300", "--jobs", "2", "--out", str(tmp_path)]) == 0
    assert "300 runs" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_a_search_that_saw_too_little_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", "--seeds", "5..5"]) == 1
    assert "proves nothing: no run was made" in capsys.readouterr().out


def test_what_a_search_finds_can_be_replayed_and_minimised(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The report names the file; with the bug still there the file shows it, without the bug it does not."""
    owner_before_bytes(monkeypatch)
    assert main(["search", "--seeds", "0..50", "--out", str(tmp_path)]) == 1
    (file,) = tmp_path.glob("seed-*.jsonl")
    said = capsys.readouterr().out
    assert "name before bytes" in said
    assert f"replay: python -m angos.simulator replay {file}" in said
    assert main(["replay", str(file), "--diff"]) == 1
    assert "in the store:" in capsys.readouterr().out
    assert main(["minimise", str(file)]) == 1
    monkeypatch.undo()
    assert main(["minimise", str(file)]) == 0
    assert "no longer violates anything" in capsys.readouterr().out


def test_a_reader_that_goes_away_is_no_error() -> None:
    """As in ``replay FILE | head``: no traceback, not even at the end."""
    file = str(RECORDED / "put-manifest-by-tag.jsonl")
    command = [sys.executable, "-m", "angos.simulator", "replay", file]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_a_recorded_operation_is_replayed_by_its_outcomes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(RECORDED / "put-manifest-by-tag.jsonl")]) == 0
    assert "issues the same effects" in capsys.readouterr().out


def test_one_operation_is_exhausted(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["exhaust", "mount_blob"]) == 0
    assert "mount_blob: " in capsys.readouterr().out


def test_coverage_counts_the_cells_that_were_reached(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["coverage", "--seeds", "0..200"]) == 0
    said = capsys.readouterr().out
    assert "lost_req" in said
    assert "suspension points" in said


@pytest.mark.parametrize("content", ["", "not a trace\n", '{"trace": 99}\n'])
def test_a_file_that_is_no_trace_is_refused_in_one_sentence(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file.jsonl"
    file.write_text(content)
    assert main(["replay", str(file)]) == 2
    assert capsys.readouterr().out.startswith("error: ")
