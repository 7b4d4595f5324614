"""Request bodies and their hashing: real bytes, few of them, made from a seed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache

from angos.sansio.effects import BodyInterrupted, BodyTooLarge, HashState


@lru_cache(maxsize=4096)
def synthetic(seed: str, size: int) -> bytes:
    """`size` bytes that look random and are the same for the same seed, everywhere."""
    return hashlib.shake_128(seed.encode()).digest(size)


@lru_cache(maxsize=65536)
def hexdigest(algorithm: str, content: bytes) -> str:
    """The digest of these bytes, as hex."""
    return hashlib.new(algorithm, content).hexdigest()


def continued(before: HashState, content: bytes, *, exported: bool) -> HashState:
    """The digest after `content` more bytes. In this world the state of a digest is the bytes that it has seen."""
    seen = (before.state or b"") + content
    return HashState(before.algorithm, hexdigest(before.algorithm, seen), seen if exported else None)


class BodyReadTwice(Exception):
    """An operation asked again for a body that has already been read: on a socket it would be gone."""


@dataclass(frozen=True, slots=True)
class SyntheticBody:
    """What a client sends, or sends a part of."""

    content: bytes = b""
    cut_at: int | None = None
    """The client stops after so many bytes; None: it sends all of them."""
    chunked: bool = False

    @property
    def content_length(self) -> int | None:
        """What the head of the request declares."""
        return None if self.chunked else len(self.content)


class ArrivingBody:
    """A body as the driver of one request sees it: read once."""

    __slots__ = ("_body", "read_once")

    def __init__(self, body: SyntheticBody) -> None:
        self._body = body
        self.read_once = False

    def receive(self, size_max: int | None) -> tuple[bytes, bool]:
        """What arrives, and whether it is the whole. Raises `BodyTooLarge`."""
        if self.read_once:
            raise BodyReadTwice
        self.read_once = True
        body = self._body
        arrived = body.content if body.cut_at is None else body.content[: body.cut_at]
        if size_max is not None and len(arrived) > size_max:
            raise BodyTooLarge(size_max)
        return arrived, len(arrived) == len(body.content) and body.cut_at is None

    def read(self, size_max: int) -> bytes:
        """The whole. Raises `BodyTooLarge` and `BodyInterrupted`."""
        content, whole = self.receive(size_max)
        if not whole:
            raise BodyInterrupted("the client stopped in the middle of the body")
        return content
