"""What a client shows to say who it is: the ``Authorization`` field (RFC 9110 section 11.6.2)."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode

from angos.sansio.compact_json import parse_json
from angos.sansio.secret import Secret

TOKEN_LENGTH_MAX = 16 << 10
FORM_FIELDS_MAX = 100


@dataclass(frozen=True, slots=True)
class Basic:
    """A user name and a password (RFC 7617)."""

    username: str
    password: Secret


@dataclass(frozen=True, slots=True)
class Bearer:
    """A token (RFC 6750)."""

    token: Secret


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A field that says nothing we understand."""

    problem: str


Credentials = Basic | Bearer | Unreadable


def parse_authorization(value: str) -> Credentials:
    """The credentials in a field value. Scheme names are compared without case (RFC 9110 section 11.1)."""
    scheme, _, rest = value.strip(" \t").replace("\t", " ").partition(" ")
    rest = rest.strip(" ")
    match scheme.lower():
        case "basic":
            return _parse_basic(rest)
        case "bearer":
            if not rest or len(rest) > TOKEN_LENGTH_MAX or " " in rest or not rest.isascii():
                return Unreadable("the bearer token is empty, too long, or not one word")
            return Bearer(Secret(rest))
        case _:
            return Unreadable("the authorization scheme is neither Basic nor Bearer")


def _parse_basic(text: str) -> Credentials:
    try:
        # Some clients leave the padding out.
        decoded = binascii.a2b_base64(text + "=" * (-len(text) % 4), strict_mode=True).decode()
    except ValueError:
        return Unreadable("the Basic credentials are not base64 of UTF-8 text")
    username, colon, password = decoded.partition(":")
    if not colon:
        return Unreadable("the Basic credentials have no colon between name and password")
    if "\0" in decoded:
        return Unreadable("the Basic credentials hold a NUL")
    return Basic(username, Secret(password))


# --- JSON Web Tokens, unverified --------------------------------------------------------------------------------------


def peek_token_header(token: Secret) -> dict[str, Any] | None:
    """The JOSE header of a token (RFC 7515 section 4), which anybody may have written; None when there is none."""
    return _peek(token.value, 0)


def peek_token_claims(token: Secret) -> dict[str, Any] | None:
    """The claims of a token, which anybody may have written; None when there are none."""
    return _peek(token.value, 1)


def _peek(token: str, segment: int) -> dict[str, Any] | None:
    segments = token.split(".")
    if len(segments) != 3:
        return None
    text = segments[segment]
    try:
        value = parse_json(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


# --- without what is secret -------------------------------------------------------------------------------------------


_UNREADABLE = ("left-out", "Bearer", "Basic left-out", "Basic bGVmdC1vdXQ=", "Basic AGxlZnQtb3V0Og==")
"""A value for each way in which one can mean nothing."""


def public_authorization(value: str) -> str:
    """A field value of the same shape without the password or the signature: a trace needs the rest to be replayed."""
    match parse_authorization(value):
        case Basic(username, password):
            return "Basic " + base64.b64encode(f"{username}:{_without_signature(password.value)}".encode()).decode()
        case Bearer(token=Secret(value=text)):
            return f"Bearer {_without_signature(text)}"
        case Unreadable() as unreadable:
            return next((value for value in _UNREADABLE if parse_authorization(value) == unreadable), "left-out")


def public_form(body: bytes) -> bytes:
    """A form that asks for a token, as `angos.sansio.access.token_service` reads it, without the same."""
    try:
        fields = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=FORM_FIELDS_MAX)
    except ValueError:
        return b"\xff"  # no form either
    kept = [
        (name, _without_signature(value) if name == "password" else value)
        for name, value in fields
        if name in ("grant_type", "username", "password", "scope")
    ]
    return urlencode(kept).encode()


def _without_signature(token: str) -> str:
    if _peek(token, 0) is None:
        return "left-out"
    return ".".join((*token.split(".")[:2], "left-out"))
