"""Tokens of upstreams, in the memory of this process and nowhere else."""

from __future__ import annotations

from collections import OrderedDict
from time import monotonic

from angos.sansio.secret import Secret
from angos.sansio.upstream.effects import ReadSecret, WriteSecret

KEPT_MAX = 4096


class Secrets:
    """Least recently written first out."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, tuple[Secret, float]] = OrderedDict()

    def read(self, effect: ReadSecret) -> Secret | None:
        """`ReadSecret`."""
        found = self._kept.get(effect.name)
        return found[0] if found is not None and monotonic() < found[1] else None

    def write(self, effect: WriteSecret) -> None:
        """`WriteSecret`."""
        self._kept[effect.name] = effect.value, monotonic() + effect.seconds
        self._kept.move_to_end(effect.name)
        while len(self._kept) > KEPT_MAX:
            self._kept.popitem(last=False)
