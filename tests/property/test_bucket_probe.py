"""What a try of a bucket finds out, about stores that are good and stores that lack one thing, and what it leaves."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from angos.sansio import layout
from angos.sansio.bucket.probe import REMAINS_MS, ensure, probe
from angos.sansio.bucket.requests import (
    AbortPieces,
    BackOff,
    BeginPieces,
    CompareClocks,
    CompletePieces,
    Copy,
    CopyPiece,
    Delete,
    DeleteMany,
    DrawWriter,
    Fetch,
    FetchSigned,
    Get,
    Head,
    List,
    Listed,
    ListedUploads,
    ListUploads,
    Outcome,
    Put,
    PutPiece,
    SideBySide,
    Terms,
)
from angos.sansio.effects import StorageFull, StorageRefused, StorageUnavailable
from angos.sansio.findings import Finding, doubts, faults, table

TERMS = Terms("bucket images", 5, 1000, 1000, 100, 4, 3, listing_max=4)
NOW_MS = 1_700_000_000_000
SILENTLY_WRONG = 7
"""How many things a start tries."""


class Bucket:
    """Objects in a dict. Quirks make it worse than it should be."""

    def __init__(self, *quirks: str) -> None:
        self.quirks = frozenset(quirks)
        self.objects: dict[str, bytes] = {}
        self.pieces: dict[str, tuple[str, dict[int, bytes]]] = {}
        self.draws = 0
        self.asked = 0
        self.fails: Callable[[Any], Exception | None] = lambda _: None
        self.hidden: str | None = None

    def run(self, plan: Coroutine[Any, Any, Any]) -> Any:
        running = self.running(plan)
        while True:
            try:
                next(running)
            except StopIteration as stop:
                return stop.value

    def running(self, plan: Coroutine[Any, Any, Any]) -> Generator[None, None, Any]:
        """Yields before each request. Closed in the middle, the process was killed."""
        reply: Any = None
        error: Exception | None = None
        try:
            while True:
                step = plan.send(reply) if error is None else plan.throw(error)
                reply = error = None
                if isinstance(step, SideBySide):
                    try:
                        reply = yield from self._side_by_side(step)
                    except (StorageRefused, StorageUnavailable, StorageFull) as failure:
                        error = failure
                elif isinstance(step, DrawWriter):
                    self.draws += 1
                    reply = f"{self.draws:032x}"
                elif not isinstance(step, BackOff):
                    yield
                    self.asked += 1
                    error = self.fails(step)
                    reply = self.take(step) if error is None else None
        except StopIteration as stop:
            return stop.value
        finally:
            plan.close()

    def _side_by_side(self, step: SideBySide) -> Generator[None, None, Any]:
        results: tuple[Any, ...] = ()
        for plan in step.plans:
            results += ((yield from self.running(plan())),)
        return results

    def take(self, step: Any) -> Any:
        objects, quirks = self.objects, self.quirks
        match step:
            case Get(key):
                return self._content(key)
            case Head(key):
                return None
            case Fetch(key, start, length):
                return objects[key] if "whole" in quirks else objects[key][start : start + length]
            case FetchSigned(key):
                return b"<html>" if "unsigned" in quirks else objects.get(key)
            case Put(key, content, writer):
                if writer is not None and key in objects and "overwrites" not in quirks:
                    # It compares with what it has seen so far, which two writers at once have not.
                    return Outcome("races" in quirks and self.asked % 2 == 0, False)
                objects[key] = b"" if "forgets" in quirks else b"".join(content)
                self.hidden = key
                return Outcome(True, False)
            case Copy(source, key):
                objects[key] = objects[source][:3] if "cut copies" in quirks else objects[source]
                return True
            case Delete(key):
                objects.pop(key, None)
            case DeleteMany(keys):
                for key in keys:
                    if "keeps" not in quirks:
                        objects.pop(key, None)
                return ()
            case List():
                return self._list(step)
            case BeginPieces(key):
                upload_id = str(len(self.pieces))
                self.pieces[upload_id] = (key, {})
                return upload_id
            case PutPiece(_, upload_id, number, content):
                self.pieces[upload_id][1][number] = b"".join(content)
                return str(number)
            case CopyPiece(_, upload_id, number, source, start, length):
                self.pieces[upload_id][1][number] = objects[source][start : start + length]
                return str(number)
            case CompletePieces(key, upload_id, tags):
                _, pieces = self.pieces.pop(upload_id)
                order = list(pieces) if "in order of arrival" in quirks else [int(tag) for tag in tags]
                objects[key] = b"".join(pieces[number] for number in order)
                return Outcome(True, False)
            case AbortPieces(_, upload_id):
                if "keeps pieces" not in quirks:
                    self.pieces.pop(upload_id, None)
            case ListUploads(prefix):
                found = [(key, upload) for upload, (key, _) in self.pieces.items() if key.startswith(prefix)]
                return ListedUploads(tuple(found), None)
            case CompareClocks():
                return {"late": -3600_000, "silent": None}.get(next(iter(quirks), ""), 0)
            case _:
                raise TypeError(f"a try asked for {step!r}")
        return None

    def _content(self, key: str) -> bytes | None:
        if "has everything" in self.quirks:
            return b""
        return self.objects.get(key)

    def _list(self, step: List) -> Listed:
        names = [key.removeprefix(step.prefix) for key in sorted(self.objects) if key.startswith(step.prefix)]
        if "late listing" in self.quirks:
            names = [name for name in names if step.prefix + name != self.hidden]
        if "unsorted" in self.quirks:
            names = sorted(names, key=str.lower)
        entries: dict[str, bool] = {}
        for name in names:
            head, slash, _ = name.partition("/")
            entries[head + slash if step.folders and "flat" not in self.quirks else name] = bool(slash)
        after = step.token or ("" if "starts anew" in self.quirks else step.after)
        listed = [name for name in entries if not after or names_after(entries, after, name)]
        page, rest = listed[: step.limit], listed[step.limit :]
        folders = tuple(name for name in page if step.folders and name.endswith("/"))
        keys = tuple((name, len(self.objects.get(step.prefix + name, b""))) for name in page if name not in folders)
        return Listed(keys, folders, page[-1] if rest else None)


def names_after(entries: dict[str, bool], after: str, name: str) -> bool:
    order = list(entries)
    return order.index(name) > order.index(after) if after in order else name > after


def found(bucket: Bucket, *, thorough: bool = True, at_ms: int = NOW_MS) -> tuple[Finding, ...]:
    findings: tuple[Finding, ...] = bucket.run(probe(TERMS, at_ms, thorough=thorough))
    return findings


def test_a_good_store_passes_and_is_left_as_it_was() -> None:
    bucket = Bucket()
    bucket.objects["v2/cat/a!"] = b""
    findings = found(bucket)
    assert {each.verdict for each in findings} == {"works"}
    assert bucket.objects == {"v2/cat/a!": b""}
    assert not bucket.pieces
    assert all(line.endswith("works") for line in table(findings))


def test_a_start_asks_for_little() -> None:
    bucket = Bucket()
    assert len(found(bucket, thorough=False)) == SILENTLY_WRONG
    assert bucket.asked <= 22
    assert not bucket.objects


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
    wrong = faults(found(Bucket(quirk), thorough=thorough))
    assert need in [each.need for each in wrong]
    (line,) = [line for line in table(wrong) if need in line]
    assert line.endswith("so the registry does not start")


@pytest.mark.parametrize(
    ("quirk", "need"),
    [
        ("unsorted", "lists keys in order and in pages"),
        ("starts anew", "lists keys in order and in pages"),
        ("flat", "lists keys in order and in pages"),
        ("whole", "gives ranges of objects"),
        ("cut copies", "copies objects"),
        ("in order of arrival", "joins pieces, sent or copied"),
    ],
)
def test_everything_else_is_found_by_the_command(quirk: str, need: str) -> None:
    assert need in [each.need for each in faults(found(Bucket(quirk)))]


@pytest.mark.parametrize(
    ("quirk", "need", "consequence"),
    [
        ("late", "has the time of this machine", "its clock is 3600 s behind that of this machine"),
        ("unsigned", "lets clients in with signed URLs", "no client is sent there"),
        ("keeps pieces", "forgets pieces", "may cost space"),
    ],
)
def test_what_the_registry_can_do_without_is_said_and_no_fault(quirk: str, need: str, consequence: str) -> None:
    findings = found(Bucket(quirk))
    assert not faults(findings)
    (finding,) = [each for each in findings if each.verdict == "fails"]
    assert finding.need == need
    assert consequence in finding.consequence


def test_nothing_is_written_to_a_store_that_overwrites() -> None:
    with pytest.raises(StorageRefused, match=r"nothing is written to bucket images.*If-None-Match"):
        Bucket("overwrites").run(ensure(TERMS, NOW_MS))
    Bucket().run(ensure(TERMS, NOW_MS))
    Bucket("late", "unsigned").run(ensure(TERMS, NOW_MS))


@given(after=st.integers(0, 60), error=st.sampled_from([StorageUnavailable, StorageRefused, StorageFull]))
def test_whatever_fails_from_some_moment_on_is_told_and_is_no_crash(after: int, error: type[Exception]) -> None:
    bucket = Bucket()
    bucket.fails = lambda _: error("no") if bucket.asked > after else None
    findings = found(bucket)
    if bucket.asked > after + 1:
        verdicts = {each.verdict for each in findings}
        assert error is not StorageRefused or not doubts(findings)
        assert error is StorageRefused or not faults(findings)
        assert verdicts <= {"works", "not tried", "unknown" if error is not StorageRefused else "fails"}


def test_a_full_store_lets_the_registry_start_but_is_not_written_to() -> None:
    bucket = Bucket()
    bucket.fails = lambda step: StorageFull("no space") if isinstance(step, Put) else None
    assert not faults(found(bucket, thorough=False))
    with pytest.raises(StorageUnavailable, match="no space"):
        bucket.run(ensure(TERMS, NOW_MS))


def test_a_bucket_that_lets_nobody_in_is_asked_once() -> None:
    bucket = Bucket()
    bucket.fails = lambda _: StorageRefused("listing v2/probe/ in bucket images: there is no such bucket")
    findings = found(bucket)
    assert bucket.asked == 1
    assert [each.verdict for each in findings] == ["fails"] + ["not tried"] * (len(findings) - 1)
    assert "there is no such bucket" in table(faults(findings))[0]


@given(killed_after=st.integers(0, 70))
def test_what_a_killed_try_leaves_is_removed_by_a_later_one_but_not_too_soon(killed_after: int) -> None:
    bucket = Bucket()
    running = bucket.running(probe(TERMS, NOW_MS, thorough=True))
    for _, _ in zip(range(killed_after + 1), running, strict=False):
        pass
    running.close()
    left = dict(bucket.objects), dict(bucket.pieces)
    assert all(key.startswith(layout.PROBES_PREFIX) for key in left[0])

    found(bucket, at_ms=NOW_MS + REMAINS_MS)
    assert (bucket.objects, bucket.pieces) == left, "it may still be at work, with another clock"
    found(bucket, at_ms=NOW_MS + REMAINS_MS + 1)
    assert not bucket.objects
    assert not bucket.pieces


@given(turns=st.lists(st.integers(0, 2), max_size=250), thorough=st.booleans())
def test_tries_at_the_same_time_do_not_disturb_each_other(turns: list[int], thorough: bool) -> None:
    bucket = Bucket()
    results: list[tuple[Finding, ...]] = []

    def kept(plan: Coroutine[Any, Any, Any]) -> Generator[None, None, Any]:
        results.append((yield from bucket.running(plan)))

    tries = [kept(probe(TERMS, NOW_MS + number, thorough=thorough)) for number in range(3)]
    for turn in turns:
        next(tries[turn], None)
    for each in tries:
        for _ in each:
            pass
    assert len(results) == 3
    assert all(finding.verdict == "works" for findings in results for finding in findings)
    assert not bucket.objects
    assert not bucket.pieces


@given(at_ms=st.integers(0, 2**63), probe_id=st.text("0123456789abcdef", min_size=1))
def test_the_name_of_a_try_tells_when_it_began(at_ms: int, probe_id: str) -> None:
    folder = layout.probe_prefix(at_ms, probe_id).removeprefix(layout.PROBES_PREFIX).removesuffix("/")
    assert layout.parse_probe_folder(folder) == at_ms
    assert layout.parse_probe_folder(f"x{folder}") is None
