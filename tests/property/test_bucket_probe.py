"""What a try of a bucket finds out, about stores that are good and stores that lack one thing, and what it leaves."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from angos.sansio import layout
from angos.sansio.bucket.probe import REMAINS_MS, ensure, probe
from angos.sansio.bucket.requests import Put, Terms
from angos.sansio.effects import EffectError, StorageFull, StorageRefused, StorageUnavailable
from angos.sansio.findings import Finding, doubts, faults, table
from angos.simulator.world.bucket import Limits, Pieces
from angos.simulator.world.carrying import Carrying, Plan
from angos.simulator.world.quirks import QuirkyBucket

TERMS = Terms("bucket images", 5, 1000, 1000, 100, 4, 3, listing_max=4)
NOW_MS = 1_700_000_000_000
SILENTLY_WRONG = 7
"""How many things a start tries."""


class Tried:
    """A simulated bucket, possibly a worse one than it should be, in the middle of being tried out."""

    def __init__(self, *quirks: str) -> None:
        limits = Limits(TERMS.piece_bytes_min, TERMS.piece_bytes_max, listing_max=TERMS.listing_max)
        self.bucket = QuirkyBucket(quirks, limits=limits)
        self.draws = 0
        self.asked = 0
        self.fails: Callable[[Any], EffectError | None] = lambda _: None

    @property
    def keys(self) -> list[str]:
        return self.bucket.names("")

    @property
    def pieces(self) -> dict[str, Pieces]:
        return self.bucket.uploads

    def run(self, plan: Plan) -> Any:
        running = self.running(plan)
        while True:
            try:
                next(running)
            except StopIteration as stop:
                return stop.value

    def running(self, plan: Plan) -> Generator[None, None, Any]:
        """Yields before each request. Closed in the middle, the process was killed."""
        carrying = Carrying(self.bucket, plan, attempts=TERMS.attempts, draw_writer=self._draw)
        try:
            while not carrying.ended:
                yield
                self.asked += 1
                error = self.fails(carrying.waiting[0].request)
                if error is not None:
                    carrying.fail(carrying.waiting[0], error)
                else:
                    carrying.take_next()
        finally:
            carrying.abandon()
        if carrying.error is not None:
            raise carrying.error
        return carrying.value

    def _draw(self) -> str:
        self.draws += 1
        return f"{self.draws:032x}"


def found(bucket: Tried, *, thorough: bool = True, at_ms: int = NOW_MS) -> tuple[Finding, ...]:
    findings: tuple[Finding, ...] = bucket.run(probe(TERMS, at_ms, thorough=thorough))
    return findings


def test_a_good_store_passes_and_is_left_as_it_was() -> None:
    bucket = Tried()
    bucket.bucket.take(Put("v2/cat/a!", ()))
    findings = found(bucket)
    assert {each.verdict for each in findings} == {"works"}
    assert bucket.keys == ["v2/cat/a!"]
    assert not bucket.pieces
    assert all(line.endswith("works") for line in table(findings))


def test_a_start_asks_for_little() -> None:
    bucket = Tried()
    assert len(found(bucket, thorough=False)) == SILENTLY_WRONG
    assert bucket.asked <= 22
    assert not bucket.keys


@pytest.mark.parametrize("thorough", [True, False], ids=["command", "start"])
@pytest.mark.parametrize(
    ("quirk", "need"),
    [
        ("overwrites", "creates a key at most once"),
        ("races", "creates a key at most once"),
        ("late listing", "lists what was just created"),
        ("keeps", "deletes"),
        ("forgets", "keeps what it is given"),
        ("has everything", "keeps what it is given"),
    ],
)
def test_what_would_go_wrong_in_silence_is_found_at_every_start(quirk: str, need: str, thorough: bool) -> None:
    wrong = faults(found(Tried(quirk), thorough=thorough))
    assert need in [each.need for each in wrong]
    (line,) = [line for line in table(wrong) if need in line]
    assert line.endswith("so the registry does not start")


@pytest.mark.parametrize(
    ("quirk", "need"),
    [
        ("unsorted", "lists keys in order and in pages"),
        ("starts anew", "lists keys in order and in pages"),
        ("goes in circles", "lists keys in order and in pages"),
        ("flat", "lists keys in order and in pages"),
        ("whole", "gives ranges of objects"),
        ("cut copies", "copies objects"),
        ("in order of arrival", "joins pieces, sent or copied"),
    ],
)
def test_everything_else_is_found_by_the_command(quirk: str, need: str) -> None:
    assert need in [each.need for each in faults(found(Tried(quirk)))]


@pytest.mark.parametrize(
    ("quirk", "need", "consequence"),
    [
        ("behind", "has the time of this machine", "its clock is 3600 s behind that of this machine"),
        ("unsigned", "lets clients in with signed URLs", "no client is sent there"),
        ("keeps pieces", "forgets pieces", "may cost space"),
    ],
)
def test_what_the_registry_can_do_without_is_said_and_no_fault(quirk: str, need: str, consequence: str) -> None:
    findings = found(Tried(quirk))
    assert not faults(findings)
    (finding,) = [each for each in findings if each.verdict == "fails"]
    assert finding.need == need
    assert consequence in finding.consequence


def test_nothing_is_written_to_a_store_that_overwrites() -> None:
    with pytest.raises(StorageRefused, match=r"nothing is written to bucket images.*If-None-Match"):
        Tried("overwrites").run(ensure(TERMS, NOW_MS))
    Tried().run(ensure(TERMS, NOW_MS))
    Tried("behind", "unsigned").run(ensure(TERMS, NOW_MS))


@given(after=st.integers(0, 60), error=st.sampled_from([StorageUnavailable, StorageRefused, StorageFull]))
def test_whatever_fails_from_some_moment_on_is_told_and_is_no_crash(after: int, error: type[EffectError]) -> None:
    bucket = Tried()
    bucket.fails = lambda _: error("no") if bucket.asked > after else None
    findings = found(bucket)
    if bucket.asked > after + 1:
        verdicts = {each.verdict for each in findings}
        assert error is not StorageRefused or not doubts(findings)
        assert error is StorageRefused or not faults(findings)
        assert verdicts <= {"works", "not tried", "unknown" if error is not StorageRefused else "fails"}


def test_a_full_store_lets_the_registry_start_but_is_not_written_to() -> None:
    bucket = Tried()
    bucket.fails = lambda step: StorageFull("no space") if isinstance(step, Put) else None
    assert not faults(found(bucket, thorough=False))
    with pytest.raises(StorageUnavailable, match="no space"):
        bucket.run(ensure(TERMS, NOW_MS))


def test_a_bucket_that_lets_nobody_in_is_asked_once() -> None:
    bucket = Tried()
    bucket.fails = lambda _: StorageRefused("listing v2/probe/ in bucket images: there is no such bucket")
    findings = found(bucket)
    assert bucket.asked == 1
    assert [each.verdict for each in findings] == ["fails"] + ["not tried"] * (len(findings) - 1)
    assert "there is no such bucket" in table(faults(findings))[0]


@given(killed_after=st.integers(0, 70))
def test_what_a_killed_try_leaves_is_removed_by_a_later_one_but_not_too_soon(killed_after: int) -> None:
    bucket = Tried()
    running = bucket.running(probe(TERMS, NOW_MS, thorough=True))
    for _, _ in zip(range(killed_after + 1), running, strict=False):
        pass
    running.close()
    left = bucket.keys, dict(bucket.pieces)
    assert all(key.startswith(layout.PROBES_PREFIX) for key in left[0])

    found(bucket, at_ms=NOW_MS + REMAINS_MS)
    assert (bucket.keys, bucket.pieces) == left, "it may still be at work, with another clock"
    found(bucket, at_ms=NOW_MS + REMAINS_MS + 1)
    assert not bucket.keys
    assert not bucket.pieces


@given(turns=st.lists(st.integers(0, 2), max_size=250), thorough=st.booleans())
def test_tries_at_the_same_time_do_not_disturb_each_other(turns: list[int], thorough: bool) -> None:
    bucket = Tried()
    results: list[tuple[Finding, ...]] = []

    def kept(plan: Plan) -> Generator[None, None, Any]:
        results.append((yield from bucket.running(plan)))

    tries = [kept(probe(TERMS, NOW_MS + number, thorough=thorough)) for number in range(3)]
    for turn in turns:
        next(tries[turn], None)
    for each in tries:
        for _ in each:
            pass
    assert len(results) == 3
    assert all(finding.verdict == "works" for findings in results for finding in findings)
    assert not bucket.keys
    assert not bucket.pieces


@given(at_ms=st.integers(0, 2**63), probe_id=st.text("0123456789abcdef", min_size=1))
def test_the_name_of_a_try_tells_when_it_began(at_ms: int, probe_id: str) -> None:
    folder = layout.probe_prefix(at_ms, probe_id).removeprefix(layout.PROBES_PREFIX).removesuffix("/")
    assert layout.parse_probe_folder(folder) == at_ms
    assert layout.parse_probe_folder(f"x{folder}") is None
