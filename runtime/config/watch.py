"""Which of the files that a server was started with have changed: found by reading them again and again.

Reading beats notification here. inotify sees neither what another machine writes to a network file system nor what
happens behind a symbolic link; a watch has to be made anew after each rename, and what happens meanwhile is lost; its
events name paths that have to be matched with the configured ones (Kubernetes swaps a link called ``..data``). Reading
each path by its name follows whatever is there at that moment: a file written in place, one renamed over it, a link or
a folder behind the path that was swapped. Contents are compared, not times: clocks of file systems are coarse, and
network file systems keep old attributes for seconds. It costs some ten microseconds for each file and look.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from typing import Final

SIZE_MAX: Final = 16 << 20  # of one file, in bytes; certificates of all authorities there are take 200 KiB

_State = bytes | str
"""Of one file: the digest of its content, or why it has none."""


class Unreadable(Exception):
    """A file cannot be read; the text says why."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """The files after a change, or as they are when somebody asks at once."""

    changed: tuple[Path, ...]
    """Those that differ from the last sighting."""
    contents: tuple[bytes | Unreadable, ...]
    """Of the configuration files, in their order."""


def read_content(path: Path) -> bytes:
    """The bytes of a file. Raises `Unreadable`, also for anything that can be read only once."""
    try:
        # Without O_NONBLOCK, opening a named pipe would wait for somebody to write to it.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise Unreadable(f"cannot be read: {error.strerror}") from None
    try:
        if not S_ISREG(os.fstat(descriptor).st_mode):
            raise Unreadable("is not a regular file, so it cannot be read again")
        with open(descriptor, "rb", closefd=False) as opened:
            content = opened.read(SIZE_MAX + 1)
    except OSError as error:
        raise Unreadable(f"cannot be read: {error.strerror}") from None
    finally:
        os.close(descriptor)
    if len(content) > SIZE_MAX:
        raise Unreadable(f"is larger than {SIZE_MAX} bytes")
    return content


class Watch:
    """Looks at configuration files and at the files that the configuration names."""

    def __init__(self, files: Sequence[Path], contents: Sequence[bytes]) -> None:
        """`contents` are the bytes of `files` that are in use: a change since they were read counts as one."""
        self._files = tuple(files)
        self._seen: dict[Path, _State] = {file: _digest(content) for file, content in zip(files, contents, strict=True)}
        self._awaited: dict[Path, _State] | None = None

    def follow(self, named: Iterable[Path]) -> None:
        """Look at these files too from now on, and no longer at those followed before.

        Call it before they are read for use: so no change is missed.
        """
        kept = dict.fromkeys((*self._files, *named))
        self._seen = {path: self._seen[path] if path in self._seen else _look(path)[0] for path in kept}
        self._awaited = None

    def look(self, *, at_once: bool = False) -> Sighting | None:
        """Files that have changed and were the same in two looks, since one that is being written is not read.

        Each change is told once. With `at_once` there is a sighting anyhow, of the files as they are.
        """
        looked = {path: _look(path) for path in self._seen}
        states = {path: state for path, (state, _) in looked.items()}
        if not at_once:
            if states == self._seen:
                self._awaited = None
                return None
            if states != self._awaited:
                self._awaited = states
                return None
        changed = tuple(path for path, state in states.items() if state != self._seen[path])
        self._seen, self._awaited = states, None
        return Sighting(changed, tuple(looked[file][1] for file in self._files))


def _look(path: Path) -> tuple[_State, bytes | Unreadable]:
    try:
        content = read_content(path)
    except Unreadable as error:
        return str(error), error
    return _digest(content), content


def _digest(content: bytes) -> bytes:
    # Private keys are among the files: what is kept in memory must not give them away.
    return hashlib.sha256(content).digest()
