"""What a registry refuses, with the facts that a person needs. The HTTP shape is made in `http/error_body.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Code = Literal[
    "BLOB_UNKNOWN",
    "BLOB_UPLOAD_INVALID",
    "BLOB_UPLOAD_UNKNOWN",
    "DENIED",
    "DIGEST_INVALID",
    "MANIFEST_BLOB_UNKNOWN",
    "MANIFEST_INVALID",
    "MANIFEST_UNKNOWN",
    "NAME_INVALID",
    "NAME_UNKNOWN",
    "SIZE_INVALID",
    "TOOMANYREQUESTS",
    "UNAUTHORIZED",
    "UNSUPPORTED",
    # For 5xx only; the specification's list (distribution-spec, Error Codes) has none for them.
    "INSUFFICIENT_STORAGE",
    "INTERNAL_ERROR",
    "UNAVAILABLE",
]


@dataclass(eq=False)
class RegistryError(Exception):
    """A refusal: HTTP status, code of the distribution specification, a sentence, optional machine-readable detail."""

    status: int
    code: Code
    message: str
    detail: object = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.status} {self.code}: {self.message}"


class Invalid(ValueError):
    """A text that does not follow its grammar. Raised by the parsers of `angos.sansio.oci`; says what and why."""
