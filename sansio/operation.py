"""A core operation as a state machine: outcomes in, effects out.

The whole contract of a driver::

    step = operation.resume()
    while not isinstance(step, Done):
        try:
            reply = perform(step)
        except EffectError as error:
            step = operation.fail(error)
        else:
            step = operation.resume(reply)
    return step.value

An operation that raises (a `RegistryError`, or an `EffectError` nobody handled) raises out of `resume` or `fail`.
"""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Generic, NoReturn, TypeVar

from angos.sansio.effects import Effect

T = TypeVar("T")


@dataclass(slots=True)
class Done(Generic[T]):
    """The operation has ended with this value."""

    value: T


class Operation(Generic[T]):
    """Wraps a coroutine of the core. Not started until the first `resume`."""

    __slots__ = ("_coroutine",)

    def __init__(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self._coroutine = coroutine

    def resume(self, reply: object = None) -> Effect[Any] | Done[T]:
        """Go on with the reply to the last effect (None to start). Gives the next effect, or `Done`."""
        try:
            effect = self._coroutine.send(reply)
        except StopIteration as stop:
            return Done(stop.value)
        return effect if isinstance(effect, Effect) else self._refuse(effect)

    def fail(self, error: BaseException) -> Effect[Any] | Done[T]:
        """Go on with the failure of the last effect."""
        try:
            effect = self._coroutine.throw(error)
        except StopIteration as stop:
            return Done(stop.value)
        return effect if isinstance(effect, Effect) else self._refuse(effect)

    def abandon(self) -> None:
        """Drop it as a crash would: no clean-up effect gets out."""
        self._coroutine.close()

    @property
    def has_begun(self) -> bool:
        """False as long as nobody has called `resume`."""
        coroutine: Any = self._coroutine
        return self.has_ended or coroutine.cr_running or coroutine.cr_suspended

    @property
    def has_ended(self) -> bool:
        """True when it has given its value, has failed, or was abandoned."""
        return getattr(self._coroutine, "cr_frame", None) is None

    def where(self) -> str:
        """The suspended call chain with line numbers: ``put_manifest:46 > push_tag:51``."""
        frames: list[str] = []
        inner: Any = self._coroutine
        while (frame := getattr(inner, "cr_frame", None)) is not None:
            frames.append(f"{frame.f_code.co_name}:{frame.f_lineno}")
            inner = inner.cr_await
        return " > ".join(frames)

    def _refuse(self, awaited: object) -> NoReturn:
        self._coroutine.close()
        raise TypeError(f"the core awaited {awaited!r}, which is not an effect")
