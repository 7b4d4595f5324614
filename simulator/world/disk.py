"""A disk that forgets what was not synced.

Two layers, as POSIX allows them to differ: the content of a file as it is and as `SyncFile` last saw it; the entries of
a folder as they are and as `SyncFolder` last saw them. A power cut decides for everything that differs, one by one,
whether the new, the old or (file content only) something in between is found afterwards.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from angos.sansio.disk.steps import (
    CopyFiles,
    CreateEmpty,
    FamilyOf,
    Link,
    MakeFolder,
    NameTemporary,
    Path,
    Received,
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
from angos.sansio.effects import Key
from angos.sansio.steps import Step
from angos.simulator.choices import Choices
from angos.simulator.world.bodies import ArrivingBody, continued
from angos.simulator.world.clock import Clock

TEMPORARY = ".temporary"


@dataclass(slots=True, eq=False)
class File:
    """An inode with content."""

    content: bytes
    modified_ms: int
    synced: bytes | None = None
    """The content that a power cut cannot take; None before the first sync."""


@dataclass(slots=True, eq=False)
class Folder:
    """An inode with entries."""

    entries: dict[str, File | Folder] = field(default_factory=dict)
    durable: dict[str, File | Folder] = field(default_factory=dict)
    """The entries at the last sync."""


class Disk:
    """One file system. Raises `OSError` as a real one does."""

    def __init__(self, clock: Clock, bodies: dict[int, ArrivingBody], *, exports_hash_states: bool = True) -> None:
        self._clock = clock
        self._bodies = bodies
        self._exported = exports_hash_states
        self._temporaries = 0
        self.root = Folder()
        self.touched: list[Key] = []
        temporary = Folder()
        self.root.entries[TEMPORARY] = self.root.durable[TEMPORARY] = temporary
        self._folders: dict[str, Folder] = {"": self.root, TEMPORARY: temporary}
        self._takers: dict[type[Step[Any]], Callable[[Any], Any]] = {
            MakeFolder: lambda step: self._make_folder(step.path),
            NameTemporary: self._name_temporary,
            WriteFile: self._write,
            CreateEmpty: self._create_empty,
            ReceiveFile: self._receive,
            CopyFiles: self._copy,
            SizeOf: self._size_of,
            Touch: self._touch,
            Link: self._link,
            Rename: self._rename,
            Remove: lambda step: self._remove(step.path),
            RemoveFolder: lambda step: self._remove_folder(step.path),
            FamilyOf: self._family_of,
            SyncFile: self._sync_file,
            SyncFolder: self._sync_folder,
        }

    # --- looking ------------------------------------------------------------------------------------------------------

    def file(self, path: str) -> File | None:
        """The file at this path, None when there is none."""
        parent, _, name = path.rpartition("/")
        folder = self._folders.get(parent)
        found = folder.entries.get(name) if folder is not None else None
        return found if isinstance(found, File) else None

    def surviving(self, path: str) -> bytes | None:
        """What the durable layers alone hold at this path."""
        node: File | Folder | None = self.root
        for name in path.split("/"):
            node = node.durable.get(name) if isinstance(node, Folder) else None
        return node.synced if isinstance(node, File) else None

    def files(self, prefix: str) -> list[str]:
        """The paths of the files that begin with a prefix, sorted; no temporary ones."""
        parent, slash, _ = prefix.rpartition("/")
        folder = self._folders.get(parent)
        return sorted(path for path in _walk(folder, parent + slash) if path.startswith(prefix)) if folder else []

    def folders(self, path: str) -> list[str]:
        """The names of the folders in a folder, empty ones too."""
        folder = self._folders.get(path)
        entries = folder.entries if folder is not None else {}
        return sorted(name for name, node in entries.items() if isinstance(node, Folder))

    # --- steps --------------------------------------------------------------------------------------------------------

    def take(self, step: Step[Any]) -> Any:
        """Take one step of a plan."""
        taker = self._takers.get(type(step))
        if taker is None:
            raise TypeError(f"a plan asked for {step!r}, which this disk does not know")
        return taker(step)

    def temporaries(self) -> list[str]:
        """The names of temporary files that nobody has removed."""
        return sorted(self._folders[TEMPORARY].entries)

    def _name_temporary(self, step: NameTemporary) -> Path:
        self._temporaries += 1
        return Path(f"{TEMPORARY}/{self._temporaries}")

    def _write(self, step: WriteFile) -> None:
        self._place(step.path, File(step.content, self._clock.now_ms))

    def _create_empty(self, step: CreateEmpty) -> bool:
        if self.file(step.path) is not None:
            return False
        self._place(step.path, File(b"", self._clock.now_ms, b""))
        return True

    def _copy(self, step: CopyFiles) -> None:
        content = b"".join(self._existing(source).content for source in step.sources)
        self._place(step.path, File(content, self._clock.now_ms))

    def _size_of(self, step: SizeOf) -> int | None:
        found = self.file(step.path)
        return None if found is None else len(found.content)

    def _touch(self, step: Touch) -> None:
        self._existing(step.path).modified_ms = self._clock.now_ms

    def _link(self, step: Link) -> bool:
        file = self._existing(step.source)
        if self.file(step.path) is not None:
            return False
        self._place(step.path, file)
        return True

    def _rename(self, step: Rename) -> None:
        file = self._existing(step.source)
        if self.file(step.path) is file:
            return  # rename(2): two names of one file are left as they are, both of them
        self._place(step.path, file)
        self._remove(step.source)

    def _sync_file(self, step: SyncFile) -> None:
        file = self._existing(step.path)
        file.synced = file.content

    def _sync_folder(self, step: SyncFolder) -> None:
        if (folder := self._folders.get(step.path)) is not None:
            folder.durable = dict(folder.entries)

    def _existing(self, path: str) -> File:
        if (file := self.file(path)) is None:
            raise FileNotFoundError(errno.ENOENT, "no such file", path)
        return file

    def _place(self, path: str, file: File) -> None:
        parent, _, name = path.rpartition("/")
        folder = self._folders.get(parent)
        if folder is None:
            raise FileNotFoundError(errno.ENOENT, "no such folder", parent)
        if isinstance(folder.entries.get(name), Folder):
            raise IsADirectoryError(errno.EISDIR, "is a folder", path)
        folder.entries[name] = file
        if parent != TEMPORARY:
            self.touched.append(Key(path))

    def _make_folder(self, path: str) -> bool:
        if path in self._folders:
            return False
        parent, _, name = path.rpartition("/")
        above = self._folders.get(parent)
        if above is None:
            raise FileNotFoundError(errno.ENOENT, "no such folder", parent)
        if name in above.entries:
            raise FileExistsError(errno.EEXIST, "a file is where a folder has to be", path)
        above.entries[name] = self._folders[path] = Folder()
        return True

    def _receive(self, step: ReceiveFile) -> Received:
        if self._folders.get(step.path.rpartition("/")[0]) is None:
            raise FileNotFoundError(errno.ENOENT, "no such folder", step.path)
        content, whole = self._bodies[step.body].receive(step.size_max)
        self._place(step.path, File(content, self._clock.now_ms))
        hashes = tuple(continued(state, content, exported=self._exported) for state in step.hashes)
        return Received(len(content), hashes, whole)

    def _remove(self, path: str) -> None:
        parent, _, name = path.rpartition("/")
        folder = self._folders.get(parent)
        if folder is not None and isinstance(folder.entries.get(name), File):
            del folder.entries[name]

    def _remove_folder(self, path: str) -> None:
        parent, _, name = path.rpartition("/")
        folder = self._folders.get(path)
        if folder is not None and not folder.entries:
            del self._folders[path]
            del self._folders[parent].entries[name]

    def _family_of(self, step: FamilyOf) -> tuple[Path, ...]:
        parent, _, beginning = step.beginning.rpartition("/")
        folder = self._folders.get(parent)
        names = sorted(folder.entries) if folder is not None else ()
        return tuple(Path(f"{parent}/{name}") for name in names if name.startswith(beginning))

    # --- power cuts ---------------------------------------------------------------------------------------------------

    def cut_power(self, choices: Choices, *, at_rest: bool = False) -> None:
        """Everything that is not durable is kept, dropped or torn; then the disk is what a restart finds.

        At rest it is all kept or all lost: what is only half there has been tried by cuts in the middle of the work.
        """
        fate = choices.pick("power-cut", 2 if at_rest else 3)  # all of it kept, all of it lost, each for itself
        settled: set[int] = set()
        self._settle("", self.root, choices, fate, settled)
        temporary = self._folders[TEMPORARY]
        temporary.entries.clear()
        temporary.durable.clear()
        self._folders = {}
        self._index("", self.root)
        self.touched.extend(Key(path) for path in self.files(""))

    def _settle(self, path: str, folder: Folder, choices: Choices, fate: int, settled: set[int]) -> None:
        for name in sorted(folder.entries.keys() | folder.durable.keys()):
            now, before = folder.entries.get(name), folder.durable.get(name)
            if now is not before:
                if fate == 1 or (fate == 2 and path != TEMPORARY and choices.pick("entry", 2)):
                    now = before
                if now is None:
                    folder.entries.pop(name, None)
                else:
                    folder.entries[name] = now
            if isinstance(now, Folder):
                self._settle(f"{path}/{name}" if path else name, now, choices, fate, settled)
            elif now is not None and id(now) not in settled:
                settled.add(id(now))
                _settle_content(now, choices, fate)
        folder.durable = dict(folder.entries)

    def _index(self, path: str, folder: Folder) -> None:
        self._folders[path] = folder
        for name, node in folder.entries.items():
            if isinstance(node, Folder):
                self._index(f"{path}/{name}" if path else name, node)


def _settle_content(file: File, choices: Choices, fate: int) -> None:
    if file.synced != file.content and fate:
        kind = 1 if fate == 1 else choices.pick("content", 4)
        if kind == 1:  # the old content; a file that was never synced has its length at best
            file.content = file.synced if file.synced is not None else b""
        elif kind == 2:  # a sector boundary went through it
            file.content = file.content[: len(file.content) // 2]
        elif kind == 3:  # the length got there, the bytes did not
            file.content = bytes(len(file.content))
    file.synced = file.content


def _walk(folder: Folder, prefix: str) -> Iterator[str]:
    for name, node in folder.entries.items():
        if isinstance(node, Folder):
            if name != TEMPORARY:
                yield from _walk(node, f"{prefix}{name}/")
        else:
            yield prefix + name
