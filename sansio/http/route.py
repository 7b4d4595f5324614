"""Which endpoint a path names (distribution-spec, Endpoints).

The last components decide, because every component of a repository name may itself be called ``blobs``, ``manifests``,
``tags`` or ``uploads``: ``/v2/a/manifests/manifests/x`` is tag ``x`` of the repository ``a/manifests``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import unquote

from angos.sansio.errors import Code, Invalid, RegistryError
from angos.sansio.oci.digest import Digest
from angos.sansio.oci.reference import Namespace, Reference, parse_namespace, parse_reference


@dataclass(frozen=True, slots=True)
class VersionCheck:
    """end-1: ``/v2/``."""


@dataclass(frozen=True, slots=True)
class Catalog:
    """``/v2/_catalog``, reserved by the specification and expected by everyone."""


@dataclass(frozen=True, slots=True)
class Health:
    """``/healthz``: the process answers."""


@dataclass(frozen=True, slots=True)
class Readiness:
    """``/readyz``: the stores answer."""


@dataclass(frozen=True, slots=True)
class TokenEndpoint:
    """``/token``: where clients get tokens of this registry, if it signs any."""


@dataclass(frozen=True, slots=True)
class Blob:
    """end-2, end-10."""

    namespace: Namespace
    digest: Digest


@dataclass(frozen=True, slots=True)
class Uploads:
    """end-4, end-11: where uploads begin."""

    namespace: Namespace


@dataclass(frozen=True, slots=True)
class Upload:
    """end-5, end-6, end-13, end-14: one upload."""

    namespace: Namespace
    upload_id: str


@dataclass(frozen=True, slots=True)
class ManifestOf:
    """end-3, end-7, end-9."""

    namespace: Namespace
    reference: Reference


@dataclass(frozen=True, slots=True)
class Tags:
    """end-8."""

    namespace: Namespace


@dataclass(frozen=True, slots=True)
class Referrers:
    """end-12."""

    namespace: Namespace
    subject: Digest


@dataclass(frozen=True, slots=True)
class History:
    """``/v2/_ext/<name>/_history``: what tags named before. Ours, not the specification's."""

    namespace: Namespace


@dataclass(frozen=True, slots=True)
class Restore:
    """``/v2/_ext/<name>/_restore``: a tag goes back."""

    namespace: Namespace


Endpoint = (
    VersionCheck
    | Catalog
    | Health
    | Readiness
    | TokenEndpoint
    | Blob
    | Uploads
    | Upload
    | ManifestOf
    | Tags
    | Referrers
    | History
    | Restore
)

_FIXED: dict[str, Endpoint] = {
    "/v2/": VersionCheck(),
    "/v2": VersionCheck(),
    "/v2/_catalog": Catalog(),
    "/healthz": Health(),
    "/readyz": Readiness(),
    "/token": TokenEndpoint(),
}

_UPLOAD_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


@lru_cache(maxsize=1024)  # clients ask for the same few paths again and again; refusals are not remembered
def parse_endpoint(path: str) -> Endpoint:
    """The endpoint of a percent-encoded path. Raises `RegistryError` for a path of no endpoint or a malformed name."""
    if (fixed := _FIXED.get(path)) is not None:
        return fixed
    if "%" in path:
        path = unquote(path)  # what is not UTF-8 becomes a character that no name may have
    if not path.startswith("/v2/"):
        raise no_endpoint(path)
    components = path[4:].split("/")
    match components:
        case ["_ext", *name, "_history"] if name:
            return History(_namespace(name))
        case ["_ext", *name, "_restore"] if name:
            return Restore(_namespace(name))
        case [*name, "manifests", reference] if name:
            return ManifestOf(_namespace(name), _reference(reference))
        case [*name, "referrers", digest] if name:
            return Referrers(_namespace(name), _digest(digest))
        case [*name, "tags", "list"] if name:
            return Tags(_namespace(name))
        case [*name, "blobs", "uploads"] | [*name, "blobs", "uploads", ""] if name:
            return Uploads(_namespace(name))
        case [*name, "blobs", "uploads", upload_id] if name:
            return Upload(_namespace(name), _upload_id(upload_id))
        case [*name, "blobs", digest] if name:
            return Blob(_namespace(name), _digest(digest))
    raise no_endpoint(path)


def no_endpoint(path: str) -> RegistryError:
    """The refusal of a path that leads nowhere."""
    return RegistryError(404, "UNSUPPORTED", f"there is no endpoint {path[:200]!r} in this registry")


def _namespace(components: list[str]) -> Namespace:
    try:
        return parse_namespace("/".join(components))
    except Invalid as error:
        raise _bad("NAME_INVALID", error) from None


def _digest(text: str) -> Digest:
    try:
        return Digest.parse(text)
    except Invalid as error:
        raise _bad("DIGEST_INVALID", error) from None


def _reference(text: str) -> Reference:
    try:
        return parse_reference(text)
    except Invalid as error:
        raise _bad("DIGEST_INVALID" if ":" in text else "NAME_INVALID", error) from None


def _upload_id(text: str) -> str:
    # Every id that we ever gave out matches; another one cannot exist.
    if _UPLOAD_ID.fullmatch(text) is None:
        raise RegistryError(404, "BLOB_UPLOAD_UNKNOWN", f"there is no upload {text[:80]!r}")
    return text


def _bad(code: Code, error: Invalid) -> RegistryError:
    return RegistryError(400, code, str(error))
