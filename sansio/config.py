"""The configuration as the core sees it: frozen, valid by construction, passed to operations."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RegistryConfig:
    """Sizes in bytes, times in seconds."""

    manifest_size_max: int = 5 << 20  # the specification asks for at least 4 MB; clients cap at 4 to 4.4 MB
    blob_size_max: int = 100 << 30
    allow_missing_manifest_references: bool = True
    page_size_default: int = 1000
    page_size_max: int = 10_000
    ranges_max: int = 256  # of one request; zstd:chunked pulls ask for up to some hundreds
    upload_lease_seconds: float = 60.0
    upload_wait_seconds: float = 5.0
    """How long a request waits for another one that is appending to the same upload."""
