"""All workers change what they serve with, or none does; over real lines between two ends."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from angos.runtime.server.limits import ServerOptions
from angos.runtime.server.messages import Kind, Mailbox, Message
from angos.runtime.server.reload_round import PREPARE_SECONDS, Round
from angos.runtime.server.serving import Serving
from tests.conformance.server.stand_in import StandIn

CANDIDATE = b"candidate"


class Lines:
    """The lines to two workers, with both ends in the test."""

    def __init__(self) -> None:
        pairs = [socket.socketpair() for _ in range(2)]
        self.parent = {number: Mailbox(ours) for number, (ours, _) in enumerate(pairs)}
        self.worker = {number: Mailbox(theirs) for number, (_, theirs) in enumerate(pairs)}
        self.round = self.begin(7)

    def begin(self, number: int) -> Round:
        serving = Serving(StandIn(Path()), ServerOptions())
        return Round(number, CANDIDATE, serving, self.parent, now=0.0)

    def told(self) -> list[list[Kind]]:
        """What each worker has been told since the last time."""
        return [[message.kind for message in mailbox.take()] for mailbox in self.worker.values()]

    def answer(self, worker: int, kind: Kind, content: bytes = b"", number: int = 7) -> None:
        """A worker says something, over the line."""
        self.worker[worker].put(Message(kind, number, content))
        for message in self.parent[worker].take():
            self.round.hear(worker, message)

    def close(self) -> None:
        for mailbox in (*self.parent.values(), *self.worker.values()):
            mailbox.close()


@pytest.fixture
def lines() -> Iterator[Lines]:
    lines = Lines()
    yield lines
    lines.close()


def test_everybody_prepares_before_anybody_installs(lines: Lines) -> None:
    assert lines.worker[0].take() == lines.worker[1].take() == [Message(Kind.PREPARE, 7, CANDIDATE)]
    lines.answer(0, Kind.PREPARED)
    assert lines.told() == [[], []]
    lines.answer(1, Kind.PREPARED)
    assert lines.told() == [[Kind.INSTALL], [Kind.INSTALL]]
    lines.answer(1, Kind.INSTALLED)
    assert not lines.round.settled
    lines.answer(0, Kind.INSTALLED)
    assert lines.round.settled
    assert lines.round.refusals == []


def test_one_refusal_makes_all_forget_it(lines: Lines) -> None:
    lines.told()
    lines.answer(0, Kind.PREPARED)
    lines.answer(1, Kind.REFUSED, b"no memory")
    assert lines.told() == [[Kind.FORGET], [Kind.FORGET]]
    assert lines.round.settled
    assert lines.round.refusals == ["worker 1: no memory"]
    lines.answer(1, Kind.PREPARED)
    assert lines.told() == [[], []]


def test_a_worker_that_ends_is_not_waited_for(lines: Lines) -> None:
    lines.told()
    lines.answer(0, Kind.PREPARED)
    lines.round.lose(1)
    assert lines.told() == [[Kind.INSTALL], []]
    lines.round.lose(0)
    assert lines.round.settled
    assert lines.round.refusals == []


def test_when_all_workers_end_while_they_prepare_it_is_refused(lines: Lines) -> None:
    lines.round.lose(0)
    assert not lines.round.settled
    lines.round.lose(1)
    assert lines.round.settled
    assert lines.round.refusals == ["every worker ended while it prepared it"]


def test_when_no_worker_runs_just_now_there_is_nobody_to_ask(lines: Lines) -> None:
    lines.parent.clear()
    assert lines.begin(8).settled


def test_the_time_for_preparing_is_limited_and_late_answers_count_for_nothing(lines: Lines) -> None:
    lines.told()
    lines.answer(1, Kind.PREPARED)
    lines.round.give_up(PREPARE_SECONDS - 1)
    assert not lines.round.settled
    lines.round.give_up(PREPARE_SECONDS)
    assert lines.round.refusals == ["no answer from worker 0 within 30 seconds"]
    assert lines.told() == [[Kind.FORGET], [Kind.FORGET]]
    lines.round = lines.begin(8)
    lines.told()
    lines.answer(0, Kind.PREPARED, number=7)
    lines.answer(1, Kind.PREPARED, number=8)
    assert lines.told() == [[], []]
    lines.answer(0, Kind.PREPARED, number=8)
    assert lines.told() == [[Kind.INSTALL], [Kind.INSTALL]]


def test_a_line_carries_more_than_it_can_hold(lines: Lines) -> None:
    lines.told()
    content = bytes(range(256)) * 20_000
    lines.parent[0].put(Message(Kind.PREPARE, 9, content))
    lines.parent[0].put(Message(Kind.FORGET, 9))
    assert lines.parent[0].has_unsent
    arrived: list[Message] = []
    while lines.parent[0].has_unsent or not arrived:
        arrived += lines.worker[0].take()
        lines.parent[0].send_rest()
    arrived += lines.worker[0].take()
    assert arrived == [Message(Kind.PREPARE, 9, content), Message(Kind.FORGET, 9)]


def test_the_end_of_the_other_process_is_noticed_after_its_last_words(lines: Lines) -> None:
    lines.worker[0].put(Message(Kind.READY))
    lines.worker[0].close()
    assert not lines.parent[0].ended
    assert lines.parent[0].take() == [Message(Kind.READY)]
    assert lines.parent[0].ended
    lines.parent[0].put(Message(Kind.FORGET))
    lines.parent[0].put(Message(Kind.FORGET))
    assert not lines.parent[0].has_unsent
