"""Full and failing disks, short writes, requests cancelled in the middle: nothing is left half done."""

from __future__ import annotations

import errno
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest

from angos.runtime.stores import disk_steps, received_file
from angos.runtime.stores.directory import DirectoryStore
from angos.sansio.disk.plans import part_path
from angos.sansio.effects import (
    CreateKeys,
    DeleteKeys,
    DiscardPart,
    DiscardUpload,
    Effect,
    EffectError,
    Key,
    ListKeys,
    Part,
    PromoteParts,
    ReadKey,
    StageBody,
    StorageFull,
    StorageRefused,
)
from tests.conformance.contracts.directory import FRESH, PREFIX, UPLOAD, do, files_below, left_behind
from tests.conformance.contracts.store import BODY, Sent, SentBody, perform, services_on

# --- failing disks ----------------------------------------------------------------------------------------------------

BIG = bytes(range(256)) * 600  # does not fit the memory that small bodies are staged in

WRITES: dict[str, tuple[Effect[Any], Sent | None]] = {
    "create": (
        CreateKeys(((Key(f"{PREFIX}x/a"), b"v"), (Key(f"{PREFIX}x/e"), b""), (Key(f"{PREFIX}y/b"), b"w"))),
        None,
    ),
    "delete": (DeleteKeys((Key(f"{PREFIX}old"), Key(f"{PREFIX}old2"))), None),
    "stage small": (StageBody(UPLOAD, "new", BODY, (FRESH,)), Sent(b"small")),
    "stage big": (StageBody(UPLOAD, "new", BODY, (FRESH,)), Sent(BIG)),
    "promote one": (PromoteParts(UPLOAD, (Part("1", 3),), Key("v2/blobs/new/data")), None),
    "promote two": (PromoteParts(UPLOAD, (Part("1", 3), Part("2", 3)), Key("v2/blobs/new/data")), None),
    "promote over": (PromoteParts(UPLOAD, (Part("1", 3),), Key("v2/blobs/old/data")), None),
    "discard part": (DiscardPart(UPLOAD, "1"), None),
    "discard upload": (DiscardUpload(UPLOAD), None),
}


def prepare(root: Path) -> None:
    old = (Key(f"{PREFIX}old"), Key(f"{PREFIX}old2"), Key("v2/blobs/old/data"))
    do(root, CreateKeys(tuple((key, b"damaged") for key in old)))
    for part, content in (("1", b"one"), ("2", b"two")):
        do(root, StageBody(UPLOAD, part, BODY, (FRESH,)), Sent(content))


def fail_at(monkeypatch: pytest.MonkeyPatch, number: int, code: int) -> list[type]:
    """Let the step of this number fail. Gives the list of the steps that were taken."""
    taken: list[type] = []

    def failing(take: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        def instead(run: Any, step: Any) -> Any:
            taken.append(type(step))
            if len(taken) == number + 1:
                raise OSError(code, os.strerror(code), "/secret/path")
            return take(run, step)

        return instead

    for kind, take in list(disk_steps._TAKE.items()):
        monkeypatch.setitem(disk_steps._TAKE, kind, failing(take))
    return taken


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EIO], ids=errno.errorcode.get)
@pytest.mark.parametrize("name", WRITES)
def test_a_failure_at_any_step_leaves_nothing_half_done(root: Path, name: str, code: int) -> None:
    effect, sent = WRITES[name]
    prepare(root)
    before = files_below(root)
    number = 0
    while True:
        before_this = files_below(root)
        with pytest.MonkeyPatch.context() as monkeypatch:
            taken = fail_at(monkeypatch, number, code)
            try:
                do(root, effect, sent)
            except EffectError as error:
                assert str(root) not in str(error)
                assert "secret" not in str(error)
                assert os.strerror(code) in str(error)
                if isinstance(error, StorageFull | StorageRefused):
                    # The refusal is definite: nothing of the effect is there.
                    assert code != errno.EIO
                    assert files_below(root) == before_this
                if "stage" in name:
                    assert files_below(root) == before
            else:
                assert len(taken) <= number  # no step was left to fail
                break
        number += 1
    assert number > 0
    for path in files_below(root) - before:
        assert (root / path).read_bytes() in (b"v", b"", b"w", b"small", BIG, b"one", b"onetwo")


@pytest.mark.parametrize("operation", ["write", "writev", "fsync", "open"])
def test_a_system_call_that_fails_while_receiving_leaves_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    prepare(root)
    before = files_below(root)
    real: Callable[..., Any] = getattr(os, operation)
    calls = 0

    def fail(*arguments: Any) -> Any:
        nonlocal calls
        if operation != "open" or "part.new" in str(arguments[0]):
            calls += 1
            raise OSError(errno.ENOSPC, "full")
        return real(*arguments)

    services = services_on(root, sync=True)
    monkeypatch.setattr(os, operation, fail)
    monkeypatch.setattr(received_file, "SLICE_BYTES", 256 << 10)
    for turn in (100, 300_000):  # many small pieces, or pieces larger than a write
        body = Sent(BIG * 8, turn=turn)
        if (operation == "write" and turn == 100) or (operation == "writev" and turn == 300_000):
            continue  # written by the other call
        with pytest.raises(StorageFull, match="No space left"):
            anyio.run(perform, StageBody(UPLOAD, "new", BODY, (FRESH,)), services, body)
    assert calls
    monkeypatch.undo()
    assert files_below(root) == before


def test_short_writes_are_completed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, bytes(memoryview(data)[:1000])))
    monkeypatch.setattr(os, "writev", lambda descriptor, views: write(descriptor, b"".join(map(bytes, views))[:1000]))
    staged = do(root, StageBody(UPLOAD, "p", BODY, (FRESH,)), Sent(BIG, turn=70_000))
    do(root, CreateKeys(((Key(f"{PREFIX}a"), BIG),)))
    monkeypatch.undo()
    assert staged.part.size == len(BIG)
    assert (root / part_path(UPLOAD, "p")).read_bytes() == BIG
    assert (root / PREFIX / "a").read_bytes() == BIG


def test_a_full_disk_refuses_writes_serves_reads_and_recovers(tmp_path: Path) -> None:
    root = tmp_path / "small"
    root.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(root)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting a small file system needs privileges")
    try:

        async def scenario() -> None:
            services = services_on(root, sync=True)
            await perform(CreateKeys(((Key(f"{PREFIX}kept"), b"kept"),)), services, None)
            for size in (2_000_000, 1_500_000):
                with pytest.raises(StorageFull):
                    await perform(StageBody(UPLOAD, "p", BODY, (FRESH,)), services, Sent(bytes(size)))
                with pytest.raises(StorageFull):
                    await perform(CreateKeys(((Key(f"{PREFIX}big"), bytes(size)),)), services, None)
            assert await perform(ReadKey(Key(f"{PREFIX}kept")), services, None) == b"kept"
            assert (await perform(ListKeys(PREFIX), services, None)).names == ("kept",)
            staged = await perform(StageBody(UPLOAD, "p", BODY, (FRESH,)), services, Sent(bytes(600_000)))
            assert staged.part == Part("p", 600_000)

        anyio.run(scenario)
        assert not left_behind(root)
    finally:
        subprocess.run(["umount", str(root)], check=True)


# --- cancelled requests -----------------------------------------------------------------------------------------------


class StallingBody(SentBody):
    """Sends some bytes and then nothing more."""

    def __init__(self, size: int, in_thread: anyio.Event, delay: float = 0.0) -> None:
        super().__init__(Sent(bytes(size)))
        self._stalled = in_thread
        self._delay = delay

    async def receive(self, sink: Callable[[Sequence[memoryview]], None], size_max: int | None) -> bool:
        def slowly(views: Sequence[memoryview]) -> None:
            sink(views)
            time.sleep(self._delay)

        if self._delay:  # cancelled while a thread works
            self._stalled.set()
            await super().receive(slowly, size_max)
        else:
            await super().receive(slowly, size_max)
            self._stalled.set()
        await anyio.sleep_forever()
        return True


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("size", [0, 10, 500_000])
@pytest.mark.parametrize("delay", [0.0, 0.1])
def test_a_cancelled_upload_leaves_nothing(root: Path, backend: str, size: int, delay: float) -> None:
    prepare(root)
    before = files_below(root)

    async def scenario() -> None:
        store = DirectoryStore(root)
        stalled = anyio.Event()
        async with anyio.create_task_group() as tasks:
            body = StallingBody(size, stalled, delay)
            tasks.start_soon(store.stage_body, StageBody(UPLOAD, "new", BODY, (FRESH,)), body)
            await stalled.wait()
            await anyio.sleep(delay / 2)
            tasks.cancel_scope.cancel()

    anyio.run(scenario, backend=backend)
    assert files_below(root) == before


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_cancelled_write_is_done_whole_or_not_at_all(root: Path, backend: str) -> None:
    async def scenario() -> None:
        services = services_on(root, sync=True)
        for number in range(20):
            with anyio.move_on_after(number * 0.0003):
                entries = tuple((Key(f"{PREFIX}{number}/{name}"), b"value") for name in "abc")
                await perform(CreateKeys(entries), services, None)

    anyio.run(scenario, backend=backend)
    for path in files_below(root):
        assert (root / path).read_bytes() == b"value"
