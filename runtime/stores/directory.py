"""A store in a directory of a local or network file system.

Reads run straight on the event loop, because opening a local file takes less time than handing the work to a thread.
What may take long is done in worker threads, each write in one hop. What writes do, in which order and why, is in
`angos.sansio.disk.plans`.
"""

from __future__ import annotations

import os
import time
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from errno import EBADF
from pathlib import Path
from stat import S_ISREG
from threading import Lock
from time import monotonic
from typing import Any, Protocol, TypeVar

from anyio import CancelScope

from angos.runtime.driver import InThread
from angos.runtime.hashing import Hasher, hex_of
from angos.runtime.pace import Pace
from angos.runtime.stores.disk import Disk
from angos.runtime.stores.disk_steps import DiskPlan, storage_error
from angos.runtime.stores.folder_listings import ON_LOOP_ENTRIES, FolderListings, Patience, TooLong, stats_below
from angos.runtime.stores.received_file import ReceivedFile
from angos.runtime.stores.remembered_values import RememberedValues, stamp_of
from angos.runtime.threads import check_cancelled, run_in_thread
from angos.sansio.disk import plans
from angos.sansio.effects import (
    CopyKey,
    CreateKeys,
    DeleteKeys,
    DeleteKeysWithin,
    DiscardPart,
    DiscardUnfinished,
    DiscardUpload,
    EffectError,
    HashKey,
    HashParts,
    Key,
    ListFolders,
    ListKeys,
    ListStats,
    ListUnfinished,
    Page,
    Part,
    Prefix,
    PromoteParts,
    ReadKey,
    SignUrl,
    StageBody,
    Staged,
    Stat,
    StatKey,
    StatKeys,
    StatPage,
    StatsBelow,
    StorageCorrupt,
)
from angos.sansio.layout import parse_blob_key

T = TypeVar("T")
Later = Coroutine[Any, Any, T]
"""Beside an immediate reply: a coroutine that ends with it."""

READ_ON_LOOP_BYTES = 1 << 20
STAGE_IN_MEMORY_BYTES = 64 << 10  # a smaller body is written in one hop when it has arrived
HASH_BUFFER_BYTES = 1 << 20
PAUSE_SECONDS = 0.1  # between two looks whether somebody still waits for the digest


class Incoming(Protocol):
    """The body of a request, as far as a store needs it."""

    def receive(self, sink: Callable[[Sequence[memoryview]], None], size_max: int | None) -> Awaitable[bool]:
        """Feed the bytes to `sink` in order. False when the client stopped in the middle."""
        ...


class OpenedContent:
    """A stored value opened for sending. Close it."""

    __slots__ = ("descriptor", "size")

    def __init__(self, descriptor: int, size: int) -> None:
        self.descriptor = descriptor
        self.size = size

    def close(self) -> None:
        """Closing twice is no error."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


class DirectoryStore:
    """All storage effects on the folder `root`, which is made if need be.

    With `sync` False nothing waits for the disk: a crash of the machine may lose what was acknowledged. Without
    `for_writing` it is left as it is, so that it may be read-only.
    Raises `UnusableRoot` when the folder cannot be used.
    """

    def __init__(self, root: Path, sync: bool = True, *, for_writing: bool = True) -> None:
        self._disk = Disk(root, sync=sync)
        if for_writing:
            self._disk.prepare()
        self._folders = plans.Folders()
        self._listings = FolderListings()
        self._remembered = RememberedValues()
        self.in_thread = InThread(
            {
                CreateKeys: self._create_keys,
                DeleteKeys: self._delete_keys,
                CopyKey: self._copy_key,
                DeleteKeysWithin: self._delete_keys_within,
                ListStats: self._list_stats,
                StatKeys: self._stat_keys,
                StatsBelow: self._stats_below,
                PromoteParts: self._promote_parts,
                DiscardPart: self._discard_part,
                DiscardUpload: self._discard_upload,
            },
            {StatKey: self.stat_key, ListKeys: self._list_keys_patiently},
        )
        """For the driver: what of all this it may do in a worker thread of its own choice."""

    # --- reads --------------------------------------------------------------------------------------------------------

    def read_key(self, effect: ReadKey) -> bytes | Later[bytes | None] | None:
        """`ReadKey`. The bytes of a blob are checked against its digest, once as long as they stay in memory."""
        key = effect.key
        full = self._disk.full(key)
        try:
            if key in self._remembered:
                value = self._remembered.get(key, stamp_of(os.stat(full)))
                if value is not None:
                    return value
            opened = _open(full)
        except (FileNotFoundError, NotADirectoryError):
            self._remembered.drop(key)
            return None
        except OSError as error:
            raise storage_error(f"reading {key}", error) from error
        if opened is None:
            return None
        if opened[1].st_size > READ_ON_LOOP_BYTES:
            os.close(opened[0])
            return _in_thread(f"reading {key}", lambda: self._read_large(key, full))
        return self._read_opened(key, *opened)

    def _read_opened(self, key: Key, descriptor: int, stat: os.stat_result) -> bytes:
        try:
            value = _read_all(descriptor, stat.st_size)
        except OSError as error:
            raise storage_error(f"reading {key}", error) from error
        finally:
            os.close(descriptor)
        if (digest := parse_blob_key(key)) is not None and hex_of(digest.algorithm, value) != digest.hex:
            raise StorageCorrupt(f"the stored bytes of {digest} have another digest")
        self._remembered.keep(key, stamp_of(stat), value)
        return value

    def _read_large(self, key: Key, full: str) -> bytes | None:
        try:
            opened = _open(full)
        except FileNotFoundError:  # deleted since we looked
            return None
        return None if opened is None else self._read_opened(key, *opened)

    def stat_key(self, effect: StatKey) -> Stat | None:
        """`StatKey`."""
        try:
            stat = os.stat(self._disk.full(effect.key))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise storage_error(f"looking for {effect.key}", error) from error
        return _facts(stat) if S_ISREG(stat.st_mode) else None

    def list_keys(self, effect: ListKeys) -> Page | Later[Page]:
        """`ListKeys`."""
        if not effect.prefix.endswith("/"):
            return self._list_family(effect)
        return self._list(self._listings.page_of_keys, effect)

    def _list_family(self, effect: ListKeys) -> Page:
        """A prefix that ends within a name: of one upload, whose few keys lie in one folder."""
        folder, _, beginning = effect.prefix.rpartition("/")
        try:
            found = os.listdir(self._disk.full(folder))
        except (FileNotFoundError, NotADirectoryError):
            return Page((), more=False)
        except OSError as error:
            raise storage_error(f"listing {effect.prefix}", error) from error
        cut = len(beginning)
        names = sorted(name[cut:] for name in found if name.startswith(beginning))
        first = bisect_right(names, effect.after)
        return Page(tuple(names[first : first + effect.limit]), more=len(names) > first + effect.limit)

    def _list_keys_patiently(self, effect: ListKeys) -> Page:
        """In a worker thread, where it may take its time."""
        if not effect.prefix.endswith("/"):
            return self._list_family(effect)
        return self._page(self._listings.page_of_keys, effect)

    def list_folders(self, effect: ListFolders) -> Page | Later[Page]:
        """`ListFolders`."""
        return self._list(self._listings.page_of_folders, effect)

    def list_stats(self, effect: ListStats) -> Later[StatPage]:
        """`ListStats`."""
        return run_in_thread(self._list_stats, effect)

    def _list_stats(self, effect: ListStats) -> StatPage:
        page = self._list_keys_patiently(ListKeys(effect.prefix, effect.after, effect.limit))
        stats = ((name, self.stat_key(StatKey(Key(effect.prefix + name)))) for name in page.names)
        return StatPage(tuple((name, stat) for name, stat in stats if stat is not None), page.last, page.more)

    def stat_keys(self, effect: StatKeys) -> Later[tuple[Stat | None, ...]]:
        """`StatKeys`."""
        return run_in_thread(self._stat_keys, effect)

    def _stat_keys(self, effect: StatKeys) -> tuple[Stat | None, ...]:
        return tuple(self.stat_key(StatKey(key)) for key in effect.keys)

    def stats_below(self, effect: StatsBelow) -> Later[tuple[tuple[tuple[str, Stat], ...], ...]]:
        """`StatsBelow`."""
        return run_in_thread(self._stats_below, effect)

    def _stats_below(self, effect: StatsBelow) -> tuple[tuple[tuple[str, Stat], ...], ...]:
        return tuple(map(self._all_stats, effect.prefixes))

    def _all_stats(self, prefix: Prefix) -> tuple[tuple[str, Stat], ...]:
        folder, _, beginning = prefix.rpartition("/")
        try:
            found = stats_below(self._disk.full(folder), beginning)
        except OSError as error:
            raise storage_error(f"listing {prefix}", error) from error
        return tuple((name, _facts(stat)) for name, stat in found)

    def list_unfinished(self, effect: ListUnfinished) -> tuple[()]:
        """`ListUnfinished`: no value is sent in pieces."""
        return ()

    def discard_unfinished(self, effect: DiscardUnfinished) -> None:
        """`DiscardUnfinished`."""

    def sign_url(self, effect: SignUrl) -> None:
        """`SignUrl`: a folder has no address."""

    def _list(
        self, page_of: Callable[[str, str, int, Patience | None], Page], effect: ListKeys | ListFolders
    ) -> Page | Later[Page]:
        folder = self._disk.full(effect.prefix[:-1])
        try:
            return page_of(folder, effect.after, effect.limit, Patience(ON_LOOP_ENTRIES))
        except TooLong:
            return run_in_thread(self._page, page_of, effect)
        except OSError as error:
            raise self._unlisted(effect, folder, error) from error

    def _page(self, page_of: Callable[[str, str, int, Patience | None], Page], effect: ListKeys | ListFolders) -> Page:
        folder = self._disk.full(effect.prefix[:-1])
        try:
            return page_of(folder, effect.after, effect.limit, None)
        except OSError as error:
            raise self._unlisted(effect, folder, error) from error

    def _unlisted(self, effect: ListKeys | ListFolders, folder: str, error: OSError) -> EffectError:
        failure = storage_error(f"listing {effect.prefix}", error, root=str(self._disk.root))
        if isinstance(error.filename, str) and error.filename.startswith(f"{folder}/"):
            failure.behind = f"{error.filename[len(folder) + 1 :]}0"  # the character after "/"
        return failure

    def open_content(self, key: Key) -> OpenedContent | None:
        """Open a value to send it; None when it is absent. Fails with the errors of `StatKey`."""
        try:
            opened = _open(self._disk.full(key))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise storage_error(f"opening {key}", error) from error
        return None if opened is None else OpenedContent(opened[0], opened[1].st_size)

    # --- writes -------------------------------------------------------------------------------------------------------

    def create_keys(self, effect: CreateKeys) -> Later[tuple[bool, ...]]:
        """`CreateKeys`."""
        return run_in_thread(self._create_keys, effect)

    def delete_keys(self, effect: DeleteKeys) -> Later[None]:
        """`DeleteKeys`."""
        return run_in_thread(self._delete_keys, effect)

    def copy_key(self, effect: CopyKey) -> Later[bool | None]:
        """`CopyKey`."""
        return run_in_thread(self._copy_key, effect)

    def delete_keys_within(self, effect: DeleteKeysWithin) -> Later[None]:
        """`DeleteKeysWithin`."""
        return run_in_thread(self._delete_keys_until, effect, monotonic() + effect.within_seconds)

    def promote_parts(self, effect: PromoteParts) -> Later[bool]:
        """`PromoteParts`."""
        return run_in_thread(self._promote_parts, effect)

    def discard_part(self, effect: DiscardPart) -> Later[None]:
        """`DiscardPart`."""
        return run_in_thread(self._discard_part, effect)

    def discard_upload(self, effect: DiscardUpload) -> Later[None]:
        """`DiscardUpload`."""
        return run_in_thread(self._discard_upload, effect)

    def _create_keys(self, effect: CreateKeys) -> tuple[bool, ...]:
        return self._run("creating keys", plans.create_keys(effect, self._folders))

    def _delete_keys(self, effect: DeleteKeys) -> None:
        self._run("deleting keys", plans.delete_keys(effect, self._folders))

    def _copy_key(self, effect: CopyKey) -> bool | None:
        return self._run(f"copying {effect.key}", plans.copy_key(effect, self._folders))

    def _delete_keys_within(self, effect: DeleteKeysWithin) -> None:
        self._delete_keys_until(effect, monotonic() + effect.within_seconds)

    def _delete_keys_until(self, effect: DeleteKeysWithin, until: float) -> None:
        self._run("deleting keys", plans.delete_keys_within(effect), until)

    def _promote_parts(self, effect: PromoteParts) -> bool:
        return self._run(f"creating {effect.key}", plans.promote_parts(effect, self._folders))

    def _discard_part(self, effect: DiscardPart) -> None:
        self._run("discarding a part of an upload", plans.discard_part(effect))

    def _discard_upload(self, effect: DiscardUpload) -> None:
        self._run("discarding an upload", plans.discard_upload(effect))

    def hash_parts(self, effect: HashParts) -> Later[str | None]:
        """`HashParts`."""
        paths = [self._disk.full(plans.part_path(effect.upload, part.name)) for part in effect.parts]
        return _in_thread("reading an upload", lambda: _hash_files(paths, effect.parts, effect.algorithm))

    def hash_key(self, effect: HashKey) -> Later[str | None]:
        """`HashKey`."""
        full = self._disk.full(effect.key)
        return _in_thread(f"reading {effect.key}", lambda: _hash_file(full, effect))

    async def stage_body(self, effect: StageBody, body: Incoming) -> Staged:
        """`StageBody`. Besides the turns in which the body arrives, one hop."""
        staging = _Staging(self._disk, self._folders, effect)
        try:
            whole = await body.receive(staging, effect.size_max)
            return await run_in_thread(staging.finish, whole)
        except GeneratorExit:
            staging.discard()
            raise
        except BaseException as error:
            with CancelScope(shield=True):
                await run_in_thread(staging.discard)
            if isinstance(error, OSError):
                self._forget_if_folders_vanished(error)
                raise storage_error("storing a part of an upload", error) from error
            raise

    def _run(self, doing: str, plan: Coroutine[Any, Any, T], until: float | None = None) -> T:
        run = DiskPlan(self._disk, plan, until)
        try:
            return run.run()
        except OSError as error:
            self._forget_if_folders_vanished(error)
            raise storage_error(doing, error, published=run.published, root=str(self._disk.root)) from error

    def _forget_if_folders_vanished(self, error: OSError) -> None:
        """Somebody removed folders below our feet. The next request makes them again."""
        if isinstance(error, FileNotFoundError):
            self._folders.forget()
            self._disk.make_temporary_folder()


class _Staging:
    """One `StageBody` on its way: in memory while it is small, then in its file.

    Used by one thread at a time, except that `discard` may meet a last `take` when the request is cancelled.
    """

    def __init__(self, disk: Disk, folders: plans.Folders, effect: StageBody) -> None:
        self._plan = DiskPlan(disk, plans.stage_body(effect, folders))
        self._disk = disk
        self._held = bytearray()
        self._file: ReceivedFile | None = None
        self._lock = Lock()
        self._ended = False

    def lend(self) -> memoryview | None:
        """Where the next bytes may be received into; None while anywhere will do."""
        with self._lock:
            return None if self._ended or self._file is None else self._file.lend()

    def share(self) -> int:
        """See `angos.runtime.upstream.spool.Shared`."""
        with self._lock:
            if self._ended:
                raise OSError(EBADF, "the part is gone")
            self._file = self._open(shared=True)
            return os.open(self._file.path, os.O_RDONLY | os.O_CLOEXEC)

    def __call__(self, views: Sequence[memoryview]) -> None:
        """The next bytes of the body."""
        with self._lock:
            if self._ended:
                return
            if self._file is None:
                if len(self._held) + sum(map(len, views)) <= STAGE_IN_MEMORY_BYTES:
                    for view in views:
                        self._held += view
                    return
                self._file = self._open()
            self._file.take(views)

    def finish(self, whole: bool) -> Staged:
        """The body has ended: make it durable."""
        with self._lock:
            self._ended = True
            if self._file is None:
                self._file = self._open()
            return self._plan.finish(self._file, whole=whole)

    def discard(self) -> None:
        """Leave nothing behind."""
        with self._lock:
            self._ended = True
            self._plan.undo()
            if self._file is not None:
                self._file.discard()

    def _open(self, *, shared: bool = False) -> ReceivedFile:
        step = self._plan.run_to_receive()
        file = ReceivedFile(self._disk.full(step.path), step.hashes, sync=self._disk.sync, shared=shared)
        held, self._held = self._held, bytearray()
        try:
            file.take([memoryview(held)])
        except BaseException:
            file.discard()
            raise
        return file


def _facts(stat: os.stat_result) -> Stat:
    return Stat(stat.st_size, stat.st_mtime_ns // 1_000_000)


def _open(full: str) -> tuple[int, os.stat_result] | None:
    """Open a file for reading; None when there is something else. The descriptor is the caller's to close."""
    # Not blocking, so that a stray pipe does not stop the loop.
    descriptor = os.open(full, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        stat = os.fstat(descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    if not S_ISREG(stat.st_mode):
        os.close(descriptor)
        return None
    return descriptor, stat


def _read_all(descriptor: int, size: int) -> bytes:
    value = os.read(descriptor, size + 1)
    if len(value) == size:
        return value
    pieces = [value]
    while pieces[-1]:
        pieces.append(os.read(descriptor, HASH_BUFFER_BYTES))
    return b"".join(pieces)


def _hash_files(paths: Sequence[str], parts: Sequence[Part], algorithm: str) -> str | None:
    hasher = Hasher(algorithm)
    buffer = memoryview(bytearray(HASH_BUFFER_BYTES))
    for path, part in zip(paths, parts, strict=True):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            size = 0
            while count := os.readv(descriptor, [buffer]):
                hasher.update(buffer[:count])
                size += count
                check_cancelled()
        finally:
            os.close(descriptor)
        if size != part.size:  # lost in a crash: as good as missing
            return None
    return hasher.hex()


def _hash_file(path: str, effect: HashKey) -> str | None:
    hasher = Hasher(effect.algorithm)
    pace = Pace(effect.bytes_per_second)
    try:
        opened = _open(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if opened is None:
        return None
    buffer = memoryview(bytearray(HASH_BUFFER_BYTES))
    try:
        while count := os.readv(opened[0], [buffer]):
            hasher.update(buffer[:count])
            early = pace.early(count)
            while early > 0:
                time.sleep(min(early, PAUSE_SECONDS))
                early -= PAUSE_SECONDS
                check_cancelled()
            check_cancelled()
    finally:
        os.close(opened[0])
    return hasher.hex()


async def _in_thread(doing: str, work: Callable[[], T]) -> T:
    try:
        return await run_in_thread(work)
    except OSError as error:
        raise storage_error(doing, error) from error
