"""Trying out the folder of a store: whether its file system does what the registry relies on.

Every start does it, in a fraction of a millisecond beside what the disk needs to be waited for: hard links that give a
name once, renaming, listings, long names, letter case, sync. The operator's command writes some bytes too.
"""

from __future__ import annotations

import errno
import mmap
import os
import time
from collections.abc import Callable
from contextlib import suppress

from angos.runtime.stores.direct_writer import BLOCK_BYTES, set_direct
from angos.sansio.findings import Fails, Finding

FULL = (errno.ENOSPC, errno.EDQUOT)
NAME_BYTES = 160  # the longest name of the layout is that of an event of a tag with a sha512 digest: 156
CONTENT = bytes(range(256)) * (BLOCK_BYTES // 256)


def try_folder(folder: str, beginning: str, *, sync: bool, thorough: bool) -> tuple[Finding, ...]:
    """What the file system of this folder does and what it does not.

    Leaves no file there. Writes no byte unless it is `thorough`, so that a full disk stands in the way of little.
    `beginning` is that of names that nobody else uses. With `sync` False the disk is not waited for. Raises `OSError`
    when not even a file can be made.
    """
    trying = _Trying(f"{folder}/{beginning}")
    checks: list[tuple[str, Callable[[], str | None], str]] = [
        ("creates a name at most once (hard links)", trying.links, ""),
        ("replaces files by renaming", trying.renames, ""),
        ("lists names at once", trying.lists, ""),
        ("takes long names", trying.takes_long_names, ""),
        (
            "tells upper from lower case",
            trying.tells_cases,
            "tags that differ only in the case of their letters are one and the same to it",
        ),
        ("can be waited for (sync_to_disk)", trying.syncs if sync else _not_waited_for, ""),
    ]
    if thorough:
        checks += [
            ("gives back what was written", trying.keeps, ""),
            ("writes past the page cache (O_DIRECT)", trying.writes_directly, "large uploads go through that cache"),
            ("deletes", trying.deletes, ""),
        ]
    try:
        trying.create("a")
        return tuple(_tried(need, check, without) for need, check, without in checks)
    finally:
        trying.remove_all()


def _tried(need: str, check: Callable[[], str | None], without: str) -> Finding:
    try:
        return Finding(need, "works", check() or "", without)
    except Fails as error:
        return Finding(need, "fails", str(error), without)
    except OSError as error:
        return Finding(need, "unknown" if error.errno in FULL else "fails", reason_of(error), without)


def reason_of(error: OSError) -> str:
    """What the system says, without a path of this machine."""
    return os.strerror(error.errno).lower() if error.errno else type(error).__name__


def _not_waited_for() -> str:
    return "not tried: a power cut may lose what was acknowledged, as configured"


class _Trying:
    def __init__(self, beginning: str) -> None:
        self._beginning = beginning
        self._names: list[str] = []

    def create(self, name: str) -> None:
        os.close(os.open(self._path(name), os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666))

    def links(self) -> None:
        first, second = self._path("a"), self._path("b")
        try:
            os.link(first, second)
        except OSError as error:
            if error.errno in FULL:
                raise
            raise Fails(f"it has no hard links: {reason_of(error)}") from None
        try:
            os.link(first, second)
        except FileExistsError:
            return
        raise Fails("it gives one name to two files")

    def renames(self) -> None:
        self.create("c")
        moved = os.stat(self._path("c")).st_ino
        os.rename(self._path("c"), self._path("d"))
        if os.stat(self._path("d")).st_ino != moved or os.path.exists(self._path("c")):
            raise Fails("the file under the new name is not the one that was renamed")
        self.create("c")
        os.rename(self._path("d"), self._path("c"))
        if os.stat(self._path("c")).st_ino != moved:
            raise Fails("the file that had the name is still there")

    def lists(self) -> None:
        folder, _, beginning = self._path("").rpartition("/")
        self.create("e")
        if f"{beginning}e" not in os.listdir(folder):
            raise Fails("a file that was just made is not listed")
        os.unlink(self._path("e"))
        if f"{beginning}e" in os.listdir(folder):
            raise Fails("a file that was just removed is still listed")

    def takes_long_names(self) -> None:
        name = "!" * (NAME_BYTES - len(os.path.basename(self._path(""))))
        try:
            self.create(name)
        except OSError as error:
            if error.errno in FULL:
                raise
            raise Fails(f"names of {NAME_BYTES} bytes: {reason_of(error)}") from None

    def tells_cases(self) -> None:
        if os.path.exists(self._path("A")):
            raise Fails("A and a are one name")

    def syncs(self) -> str:
        began = time.perf_counter()
        for path in (self._path("a"), os.path.dirname(self._path("a"))):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        return f"a file and its folder took {(time.perf_counter() - began) * 1000:.1f} ms"

    def keeps(self) -> None:
        self._write("f", CONTENT, direct=False)

    def writes_directly(self) -> None:
        with mmap.mmap(-1, BLOCK_BYTES) as aligned:
            aligned[:] = CONTENT
            with memoryview(aligned) as view:
                self._write("g", view, direct=True)

    def deletes(self) -> None:
        os.unlink(self._path("a"))
        if os.path.exists(self._path("a")):
            raise Fails("a file that was just removed is still there")

    def remove_all(self) -> None:
        for name in self._names:
            with suppress(OSError):  # it was removed already; or it is a day from now
                os.unlink(self._path(name))

    def _write(self, name: str, content: bytes | memoryview, *, direct: bool) -> None:
        self.create(name)
        descriptor = os.open(self._path(name), os.O_WRONLY | os.O_CLOEXEC)
        try:
            if direct:
                set_direct(descriptor, True)
            if os.pwrite(descriptor, content, 0) != len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(descriptor)
        with open(self._path(name), "rb") as file:
            if file.read() != CONTENT:
                raise Fails("it gives other bytes than those that were written")

    def _path(self, name: str) -> str:
        if name and name not in self._names:
            self._names.append(name)
        return f"{self._beginning}{name}"
