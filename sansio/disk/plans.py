"""How each storage effect is carried out on a disk, so that a power cut at any step keeps the promises of effects.py.

Four rules, each of them lost bytes somewhere when it was forgotten:

1. Content is synced under a temporary name before it gets its real one. A name never shows half a value.
2. A name counts only when its folder has been synced, and the folder's name in the folder above, and so on up.
   Whoever finds a folder that another request has just made cannot know whether it would survive, so the first use of
   a folder by a process syncs the whole way up; `Folders` remembers where that is done.
3. A key that is already there may be the work of another request that has not synced it yet: it is synced again.
4. Folders are never removed, so that rule 2 can remember; but for those that another registry would take for a tag.
"""

from __future__ import annotations

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
from angos.sansio.effects import (
    CopyKey,
    CreateKeys,
    DeleteKeys,
    DeleteKeysWithin,
    DiscardPart,
    DiscardUpload,
    Key,
    Part,
    Prefix,
    PromoteParts,
    StageBody,
    Staged,
)
from angos.sansio.layout import distribution_tag_folders

ROOT = Path("")
FOLDERS_REMEMBERED_MAX = 20_000  # some 150 bytes each; forgetting costs a few needless syncs


class Folders:
    """The folders that this process knows to be durable, with all folders above them. Lost with the process."""

    def __init__(self) -> None:
        self._durable: set[Path] = {ROOT}

    def knows(self, path: Path) -> bool:
        """True when the name of this folder is known to survive a power cut."""
        return path in self._durable

    def learn(self, paths: list[Path]) -> None:
        """These folders and all above them have been synced."""
        if len(self._durable) > FOLDERS_REMEMBERED_MAX:
            self._durable = {ROOT}
        self._durable.update(paths)

    def forget(self) -> None:
        """Somebody else removed folders: believe in none any more."""
        self._durable = {ROOT}


def key_path(key: Key) -> Path:
    """Where a key lies: the same text, below the root of its store."""
    return Path(key)


def part_path(upload: Prefix, part: str) -> Path:
    """Where a part of an upload lies."""
    return Path(f"{upload}part.{part}")


def parent_of(path: Path) -> Path:
    """The folder that holds this path; the root holds itself."""
    return Path(path.rpartition("/")[0])


async def create_keys(effect: CreateKeys, folders: Folders) -> tuple[bool, ...]:
    """`CreateKeys`."""
    wave = _Wave(folders)
    temporaries: dict[Key, Path] = {}
    for key, value in effect.entries:
        await wave.use(parent_of(key_path(key)))
        if value and key not in temporaries and await SizeOf(key_path(key)) is None:
            temporaries[key] = await NameTemporary()
            await WriteFile(temporaries[key], value)
    for temporary in temporaries.values():
        await SyncFile(temporary)
    created = []
    for key, value in effect.entries:
        if not value:
            created.append(await CreateEmpty(key_path(key)))
        elif key in temporaries:
            created.append(await Link(temporaries[key], key_path(key)))
        else:
            created.append(False)
    if effect.durable:
        await wave.sync()
    for temporary in temporaries.values():
        await Remove(temporary)
    return tuple(created)


async def delete_keys_within(effect: DeleteKeysWithin) -> None:
    """`DeleteKeysWithin`: whoever takes the steps refuses those that come too late. Each key lies in a folder of its
    own, as a rule, so that syncing them would take a hundred times as long as removing them."""
    for key in effect.keys:
        await Remove(key_path(key))


async def delete_keys(effect: DeleteKeys, folders: Folders) -> None:
    """`DeleteKeys`."""
    for key in effect.keys:
        await Remove(key_path(key))
    emptied = dict.fromkeys(Path(folder) for key in effect.keys for folder in distribution_tag_folders(key))
    if emptied:
        folders.forget()
        for folder in sorted(emptied, key=lambda path: -path.count("/")):
            await RemoveFolder(folder)
        for folder in dict.fromkeys(parent_of(folder) for folder in emptied):
            await SyncFolder(folder)
    for folder in dict.fromkeys(parent_of(key_path(key)) for key in effect.keys):
        await SyncFolder(folder)


async def copy_key(effect: CopyKey, folders: Folders) -> bool | None:
    """`CopyKey`. The file gets a second name."""
    wave = _Wave(folders)
    if await SizeOf(key_path(effect.key)) is None:
        return None
    await wave.use(parent_of(key_path(effect.copy)))
    try:
        await SyncFile(key_path(effect.key))
        copied = await Link(key_path(effect.key), key_path(effect.copy))
    except FileNotFoundError:  # deleted since we looked
        return None
    await wave.sync()
    return copied


async def stage_body(effect: StageBody, folders: Folders) -> Staged:
    """`StageBody`. Its folder entry becomes durable with the chunk key that refers to it, which lies beside it."""
    wave = _Wave(folders)
    path = part_path(effect.upload, effect.part)
    await wave.use(parent_of(path))
    received = await ReceiveFile(path, effect.body, effect.hashes, effect.size_max)
    try:
        await SyncFile(path)
    except OSError:
        await Remove(path)
        raise
    return Staged(Part(effect.part, received.size), received.hashes, received.whole)


async def promote_parts(effect: PromoteParts, folders: Folders) -> bool:
    """`PromoteParts`. One part gets a second name and costs nothing; several are copied into one file."""
    wave = _Wave(folders)
    path = key_path(effect.key)
    sources = tuple(part_path(effect.upload, part.name) for part in effect.parts)
    for source, part in zip(sources, effect.parts, strict=True):
        if await SizeOf(source) != part.size:
            return False
    await wave.use(parent_of(path))
    try:
        await _place(sources, path)
    except FileNotFoundError:  # the upload was discarded by another request since we looked
        return False
    await wave.sync()
    return True


async def _place(sources: tuple[Path, ...], path: Path) -> None:
    if len(sources) == 1:
        # The collector judges bytes by their age, and these may have waited in their upload for days.
        await Touch(sources[0])
        if await Link(sources[0], path):
            return
        temporary = await NameTemporary()
        await Link(sources[0], temporary)
    else:
        temporary = await NameTemporary()
        await CopyFiles(sources, temporary)
        await SyncFile(temporary)
    await Rename(temporary, path)
    # Renaming one name of a file to another name of the same file does nothing (POSIX, rename()): a retry does that.
    await Remove(temporary)


async def discard_part(effect: DiscardPart) -> None:
    """`DiscardPart`."""
    await Remove(part_path(effect.upload, effect.part))


async def discard_upload(effect: DiscardUpload) -> None:
    """`DiscardUpload`. The key of the session goes first: killed in the middle, nothing looks like an empty upload."""
    for path in reversed(await FamilyOf(Path(effect.upload))):
        await Remove(path)


class _Wave:
    """The folders that one plan writes into, synced together at its end: the first sync pays, the others find
    their journal entries already written."""

    def __init__(self, folders: Folders) -> None:
        self._folders = folders
        self._used: list[Path] = []
        self._to_sync: dict[Path, None] = {}

    async def use(self, folder: Path) -> None:
        """Make sure that the folder is there, and note what has to be synced for a name in it to count."""
        self._to_sync[folder] = None
        missing = []
        while folder not in self._used and not self._folders.knows(folder):
            missing.append(folder)
            folder = parent_of(folder)
            self._to_sync[folder] = None
        for path in reversed(missing):
            await MakeFolder(path)
        self._used += missing

    async def sync(self) -> None:
        """Make every name of this plan durable. Deepest first: a folder is announced after its content."""
        for folder in sorted(self._to_sync, key=lambda path: (-path.count("/"), path)):
            await SyncFolder(folder)
        self._folders.learn(self._used)
