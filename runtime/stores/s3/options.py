"""How a bucket is reached, and how patiently."""

from __future__ import annotations

from dataclasses import dataclass, field

from angos.runtime.access.settings import ClientTls
from angos.runtime.client.url import Url
from angos.sansio.secret import Secret

PART_BYTES_MIN = 5 << 20  # S3 User Guide, "Amazon S3 multipart upload limits": all but the last part of an object
PART_BYTES_MAX = 5 << 30  # the same page; also what one CopyObject can copy
PRESIGN_SECONDS_MAX = 7 * 24 * 3600  # Amazon S3 API Reference, "Authenticating Requests: Using Query Parameters"


@dataclass(frozen=True, slots=True)
class Credentials:
    """Whose requests these are."""

    access_key_id: str
    secret_key: Secret
    session_token: Secret | None = None
    """Goes with temporary keys (Security Token Service)."""


@dataclass(frozen=True, slots=True)
class S3Options:
    """A bucket, or the part of it whose keys begin with a prefix. Sizes in bytes, times in seconds."""

    endpoint: Url
    """Its host is asked for all buckets: they are named in the path."""
    bucket: str
    region: str
    key_prefix: str = ""
    """In front of every key; empty or with a ``/`` at its end."""
    credentials: Credentials | None = None
    """None: those that botocore finds."""
    tls: ClientTls = field(default_factory=ClientTls)
    part_bytes: int = PART_BYTES_MIN
    """Received before it is sent, per upload; grows with the upload where there would be too many parts."""
    uniform_parts: bool = False
    """All parts of an object but the last have the same size: it does not grow."""
    copy_threshold_bytes: int = PART_BYTES_MAX
    """Larger objects are copied in pieces."""
    copy_piece_bytes: int = 100_000_000
    copy_jobs: int = 4
    """Pieces of one object that are copied at the same time."""
    attempts: int = 3
    """How often a request is sent before it has failed."""
    attempt_seconds: float = 30.0
    """The longest silence in one attempt. Data that keeps coming or going may take any time."""
    operation_seconds: float = 900.0
    """For a request with all its attempts and pauses; for a value that is fetched, without any new bytes of it."""
    breaker_threshold: int = 5
    """So many attempts in a row fail before no more are made."""
    breaker_cooldown_seconds: float = 10.0
    """Then nobody is sent to the bucket for so long, and one request after it."""
    presign_seconds: int = 1800
    """How long a URL that was signed for a client can be used."""

    @property
    def place(self) -> str:
        """Where the keys lie, for people: ``s3://bucket/prefix at https://s3.example.org``."""
        path = self.endpoint.target.rstrip("/")
        return f"s3://{self.bucket}/{self.key_prefix} at {self.endpoint.origin}{path}"

    @property
    def copy_seconds(self) -> float:
        """The longest silence of requests that keep the store busy: copying, and putting parts together."""
        return 10 * self.attempt_seconds
