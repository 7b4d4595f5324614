"""Leases that are honest most of the time: they expire, may be forgotten, and may be granted to everybody."""

from __future__ import annotations


class Leases:
    """Who holds what, until when."""

    __slots__ = ("_drawn", "_held", "always_granted", "waited_in_vain", "were_exclusive")

    def __init__(self, *, always_granted: bool = False) -> None:
        self.always_granted = always_granted
        """A world without mutual exclusion: everything must still hold."""
        self.were_exclusive = not always_granted
        """Nobody has ever held, or gone on without, a lease that somebody else had not given back."""
        self.waited_in_vain = False
        self._held: dict[str, tuple[str, int]] = {}
        self._drawn = 0

    def free_at_ms(self, name: str) -> int:
        """When the present holder loses it by itself; 0 when it is free."""
        return 0 if self.always_granted or name not in self._held else self._held[name][1]

    def acquire(self, name: str, *, until_ms: int) -> str:
        """Grant it. Whether it is free has been looked at before."""
        if name in self._held:
            self.were_exclusive = False
        self._drawn += 1
        token = f"lease-{self._drawn}"
        self._held[name] = (token, until_ms)
        return token

    def release(self, name: str, token: str) -> None:
        """Free it, when the token is still the right one."""
        if self._held.get(name, ("", 0))[0] == token:
            del self._held[name]

    def forget(self) -> None:
        """A fail-over lost them all: the next one who asks becomes a second holder."""
        self._held.clear()
        self.were_exclusive = False

    def give_up(self) -> None:
        """Somebody has waited for long enough."""
        self.were_exclusive = False
        self.waited_in_vain = True

    def held(self, now_ms: int) -> list[str]:
        """The names that somebody holds."""
        return sorted(name for name, (_, until_ms) in self._held.items() if until_ms > now_ms)
