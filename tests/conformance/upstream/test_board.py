"""What workers see of each other's fills: the right bytes, or nothing."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from angos.runtime.upstream.board import NOTICES, PIECES, Board

pytestmark = pytest.mark.skipif(not Board.works(), reason="this system does not show the open files of a process")

Filler = Callable[[Callable[[], None]], None]


@contextmanager
def another_worker(board: Board, name: str, content: bytes) -> Iterator[Filler]:
    """A forked process that fills. Gives what lets it do the next thing and waits until that is done."""
    ours, theirs = socket.socketpair()
    process = os.fork()
    if process == 0:
        try:
            ours.close()
            _fill(board, name, content, theirs)
        finally:
            os._exit(0)
    theirs.close()
    try:

        def then(check: Callable[[], None]) -> None:
            ours.sendall(b".")
            assert ours.recv(1) == b"."
            check()

        yield then
    finally:
        ours.close()
        os.waitpid(process, 0)


def _fill(board: Board, name: str, content: bytes, line: socket.socket) -> None:
    with tempfile.TemporaryFile(buffering=0) as file, tempfile.TemporaryFile() as other:
        notice = board.post("something else", 1)

        def post() -> None:
            nonlocal notice
            notice = board.post(name, len(content))
            notice.add(0, file.fileno())

        steps: list[Callable[[], object]] = [
            post,
            lambda: file.write(content),
            lambda: notice.release(),
            lambda: notice.withdraw(),
            lambda: os.dup2(other.fileno(), file.fileno()),
        ]
        for step in steps:
            line.recv(1)
            step()
            line.sendall(b".")
        line.recv(1)


def test_a_worker_finds_and_reads_what_another_one_fills() -> None:
    board = Board(2)
    assert board.find("blob") is None
    with another_worker(board, "blob", b"content") as then:
        opened: list[int] = []

        def posted() -> None:
            found = board.find("blob")
            assert found is not None
            assert (found.size, found.released, len(found.pieces)) == (7, False, 1)
            ((start, descriptor),) = found.pieces
            assert start == 0
            mine = board.open("blob", found, descriptor)
            assert mine is not None
            opened.append(mine)

        def released() -> None:
            found = board.find("blob")
            assert found is not None
            assert found.released

        then(posted)
        known = board.find("blob")
        assert known is not None
        then(lambda: None)
        assert os.pread(opened[0], 100, 0) == b"content"
        then(released)
        then(lambda: None)
        assert board.find("blob") is None
        assert board.open("blob", known, known.pieces[0][1]) is None, "withdrawn"
        then(lambda: None)
        assert board.open("blob", known, known.pieces[0][1]) is None, "the number means another file now"
        os.close(opened[0])
    assert board.find("something else") is not None, "nobody has taken the place of the dead yet"
    with another_worker(board, "next", b"") as then:
        then(lambda: None)
        assert board.find("something else") is not None  # it says that, too
        assert board.find("blob") is None


def test_own_notices_are_not_found_and_too_many_are_not_heard() -> None:
    board = Board(1)
    notices = [board.post(f"blob {number}", 1) for number in range(NOTICES + 1)]
    assert board.find("blob 0") is None
    for notice in notices:
        for number in range(PIECES + 1):
            notice.add(number, 0)
        notice.release()
        notice.withdraw()
    assert board.post("again", 1)._region is not None
