"""Worker processes: one port, restarts, signals, and an end for everybody."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from angos.runtime.server.limits import ServerOptions
from angos.runtime.server.listener import ListenError
from angos.runtime.server.workers import run
from tests.conformance.server.processes import Processes, is_gone, tries
from tests.conformance.server.wire import Wire


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_signal_lets_requests_in_flight_end(loop: str, workers: int, number: signal.Signals, tmp_path: Path) -> None:
    with Processes(loop, workers, tmp_path) as processes:
        answering = processes.find_processes(workers)
        with Wire(processes.address) as idle, Wire(processes.address) as wire:
            idle.get()
            wire.get()
            wire.ask("/wait?seconds=0.5")
            assert processes.end(number) == 0
            answer = wire.answer()
            assert (answer.body, answer.closes) == (b"waited", True)
            assert idle.is_closed()
        assert all(is_gone(process) for process in answering)
        assert processes.parent.stdout is not None
        assert processes.parent.stdout.read() == "application left\n" * workers
        assert "Traceback" not in processes.log.read_text()


def test_a_second_signal_ends_at_once(loop: str, tmp_path: Path) -> None:
    for workers in (1, 2):
        with Processes(loop, workers, tmp_path) as processes, Wire(processes.address) as wire:
            wire.get()
            wire.ask("/wait?seconds=3600")
            processes.parent.send_signal(signal.SIGTERM)
            for _ in tries():
                # Only once nobody accepts any more has the first signal been seen by all.
                with contextlib.suppress(ConnectionError, EOFError):
                    processes.ask_process()
                    continue
                break
            assert processes.end(signal.SIGTERM) == 0
            assert wire.is_closed()


def test_a_worker_that_dies_is_replaced(loop: str, tmp_path: Path) -> None:
    with Processes(loop, 2, tmp_path) as processes:
        before = processes.find_processes(2)
        killed = min(before)
        os.kill(killed, signal.SIGKILL)
        for _ in tries():
            with contextlib.suppress(ConnectionError, EOFError):
                if processes.ask_process() not in before:
                    break
        else:
            pytest.fail(processes.log.read_text())
        assert processes.end(signal.SIGTERM) == 0
        assert f"(process {killed}) ended unexpectedly, killed by SIGKILL" in processes.log.read_text()


def test_a_second_registry_does_not_share_the_port_by_accident(loop: str, tmp_path: Path) -> None:
    with Processes(loop, 2, tmp_path) as processes:
        for workers in (1, 2):
            with pytest.raises(ListenError, match="another program uses this port"):
                run(_no_application, ServerOptions(port=processes.address[1], workers=workers), on_ready=print)


def _no_application() -> NoReturn:
    raise AssertionError("it must not come to this")


def test_workers_that_cannot_start_end_everything(loop: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.conformance.server.serving_stand_in", loop, "2", str(tmp_path / "unusable")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "cannot start" in ended.stderr
    assert "giving up" in ended.stderr


def test_workers_end_with_their_parent(loop: str, tmp_path: Path) -> None:
    with Processes(loop, 2, tmp_path) as processes:
        workers = processes.find_processes(2)
        processes.parent.kill()
        processes.parent.wait()
        for _ in tries():
            if all(is_gone(process) for process in workers):
                break
        else:
            pytest.fail("the workers go on")
        assert "the parent process is gone" in processes.log.read_text()
