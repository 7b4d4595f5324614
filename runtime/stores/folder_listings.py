"""The sorted names of folders, remembered as long as the folders do not change.

A page of a folder with 100,000 entries must not cost reading 100,000 entries. The modification time of a folder tells
whether names were added or removed since, with one trap: on many file systems the clock behind it ticks every few
milliseconds only, so a listing made right after a change may miss a second change that left the same time behind. A
listing is therefore remembered only if the folder had been still for a while.

Ignored in listings, as they are no keys: names that begin with a dot, names that are not UTF-8, symbolic links, and
whatever is neither a file nor a folder.
"""

from __future__ import annotations

import os
import time
from bisect import bisect_right
from collections import OrderedDict
from contextlib import suppress
from operator import itemgetter
from threading import Lock

from angos.sansio.effects import Page

STILL_NS = 50_000_000  # longer than a tick of any kernel clock (10 ms at most)
REMEMBERED_BYTES = 48 << 20  # some 400,000 names
NAME_BYTES = 60  # of a short Python string, beside its characters
LISTING_BYTES = 500


class TooLong(Exception):
    """Listing takes longer than the event loop should wait; do it in a worker thread."""


class Patience:
    """How much directory reading the caller is ready to wait for."""

    __slots__ = ("entries",)

    def __init__(self, entries: int) -> None:
        self.entries = entries

    def use(self, entries: int) -> None:
        """Raises `TooLong` when this is too much."""
        self.entries -= entries
        if self.entries < 0:
            raise TooLong


ON_LOOP_ENTRIES = 1000  # some 600 µs
FOLDER_ENTRIES = 10  # opening a folder takes as long as reading this many entries
ON_LOOP_FOLDER_BYTES = 96 << 10  # a folder file larger than this (ext4, xfs, btrfs) is not even tried on the loop


class Listing:
    """The names in one folder, sorted by code point."""

    __slots__ = ("_merged", "files", "folders", "stamp")

    def __init__(self, files: list[str], folders: list[str], stamp: tuple[int, int]) -> None:
        self.files = files
        self.folders = folders
        self.stamp = stamp
        self._merged: list[str] | None = None

    def merged(self) -> list[str]:
        """Files and folders, the latter with ``/``, in the order of the keys that they stand for."""
        if not self.folders:
            return self.files
        if self._merged is None:
            self._merged = sorted([*self.files, *(f"{name}/" for name in self.folders)])
        return self._merged

    def cost(self) -> int:
        """Estimated memory in bytes."""
        characters = sum(map(len, self.files)) + 2 * sum(map(len, self.folders))
        return LISTING_BYTES + characters + NAME_BYTES * (len(self.files) + 2 * len(self.folders))


ABSENT = Listing([], [], (0, 0))


class FolderListings:
    """Listings of folders by their full path. Used by the loop and by worker threads."""

    def __init__(self, remembered_bytes: int = REMEMBERED_BYTES) -> None:
        self._remembered: OrderedDict[str, tuple[Listing, int]] = OrderedDict()
        self._bytes = 0
        self._bytes_max = remembered_bytes
        self._lock = Lock()

    def of(self, folder: str, patience: Patience | None) -> Listing:
        """The listing of a folder; an absent one is empty. Raises `TooLong` or `OSError`."""
        try:
            stat = os.stat(folder)
        except (FileNotFoundError, NotADirectoryError):
            return ABSENT
        stamp = (stat.st_ino, stat.st_mtime_ns)
        remembered = self._remembered.get(folder)
        if remembered is not None and remembered[0].stamp == stamp:
            with self._lock:
                if folder in self._remembered:
                    self._remembered.move_to_end(folder)
            return remembered[0]
        if patience is not None:
            patience.use(FOLDER_ENTRIES)
            if stat.st_size > ON_LOOP_FOLDER_BYTES:
                raise TooLong
        still = time.time_ns() - stat.st_mtime_ns > STILL_NS
        listing = _read(folder, stamp, patience)
        if still:
            self._remember(folder, listing)
        return listing

    def _remember(self, folder: str, listing: Listing) -> None:
        cost = listing.cost()
        if cost > self._bytes_max:
            return
        with self._lock:
            _, earlier_cost = self._remembered.pop(folder, (None, 0))
            self._remembered[folder] = (listing, cost)
            self._bytes += cost - earlier_cost
            while self._bytes > self._bytes_max:
                _, (_, dropped_cost) = self._remembered.popitem(last=False)
                self._bytes -= dropped_cost

    # --- pages --------------------------------------------------------------------------------------------------------

    def page_of_keys(self, folder: str, after: str, limit: int, patience: Patience | None) -> Page:
        """`ListKeys` below this folder."""
        listing = self.of(folder, patience)
        if not listing.folders:
            start = bisect_right(listing.files, after) if after else 0
            end = start + limit
            return Page(tuple(listing.files[start:end]), len(listing.files) > end)
        names, more = self._walk(folder, listing, after, limit + 1, patience)
        return Page(tuple(names[:limit]), more or len(names) > limit)

    def _walk(
        self, folder: str, listing: Listing, after: str, count: int, patience: Patience | None
    ) -> tuple[list[str], bool]:
        """The first `count` names after `after`, depth first, which is the order of the names. Fewer, and True, when
        what comes next cannot be read: only a page that would begin there fails."""
        names: list[str] = []
        entries = listing.merged()
        # Below: a folder in progress is (its name with "/", relative to the top; its entries; the next of them).
        open_folders = [("", entries, _start(entries, after))]
        while open_folders and len(names) < count:
            inside, entries, index = open_folders.pop()
            while index < len(entries) and len(names) < count:
                entry = entries[index]
                index += 1
                if not entry.endswith("/"):
                    names.append(inside + entry)
                    continue
                open_folders.append((inside, entries, index))
                inside += entry
                try:
                    entries = self.of(f"{folder}/{inside[:-1]}", patience).merged()
                except OSError:
                    if not names:
                        raise
                    return names, True
                index = _start(entries, after[len(inside) :]) if after.startswith(inside) else 0
        return names, False

    def page_of_folders(self, folder: str, after: str, limit: int, patience: Patience | None) -> Page:
        """`ListFolders` below this folder. Folders that hold no key any more do not count."""
        folders = self.of(folder, patience).folders
        names: list[str] = []
        for index in range(bisect_right(folders, after) if after else 0, len(folders)):
            if self._holds_key(f"{folder}/{folders[index]}", patience):
                if len(names) == limit:
                    return Page(tuple(names), True)
                names.append(folders[index])
        return Page(tuple(names), False)

    def _holds_key(self, folder: str, patience: Patience | None) -> bool:
        to_see = [folder]
        while to_see:
            inner = to_see.pop()
            listing = self.of(inner, patience)
            if listing.files:
                return True
            to_see.extend(f"{inner}/{name}" for name in reversed(listing.folders))
        return False


def _start(entries: list[str], after: str) -> int:
    """The index of the first entry that is, or holds, a name after `after`."""
    start = bisect_right(entries, after)
    # The folder that `after` lies in sorts right before it.
    if start and entries[start - 1].endswith("/") and after.startswith(entries[start - 1]):
        return start - 1
    return start


def _read(folder: str, stamp: tuple[int, int], patience: Patience | None) -> Listing:
    files: list[str] = []
    folders: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                name = entry.name
                if not _is_name(name):
                    continue
                if entry.is_file(follow_symlinks=False):
                    files.append(name)
                elif entry.is_dir(follow_symlinks=False):
                    folders.append(name)
                if patience is not None:
                    patience.use(1)
    except (FileNotFoundError, NotADirectoryError):  # removed since we looked; a key
        return ABSENT
    files.sort()
    folders.sort()
    return Listing(files, folders, stamp)


def stats_below(folder: str, beginning: str) -> list[tuple[str, os.stat_result]]:
    """All keys below a folder whose names begin like this, in order, without that beginning. Nothing is remembered:
    for folders that are looked into once. A key that goes meanwhile is left out. Raises `OSError`."""
    found: list[tuple[str, os.stat_result]] = []
    waiting = [(folder, "")]
    while waiting:
        full, inside = waiting.pop()
        try:
            with os.scandir(full) as entries:
                for entry in entries:
                    name = entry.name
                    if (not inside and not name.startswith(beginning)) or not _is_name(name):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append((entry.path, f"{inside}{name}/"))
                    elif entry.is_file(follow_symlinks=False):
                        with suppress(FileNotFoundError):
                            found.append((inside + name, entry.stat(follow_symlinks=False)))
        except (FileNotFoundError, NotADirectoryError):
            continue
    found.sort(key=itemgetter(0))
    cut = len(beginning)
    return [(name[cut:], stat) for name, stat in found] if cut else found


def _is_name(name: str) -> bool:
    return name[0] != "." and (name.isascii() or _is_utf8(name))


def _is_utf8(name: str) -> bool:
    """False for names that the system gave us with undecodable bytes."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
