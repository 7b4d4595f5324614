"""What is served changes in all processes or in none, whatever happens to them meanwhile."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.conformance.server.processes import Processes, tries
from tests.conformance.server.wire import Wire


@pytest.mark.parametrize("workers", [1, 4])
def test_a_reload_reaches_every_process(loop: str, workers: int, tmp_path: Path) -> None:
    with Processes(loop, workers, tmp_path) as processes:
        assert processes.names() == {b"first"}
        processes.reload("second")
        assert processes.names() == {b"second"}
        processes.reload("third " * 100_000)
        assert processes.names() == {b"third " * 100_000}
        assert processes.end(signal.SIGTERM) == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_open_connections_change_at_once_and_requests_in_flight_go_on(loop: str, workers: int, tmp_path: Path) -> None:
    with (
        Processes(loop, workers, tmp_path) as processes,
        Wire(processes.address) as kept,
        Wire(processes.address) as busy,
    ):
        assert kept.get("/name").body == b"first"
        busy.ask("/receive", "Content-Length: 2", method="PUT")
        processes.reload("second")
        assert kept.get("/name").body == b"second"
        busy.send(b"ab")
        answer = busy.answer()
        assert (answer.status, answer.json()["size"]) == (201, 2)
        assert busy.get("/name").body == b"second"


@pytest.mark.parametrize("workers", [1, 3])
def test_what_cannot_be_prepared_changes_nothing(loop: str, workers: int, tmp_path: Path) -> None:
    with Processes(loop, workers, tmp_path) as processes:
        processes.reload("second")
        for wanted, reason in (("refused at once", "nobody likes it"), ("failing", "RuntimeError")):
            processes.reload(wanted)
            assert reason in processes.log.read_text()
            assert processes.names() == {b"second"}
        processes.reload("third")
        assert processes.names() == {b"third"}
        assert processes.end(signal.SIGTERM) == 0


def test_what_a_worker_refuses_changes_no_worker(loop: str, tmp_path: Path) -> None:
    with Processes(loop, 3, tmp_path) as processes:
        processes.reload("refused in workers")
        assert "this worker does not like it" in processes.log.read_text()
        assert processes.names() == {b"first"}
        processes.reload("second")
        assert processes.names() == {b"second"}


def test_a_worker_that_dies_while_it_prepares_comes_back_with_what_was_decided(loop: str, tmp_path: Path) -> None:
    with Processes(loop, 2, tmp_path) as processes:
        before = processes.find_processes(2)
        processes.reload("deadly for one")
        assert "INFO:root:accepted" in processes.log.read_text()
        assert processes.names() == {b"deadly for one"}
        for _ in tries():
            if not processes.find_processes(2) <= before:
                break
        assert processes.names() == {b"deadly for one"}


def test_what_kills_every_worker_is_refused_and_the_old_comes_back(loop: str, tmp_path: Path) -> None:
    with Processes(loop, 2, tmp_path) as processes:
        processes.find_processes(2)
        processes.reload("deadly for all")
        assert "refused: every worker ended while it prepared it" in processes.log.read_text()
        processes.find_processes(2)
        assert processes.names() == {b"first"}


def test_a_worker_that_starts_after_a_reload_has_it(loop: str, tmp_path: Path) -> None:
    with Processes(loop, 2, tmp_path) as processes:
        before = processes.find_processes(2)
        processes.reload("second")
        for process in before:
            os.kill(process, signal.SIGKILL)
        after = processes.find_processes(2)
        assert not after & before
        assert processes.names() == {b"second"}


def test_workers_leave_hangups_to_their_parent(loop: str, tmp_path: Path) -> None:
    with Processes(loop, 2, tmp_path) as processes:
        before = processes.find_processes(2)
        for process in before:
            os.kill(process, signal.SIGHUP)
        assert processes.find_processes(2) == before
        assert processes.end(signal.SIGTERM) == 0
