"""``/token``: tokens of this registry for whoever can say who they are, and anonymous ones for the rest.

Docker's clients get a token before they pull, with or without a login (distribution, "Docker Registry v2 authentication
via central service" and "via OAuth2"). A token says who its holder is and what it may be used for at most. It grants
nothing: policies are asked at every use. So no policy is asked here, only whether credentials are valid.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

from angos.sansio.access.authenticate import Authentication, authenticate, authenticate_with
from angos.sansio.access.challenge import BASIC
from angos.sansio.access.config import AccessConfig, TokenService
from angos.sansio.access.credentials import FORM_FIELDS_MAX, TOKEN_LENGTH_MAX, Basic
from angos.sansio.access.events import AccessDenied
from angos.sansio.access.identity import Identity
from angos.sansio.access.scope import Scope, parse_scopes
from angos.sansio.effects import BodyInterrupted, BodyTooLarge, ReadBody, ReadClock, SignToken, Tell
from angos.sansio.errors import RegistryError
from angos.sansio.http.message import Inline, Request, Response
from angos.sansio.http.query import Query
from angos.sansio.secret import Secret

FORM_SIZE_MAX = 64 << 10


async def give_token(request: Request, query: Query, access: AccessConfig, service: TokenService) -> Response:
    """GET with the ``Authorization`` field, or POST with a form (RFC 6749 section 4.3)."""
    if request.method == "POST":
        form = await _read_form(request)
        scopes = parse_scopes(form.get("scope", ()))
        authentication = await _authenticate_form(form, request, access)
    else:
        # In a query a plus is a blank here: Go writes them so.
        scopes = parse_scopes(text.replace("+", " ") for text in query.all("scope"))
        authentication = await authenticate(request, access)
    for attempt in authentication.tried:
        await Tell(attempt)
    identity, rejected = authentication.identity, authentication.rejected
    if rejected is not None or "token" in identity.methods:
        # A token that could be renewed with itself would never end.
        reason = "a token cannot be had for another token" if rejected is None else rejected.problem
        await Tell(AccessDenied(identity.who(), "get-token", None, reason))
        raise RegistryError(401, "UNAUTHORIZED", "the credentials are not valid", headers=BASIC)
    return await _sign(identity, scopes, service)


async def _sign(identity: Identity, scopes: tuple[Scope, ...], service: TokenService) -> Response:
    now = await ReadClock() // 1000
    claims: dict[str, Any] = {"iat": now, "exp": now + service.ttl_seconds, "scope": [str(scope) for scope in scopes]}
    if identity.id is not None:
        claims["id"] = identity.id
    if identity.oidc is not None:
        claims["oidc"] = {"provider_name": identity.oidc.provider_name, "claims": identity.oidc.claims}
    token = (await SignToken(json.dumps(claims, separators=(",", ":")))).value
    if len(token) > TOKEN_LENGTH_MAX:
        # It would be refused at each use.
        message = f"the token would be longer than {TOKEN_LENGTH_MAX} characters; ask for fewer scopes at once"
        raise RegistryError(400, "UNSUPPORTED", message)
    answer = {
        "token": token,
        "access_token": token,
        "expires_in": service.ttl_seconds,
        "issued_at": datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "scope": " ".join(map(str, scopes)),
    }
    headers = (("Content-Type", "application/json"), ("Cache-Control", "no-store"))
    return Response(200, headers, Inline(json.dumps(answer, separators=(",", ":")).encode(), private=True))


async def _read_form(request: Request) -> dict[str, list[str]]:
    try:
        body = await ReadBody(request.body, FORM_SIZE_MAX, private=True)
    except (BodyTooLarge, BodyInterrupted):
        raise RegistryError(400, "UNSUPPORTED", "the form did not arrive or is too large") from None
    try:
        return parse_qs(body.decode(), keep_blank_values=True, max_num_fields=FORM_FIELDS_MAX)
    except ValueError:
        raise RegistryError(400, "UNSUPPORTED", "the body is not a form") from None


async def _authenticate_form(form: dict[str, list[str]], request: Request, access: AccessConfig) -> Authentication:
    grant, username, password = (form.get(name, [None])[0] for name in ("grant_type", "username", "password"))
    if grant not in (None, "password"):
        raise RegistryError(400, "UNSUPPORTED", f"grant_type={grant[:40]!r} is not possible here, only password")
    if username is None or password is None:
        return await authenticate(request, access)
    return await authenticate_with(Basic(username, Secret(password)), request, access)
