"""``[blob_store]`` and ``[metadata_store]``: each a directory or a bucket."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

from angos.runtime.config.access_kinds import URL
from angos.runtime.config.keys import Key, Section
from angos.runtime.config.kinds import (
    FILE,
    FLAG,
    FOLDER,
    SECONDS,
    SIZE,
    SOME_TEXT,
    Flawed,
    Kind,
    NotAllowed,
    secret,
    whole,
)
from angos.runtime.config.server_keys import size_text
from angos.runtime.stores.s3.options import PART_BYTES_MAX, PART_BYTES_MIN, PRESIGN_SECONDS_MAX, S3Options

_BUCKET = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{1,61})[A-Za-z0-9]")
_REGION = re.compile(r"[A-Za-z0-9_-]{1,63}")
_PREFIX_LENGTH_MAX = 256  # a key has at most 1,024 bytes (S3 User Guide, "Naming Amazon S3 objects")

# --- values -----------------------------------------------------------------------------------------------------------


def _bucket(value: object, _folder: Path) -> str:
    if isinstance(value, str) and _BUCKET.fullmatch(value):
        return value
    raise NotAllowed("the name of a bucket: 3 to 63 letters, digits, dots, hyphens")


def _region(value: object, _folder: Path) -> str:
    if isinstance(value, str) and _REGION.fullmatch(value):
        return value
    raise NotAllowed('the name of a region such as "eu-central-1"; stores that have none take "us-east-1"')


def _prefix(value: object, _folder: Path) -> str:
    if not isinstance(value, str) or not value.isprintable() or len(value.encode()) > _PREFIX_LENGTH_MAX:
        raise NotAllowed(f"a text of at most {_PREFIX_LENGTH_MAX} bytes without control characters")
    folders = value.strip("/")
    if any(name in ("", ".", "..") for name in folders.split("/")) and folders:
        raise Flawed('no part of it may be empty, "." or ".."')
    return f"{folders}/" if folders else ""


def _endpoint(value: object, folder: Path) -> object:
    from angos.runtime.client.url import parse_url

    text = URL.read(value, folder)
    if "?" in text:
        raise Flawed("the address of a store has no query")
    return parse_url(text)


def _size_between(least: int, most: int) -> Kind:
    def read(value: object, folder: Path) -> int:
        size: int = SIZE.read(value, folder)
        if least <= size <= most:
            return size
        raise NotAllowed(f'a size from "{size_text(least)}" to "{size_text(most)}"')

    return Kind("size", read, SIZE.json)


BUCKET = Kind("name of a bucket", _bucket, {"type": "string", "pattern": f"^{_BUCKET.pattern}$"})
REGION = Kind("name of a region", _region, {"type": "string", "pattern": f"^{_REGION.pattern}$"})
PREFIX = Kind("text", _prefix, {"type": "string", "maxLength": _PREFIX_LENGTH_MAX})
ENDPOINT = Kind(
    "address", _endpoint, {"type": "string", "pattern": "^[Hh][Tt][Tt][Pp][Ss]?://[^@#?]+$"}, masked=URL.masked
)


# --- tables -----------------------------------------------------------------------------------------------------------

_PLACE = {
    "bucket": Key(BUCKET, "it must be there already", required=True, restart=True, example="registry"),
    "region": Key(
        REGION,
        'that of the bucket; stores without regions take `"us-east-1"`',
        required=True,
        restart=True,
        example="eu-central-1",
    ),
    "endpoint": Key(
        ENDPOINT,
        "of a store that is not Amazon's; the bucket is named in the path",
        unset="`https://s3.<region>.amazonaws.com`",
        restart=True,
        example="https://s3.example.org",
    ),
    "key_prefix": Key(
        PREFIX,
        "in front of all keys, with a `/` after it; the rest of the bucket is never looked at",
        "",
        restart=True,
        example="angos",
    ),
    "server_ca_bundle": Key(
        FILE,
        "PEM: who is trusted to sign the certificate of the endpoint",
        unset="what the system trusts",
        restart=True,
        example="tls/internal-ca.pem",
    ),
    "access_key_id": Key(
        SOME_TEXT,
        "with `secret_key`; a new pair is used as soon as the configuration is reloaded",
        unset="botocore (`pip install 'angos[s3]'`) looks for a pair in the environment, in profiles and in the role of"
        " the pod or the machine",
        example="AKIAIOSFODNN7EXAMPLE",
    ),
    "secret_key": Key(secret(SOME_TEXT), "with `access_key_id`", unset="as above", example="change-me"),
}

_OPTIONS = {
    "multipart_part_size": "part_bytes",
    "multipart_uniform_parts": "uniform_parts",
    "multipart_copy_threshold": "copy_threshold_bytes",
    "multipart_copy_chunk_size": "copy_piece_bytes",
    "multipart_copy_jobs": "copy_jobs",
    "max_attempts": "attempts",
    "operation_attempt_timeout_secs": "attempt_seconds",
    "operation_timeout_secs": "operation_seconds",
    "circuit_breaker_threshold": "breaker_threshold",
    "circuit_breaker_cooldown_secs": "breaker_cooldown_seconds",
    "presign_ttl_secs": "presign_seconds",
}
"""The fields of `S3Options` for keys of another name."""
_DEFAULTS: dict[str, Any] = {option.name: option.default for option in fields(S3Options)}


def option_of(key: str) -> str:
    """The field of `S3Options` for a key."""
    return _OPTIONS.get(key, key)


def _option(key: str, kind: Kind, meaning: str, *, size: bool = False) -> Key:
    """A key whose default is that of its field."""
    default = _DEFAULTS[option_of(key)]
    if size:
        default = size_text(default)
    elif isinstance(default, float) and default.is_integer():
        default = int(default)
    return Key(kind, meaning, default)


_PATIENCE = {
    "max_attempts": _option(
        "max_attempts", whole(1, 20), "how often a request is sent before it has failed, with growing random pauses"
    ),
    "operation_attempt_timeout_secs": _option(
        "operation_attempt_timeout_secs",
        SECONDS,
        "the longest silence in one attempt; data that keeps coming or going may take any time. Requests that let the"
        " store copy may be silent ten times as long",
    ),
    "operation_timeout_secs": _option(
        "operation_timeout_secs",
        SECONDS,
        "for one request with all its attempts and pauses; the time in which a value arrives does not count",
    ),
    "circuit_breaker_threshold": _option(
        "circuit_breaker_threshold",
        whole(1),
        "attempts that fail in a row before the bucket is left alone; requests then get 503 at once",
    ),
    "circuit_breaker_cooldown_secs": _option(
        "circuit_breaker_cooldown_secs",
        SECONDS,
        "how long it is left alone; then one request finds out, and the others follow when it succeeds",
    ),
}
_BODIES = {
    "multipart_part_size": _option(
        "multipart_part_size",
        _size_between(PART_BYTES_MIN, PART_BYTES_MAX),
        "received before it is sent: each upload needs the memory of one or two of them. Grows with the upload where"
        " there would be more than 10,000",
        size=True,
    ),
    "multipart_uniform_parts": _option(
        "multipart_uniform_parts",
        FLAG,
        "all parts of an object but the last have the same size, as Cloudflare R2 wants it; then what one request can"
        " upload is 10,000 times `multipart_part_size`, and chunks of other sizes are read and sent again",
    ),
    "multipart_copy_threshold": _option(
        "multipart_copy_threshold", _size_between(1, PART_BYTES_MAX), "larger objects are copied in pieces", size=True
    ),
    "multipart_copy_chunk_size": _option(
        "multipart_copy_chunk_size", _size_between(PART_BYTES_MIN, PART_BYTES_MAX), "of these pieces", size=True
    ),
    "multipart_copy_jobs": _option(
        "multipart_copy_jobs", whole(1, 64), "pieces of one object that are copied at the same time"
    ),
    "presign_ttl_secs": _option(
        "presign_ttl_secs",
        whole(1, PRESIGN_SECONDS_MAX),
        "seconds within which a client has to begin with the URL that it is sent to (`global.enable_blob_redirect`);"
        " what has begun may take longer",
    ),
}


def _directory(meaning: str, folder: str, absent: str) -> Section:
    return Section(
        meaning,
        {
            "root_dir": Key(FOLDER, "made when it does not exist", required=True, restart=True, example=folder),
            "sync_to_disk": Key(
                FLAG,
                "wait for the disk before anything is acknowledged; without it a power cut may lose what was"
                " (see [durability](../explanation/durability.md))",
                True,
                restart=True,
            ),
        },
        absent,
    )


BLOB_STORE = Section(
    "",
    {
        "fs": _directory(
            "A directory for blobs and uploads.",
            "/var/lib/angos",
            "`./angos-data`, seen from where the server is started, or a bucket",
        ),
        "s3": Section(
            "A bucket for blobs and uploads instead of a directory; see [store in a"
            " bucket](../how-to/store-in-a-bucket.md).",
            {**_PLACE, **_PATIENCE, **_BODIES},
            "a directory",
        ),
    },
)
METADATA_STORE = Section(
    "",
    {
        "fs": _directory(
            "A directory for everything else.", "/var/lib/angos-metadata", "what has the blobs has it too, or a bucket"
        ),
        "s3": Section(
            "A bucket for everything else instead of a directory.",
            {**_PLACE, **_PATIENCE},
            "what has the blobs has it too, or a directory",
        ),
    },
)
