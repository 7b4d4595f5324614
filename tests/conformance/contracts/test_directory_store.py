"""What only a store in a folder can get wrong: paths, strays, other processes, foreign hash states."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import socket
import time
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from angos.runtime.hashing import can_export
from angos.runtime.stores import disk
from angos.runtime.stores.directory import DirectoryStore
from angos.runtime.stores.disk import TEMPORARY_FOLDER, Disk, UnusableRoot
from angos.sansio.effects import (
    CreateKeys,
    DeleteKeys,
    DiscardPart,
    DiscardUpload,
    Effect,
    HashParts,
    HashState,
    Key,
    ListFolders,
    ListKeys,
    Page,
    Part,
    Prefix,
    PromoteParts,
    ReadKey,
    StageBody,
    StatKey,
    StorageCorrupt,
    StorageRefused,
    StorageUnavailable,
)
from tests.conformance.contracts.directory import FRESH, PREFIX, UPLOAD, do, files_below
from tests.conformance.contracts.store import BODY, Sent, perform, services_on
from tests.conformance.unreadable import NAME, make_unreadable

# --- the folder -------------------------------------------------------------------------------------------------------


def test_a_root_that_is_or_lies_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("here")
    for root in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UnusableRoot, match="a file"):
            DirectoryStore(root)


def test_a_root_that_cannot_be_written_is_refused() -> None:
    with pytest.raises(UnusableRoot, match="give another folder"):
        DirectoryStore(Path("/proc/angos"))


def test_a_file_system_without_hard_links_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: str, path: str) -> None:
        raise PermissionError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(UnusableRoot, match="hard links"):
        DirectoryStore(root)


def test_leftovers_of_a_crash_are_removed_after_a_day(tmp_path: Path) -> None:
    folder = tmp_path / TEMPORARY_FOLDER
    folder.mkdir()
    for name, hours in (("old", 25), ("young", 23)):
        (folder / name).write_text("half")
        os.utime(folder / name, (time.time() - hours * 3600,) * 2)
    DirectoryStore(tmp_path)
    assert [path.name for path in folder.iterdir()] == ["young"]


@given(st.text(st.sampled_from("a./\0"), max_size=8))
def test_no_path_leads_out_of_the_root(path: str) -> None:
    folder = Disk(Path("/somewhere/root"), sync=False)
    try:
        full = folder.full(path)
    except ValueError:
        assert any(part in ("", ".", "..") or part[0] == "." or "\0" in part for part in path.split("/"))
    else:
        assert full == os.path.normpath(full)
        assert full.startswith("/somewhere/root/")


@pytest.mark.parametrize("name", ["../outside", "a/../../outside", "/absolute", "a//b", "./a", ".tmp/a", "a\0b", ""])
def test_every_effect_refuses_paths_that_lead_out(root: Path, name: str) -> None:
    key, prefix = Key(name), Prefix(f"{name}/")
    part = Part("p", 1)
    effects: list[Effect[Any]] = [
        ReadKey(key),
        ListKeys(prefix),
        CreateKeys(((key, b"v"),)),
        DeleteKeys((key,)),
        HashParts(prefix, (part,), "sha256"),
        PromoteParts(prefix, (part,), key),
        DiscardPart(prefix, "p"),
        DiscardUpload(prefix),
        StageBody(prefix, "p", BODY, ()),
    ]
    for effect in effects:
        with pytest.raises(ValueError, match="no path"):
            do(root, effect, Sent(b"x" * 100_000))
    assert files_below(root) == set()
    assert [path.name for path in root.parent.iterdir()] == [root.name]


# --- strays -----------------------------------------------------------------------------------------------------------


def test_stray_things_are_no_keys_and_no_failures(root: Path) -> None:
    do(root, CreateKeys(tuple((Key(f"{PREFIX}{name}"), b"v") for name in ("a/k", "b", "c/k"))))
    folder = root / PREFIX
    (folder / ".hidden").write_text("x")
    (folder / ".nfs0001").mkdir()
    (folder / ".nfs0001" / "inside").write_text("x")
    (folder / "empty" / "inside").mkdir(parents=True)
    (folder / "link").symlink_to("b")
    (folder / "loop").symlink_to(".", target_is_directory=True)
    os.mkfifo(folder / "pipe")
    Path(os.fsdecode(bytes(folder) + b"/\xff\xfe")).write_text("x")
    os.mkdir(os.fsdecode(bytes(folder) + b"/\xfd"))
    with socket.socket(socket.AF_UNIX) as listening:
        descriptor = os.open(folder, os.O_RDONLY)  # the path itself may be too long for a socket
        try:
            listening.bind(f"/proc/self/fd/{descriptor}/socket")
        finally:
            os.close(descriptor)
    assert do(root, ListKeys(PREFIX)) == Page(("a/k", "b", "c/k"), False)
    assert do(root, ListFolders(PREFIX)) == Page(("a", "c"), False)
    assert do(root, ListFolders(PREFIX, limit=1)) == Page(("a",), True)
    assert do(root, ListFolders(PREFIX, "a", 1)) == Page(("c",), False)
    for name in ("pipe", "empty", "loop"):
        assert do(root, ReadKey(Key(f"{PREFIX}{name}"))) is None
    (folder / "pipe").unlink()


def test_folders_below_each_other_to_any_depth_are_listed(root: Path) -> None:
    name = "/".join(["d"] * 400)
    os.makedirs(root / PREFIX)
    here = os.open(root / PREFIX, os.O_RDONLY)
    try:
        for _ in range(399):
            os.mkdir("d", dir_fd=here)
            here, above = os.open("d", os.O_RDONLY, dir_fd=here), here
            os.close(above)
        os.close(os.open("d", os.O_CREAT, dir_fd=here))
    finally:
        os.close(here)
    assert do(root, ListKeys(PREFIX)) == Page((name,), False)


def test_bytes_that_do_not_match_their_digest_are_not_handed_out(root: Path) -> None:
    encoded = hashlib.sha256(b"right").hexdigest()
    key = Key(f"v2/blobs/sha256/{encoded[:2]}/{encoded}/data")

    async def scenario() -> None:
        services = services_on(root)
        await perform(CreateKeys(((key, b"right"),)), services, None)
        await anyio.sleep(0.06)  # old enough to be remembered
        assert await perform(ReadKey(key), services, None) == b"right"
        (root / key).write_bytes(b"wrong")
        with pytest.raises(StorageCorrupt, match=encoded):
            await perform(ReadKey(key), services, None)
        (root / key).unlink()
        assert await perform(ReadKey(key), services, None) is None

    anyio.run(scenario)


# --- other processes --------------------------------------------------------------------------------------------------


def test_what_another_process_changes_shows_at_once(root: Path) -> None:
    async def scenario() -> None:
        ours, theirs = services_on(root), services_on(root)
        for number in range(150):
            name = f"{number * 7919 % 100:02}-{number}"
            before = (await perform(ListKeys(PREFIX), ours, None)).names
            await perform(CreateKeys(((Key(PREFIX + name), b"v%d" % number),)), theirs, None)
            assert (await perform(ListKeys(PREFIX), ours, None)).names == tuple(sorted((*before, name)))
            assert await perform(ReadKey(Key(PREFIX + name)), ours, None) == b"v%d" % number
            if number % 2:
                await perform(DeleteKeys((Key(PREFIX + before[0]),)), theirs, None)
                assert await perform(ReadKey(Key(PREFIX + before[0])), ours, None) is None
                assert before[0] not in (await perform(ListKeys(PREFIX), ours, None)).names

    anyio.run(scenario)


def test_a_remembered_listing_notices_a_change(root: Path) -> None:
    async def scenario() -> None:
        services = services_on(root)
        entries = tuple((Key(f"{PREFIX}{number:04}/{inner}"), b"") for number in range(120) for inner in "ab")
        await perform(CreateKeys(entries), services, None)
        await anyio.sleep(0.06)  # old enough to be remembered
        for _ in range(2):
            assert len((await perform(ListKeys(PREFIX), services, None)).names) == 240
        (root / PREFIX / "0007" / "new").touch()
        (root / PREFIX / "0008" / "a").unlink()
        (root / PREFIX / "0008" / "b").unlink()
        names = (await perform(ListKeys(PREFIX, "0006/b", 4), services, None)).names
        assert names == ("0007/a", "0007/b", "0007/new", "0009/a")
        assert "0008" not in (await perform(ListFolders(PREFIX), services, None)).names

    anyio.run(scenario)


def test_names_that_stay_are_listed_once_while_others_come_and_go(root: Path) -> None:
    staying = [f"{number:05}" for number in range(0, 3000, 3)]

    async def scenario() -> None:
        services = services_on(root)
        await perform(CreateKeys(tuple((Key(PREFIX + name), b"") for name in staying)), services, None)
        stop = anyio.Event()

        async def disturb() -> None:
            number = 0
            while not stop.is_set():
                number += 1
                some = tuple(Key(f"{PREFIX}{(number * 37 + step) * 3 % 3000 + 1:05}") for step in range(10))
                await perform(CreateKeys(tuple((key, b"") for key in some)), services, None)
                await perform(DeleteKeys(some), services, None)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(disturb)
            for _ in range(5):
                joined: list[str] = []
                more = True
                while more:
                    page = await perform(ListKeys(PREFIX, joined[-1] if joined else "", 100), services, None)
                    joined += page.names
                    more = page.more
                assert [name for name in joined if int(name) % 3 == 0] == staying
                assert joined == sorted(set(joined))
            stop.set()

    anyio.run(scenario)


def test_folders_that_somebody_removed_are_made_again(root: Path) -> None:
    async def scenario() -> None:
        services = services_on(root, sync=True)
        await perform(CreateKeys(((Key(f"{PREFIX}a/k"), b"v"),)), services, None)
        for folder in ("v2", TEMPORARY_FOLDER):
            shutil.rmtree(root / folder)
        with pytest.raises(StorageUnavailable):
            await perform(CreateKeys(((Key(f"{PREFIX}a/k"), b"v"),)), services, None)
        assert await perform(CreateKeys(((Key(f"{PREFIX}a/k"), b"v"),)), services, None) == (True,)

    anyio.run(scenario)


# --- hash states ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [b"", b"\x01\x01", b"garbage" * 20, b"\x01\x02" + bytes(40), b"\x02\x01" + bytes(40)])
def test_a_hash_state_of_unknown_origin_gives_no_digest(root: Path, state: bytes) -> None:
    hashes = (HashState("sha256", hashlib.sha256(b"before").hexdigest(), state),)
    staged = do(root, StageBody(UPLOAD, "p", BODY, hashes), Sent(b"content"))
    assert staged.hashes == (HashState("sha256", "", None),)
    assert staged.part.size == 7


@pytest.mark.skipif(not can_export(), reason="this interpreter's libcrypto cannot export hash states")
def test_a_hash_state_that_contradicts_its_digest_gives_none(root: Path) -> None:
    staged = do(root, StageBody(UPLOAD, "p", BODY, (FRESH,)), Sent(b"content"))
    (found,) = staged.hashes
    lying = HashState("sha256", hashlib.sha256(b"other").hexdigest(), found.state)
    assert do(root, StageBody(UPLOAD, "q", BODY, (lying,)), Sent(b"x")).hashes == (HashState("sha256", "", None),)


# --- empty keys -------------------------------------------------------------------------------------------------------


def test_empty_keys_take_no_file_of_their_own_and_never_look_older_than_they_are(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "EMPTY_LINKS_MAX", 3)
    store = DirectoryStore(root)
    names = [f"{PREFIX}empty/{number}" for number in range(8)]

    async def scenario() -> None:
        for name in names:
            before_ms = time.time_ns() // 1_000_000
            assert await store.create_keys(CreateKeys(((Key(name), b""),))) == (True,)
            stat = store.stat_key(StatKey(Key(name)))
            assert stat is not None
            assert stat.size == 0
            assert before_ms <= stat.modified_ms <= before_ms + 2 * 60_000
        assert await store.create_keys(CreateKeys(((Key(names[0]), b""),))) == (False,)

    anyio.run(scenario)
    assert len({(root / name).stat().st_ino for name in names}) == 3


def test_an_upload_is_listed_and_discarded_without_touching_its_neighbours(root: Path) -> None:
    store = DirectoryStore(root)
    family = Prefix("v2/repositories/n/_uploads/a/aa.")
    mine = [f"{family}{name}" for name in ("chunk.1", "part.x", "session.1.any")]
    others = [f"v2/repositories/n/_uploads/a/{name}" for name in ("aa", "ab.session.1.any", "a.part.x", "aaa.part.x")]

    async def scenario() -> None:
        await store.create_keys(CreateKeys(tuple((Key(name), b"") for name in mine + others)))
        listed = store.list_keys(ListKeys(family, limit=2))
        assert listed == Page(("chunk.1", "part.x"), more=True)
        assert store.list_keys(ListKeys(family, "part.x")) == Page(("session.1.any",), more=False)
        await store.discard_upload(DiscardUpload(family))
        assert store.list_keys(ListKeys(family)) == Page((), more=False)
        await store.discard_upload(DiscardUpload(Prefix("v2/repositories/n/_uploads/b/bb.")))

    anyio.run(scenario)
    assert sorted(path.relative_to(root).as_posix() for path in root.glob("v2/**/*") if path.is_file()) == sorted(
        others
    )


def test_an_upload_that_is_half_discarded_has_no_session(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process killed between two removals must not leave what looks like an upload without bytes."""
    store = DirectoryStore(root)
    family = Prefix("v2/repositories/n/_uploads/a/aa.")
    names = ("chunk.1", "part.x", "part.y", "session.1.any")
    unlink = os.unlink
    removed: list[str] = []

    def remove_one(full: str) -> None:
        if removed:
            raise OSError(errno.EIO, "killed here")
        removed.append(full)
        unlink(full)

    async def scenario() -> None:
        await store.create_keys(CreateKeys(tuple((Key(f"{family}{name}"), b"") for name in names)))
        with monkeypatch.context() as patched:
            patched.setattr(os, "unlink", remove_one)
            with pytest.raises(StorageUnavailable):
                await store.discard_upload(DiscardUpload(family))
        assert store.list_keys(ListKeys(family)) == Page(("chunk.1", "part.x", "part.y"), more=False)

    anyio.run(scenario)


def test_a_folder_that_cannot_be_read_costs_the_page_that_would_begin_there(tmp_path: Path) -> None:
    """It cost every listing of a folder above it, and the error did not say which folder it was."""
    root = tmp_path / "root"
    for name in ("a/1", "a/2", "c/3"):
        (root / "v2" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "v2" / name).touch()
    make_unreadable(root / "v2" / "b")
    listed = ListKeys(Prefix("v2/"))
    assert do(root, listed) == Page(("a/1", "a/2"), more=True)
    with pytest.raises(StorageRefused, match=rf"^listing v2/: v2/b/{NAME}/.*: File name too long$") as failure:
        do(root, ListKeys(Prefix("v2/"), "a/2"))
    assert do(root, ListKeys(Prefix("v2/"), failure.value.behind)) == Page(("c/3",), more=False)


def test_an_error_says_what_is_in_the_way(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "v2" / "folder").mkdir(parents=True)
    (root / "v2" / "file").touch()
    for key, value, told in (("folder", b"", "something .* in the way"), ("file/below", b"x", "Not a directory")):
        with pytest.raises(StorageUnavailable, match=f"^creating keys: v2/{key}: {told}"):
            do(root, CreateKeys(((Key(f"v2/{key}"), value),)))
