"""Long bodies go past the page cache, and nobody can tell afterwards."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from angos.runtime.stores import direct_writer, received_file
from angos.runtime.stores.received_file import ReceivedFile
from angos.sansio.effects import HashState
from angos.sansio.oci.digest import Digest

SHA256 = (HashState("sha256", "", None),)
SOME_BYTES = os.urandom(300_000)


@pytest.fixture(autouse=True)
def small_buffers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Everything happens at kilobytes instead of megabytes, and no thread is left."""
    monkeypatch.setattr(received_file, "DIRECT_FROM_BYTES", 10_000)
    monkeypatch.setattr(direct_writer, "BUFFER_BYTES", 8192)
    monkeypatch.setattr(direct_writer, "_told", set())
    yield
    assert not [thread for thread in threading.enumerate() if thread.name == "direct writer"]


def receive(path: Path, pieces: Sequence[bytes]) -> Digest:
    file = ReceivedFile(str(path), SHA256, sync=True)
    for piece in pieces:
        file.take([memoryview(piece)])
    received = file.received(whole=True)
    os.close(file.hand_over())
    assert received.size == sum(map(len, pieces))
    return Digest("sha256", received.hashes[0].hex)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.integers(0, 30_000), max_size=10))
def test_any_pieces_of_any_length_arrive_as_they_are(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int]
) -> None:
    path = tmp_path_factory.mktemp("direct") / "file"
    pieces = [SOME_BYTES[:size] for size in sizes]
    assert receive(path, pieces) == Digest.of(b"".join(pieces))
    assert path.read_bytes() == b"".join(pieces)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.integers(1, 30_000), max_size=20))
def test_bytes_received_into_the_lent_buffer_arrive_as_they_are(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int]
) -> None:
    path = tmp_path_factory.mktemp("lent") / "file"
    file = ReceivedFile(str(path), SHA256, sync=True)
    sent, lent_ever = b"", False
    for size in [12_000, *sizes]:
        lent = file.lend()
        piece = SOME_BYTES[:size] if lent is None else SOME_BYTES[: min(size, len(lent))]
        if lent is None:
            file.take([memoryview(piece)])
        else:
            lent_ever = True
            lent[: len(piece)] = piece
            file.take([lent[: len(piece)]])
        sent += piece
    assert lent_ever == bool(sizes)
    assert file.received(whole=True).hashes[0].hex == Digest.of(sent).hex
    os.close(file.hand_over())
    assert path.read_bytes() == sent


def test_a_body_longer_than_the_threshold_is_written_past_the_page_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags: list[bool] = []
    real = direct_writer.set_direct

    def noting(descriptor: int, wanted: bool) -> object:
        flags.append(wanted)
        return real(descriptor, wanted)

    monkeypatch.setattr(direct_writer, "set_direct", noting)
    receive(tmp_path / "short", [SOME_BYTES[:9_999]])
    assert flags == []
    receive(tmp_path / "long", [SOME_BYTES[:9_999], SOME_BYTES])
    assert flags == [True, False]


def test_a_file_system_without_direct_writes_gets_the_usual_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(descriptor: int, wanted: bool) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(direct_writer, "set_direct", refuse)
    for name in ("file", "another"):
        assert receive(tmp_path / name, [SOME_BYTES]) == Digest.of(SOME_BYTES)
        assert (tmp_path / name).read_bytes() == SOME_BYTES
    told_once_about(tmp_path / "file", caplog)


def test_a_file_system_that_refuses_the_writes_only_gets_the_usual_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failing = Failing(errno.EINVAL, times=1)
    monkeypatch.setattr(os, "pwrite", failing)
    assert receive(tmp_path / "file", [SOME_BYTES]) == Digest.of(SOME_BYTES)
    assert (tmp_path / "file").read_bytes() == SOME_BYTES
    assert failing.times == 0
    told_once_about(tmp_path / "file", caplog)


def told_once_about(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The operator learns that it is slower, and why; not with every upload."""
    (record,) = caplog.records
    assert record.name == "angos.storage"
    assert f"{path} cannot be written past the page cache (O_DIRECT): invalid argument; " in record.getMessage()


class Failing:
    """`os.pwrite` that fails some times."""

    real = staticmethod(os.pwrite)

    def __init__(self, number: int, times: int) -> None:
        self.number = number
        self.times = times

    def __call__(self, *arguments: Any) -> int:
        if self.times:
            self.times -= 1
            raise OSError(self.number, os.strerror(self.number))
        return self.real(*arguments)


@pytest.mark.parametrize("length", [20_000, 300_000])
def test_a_full_disk_is_told_at_the_latest_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    monkeypatch.setattr(os, "pwrite", Failing(errno.ENOSPC, times=1))
    file = ReceivedFile(str(tmp_path / "file"), SHA256, sync=True)

    def fill() -> None:
        file.take([memoryview(SOME_BYTES[:length])])
        os.close(file.hand_over())

    with pytest.raises(OSError, match="No space left"):
        fill()
    file.discard()
    assert not (tmp_path / "file").exists()


def test_an_upload_that_is_given_up_leaves_nothing(tmp_path: Path) -> None:
    file = ReceivedFile(str(tmp_path / "file"), SHA256, sync=True)
    file.take([memoryview(SOME_BYTES)])
    file.discard()
    file.discard()
    assert not (tmp_path / "file").exists()


def test_more_uploads_at_once_than_second_buffers_arrive_as_they_are(tmp_path: Path) -> None:
    files = [ReceivedFile(str(tmp_path / str(number)), SHA256, sync=True) for number in range(20)]
    for start in range(0, len(SOME_BYTES), 50_000):
        for file in files:
            file.take([memoryview(SOME_BYTES[start : start + 50_000])])
    for number, file in enumerate(files):
        if number % 2:
            file.discard()
        else:
            os.close(file.hand_over())
            assert (tmp_path / str(number)).read_bytes() == SOME_BYTES
    for _ in range(direct_writer.SECOND_BUFFERS):
        assert direct_writer._second_buffers.acquire(blocking=False)
    direct_writer._second_buffers.release(direct_writer.SECOND_BUFFERS)
