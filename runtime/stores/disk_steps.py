"""Takes the steps of `angos.sansio.disk` on a real file system.

Everything here blocks and is meant for a worker thread: a whole plan runs in one hop.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Coroutine
from time import monotonic
from typing import Any, Generic, TypeVar

from angos.runtime.stores.disk import Disk, remove_if_there
from angos.runtime.stores.received_file import ReceivedFile
from angos.runtime.threads import check_cancelled
from angos.sansio.disk.plans import ROOT
from angos.sansio.disk.steps import (
    CopyFiles,
    CreateEmpty,
    FamilyOf,
    Link,
    MakeFolder,
    NameTemporary,
    Path,
    ReceiveFile,
    Remove,
    RemoveFolder,
    Rename,
    SizeOf,
    SyncFile,
    SyncFolder,
    Touch,
    WriteFile,
)
from angos.sansio.effects import EffectError, StorageFull, StorageRefused, StorageUnavailable
from angos.sansio.steps import Step

T = TypeVar("T")

OPEN_FILES_MAX = 16  # of one plan, kept open between writing and syncing
COPY_BYTES = 8 << 20

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG)


def storage_error(doing: str, error: OSError, *, published: bool = False, root: str = "") -> EffectError:
    """The failure of an effect for an error of the system. Names no path of this machine, but what lies below `root`.

    With `published`, names of the effect are already visible: then no refusal is definite any more.
    """
    reason = os.strerror(error.errno) if error.errno else type(error).__name__
    path = error.filename2 or error.filename  # of a link, the name that it was to make
    if root and isinstance(path, str) and path.startswith(f"{root}/") and "/.tmp/" not in path:
        name = path[len(root) + 1 :]
        doing = doing if doing.rstrip("/").endswith(name) else f"{doing}: {name}"
    if isinstance(error, FileExistsError):
        reason = "something that is no file is in the way"
    kind: type[EffectError] = StorageUnavailable
    if not published and error.errno in _FULL:
        kind = StorageFull
    elif not published and error.errno in _REFUSED:
        kind = StorageRefused
    return kind(f"{doing}: {reason}")


class DiskPlan(Generic[T]):
    """One run of a plan. `run` it whole, or `run_to_receive` and then `finish`; `undo` after a failure in between."""

    def __init__(self, disk: Disk, plan: Coroutine[Any, Any, T], until: float | None = None) -> None:
        """`until`: on the clock of `time.monotonic`, when it is too late to remove anything."""
        self._disk = disk
        self._plan = plan
        self._until = until
        self._open: dict[str, int] = {}
        self._temporaries: list[str] = []
        self.published = False
        """True when a key may have become visible, or invisible."""

    def run(self) -> T:
        """Take all steps. Fails with what the plan fails with, having removed its temporary files."""
        try:
            step = self._advance(self._plan.send, None)
            while step is not None:
                step = self._take(step)
            return self._value
        except BaseException:
            self._plan.close()
            raise
        finally:
            self._clean_up()

    def run_to_receive(self) -> ReceiveFile:
        """Take all steps before the `ReceiveFile`, which is the caller's to take."""
        step = self._advance(self._plan.send, None)
        while step is not None and not isinstance(step, ReceiveFile):
            step = self._take(step)
        if step is None:
            raise TypeError("this plan receives nothing")
        return step

    def finish(self, file: ReceivedFile, *, whole: bool) -> T:
        """Take the steps after the `ReceiveFile`."""
        try:
            received = file.received(whole=whole)
            self._open[file.path] = file.hand_over()
            step = self._advance(self._plan.send, received)
            while step is not None:
                step = self._take(step)
            return self._value
        finally:
            self._clean_up()

    def undo(self) -> None:
        """Give the plan up. Removes no received file."""
        self._plan.close()
        self._clean_up()

    _value: T

    def _advance(self, advance: Callable[[Any], Any], outcome: object) -> Step[Any] | None:
        try:
            step: Step[Any] = advance(outcome)
        except StopIteration as stop:
            self._value = stop.value
            return None
        return step

    def _take(self, step: Step[Any]) -> Step[Any] | None:
        take: Callable[[DiskPlan[T], Any], Any] = _TAKE[type(step)]
        try:
            reply = take(self, step)
        except OSError as error:
            return self._advance(self._plan.throw, error)
        return self._advance(self._plan.send, reply)

    def _clean_up(self) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()
        for path in self._temporaries:
            remove_if_there(path)
        self._temporaries.clear()

    def _full(self, path: str) -> str:
        """Paths that this plan drew itself need no check; all others do."""
        drawn = f"{self._disk.root}/{path}"
        return drawn if drawn in self._temporaries else self._disk.full(path)

    def _create(self, full: str) -> int:
        return os.open(full, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666)

    def _keep_open(self, full: str, descriptor: int) -> None:
        # Syncing what is still open saves an open, and leaves no doubt whose write errors fsync reports.
        if self._disk.sync and len(self._open) < OPEN_FILES_MAX:
            self._open[full] = descriptor
        else:
            os.close(descriptor)

    # --- the steps ----------------------------------------------------------------------------------------------------

    def make_folder(self, step: MakeFolder) -> bool:
        try:
            os.mkdir(self._full(step.path))
        except FileExistsError:
            return False
        return True

    def name_temporary(self, step: NameTemporary) -> Path:
        path = self._disk.temporary()
        self._temporaries.append(f"{self._disk.root}/{path}")
        return Path(path)

    def write_file(self, step: WriteFile) -> None:
        full = self._full(step.path)
        descriptor = self._create(full)
        try:
            write_all(descriptor, step.content)
        except BaseException:
            os.close(descriptor)
            remove_if_there(full)
            raise
        self._keep_open(full, descriptor)

    def create_empty(self, step: CreateEmpty) -> bool:
        full = self._full(step.path)
        try:
            self._disk.empty.link_to(full)
        except FileExistsError:
            _check_is_file(full)
            return False
        self.published = True
        return True

    def copy_files(self, step: CopyFiles) -> None:
        full = self._full(step.path)
        target = self._create(full)
        try:
            for source in step.sources:
                self._copy(self._full(source), target)
        except BaseException:
            os.close(target)
            remove_if_there(full)
            raise
        self._keep_open(full, target)

    def _copy(self, source_full: str, target: int) -> None:
        source = os.open(source_full, os.O_RDONLY | os.O_CLOEXEC)
        try:
            while copy_some(source, target):
                check_cancelled()
        finally:
            os.close(source)

    def size_of(self, step: SizeOf) -> int | None:
        try:
            size = os.stat(self._full(step.path)).st_size
        except (FileNotFoundError, NotADirectoryError):
            return None
        return size if os.path.isfile(self._full(step.path)) else None

    def touch(self, step: Touch) -> None:
        os.utime(self._full(step.path))

    def link(self, step: Link) -> bool:
        try:
            os.link(self._full(step.source), self._full(step.path))
        except FileExistsError:
            _check_is_file(self._full(step.path))
            return False
        self.published = True
        return True

    def rename(self, step: Rename) -> None:
        os.rename(self._full(step.source), self._full(step.path))
        self.published = True

    def remove(self, step: Remove) -> None:
        full = self._full(step.path)
        if full in self._temporaries:
            remove_if_there(full)
            self._temporaries.remove(full)
            return
        if self._until is not None and monotonic() > self._until:
            raise OSError(errno.ETIME, os.strerror(errno.ETIME))
        try:
            os.unlink(full)
        except (FileNotFoundError, NotADirectoryError):
            return
        self.published = True

    def remove_folder(self, step: RemoveFolder) -> None:
        try:
            os.rmdir(self._full(step.path))
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ENOTEMPTY, errno.EEXIST):
                raise

    def family_of(self, step: FamilyOf) -> tuple[Path, ...]:
        folder, _, beginning = step.beginning.rpartition("/")
        try:
            names = os.listdir(self._full(folder))
        except (FileNotFoundError, NotADirectoryError):
            return ()
        return tuple(Path(f"{folder}/{name}") for name in sorted(names) if name.startswith(beginning))

    def sync_file(self, step: SyncFile) -> None:
        full = self._full(step.path)
        descriptor = self._open.pop(full, None)
        if descriptor is None:
            if not self._disk.sync:
                return
            descriptor = os.open(full, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if self._disk.sync:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def sync_folder(self, step: SyncFolder) -> None:
        self._disk.sync_folder(self._full(step.path) if step.path != ROOT else self._disk.root)


_TAKE: dict[type[Step[Any]], Callable[[Any, Any], Any]] = {
    MakeFolder: DiskPlan.make_folder,
    NameTemporary: DiskPlan.name_temporary,
    WriteFile: DiskPlan.write_file,
    CreateEmpty: DiskPlan.create_empty,
    CopyFiles: DiskPlan.copy_files,
    SizeOf: DiskPlan.size_of,
    Touch: DiskPlan.touch,
    Link: DiskPlan.link,
    Rename: DiskPlan.rename,
    Remove: DiskPlan.remove,
    RemoveFolder: DiskPlan.remove_folder,
    FamilyOf: DiskPlan.family_of,
    SyncFile: DiskPlan.sync_file,
    SyncFolder: DiskPlan.sync_folder,
}


def _check_is_file(full: str) -> None:
    """Raises `FileExistsError` when something else is in the way, as a folder: to readers the key is absent."""
    if not os.path.isfile(full) and os.path.lexists(full):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), full)


def write_all(descriptor: int, content: bytes | memoryview) -> None:
    """Write all of it, however often the system stops short."""
    written = os.write(descriptor, content)
    while written < len(content):
        written += os.write(descriptor, memoryview(content)[written:])


def copy_some(source: int, target: int) -> int:
    """Append some bytes from where `source` stands to `target`, within the kernel where it can. 0 at the end."""
    try:
        return os.copy_file_range(source, target, COPY_BYTES)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
    return os.sendfile(target, source, None, COPY_BYTES)
