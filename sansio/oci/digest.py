"""Digests: ``algorithm:encoded`` (image-spec, descriptor.md#digests)."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from angos.sansio.errors import Invalid

HEX_LENGTH = {"sha256": 64, "sha512": 128}
"""The algorithms that content can be stored under, with the length of their lower-case hex form."""

_HASH = {"sha256": hashlib.sha256, "sha512": hashlib.sha512}
_GRAMMAR = re.compile(r"[a-z0-9]+(?:[+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]+")
_HEX = {name: re.compile(rf"[0-9a-f]{{{length}}}") for name, length in HEX_LENGTH.items()}


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """A digest under a supported algorithm. `str` gives the canonical text; two digests of the same bytes under
    different algorithms are different names."""

    algorithm: str
    hex: str

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Raises `Invalid` for anything that content cannot be stored under."""
        algorithm, colon, encoded = text.partition(":")
        if colon and (pattern := _HEX.get(algorithm)) is not None:
            if pattern.fullmatch(encoded):
                return cls(algorithm, encoded)
            raise Invalid(f"digest {_shown(text)}: {algorithm} takes {HEX_LENGTH[algorithm]} lower-case hex digits")
        if _GRAMMAR.fullmatch(text):
            raise Invalid(f"digest {_shown(text)}: algorithm {_shown(algorithm)} is not supported, only {_supported()}")
        raise Invalid(f"digest {_shown(text)} is not of the form algorithm:hex")

    @classmethod
    def of(cls, value: bytes, algorithm: str = "sha256") -> Digest:
        """The digest of these bytes."""
        return cls(algorithm, _HASH[algorithm](value).hexdigest())

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"


def is_digest(text: str) -> bool:
    """True for every digest of the image specification's grammar, whatever its algorithm."""
    algorithm, _, encoded = text.partition(":")
    if (pattern := _HEX.get(algorithm)) is not None:
        return pattern.fullmatch(encoded) is not None
    return _GRAMMAR.fullmatch(text) is not None


def parse_algorithm(text: str) -> str:
    """The name of a supported algorithm; raises `Invalid` otherwise."""
    if text not in HEX_LENGTH:
        raise Invalid(f"digest algorithm {_shown(text)} is not supported, only {_supported()}")
    return text


def _supported() -> str:
    return " and ".join(HEX_LENGTH)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 150 else text[:147] + "...")
