"""The folder of a store on this machine: where its paths lie, its temporary files, the file behind its empty keys."""

from __future__ import annotations

import errno
import itertools
import logging
import os
import threading
import time
from contextlib import suppress
from pathlib import Path

from angos.runtime.stores.disk_probe import reason_of, try_folder
from angos.sansio.findings import Finding, faults, table

TEMPORARY_FOLDER = ".tmp"
TEMPORARY_AGE_SECONDS = 24 * 3600  # no plan takes that long; another process may be running the younger ones
EMPTY_SECONDS = 60  # how long one empty file lends its content to new keys
EMPTY_LINKS_MAX = 30_000  # ext4 stops at 65,000
TRIES = 3

_log = logging.getLogger("angos.storage")


class UnusableRoot(Exception):
    """The folder of a store cannot be used; says why and what to do."""


class Disk:
    """The folder of one store. Paths are relative to it and never lead out of it."""

    def __init__(self, root: Path, *, sync: bool) -> None:
        self.root = os.path.abspath(root)
        self.sync = sync
        self._draws = itertools.count()
        self._random = os.urandom(8).hex()
        self.empty = EmptyFile(self)

    def full(self, path: str) -> str:
        """Where a path of the store lies on this machine. ValueError for one that might lead elsewhere."""
        full = f"/{path}"
        # Names of the layout never begin with a dot, so this covers "." and ".." and our own folder too.
        if "/." in full or "//" in full or full[-1] == "/" or "\0" in full:
            raise ValueError(f"{path!r} is no path of a store")
        return self.root + full

    def temporary(self) -> str:
        """A path for a file that no listing shows; relative, and only `DiskPlan` may use it."""
        # With the process id, because workers are forked from the process that made this object.
        return f"{TEMPORARY_FOLDER}/{self._random}-{os.getpid():x}-{next(self._draws):x}"

    def make_temporary_folder(self) -> None:
        """Make it again if somebody removed it. Never fails: the plan that needs it will."""
        with suppress(OSError):
            os.mkdir(f"{self.root}/{TEMPORARY_FOLDER}")

    def prepare(self) -> None:
        """Make the folders, try them out, and remove what crashed processes left. Raises `UnusableRoot`."""
        folder = f"{self.root}/{TEMPORARY_FOLDER}"
        try:
            os.makedirs(folder, exist_ok=True)
            self._try_out()
            self._remove_leftovers(folder)
            for path in (self.root, os.path.dirname(self.root)):
                self.sync_folder(path)
        except (FileExistsError, NotADirectoryError):
            raise UnusableRoot(f"{self.root} cannot hold a store: it is, or lies below, a file") from None
        except OSError as error:
            raise UnusableRoot(
                f"{self.root} cannot hold a store: {reason_of(error)}; give another folder or the right to write there"
            ) from None

    def _try_out(self) -> None:
        folder, _, beginning = f"{self.root}/{self.temporary()}".rpartition("/")
        findings = try_folder(folder, f"{beginning}.", sync=self.sync, thorough=False)
        if wrong := faults(findings):
            lines = "".join(f"\n  {line}" for line in table(wrong))
            raise UnusableRoot(f"{self.root} cannot hold a store; give a folder of another file system:{lines}")
        for finding in findings:
            if finding.verdict != "works":
                _log.warning("%s: %s: %s, %s", self.root, finding.need, finding.verdict, finding.consequence)

    def _remove_leftovers(self, folder: str) -> None:
        oldest = time.time() - TEMPORARY_AGE_SECONDS
        with os.scandir(folder) as entries:
            for entry in entries:
                try:
                    if entry.is_file(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_mtime < oldest:
                        os.unlink(entry.path)
                except FileNotFoundError:  # another process was faster
                    continue

    def sync_folder(self, full: str) -> None:
        """Make the entries of a folder durable; absent is no error."""
        if not self.sync:
            return
        try:
            descriptor = os.open(full, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        except PermissionError:
            if full == os.path.dirname(self.root):  # the folder above the root need not be ours
                return
            raise
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def try_root(root: Path, *, sync: bool) -> tuple[Finding, ...]:
    """What the file system does of what the registry relies on, thoroughly; nothing is left there.

    A folder that is not there yet is not made: the one above it in which it would be is tried. Raises `UnusableRoot`.
    """
    existing = Path(os.path.abspath(root))
    try:
        while not existing.exists():
            existing = existing.parent
        if (existing / TEMPORARY_FOLDER).is_dir():  # what is left there when we are killed is removed one day
            existing /= TEMPORARY_FOLDER
        beginning = f".angos-{os.urandom(8).hex()}."
        return try_folder(str(existing), beginning, sync=sync, thorough=True)
    except OSError as error:
        raise UnusableRoot(
            f"{existing} cannot hold a store: {reason_of(error)}; give another folder or the right to write there"
        ) from None


class EmptyFile:
    """The file that lends its content, none, to the empty keys of about a minute: each is one more name of it.

    Most keys of a registry are empty, and a file system makes a name in a tenth of the time that a file takes, and
    has room for any number of them. The file is dated at the end of its minute, so that no key looks older than it is.
    """

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._lock = threading.Lock()
        self._full = ""
        self._process = 0
        self._links = 0
        self._until = 0.0

    def link_to(self, full: str) -> None:
        """Give the file this name too. `FileExistsError` when the name is taken."""
        for _ in range(TRIES):
            lender = self._lender()
            try:
                return os.link(lender, full)
            except FileNotFoundError:
                if os.path.exists(lender):  # then it is the folder of the name that is missing
                    raise
            except OSError as error:
                if error.errno != errno.EMLINK:
                    raise
            self._forget(lender)
        raise OSError(errno.EMLINK, os.strerror(errno.EMLINK))

    def _lender(self) -> str:
        with self._lock:
            self._links += 1
            now = time.time()
            if (
                self._process != os.getpid()
                or self._links > EMPTY_LINKS_MAX
                or not 0 <= self._until - now <= EMPTY_SECONDS
            ):
                self._renew(now)
            return self._full

    def _renew(self, now: float) -> None:
        before = self._full if self._process == os.getpid() else ""
        self._full = f"{self._disk.root}/{self._disk.temporary()}.empty"
        descriptor = os.open(self._full, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666)
        try:
            os.utime(descriptor, (now + EMPTY_SECONDS, now + EMPTY_SECONDS))
            if self._disk.sync:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self._process, self._links, self._until = os.getpid(), 1, now + EMPTY_SECONDS
        if before:
            remove_if_there(before)

    def _forget(self, lender: str) -> None:
        with self._lock:
            if lender == self._full:
                self._until = 0.0


def remove_if_there(full: str) -> None:
    """Remove a file; absent is no error."""
    try:
        os.unlink(full)
    except FileNotFoundError:
        return
