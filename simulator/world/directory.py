"""The directory store of the runtime, on a disk that forgets: the real plans, step by step."""

from __future__ import annotations

import errno
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from angos.sansio.disk import plans
from angos.sansio.disk.plans import Folders
from angos.sansio.disk.steps import (
    CopyFiles,
    CreateEmpty,
    Link,
    MakeFolder,
    NameTemporary,
    Path,
    ReceiveFile,
    Remove,
    Rename,
    SyncFile,
    WriteFile,
)
from angos.sansio.effects import (
    CopyKey,
    CreateKeys,
    DeleteKeys,
    DeleteKeysWithin,
    DiscardPart,
    DiscardUpload,
    Effect,
    EffectError,
    HashKey,
    HashParts,
    ListFolders,
    ListKeys,
    ListStats,
    ListUnfinished,
    Page,
    PromoteParts,
    ReadKey,
    StageBody,
    Stat,
    StatKey,
    StatKeys,
    StatPage,
    StatsBelow,
    StorageFull,
    StorageRefused,
    StorageUnavailable,
)
from angos.sansio.steps import Step
from angos.simulator.choices import Choices
from angos.simulator.world.bodies import hexdigest
from angos.simulator.world.clock import Clock
from angos.simulator.world.disk import Disk
from angos.simulator.world.store import WHOLE, Bodies, page_of

PLANNED: dict[type[Effect[Any]], Callable[[Any, Folders], Coroutine[Any, Any, Any]]] = {
    CreateKeys: lambda effect, folders: plans.create_keys(effect, folders),
    DeleteKeys: lambda effect, folders: plans.delete_keys(effect, folders),
    CopyKey: lambda effect, folders: plans.copy_key(effect, folders),
    DeleteKeysWithin: lambda effect, folders: plans.delete_keys_within(effect),
    StageBody: lambda effect, folders: plans.stage_body(effect, folders),
    PromoteParts: lambda effect, folders: plans.promote_parts(effect, folders),
    DiscardPart: lambda effect, folders: plans.discard_part(effect),
    DiscardUpload: lambda effect, folders: plans.discard_upload(effect),
}
"""The effects that change the disk. Looked up late, so that a test can break a plan."""

SPACE_TAKING = (MakeFolder, WriteFile, CreateEmpty, ReceiveFile, CopyFiles, Link, Rename, SyncFile)


@dataclass(frozen=True, slots=True)
class Finished:
    """A plan has ended with this reply."""

    reply: Any


class RunningPlan:
    """One plan in the middle of its steps."""

    def __init__(self, disk: Disk, plan: Coroutine[Any, Any, Any]) -> None:
        self._disk = disk
        self._plan = plan
        self._temporaries: list[str] = []
        self._reply: Any = None
        self._error: OSError | EffectError | None = None
        self.steps = 0

    def step(self, *, fail_with: int | None = None) -> Finished | None:
        """Take the next step; None when there are more. `fail_with` makes it fail with this errno instead.

        Raises an `EffectError` when the plan has failed, with the mapping of the runtime.
        """
        try:
            step = self._plan.throw(self._error) if self._error is not None else self._plan.send(self._reply)
        except StopIteration as stop:
            return Finished(stop.value)
        except OSError as error:
            self._clean_up()
            raise effect_error(error) from None
        except EffectError:
            self._clean_up()
            raise
        self.steps += 1
        self._reply, self._error = None, None
        try:
            if fail_with is not None and (fail_with != errno.ENOSPC or isinstance(step, SPACE_TAKING)):
                self._error = OSError(fail_with, "injected", getattr(step, "path", ""))
            else:
                self._reply = self._take(step)
        except (OSError, EffectError) as error:
            self._error = error
        return None

    def abandon(self) -> None:
        """The process is gone; what it left stays."""
        self._plan.close()

    def _take(self, step: Step[Any]) -> Any:
        reply = self._disk.take(step)
        if isinstance(step, NameTemporary):
            self._temporaries.append(reply)
        return reply

    def _clean_up(self) -> None:
        """Whoever runs a plan removes its temporary files when it fails (`NameTemporary`)."""
        for path in self._temporaries:
            self._disk.take(Remove(Path(path)))


def effect_error(error: OSError) -> EffectError:
    """How a disk's refusals look to the core."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull("no space is left")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return StorageRefused("the disk does not allow it")
    return StorageUnavailable(f"the disk answered {errno.errorcode.get(error.errno or 0, 'nothing')}")


class DirectoryWorld:
    """A `Store` on a `Disk`."""

    def __init__(self, clock: Clock, bodies: Bodies, *, exports_hash_states: bool = True) -> None:
        self.disk = Disk(clock, bodies, exports_hash_states=exports_hash_states)
        self.touched = self.disk.touched
        self._folders: dict[str, Folders] = {}

    def plan(self, effect: Effect[Any], process: str) -> RunningPlan | None:
        """The plan of an effect that changes the disk; None for one that only reads."""
        make = PLANNED.get(type(effect))
        if make is None:
            return None
        return RunningPlan(self.disk, make(effect, self._folders.setdefault(process, Folders())))

    def apply(self, effect: Effect[Any], process: str) -> Any:
        """See `Store`: all steps at once."""
        running = self.plan(effect, process)
        if running is None:
            return READERS[type(effect)](self, effect)
        while (finished := running.step()) is None:
            pass
        return finished.reply

    def get(self, key: str) -> bytes | None:
        """See `Store`."""
        file = self.disk.file(key)
        return None if file is None else file.content

    def surviving(self, key: str) -> bytes | None:
        """See `Store`."""
        return self.disk.surviving(key)

    def names(self, prefix: str) -> list[str]:
        """See `Store`."""
        return self.disk.files(prefix)

    def cut_power(self, choices: Choices, *, at_rest: bool = False) -> None:
        """See `Store`."""
        self.disk.cut_power(choices, at_rest=at_rest)
        self._folders.clear()

    def kill(self, process: str) -> None:
        """See `Store`: what the process knew about folders is gone, the disk is as it was."""
        self._folders.pop(process, None)

    def _read_key(self, effect: ReadKey) -> bytes | None:
        return self.get(effect.key)

    def _stat_key(self, effect: StatKey) -> Stat | None:
        file = self.disk.file(effect.key)
        return None if file is None else Stat(len(file.content), file.modified_ms)

    def _list_keys(self, effect: ListKeys) -> Page:
        start = len(effect.prefix)
        return page_of({name[start:] for name in self.names(effect.prefix)}, effect.after, effect.limit)

    def _list_folders(self, effect: ListFolders) -> Page:
        start = len(effect.prefix)
        folders = {name[start:].partition("/")[0] for name in self.names(effect.prefix) if "/" in name[start:]}
        return page_of(folders, effect.after, effect.limit)

    def _hash_key(self, effect: HashKey) -> str | None:
        content = self.get(effect.key)
        return None if content is None else hexdigest(effect.algorithm, content)

    def _list_stats(self, effect: ListStats) -> StatPage:
        page = self._list_keys(ListKeys(effect.prefix, effect.after, effect.limit))
        files = ((name, self.disk.file(effect.prefix + name)) for name in page.names)
        stats = tuple((name, Stat(len(file.content), file.modified_ms)) for name, file in files if file is not None)
        return StatPage(stats, page.last, page.more)

    def _stat_keys(self, effect: StatKeys) -> tuple[Stat | None, ...]:
        return tuple(self._stat_key(StatKey(key)) for key in effect.keys)

    def _stats_below(self, effect: StatsBelow) -> tuple[tuple[tuple[str, Stat], ...], ...]:
        return tuple(self._list_stats(ListStats(prefix, limit=WHOLE)).entries for prefix in effect.prefixes)

    def _hash_parts(self, effect: HashParts) -> str | None:
        contents = [self.get(plans.part_path(effect.upload, part.name)) for part in effect.parts]
        if any(content is None for content in contents):
            return None
        return hexdigest(effect.algorithm, b"".join(content for content in contents if content is not None))


READERS: dict[type[Effect[Any]], Callable[[DirectoryWorld, Any], Any]] = {
    ReadKey: DirectoryWorld._read_key,
    StatKey: DirectoryWorld._stat_key,
    ListKeys: DirectoryWorld._list_keys,
    ListFolders: DirectoryWorld._list_folders,
    HashKey: DirectoryWorld._hash_key,
    ListStats: DirectoryWorld._list_stats,
    StatKeys: DirectoryWorld._stat_keys,
    StatsBelow: DirectoryWorld._stats_below,
    ListUnfinished: lambda world, effect: (),
    HashParts: DirectoryWorld._hash_parts,
}
"""The effects that only read."""
