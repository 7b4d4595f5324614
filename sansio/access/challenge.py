"""How a client is told to show credentials: ``WWW-Authenticate`` (RFC 9110 section 11.6.1, RFC 6750 section 3)."""

from __future__ import annotations

from collections.abc import Mapping

from angos.sansio.access.config import AccessConfig
from angos.sansio.access.peer import client_host, client_scheme
from angos.sansio.access.scope import Scope
from angos.sansio.http.message import Request

BASIC: Mapping[str, str] = {"WWW-Authenticate": 'Basic realm="angos", charset="UTF-8"'}


def challenge(
    request: Request, scopes: tuple[Scope, ...], error: str | None, access: AccessConfig
) -> Mapping[str, str]:
    """The field that a 401 carries: where to get a token and for what, or that a password is wanted."""
    host = client_host(request.headers)
    if access.token_service is None or (host is None and access.token_service.realm is None):
        return BASIC
    scheme = client_scheme(request.peer, request.headers, access.trusted_proxies)
    realm = access.token_service.realm or f"{scheme}://{host}/token"
    parameters = [f'realm="{realm}"', f'service="{host or "angos"}"']
    if scopes:
        parameters.append(f'scope="{" ".join(map(str, scopes))}"')
    if error is not None:
        parameters.append(f'error="{error}"')
    return {"WWW-Authenticate": f"Bearer {','.join(parameters)}"}
