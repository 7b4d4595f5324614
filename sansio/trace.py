"""The format of traces, shared by the runtime, which records, and the simulator, which replays.

A trace is a file of JSON lines. The first is a header with the format's version and the trace's kind:

``choices``
    a whole simulated world: the scenario and every decision of the run;
``outcomes``
    one operation: its request, its configuration, every effect that it issued with the outcome, and its response.
    Fed back to the operation, the outcomes must make it issue the same effects again.

Values are written by their types. Bytes above a bound are written as size and digest only: a trace of a large push is
small, and its effects can still be compared. What is secret has no codec: the values of header fields that carry
credentials are left out, and so are those of unknown types, loudly.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

from angos.sansio import effects
from angos.sansio.access.config import AccessConfig, Provider, TokenService, User, Webhook
from angos.sansio.access.credentials import public_authorization, public_form
from angos.sansio.access.events import EVENTS
from angos.sansio.access.expression import NODES
from angos.sansio.access.policy import Policy, Rule
from angos.sansio.config import RegistryConfig, RepositoryConfig
from angos.sansio.effects import (
    AskWebhook,
    BodyHandle,
    BodyTooLarge,
    CreateKeys,
    Effect,
    EffectError,
    ReadBody,
    Together,
)
from angos.sansio.http.message import (
    UNKNOWN_PEER,
    Absent,
    Certificate,
    FromFill,
    FromKey,
    FromUpstream,
    Headers,
    Inline,
    Peer,
    Redirect,
    Request,
    Response,
    Slices,
)
from angos.sansio.secret import Secret
from angos.sansio.upstream import effects as upstream_effects
from angos.sansio.upstream.config import CacheConfig, Upstream
from angos.sansio.upstream.effects import FollowFill
from angos.sansio.upstream.events import UPSTREAM_EVENTS

VERSION = 1
BYTES_MAX = 64 << 10

_PUBLIC_HEADERS = (
    "accept",
    "accept-encoding",
    "content-length",
    "content-range",
    "content-type",
    "expect",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "oci-chunk-min-length",
    "range",
    "transfer-encoding",
    "user-agent",
    "x-angos-no-redirect",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-method",
    "x-forwarded-proto",
    "x-forwarded-uri",
    "x-real-ip",
)
"""Everything else is recorded without its value: a list of secrets would be one name short one day."""

LEFT_OUT = "left-out"


class TraceInvalid(ValueError):
    """The file is not a trace that this version can read. Says where and why."""


@dataclass(frozen=True, slots=True)
class Elided:
    """Stands for bytes that were too many for the trace."""

    size: int
    sha256: str


_VOCABULARY = [
    value for module in (effects, upstream_effects) for value in vars(module).values() if isinstance(value, type)
]

_TYPES: dict[str, type[Any]] = {
    known.__name__: known
    for known in (
        *(value for value in _VOCABULARY if is_dataclass(value)),
        Absent,
        Certificate,
        Elided,
        FromFill,
        FromKey,
        FromUpstream,
        Inline,
        Peer,
        Redirect,
        RegistryConfig,
        RepositoryConfig,
        Response,
        Slices,
        *EVENTS,
        *NODES,
        AccessConfig,
        Policy,
        Provider,
        Rule,
        TokenService,
        User,
        Webhook,
        Upstream,
        CacheConfig,
        *UPSTREAM_EVENTS,
    )
}

_ERRORS: dict[str, type[EffectError]] = {
    known.__name__: known for known in _VOCABULARY if issubclass(known, EffectError)
}


# --- values -----------------------------------------------------------------------------------------------------------


_LATER_FIELDS: dict[type, tuple[str, ...]] = {ReadBody: ("private",), CreateKeys: ("durable", "definite")}
"""Fields that these did not always have. Left out while they have their defaults, so that old traces still replay."""


def encode(value: Any) -> Any:
    """A value of the core as JSON. Raises `TypeError` for a type that has no place in a trace."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, bytes):
        return _encode_bytes(value)
    if isinstance(value, tuple):
        return [encode(item) for item in value]
    if isinstance(value, Together):
        return {"is": "Together", "operations": len(value.operations), "limit": value.limit}
    if isinstance(value, FollowFill):
        return {"is": "FollowFill", "name": value.name}
    name = type(value).__name__
    if isinstance(value, Secret):
        return {"is": name}
    if _TYPES.get(name) is not type(value):
        raise TypeError(f"a {name} has no place in a trace")
    if isinstance(value, Inline):
        return {"is": name, "private": True} if value.private else {"is": name, "value": encode(value.value)}
    if isinstance(value, AskWebhook):
        value = replace(value, headers=tuple((field, public_value(field, text)) for field, text in value.headers))
    later = _LATER_FIELDS.get(type(value), ())
    found = {field: getattr(value, field.name) for field in fields(value) if field.compare}
    return {
        "is": name,
        **{
            field.name: encode(item)
            for field, item in found.items()
            if field.name not in later or item != field.default
        },
    }


def decode(value: Any) -> Any:
    """What `encode` was given. Raises `TraceInvalid`."""
    if isinstance(value, list):
        return tuple(decode(item) for item in value)
    if not isinstance(value, dict):
        return value
    if "text" in value and len(value) == 1:
        return value["text"].encode()
    if "base64" in value and len(value) == 1:
        return base64.b64decode(value["base64"])
    if value == {"is": "Secret"}:
        return Secret(LEFT_OUT)
    known = _TYPES.get(value.get("is", ""))
    if known is None:
        raise TraceInvalid(f"a trace of version {VERSION} has no {value.get('is')!r}")
    try:
        return known(**{name: decode(item) for name, item in value.items() if name != "is"})
    except TypeError as error:
        raise TraceInvalid(f"{known.__name__}: {error}") from None


def _encode_bytes(value: bytes) -> Any:
    if len(value) > BYTES_MAX:
        return {"is": "Elided", "size": len(value), "sha256": hashlib.sha256(value).hexdigest()}
    try:
        return {"text": value.decode("ascii")}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}


def encode_effect(effect: Effect[Any]) -> Any:
    """An effect as JSON."""
    return encode(effect)


def encode_outcome(outcome: Any, effect: Effect[Any] | None = None) -> Any:
    """A reply, or the error with which an effect failed, as JSON. What is private is known by the effect."""
    if isinstance(outcome, BaseException):
        facts = {"size_max": outcome.size_max} if isinstance(outcome, BodyTooLarge) else {"because": str(outcome)}
        return {"error": type(outcome).__name__, **facts}
    if isinstance(effect, ReadBody) and effect.private:
        outcome = public_form(outcome)
    return {"reply": encode(outcome)}


def decode_outcome(value: Any) -> Any:
    """What `encode_outcome` was given. An `EffectError` is a value here, to be given to `Operation.fail`."""
    if "error" not in value:
        return decode(value["reply"])
    if value["error"] == "BodyTooLarge":
        return BodyTooLarge(value["size_max"])
    known = _ERRORS.get(value["error"])
    if known is None:
        raise TraceInvalid(f"an effect cannot fail with {value['error']!r}")
    return known(value["because"])


# --- traces of one operation ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Step:
    """An effect that was issued, and its outcome. Effects are kept as JSON: they are compared, never performed."""

    effect: Any
    outcome: Any
    where: str = ""
    """Where in the core it was issued; a help for people, not compared."""


@dataclass(frozen=True, slots=True)
class OperationTrace:
    """Everything that one operation learned from the world."""

    request: Request
    config: RegistryConfig
    steps: tuple[Step, ...]
    """In the order in which they were issued. Those of operations side by side are mixed."""
    response: Any
    """As JSON; None when the operation did not end."""


def write_operation_trace(trace: OperationTrace) -> str:
    """The text of the file."""
    header = {
        "trace": VERSION,
        "kind": "outcomes",
        "request": _encode_request(trace.request),
        "config": encode(trace.config),
    }
    lines: list[dict[str, Any]] = [header]
    for number, step in enumerate(trace.steps):
        line = {"n": number, "issue": step.effect, "outcome": step.outcome}
        lines.append({**line, "at": step.where} if step.where else line)
    lines.append({"response": trace.response})
    return write_lines(lines)


def read_operation_trace(text: str) -> OperationTrace:
    """Raises `TraceInvalid`."""
    lines = read_lines(text)
    header = lines[0]
    if header.get("kind") != "outcomes":
        raise TraceInvalid(f"line 1: this is a trace of {header.get('kind')!r}, not of the outcomes of one operation")
    try:
        steps = tuple(Step(line["issue"], line["outcome"], line.get("at", "")) for line in lines[1:] if "issue" in line)
        response = next((line["response"] for line in lines if "response" in line), None)
        return OperationTrace(_decode_request(header["request"]), decode(header["config"]), steps, response)
    except KeyError as error:
        raise TraceInvalid(f"a line lacks {error}") from None


def _encode_request(request: Request) -> Any:
    encoded = {
        "method": request.method,
        "target": request.target,
        "headers": [[name, public_value(name, value)] for name, value in request.headers.fields],
        "content_length": request.content_length,
        "body": request.body,
    }
    return encoded if request.peer == UNKNOWN_PEER else {**encoded, "peer": encode(request.peer)}


def _decode_request(value: Any) -> Request:
    # Traces of before public_value have None where a value was left out.
    fields_ = tuple((name, text if text is not None else LEFT_OUT) for name, text in value["headers"])
    peer = decode(value["peer"]) if "peer" in value else UNKNOWN_PEER
    handle = BodyHandle(value.get("body", 0))
    return Request(value["method"], value["target"], Headers(fields_), handle, value["content_length"], peer)


def public_value(name: str, value: str) -> str:
    """What of a header field a trace may show: enough that the core takes the same way when it is replayed."""
    name = name.lower()
    if name in _PUBLIC_HEADERS or name.startswith("x-registry-"):
        return value
    if name == "authorization":
        return public_authorization(value)
    return LEFT_OUT


# --- lines ------------------------------------------------------------------------------------------------------------


def write_lines(lines: Iterable[dict[str, Any]]) -> str:
    """JSON lines, each of them on one line."""
    return "".join(json.dumps(line, separators=(", ", ": "), ensure_ascii=True) + "\n" for line in lines)


def read_lines(text: str) -> list[dict[str, Any]]:
    """The lines of a trace of either kind, the header first. Raises `TraceInvalid`."""
    lines: list[dict[str, Any]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            value = json.loads(line)
        except ValueError:
            raise TraceInvalid(f"line {number} is not JSON") from None
        if not isinstance(value, dict):
            raise TraceInvalid(f"line {number} is not an object")
        lines.append(value)
    if not lines or "trace" not in lines[0]:
        raise TraceInvalid("line 1 is not the header of a trace")
    if lines[0]["trace"] != VERSION:
        raise TraceInvalid(f"the trace has version {lines[0]['trace']}, this program reads version {VERSION}")
    return lines
