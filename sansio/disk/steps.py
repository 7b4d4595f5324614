"""The primitive steps of a disk, each one system call or a few on one file.

`angos.sansio.disk.plans` says in which order they are taken. The runtime takes them on a real file system, the
simulator on one that forgets, at a crash, whatever was not synced: file contents (`SyncFile`) and directory entries
(`SyncFolder`) separately, as POSIX allows.

Paths are relative to the root of the store, with ``/`` between components. A step that fails raises `OSError` and
leaves nothing of itself behind.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NewType

from angos.sansio.effects import BodyHandle, HashState
from angos.sansio.steps import Step

Path = NewType("Path", str)


@dataclass(frozen=True, slots=True)
class MakeFolder(Step[bool]):
    """Make one folder, in one that is there. True if it was not there yet."""

    path: Path


@dataclass(frozen=True, slots=True)
class NameTemporary(Step[Path]):
    """Draw a path, in a folder of the store that no listing shows, that nobody uses. Nothing is created.

    Whoever runs the plan removes what is there when the plan fails; after a crash the next start does.
    """


@dataclass(frozen=True, slots=True)
class WriteFile(Step[None]):
    """Create a file with this content."""

    path: Path
    content: bytes


@dataclass(frozen=True, slots=True)
class CreateEmpty(Step[bool]):
    """Create an empty file. Reply: False when the path exists."""

    path: Path


@dataclass(frozen=True, slots=True)
class Received:
    """What `ReceiveFile` got."""

    size: int
    hashes: tuple[HashState, ...]
    whole: bool


@dataclass(frozen=True, slots=True)
class ReceiveFile(Step[Received]):
    """Create a file from a request body, as `StageBody` says. Fails with `BodyTooLarge` too."""

    path: Path
    body: BodyHandle
    hashes: tuple[HashState, ...]
    size_max: int | None


@dataclass(frozen=True, slots=True)
class CopyFiles(Step[None]):
    """Create a file from the bytes of others, in order. `FileNotFoundError` when one is missing."""

    sources: tuple[Path, ...]
    path: Path


@dataclass(frozen=True, slots=True)
class SizeOf(Step["int | None"]):
    """The size of a file, None when there is none."""

    path: Path


@dataclass(frozen=True, slots=True)
class Touch(Step[None]):
    """Set the time of last modification to now."""

    path: Path


@dataclass(frozen=True, slots=True)
class Link(Step[bool]):
    """Give a file a second name. Reply: False when the name exists. `FileNotFoundError` without the source."""

    source: Path
    path: Path


@dataclass(frozen=True, slots=True)
class Rename(Step[None]):
    """Move a file, atomically replacing what is at the new path."""

    source: Path
    path: Path


@dataclass(frozen=True, slots=True)
class Remove(Step[None]):
    """Remove a file; absent is no error."""

    path: Path


@dataclass(frozen=True, slots=True)
class RemoveFolder(Step[None]):
    """Remove a folder that is empty; absent or not empty is no error."""

    path: Path


@dataclass(frozen=True, slots=True)
class FamilyOf(Step[tuple[Path, ...]]):
    """The files of one folder whose paths begin with `beginning`, sorted by code point."""

    beginning: Path


@dataclass(frozen=True, slots=True)
class SyncFile(Step[None]):
    """Make the content of a file durable (fsync)."""

    path: Path


@dataclass(frozen=True, slots=True)
class SyncFolder(Step[None]):
    """Make the entries of a folder durable (fsync on the directory), removals too. Absent is no error."""

    path: Path
