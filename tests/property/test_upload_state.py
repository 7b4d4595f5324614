"""The state that long uploads have in their ``Location``: whatever is in it, it changes what a request costs only."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from hypothesis import given
from hypothesis import strategies as st

from angos.sansio.config import RegistryConfig
from angos.sansio.effects import (
    AcquireLease,
    BodyHandle,
    DrawId,
    ListKeys,
    Part,
    Prefix,
    ReadClock,
    ReleaseLease,
    Together,
)
from angos.sansio.http.message import Headers, Request, Response
from angos.sansio.operation import Done, Operation
from angos.sansio.registry import handle
from angos.sansio.upload_session import (
    Chunk,
    UploadSession,
    chunk_key,
    load_parts,
    load_session,
    resume_session,
    session_key,
)
from angos.simulator.world.bodies import ArrivingBody, SyntheticBody
from angos.simulator.world.clock import Clock
from angos.simulator.world.store import KeyWorld

T = TypeVar("T")

PREFIX = Prefix("v2/repositories/a/_uploads/i/id.")


class Bench:
    """A bucket, and one operation at a time on it. Counts what is asked."""

    def __init__(self) -> None:
        self.bodies: dict[int, ArrivingBody] = {}
        self.world = KeyWorld(Clock(tick_ms=1), self.bodies)
        self.asked: list[str] = []
        self._ids = 0

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.finish(Operation(coroutine))

    def finish(self, operation: Operation[T]) -> T:
        step = operation.resume()
        while not isinstance(step, Done):
            step = operation.resume(self._reply(step))
        return step.value

    def _reply(self, effect: Any) -> Any:
        if isinstance(effect, Together):
            return tuple(self.finish(each) for each in effect.operations)
        self.asked.append(type(effect).__name__)
        match effect:
            case DrawId():
                self._ids += 1
                return f"{self._ids:08x}-0000-4000-8000-000000000000"
            case ReadClock():
                return 1
            case AcquireLease() | ReleaseLease():
                return None
            case _:
                return self.world.apply(effect, "p")

    def request(self, method: str, target: str, content: bytes = b"", **fields: str) -> Response:
        self.bodies[1] = ArrivingBody(SyntheticBody(content))
        headers = Headers(tuple((name.replace("_", "-"), value) for name, value in fields.items()))
        return self.finish(handle(Request(method, target, headers, BodyHandle(1), len(content)), RegistryConfig()))


def chain(bench: Bench, sizes: list[int], *, without: int | None = None) -> list[Chunk]:
    """The chunks of an upload with a session key; without one of them, perhaps."""
    bench.world._put(session_key(PREFIX, 17, "sha512"), b"")
    chunks: list[Chunk] = []
    for number, size in enumerate(sizes):
        before = chunks[-1] if chunks else None
        offset = before.end if before is not None else 0
        chunks.append(Chunk(offset, Part(f"p{number}", size), (), None if before is None else before.part.name))
        if number != without:
            bench.world._put(chunk_key(PREFIX, offset), chunks[-1].to_json())
            bench.world._put(f"{PREFIX}part.p{number}", bytes(size))
    return chunks


SIZES = st.lists(st.integers(1, 20), max_size=40)


@given(sizes=SIZES, data=st.data())
def test_with_any_state_the_session_is_the_one_that_is_stored(sizes: list[int], data: st.DataObject) -> None:
    """An old state, one of another upload, and one that nobody told."""
    bench = Bench()
    chunks = chain(bench, sizes)
    told = [UploadSession(PREFIX, 17, "sha512", None, chunk).state for chunk in chunks]
    others = ("17.any.0", "18.sha512.0", "17.sha512.fff", "17.sha512", "", ".", "x.sha512.0", "17.sha512.-1", "17..0")
    state = data.draw(st.sampled_from([*told, *others]) | st.text(max_size=20) | st.none())
    expected, found = bench.run(load_session(PREFIX)), bench.run(resume_session(PREFIX, state))
    assert expected is not None
    assert found is not None
    assert (found.started_ms, found.algorithm, found.last) == (expected.started_ms, expected.algorithm, expected.last)
    assert found.offsets in (None, expected.offsets)


@given(sizes=SIZES.filter(bool), data=st.data())
def test_an_upload_that_is_gone_is_not_found_by_its_state(sizes: list[int], data: st.DataObject) -> None:
    """Neither one that was discarded, as far as its session key, nor one whose last part a power cut took."""
    bench = Bench()
    chunks = chain(bench, sizes)
    told = UploadSession(PREFIX, 17, "sha512", None, data.draw(st.sampled_from(chunks))).state
    bench.world._drop(
        data.draw(st.sampled_from([session_key(PREFIX, 17, "sha512"), f"{PREFIX}part.p{len(sizes) - 1}"]))
    )
    assert bench.run(resume_session(PREFIX, told)) is None


def test_a_gap_that_was_filled_since_is_noticed() -> None:
    """Remains of a finished upload that a power cut brought back, and somebody goes on with an old state: the digests
    of the last chunk are those of the bytes that are lost."""
    bench = Bench()
    chunks = chain(bench, [5, 5, 5], without=1)
    state = UploadSession(PREFIX, 17, "sha512", None, chunks[0]).state
    session = bench.run(resume_session(PREFIX, state))
    assert session is not None
    assert session.offset == 5
    other = Chunk(5, Part("other", 5), (), "p0")
    bench.world._put(chunk_key(PREFIX, 5), other.to_json())
    bench.world._put(f"{PREFIX}part.other", b"other")
    session = bench.run(load_session(PREFIX))
    assert session is not None
    assert session.offset == 15
    assert bench.run(load_parts(session)) is None


def test_a_chunk_costs_the_same_however_many_went_before() -> None:
    bench = Bench()
    location = dict(bench.request("POST", "/v2/a/blobs/uploads/").headers)["Location"]
    assert "?" not in location
    costs = []
    for number in range(300):
        bench.asked.clear()
        fields = {"Content_Range": f"{number * 10}-{number * 10 + 9}"} if number % 2 else {}
        answer = bench.request("PATCH", location, bytes(10), **fields)
        assert (answer.status, dict(answer.headers)["Range"]) == (202, f"0-{number * 10 + 9}")
        location = dict(answer.headers)["Location"]
        costs.append(list(bench.asked))
        assert "_state=" in location or number == 0
    assert costs[2] == costs[299]
    assert ListKeys.__name__ not in costs[299]
    bench.asked.clear()
    assert dict(bench.request("GET", location).headers)["Range"] == "0-2999"
    assert len(bench.asked) <= len(costs[299])
    bench.asked.clear()
    assert bench.request("GET", location.partition("?")[0]) == bench.request("GET", location), "it is only a hint"
