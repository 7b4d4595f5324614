"""Where keys and parts are. `Store` is what every kind of storage offers to the scheduler and to the oracle;
`KeyWorld` is the plain and fast one: a bucket, in which an effect is applied at once and is durable from then on."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable
from typing import Any, Protocol

from angos.sansio.effects import (
    CopyKey,
    CreateKeys,
    DeleteKeys,
    DeleteKeysWithin,
    DiscardPart,
    DiscardUpload,
    Effect,
    HashKey,
    HashParts,
    Key,
    ListFolders,
    ListKeys,
    ListStats,
    ListUnfinished,
    Page,
    Part,
    PromoteParts,
    ReadKey,
    StageBody,
    Staged,
    Stat,
    StatKey,
    StatKeys,
    StatPage,
    StatsBelow,
)
from angos.simulator.choices import Choices
from angos.simulator.world.bodies import ArrivingBody, continued, hexdigest
from angos.simulator.world.clock import Clock

Bodies = dict[int, ArrivingBody]

NO_NAMES = Page((), False)
WHOLE = 1 << 30


class Store(Protocol):
    """Storage with effects to apply and a state to look at."""

    touched: list[Key]
    """Keys that got a value since the oracle looked last; it empties the list."""

    def apply(self, effect: Effect[Any], process: str) -> Any:
        """Carry an effect out for one process. Gives its reply or raises an `EffectError`."""
        ...

    def get(self, key: str) -> bytes | None:
        """What a reader would find now."""
        ...

    def surviving(self, key: str) -> bytes | None:
        """What would be left if the power were cut now and nothing but the durable were kept."""
        ...

    def names(self, prefix: str) -> list[str]:
        """The keys below a prefix, whole and sorted."""
        ...

    def cut_power(self, choices: Choices, *, at_rest: bool = False) -> None:
        """Lose what is not durable, as the choices say; `at_rest` when nothing was in flight."""
        ...

    def kill(self, process: str) -> None:
        """Lose what a process had in memory."""
        ...


class KeyWorld:
    """A bucket."""

    def __init__(self, clock: Clock, bodies: Bodies, *, exports_hash_states: bool = True) -> None:
        self._clock = clock
        self._bodies = bodies
        self._exported = exports_hash_states
        self._values: dict[str, bytes] = {}
        self._modified_ms: dict[str, int] = {}
        self._sorted: list[str] = []
        self._discarded: dict[str, bytes] = {}  # not necessarily durable: a power cut may bring remains back
        self.touched: list[Key] = []

    def apply(self, effect: Effect[Any], process: str) -> Any:
        """See `Store`."""
        return PERFORMERS[type(effect)](self, effect)

    def get(self, key: str) -> bytes | None:
        """See `Store`."""
        return self._values.get(key)

    def surviving(self, key: str) -> bytes | None:
        """See `Store`: everything is durable."""
        return self._values.get(key)

    def names(self, prefix: str) -> list[str]:
        """See `Store`."""
        return self._sorted[bisect_left(self._sorted, prefix) : self._end(prefix)]

    def cut_power(self, choices: Choices, *, at_rest: bool = False) -> None:
        """See `Store`: only the removal of uploads can be lost."""
        if self._discarded and choices.pick("remains", 2):
            for name, value in sorted(self._discarded.items()):
                if name not in self._values and choices.pick("remain", 2):
                    self._put(name, value)
        self._discarded.clear()

    def kill(self, process: str) -> None:
        """See `Store`: processes remember nothing."""

    def modified_ms(self, key: str) -> int:
        """When a key that is there was written."""
        return self._modified_ms[key]

    def _end(self, prefix: str) -> int:
        """The place behind the last key below a prefix."""
        behind = prefix[:-1] + chr(ord(prefix[-1]) + 1) if prefix else ""
        return bisect_left(self._sorted, behind) if behind else len(self._sorted)

    def _put(self, name: str, value: bytes) -> None:
        if name not in self._values:
            insort(self._sorted, name)
        self._values[name] = value
        self._modified_ms[name] = self._clock.now_ms

    def _drop(self, name: str) -> None:
        if self._values.pop(name, None) is not None:
            del self._sorted[bisect_left(self._sorted, name)]

    def _read_key(self, effect: ReadKey) -> bytes | None:
        return self._values.get(effect.key)

    def _stat_key(self, effect: StatKey) -> Stat | None:
        value = self._values.get(effect.key)
        return None if value is None else Stat(len(value), self._modified_ms[effect.key])

    def _list_keys(self, effect: ListKeys) -> Page:
        names, prefix = self._sorted, effect.prefix
        start = bisect_right(names, prefix + effect.after) if effect.after else bisect_left(names, prefix)
        found = names[start : self._end(prefix)]
        if not found:
            return NO_NAMES
        size, limit = len(prefix), effect.limit
        return Page(tuple([name[size:] for name in found[:limit]]), len(found) > limit)

    def _list_folders(self, effect: ListFolders) -> Page:
        start = len(effect.prefix)
        folders = {name[start:].partition("/")[0] for name in self.names(effect.prefix) if "/" in name[start:]}
        return page_of(folders, effect.after, effect.limit)

    def _list_stats(self, effect: ListStats) -> StatPage:
        page = self._list_keys(ListKeys(effect.prefix, effect.after, effect.limit))
        keys = [(name, Key(effect.prefix + name)) for name in page.names]
        stats = tuple((name, Stat(len(self._values[key]), self._modified_ms[key])) for name, key in keys)
        return StatPage(stats, page.last, page.more)

    def _stat_keys(self, effect: StatKeys) -> tuple[Stat | None, ...]:
        return tuple(self._stat_key(StatKey(key)) for key in effect.keys)

    def _stats_below(self, effect: StatsBelow) -> tuple[tuple[tuple[str, Stat], ...], ...]:
        return tuple(self._list_stats(ListStats(prefix, limit=WHOLE)).entries for prefix in effect.prefixes)

    def _create_keys(self, effect: CreateKeys) -> tuple[bool, ...]:
        created = []
        for key, value in effect.entries:
            if fresh := key not in self._values:
                self._put(key, value)
                self.touched.append(key)
            created.append(fresh)
        return tuple(created)

    def _hash_key(self, effect: HashKey) -> str | None:
        value = self._values.get(effect.key)
        return None if value is None else hexdigest(effect.algorithm, value)

    def _copy_key(self, effect: CopyKey) -> bool | None:
        value = self._values.get(effect.key)
        return None if value is None else self._create_keys(CreateKeys(((effect.copy, value),)))[0]

    def _delete_keys(self, effect: DeleteKeys | DeleteKeysWithin) -> None:
        for key in effect.keys:
            self._drop(key)

    def _stage_body(self, effect: StageBody) -> Staged:
        content, whole = self._bodies[effect.body].receive(effect.size_max)
        self._put(f"{effect.upload}part.{effect.part}", content)
        hashes = tuple(continued(state, content, exported=self._exported) for state in effect.hashes)
        return Staged(Part(effect.part, len(content)), hashes, whole)

    def _joined(self, upload: str, parts: tuple[Part, ...]) -> bytes | None:
        contents = [self._values.get(f"{upload}part.{part.name}") for part in parts]
        if any(content is None or len(content) != part.size for content, part in zip(contents, parts, strict=True)):
            return None
        return b"".join(content for content in contents if content is not None)

    def _hash_parts(self, effect: HashParts) -> str | None:
        content = self._joined(effect.upload, effect.parts)
        return None if content is None else hexdigest(effect.algorithm, content)

    def _promote_parts(self, effect: PromoteParts) -> bool:
        content = self._joined(effect.upload, effect.parts)
        if content is None:
            return False
        self._put(effect.key, content)
        self.touched.append(effect.key)
        return True

    def _discard_part(self, effect: DiscardPart) -> None:
        self._drop(f"{effect.upload}part.{effect.part}")

    def _discard_upload(self, effect: DiscardUpload) -> None:
        for name in self.names(effect.upload):
            self._discarded[name] = self._values[name]
            self._drop(name)


PERFORMERS: dict[type[Effect[Any]], Callable[[KeyWorld, Any], Any]] = {
    ReadKey: KeyWorld._read_key,
    StatKey: KeyWorld._stat_key,
    ListKeys: KeyWorld._list_keys,
    ListFolders: KeyWorld._list_folders,
    ListStats: KeyWorld._list_stats,
    StatKeys: KeyWorld._stat_keys,
    StatsBelow: KeyWorld._stats_below,
    ListUnfinished: lambda world, effect: (),
    CreateKeys: KeyWorld._create_keys,
    DeleteKeys: KeyWorld._delete_keys,
    HashKey: KeyWorld._hash_key,
    CopyKey: KeyWorld._copy_key,
    DeleteKeysWithin: KeyWorld._delete_keys,
    StageBody: KeyWorld._stage_body,
    HashParts: KeyWorld._hash_parts,
    PromoteParts: KeyWorld._promote_parts,
    DiscardPart: KeyWorld._discard_part,
    DiscardUpload: KeyWorld._discard_upload,
}


def page_of(names: set[str], after: str, limit: int) -> Page:
    """The page of these names that an effect asked for."""
    rest = sorted(name for name in names if name > after) if after else sorted(names)
    return Page(tuple(rest[:limit]), len(rest) > limit)
