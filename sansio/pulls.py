"""Pulls: when a tag, a manifest or a blob was pulled for the last time.

A request for a manifest that is answered (GET, HEAD, or "not modified") is a pull of the manifest and of the tag by
which it was asked for. HEAD counts because it is all that a client sends which has the image already: a Kubernetes node
that starts one more container of it, for instance. It costs the request a look into the memory of its process
(`PullBook`) and never a write: what is new there is written every now and then, in the background (`write_pulls`).

A record is a key of its own, below a folder for each thing, and its name says when: nothing is read, modified and
written back. The time is rounded down to a multiple of the granularity, so every process has the same name for the
same pull, and each writes a thing at most once in so long. Newest first, one listing of a namespace has all last pulls.

* A recorded time is never later than the pull, by the clock of the process that served it.
* Once a pull is written, a power cut at any moment leaves that record or a later one. A record is only removed by
  whoever has made a later one of the same thing durable; to have seen one is not enough.
* A pull is written unless its process dies before, or more things than `WAITING_MAX` wait because nothing can be
  written. So a time that is recorded is no earlier than the last pull minus the granularity.
* That something could not be written or listed is nobody's problem but the record's: it is tried again.

Of what was pushed before anybody recorded pulls nobody knows whether it was pulled. So it is written down as well
since when pulls are recorded (`begin_recording`), and until then everything counts as pulled (`PullTimes.last`): to
switch the recording on together with a rule about pulls deletes nothing that was in use. A process that serves without
recording takes that back.

The newest record of a thing stays when the thing is deleted, since it may come back, until somebody who knows all that
there is forgets it (`forget_pulls`).

Angos 1.6 keeps a key for each pull, under the same names and with the client in them. They count as records, and all
but the newest one go when something is recorded anew.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Final

from angos.sansio import layout
from angos.sansio.compact_json import compact_json
from angos.sansio.effects import CreateKeys, DeleteKeys, EffectError, Key, ListKeys, Prefix, ReadClock
from angos.sansio.listing import names_below
from angos.sansio.oci.digest import Digest
from angos.sansio.oci.reference import Namespace, Tag
from angos.sansio.together import together

REMEMBERED_MAX: Final = 1 << 14
"""Things that a process remembers to have written; 300 bytes each."""
WAITING_MAX: Final = 1 << 14
LISTED_MAX: Final = 100
"""Records of one thing that are looked at when another one is written. There are more only from Angos 1.6."""


@dataclass(frozen=True, slots=True)
class Pull:
    """Something was pulled."""

    folder: Prefix
    """Where the times of its pulls lie."""
    at_ms: int
    """Rounded down."""


class PullBook:
    """What one process remembers of pulls: what is to be written, and what has been, so that it is not written again.

    Bounded. A thing that it has forgotten is looked for again when it is to be written, and costs no more than that.
    """

    def __init__(
        self, granularity_ms: int, *, remembered_max: int = REMEMBERED_MAX, waiting_max: int = WAITING_MAX
    ) -> None:
        self.granularity_ms = granularity_ms
        """May be changed at any time."""
        self.forgotten = 0
        """Pulls that were not noted because too many waited."""
        self._remembered_max = remembered_max
        self._waiting_max = waiting_max
        self._noted: dict[Prefix, int] = {}
        self._waiting: dict[Prefix, int] = {}

    @property
    def waiting(self) -> int:
        """How many things wait to be written."""
        return len(self._waiting)

    def note(self, folders: Iterable[Prefix], now_ms: int) -> bool:
        """These were pulled now. True when there is anything new to be written."""
        at_ms = now_ms - now_ms % self.granularity_ms
        new = False
        for folder in folders:
            if self._noted.get(folder) == at_ms:
                continue
            if len(self._waiting) >= self._waiting_max and folder not in self._waiting:
                self.forgotten += 1
                continue
            self._noted.pop(folder, None)
            self._noted[folder] = at_ms
            if len(self._noted) > self._remembered_max:
                del self._noted[next(iter(self._noted))]
            self._waiting[folder] = max(at_ms, self._waiting.get(folder, 0))
            new = True
        return new

    def take(self, limit: int) -> tuple[Pull, ...]:
        """What is to be written next. Whoever takes it writes it, or gives it back."""
        taken = [Pull(folder, at_ms) for folder, at_ms in islice(self._waiting.items(), limit)]
        for pull in taken:
            del self._waiting[pull.folder]
        return tuple(taken)

    def give_back(self, pulls: Iterable[Pull]) -> None:
        """These could not be written."""
        for pull in pulls:
            if pull.folder in self._waiting or len(self._waiting) < self._waiting_max:
                self._waiting[pull.folder] = max(pull.at_ms, self._waiting.get(pull.folder, 0))
            else:
                self._noted.pop(pull.folder, None)
                self.forgotten += 1


# --- writing ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Written:
    """What has become of pulls. Those in neither had been recorded by another process, durably or not."""

    recorded: tuple[Pull, ...] = ()
    """Those that a power cut does not take any more."""
    failed: tuple[Pull, ...] = ()
    """Those that may not be recorded."""
    problem: str = ""
    """Why one of them is not."""


@dataclass(frozen=True, slots=True)
class _Found:
    is_recorded: bool = False
    older: tuple[Key, ...] = ()
    problem: str = ""


async def write_pulls(pulls: Sequence[Pull]) -> Written:
    """Record each of them unless a pull of that time or a later one is recorded; then remove what is older."""
    looks = await together(_look(pull) for pull in pulls)
    found = dict(zip(pulls, looks, strict=True))
    new = tuple(pull for pull, each in found.items() if not each.problem and not each.is_recorded)
    problem = ""
    if new:
        try:
            await CreateKeys(tuple((layout.pull_key(pull.folder, pull.at_ms), _record(pull)) for pull in new))
        except EffectError as error:
            problem = str(error) or "no answer"
    failed = tuple(pull for pull, each in found.items() if each.problem or (problem and pull in new))
    recorded = () if problem else new
    # What others have recorded may not be durable yet, and what is older may be all that a power cut leaves.
    older = tuple(key for pull in recorded for key in found[pull].older)
    if older:
        with suppress(EffectError):  # then they go next time
            await DeleteKeys(older)
    return Written(recorded, failed, problem or next((each.problem for each in looks if each.problem), ""))


async def _look(pull: Pull) -> _Found:
    try:
        page = await ListKeys(pull.folder, limit=LISTED_MAX)
    except EffectError as error:
        return _Found(problem=str(error) or "no answer")
    times = {name: at_ms for name in page.names if (at_ms := layout.parse_pull_time(name)) is not None}
    older = tuple(Key(pull.folder + name) for name, at_ms in times.items() if at_ms < pull.at_ms)
    return _Found(len(older) < len(times), older)


def _record(pull: Pull) -> bytes:
    """As Angos 1.6 has it, for whoever goes back to that; here only the name counts."""
    at = datetime.fromtimestamp(pull.at_ms / 1000, UTC).isoformat(timespec="milliseconds")
    return compact_json({"client": "angos", "at": at.replace("+00:00", "Z")})


# --- reading ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LastPulls:
    """What is recorded of a namespace, in milliseconds since 1970. What is not in here was never pulled."""

    tags: Mapping[Tag, int]
    digests: Mapping[Digest, int]
    """Of manifests, by whatever they were pulled, and of blobs."""


async def last_pulls(namespace: Namespace) -> LastPulls:
    """When each thing of the namespace was pulled for the last time. One listing, a page for each 999 things."""
    tags: dict[Tag, int] = {}
    digests: dict[Digest, int] = {}
    for name in await names_below(layout.pulls_prefix(namespace)):
        pulled = layout.parse_pull_name(name)
        if pulled is None:
            continue
        if isinstance(pulled.what, Digest):
            digests[pulled.what] = max(digests.get(pulled.what, 0), pulled.at_ms)
        else:
            tags[pulled.what] = max(tags.get(pulled.what, 0), pulled.at_ms)
    return LastPulls(tags, digests)


# --- forgetting -------------------------------------------------------------------------------------------------------


async def forget_pulls(namespace: Namespace, kept: Collection[Tag | Digest], before_ms: int) -> None:
    """Remove the records of things that are not among those kept, and that were not pulled since this time. For whoever
    knows all that the namespace has: a record of what is gone says nothing any more."""
    after, more = "", True
    while more:
        page = await ListKeys(layout.pulls_prefix(namespace), after)
        old = [
            Key(layout.pulls_prefix(namespace) + name)
            for name in page.names
            if (pulled := layout.parse_pull_name(name)) is not None
            and pulled.at_ms < before_ms
            and pulled.what not in kept
        ]
        if old:
            await DeleteKeys(tuple(old))
        after, more = page.last, page.more


# --- since when -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PullTimes:
    """What rules are told about the pulls of a namespace."""

    recorded: LastPulls
    since_ms: int
    """Since when pulls are recorded."""

    def last(self, what: Tag | Digest, pushed_ms: int | None) -> int | None:
        """When it was pulled for the last time, or may have been: what was pushed before pulls were recorded may have
        been pulled until then. None: never."""
        recorded = self.recorded
        recorded_ms = recorded.tags.get(what) if isinstance(what, Tag) else recorded.digests.get(what)
        if pushed_ms is None or pushed_ms < self.since_ms:
            return max(self.since_ms, recorded_ms or 0)
        return recorded_ms


async def recording_since() -> int | None:
    """Since when pulls are recorded, without a gap; None when nobody says so."""
    return max(await _recordings(), default=None)


async def begin_recording() -> None:
    """From now on pulls are recorded. Whoever goes on with it changes nothing."""
    if not await _recordings():
        await CreateKeys(((layout.recording_key(await ReadClock()), b""),))


async def end_recording() -> None:
    """A process serves that does not record pulls: whoever records them later begins anew."""
    if known := await _recordings():
        await DeleteKeys(tuple(layout.recording_key(at_ms) for at_ms in known))


async def _recordings() -> list[int]:
    page = await ListKeys(layout.RECORDING_PREFIX)
    return [at_ms for name in page.names if (at_ms := layout.parse_ordered_name(name)) is not None]
