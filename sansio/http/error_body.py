"""Refusals and failures as HTTP answers (distribution-spec, Error Codes). The one table from facts to statuses."""

from __future__ import annotations

from angos.sansio.compact_json import compact_json
from angos.sansio.effects import (
    BodyInterrupted,
    BodyTooLarge,
    EffectError,
    PeerUnavailable,
    StorageCorrupt,
    StorageFull,
    StorageRefused,
)
from angos.sansio.errors import RegistryError
from angos.sansio.http.message import Inline, Response

RETRY_SECONDS = "5"  # a full disk or a store that is away; soon enough for a person, late enough for a machine


def error_response(error: RegistryError) -> Response:
    """``{"errors": [{"code", "message", "detail"}]}``."""
    entry: dict[str, object] = {"code": error.code, "message": error.message}
    if error.detail is not None:
        entry["detail"] = error.detail
    body = compact_json({"errors": [entry]})
    return Response(error.status, (("Content-Type", "application/json"), *error.headers.items()), Inline(body))


def refusal_of(error: EffectError) -> RegistryError:
    """What a client is told when an effect failed. Never the text of the failure: that is for the operator's log."""
    match error:
        case StorageFull():
            return RegistryError(
                507,
                "INSUFFICIENT_STORAGE",
                "the registry has no space left for this; reading still works",
                headers={"Retry-After": RETRY_SECONDS},
            )
        case StorageCorrupt():
            return RegistryError(500, "INTERNAL_ERROR", "the stored content is damaged; tell the registry's operator")
        case BodyTooLarge(size_max=size_max):
            return RegistryError(413, "SIZE_INVALID", f"the request body is longer than {size_max} bytes")
        case BodyInterrupted():
            return RegistryError(400, "SIZE_INVALID", "the request body ended before it was complete")
        case StorageRefused():
            message = "the registry's storage refuses this now; the operator finds the reason in the log"
        case PeerUnavailable():
            message = "a service that the registry asks does not answer now; reading may still work"
        case _:
            message = "the registry's storage does not answer now"
    return RegistryError(503, "UNAVAILABLE", message, headers={"Retry-After": RETRY_SECONDS})
