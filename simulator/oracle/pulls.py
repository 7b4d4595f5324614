"""What must be true of recorded pulls: none is invented, and none is lost but by the death of its process."""

from __future__ import annotations

from collections.abc import Iterable

from angos.sansio import layout
from angos.sansio.effects import Prefix
from angos.sansio.pulls import Pull
from angos.simulator.oracle.violation import Violation, Visible


class PullOracle:
    """Is told of every pull, and of everything that was written of it."""

    def __init__(self, store: Visible, granularity_ms: int) -> None:
        self._store = store
        self._granularity_ms = granularity_ms
        self._last: dict[Prefix, int] = {}
        """When each thing was pulled for the last time, by the clock of whoever served it."""
        self._remembered: dict[tuple[str, Prefix], int] = {}
        """The same, of each replica."""
        self._promised: dict[Prefix, int] = {}

    def noted(self, replica: str, folders: Iterable[Prefix], now_ms: int) -> None:
        """A replica has served these."""
        for folder in folders:
            self._last[folder] = max(self._last.get(folder, 0), now_ms)
            mine = (replica, folder)
            self._remembered[mine] = max(self._remembered.get(mine, 0), now_ms)

    def died(self, replica: str) -> None:
        """What it has not written it never will."""
        for each in [each for each in self._remembered if each[0] == replica]:
            del self._remembered[each]

    def written(self, pulls: Iterable[Pull]) -> None:
        """Somebody was told that these are recorded."""
        for pull in pulls:
            self._promised[pull.folder] = max(self._promised.get(pull.folder, 0), pull.at_ms)
        self.look()

    def look(self) -> None:
        """At any moment: what was written would survive a power cut, and nothing is dated after its last pull."""
        for folder, at_ms in self._promised.items():
            if self._recorded(folder, surviving=True) < at_ms:
                raise Violation("pull lost", f"{folder} was written with {at_ms}, and a power cut would take it")
        for folder, last_ms in self._last.items():
            if self._recorded(folder) > last_ms:
                raise Violation("pull invented", f"{folder} has {self._recorded(folder)}, and the last was {last_ms}")

    def judge(self) -> None:
        """When everybody has written what he remembers."""
        self.look()
        for (replica, folder), last_ms in self._remembered.items():
            if self._recorded(folder) <= last_ms - self._granularity_ms:
                what = f"{folder} has {self._recorded(folder)}, and {replica} served it at {last_ms}"
                raise Violation("pull not recorded", what)

    def _recorded(self, folder: Prefix, *, surviving: bool = False) -> int:
        times = (
            layout.parse_pull_time(name.removeprefix(folder))
            for name in self._store.names(folder)
            if not surviving or self._store.surviving(name) is not None
        )
        return max((at_ms for at_ms in times if at_ms is not None), default=-1)
