"""The only code of the core that cleans up.

An ``await`` in ``finally`` would keep a crashed process alive for one more effect, so operations never do that
themselves. A scope here releases what it holds when its block ends by itself, fails or is cancelled, and does nothing
when the operation is abandoned (``GeneratorExit``): a crashed process cannot clean up, and whatever it held has to
lapse or be collected.
"""

from __future__ import annotations

from contextlib import suppress
from types import TracebackType

from angos.sansio.effects import AcquireLease, DiscardUpload, EffectError, PeerUnavailable, Prefix, ReleaseLease


class leased:  # noqa: N801 - read as a word in ``async with leased(...)``
    """Hold a lease during a block. The value of the block's ``as`` is False when others kept it for too long."""

    def __init__(self, name: str, *, seconds: float, wait_seconds: float, needed: bool = True) -> None:
        """`needed`: fail with `PeerUnavailable` when nobody can say who has it. Otherwise the block goes on as if it
        had it."""
        self._name = name
        self._seconds = seconds
        self._wait_seconds = wait_seconds
        self._needed = needed
        self._token: str | None = None

    async def __aenter__(self) -> bool:
        try:
            self._token = await AcquireLease(self._name, self._seconds, self._wait_seconds)
        except PeerUnavailable:
            if self._needed:
                raise
            return True
        return self._token is not None

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not GeneratorExit and self._token is not None:
            await ReleaseLease(self._name, self._token)


class scratch:  # noqa: N801 - as above
    """An upload that nobody continues: whatever is left of it when the block ends goes."""

    def __init__(self, upload: Prefix) -> None:
        self._upload = upload

    async def __aenter__(self) -> Prefix:
        return self._upload

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not GeneratorExit:
            with suppress(EffectError):  # what counts is decided; the collector comes later
                await DiscardUpload(self._upload)
