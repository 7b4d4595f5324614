"""Leases that are honest most of the time: they expire, may be forgotten, and may be granted to everybody."""

from __future__ import annotations

from dataclasses import dataclass

from angos.sansio.effects import AcquireLease


@dataclass(frozen=True, slots=True)
class Wait:
    """Somebody else holds it."""

    until_ms: int
    """When to ask again at the latest; at once when a lease of this name is given back."""


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

    def ask(self, effect: AcquireLease, *, give_up_ms: int, now_ms: int) -> str | Wait | None:
        """`AcquireLease`, for somebody who waits until `give_up_ms` at most: its reply, or how long to wait."""
        free_at_ms = self.free_at_ms(effect.name)
        if free_at_ms <= now_ms:
            return self.acquire(effect.name, until_ms=now_ms + int(effect.seconds * 1000))
        if give_up_ms <= now_ms:
            self.give_up()
            return None
        return Wait(min(free_at_ms, give_up_ms))

    def acquire(self, name: str, *, until_ms: int) -> str:
        """Grant it. Whether it is free has been looked at before."""
        if name in self._held:
            self.were_exclusive = False
        self._drawn += 1
        token = f"lease-{self._drawn}"
        self._held[name] = (token, until_ms)
        return token

    def prolong(self, name: str, *, until_ms: int) -> None:
        """Whoever has it still keeps it, as drivers do for those that are alive."""
        token, held_until_ms = self._held[name]
        self._held[name] = token, max(held_until_ms, until_ms)

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
