"""Namespaces, tags and references (distribution-spec, Pulling Manifests)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NewType

from angos.sansio.errors import Invalid
from angos.sansio.oci.digest import Digest

Namespace = NewType("Namespace", str)
"""The full name of a repository, ``<name>`` in the specification: ``library/alpine``."""

NAMESPACE_LENGTH_MAX = 255  # the cap of distribution's reference library; clients allow little more with the host
COMPONENT_LENGTH_MAX = 240  # a component and the suffixes of layout.py must fit a file name of 255 bytes

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAMESPACE = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")


@dataclass(frozen=True, slots=True, order=True)
class Tag:
    """A mutable name of a manifest within one namespace."""

    name: str

    @classmethod
    def parse(cls, text: str) -> Tag:
        """Raises `Invalid` for anything outside the grammar."""
        if _TAG.fullmatch(text) is None:
            raise Invalid(f"tag {text[:150]!r} is not of the form [a-zA-Z0-9_][a-zA-Z0-9._-]{{0,127}}")
        return cls(text)

    def __str__(self) -> str:
        return self.name


Reference = Tag | Digest


def parse_namespace(text: str) -> Namespace:
    """Raises `Invalid` for anything outside the grammar or too long to be stored."""
    if len(text) > NAMESPACE_LENGTH_MAX:
        raise Invalid(
            f"repository name {text[:40]!r}... has {len(text)} characters, {NAMESPACE_LENGTH_MAX} are allowed"
        )
    if _NAMESPACE.fullmatch(text) is None:
        raise Invalid(
            f"repository name {text!r} is invalid: components of a-z and 0-9, joined inside by one of . _ __ or dashes,"
            " are separated by /"
        )
    for component in text.split("/"):
        if len(component) > COMPONENT_LENGTH_MAX:
            raise Invalid(
                f"repository name component {component[:40]!r}... has {len(component)} characters,"
                f" {COMPONENT_LENGTH_MAX} are allowed"
            )
    return Namespace(text)


def parse_reference(text: str) -> Reference:
    """A digest when there is a colon, a tag otherwise: a colon cannot occur in a tag."""
    return Digest.parse(text) if ":" in text else Tag.parse(text)


def referrers_tag(subject: Digest) -> Tag:
    """The tag under which clients keep referrers on registries that cannot list them (Referrers Tag Schema)."""
    return Tag(f"{subject.algorithm[:32]}-{subject.hex[:64]}")
