"""Challenges of upstreams, and tokens that answer them (RFC 9110 section 11.6.1; distribution, Token Authentication).

A token is remembered by host, realm, service, scope and user: one that is good for one repository is not tried on
another one. One request at a time asks for it; those that wait find it remembered.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlencode

from angos.sansio.compact_json import compact_json, parse_json
from angos.sansio.effects import ReadCache, ReadClock, WriteCache
from angos.sansio.scopes import leased
from angos.sansio.secret import Secret
from angos.sansio.upstream.config import Upstream
from angos.sansio.upstream.effects import AskForToken, ReadSecret, TokenAnswer, WriteSecret
from angos.sansio.upstream.events import Outcome
from angos.sansio.upstream.failure import UpstreamFailure
from angos.sansio.upstream.health import retry_after
from angos.sansio.upstream.origin import keeps_credentials, may_show_password, origin_of

TOKEN_LEASE_SECONDS = 30.0
CHALLENGE_SECONDS = 3600.0
SECONDS_DEFAULT = 60.0  # distribution, Token Authentication: without expires_in, and at least
SECONDS_MAX = 3600.0 * 24

_SCOPE = re.compile(r"[A-Za-z0-9()]{1,64}:[A-Za-z0-9._/-]{1,512}:[a-z,*]{1,64}")


def read_token(status: int, headers: tuple[tuple[str, str], ...], body: bytes) -> TokenAnswer:
    """What a token server answered. For drivers: nobody else gets to see the body."""
    token: str | None = None
    seconds = SECONDS_DEFAULT
    if status == 200:
        try:
            value = parse_json(body)
        except ValueError:
            value = None
        if isinstance(value, dict):
            found = value.get("token") or value.get("access_token")
            # It goes into a header field.
            if isinstance(found, str) and found.isascii() and found.isprintable() and " " not in found:
                token = found
            expires = value.get("expires_in")
            if isinstance(expires, int | float) and math.isfinite(expires) and expires > 0:
                seconds = min(float(expires), SECONDS_MAX)
    return TokenAnswer(status, None if token is None else Secret(token), seconds, headers)


# --- challenges -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Challenge:
    """What an upstream wants to be shown."""

    scheme: Literal["bearer", "basic"]
    realm: str = ""
    service: str = ""
    scope: str = ""


_WORD = re.compile(r"""([\w.-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*))|([\w.~+/-]+=*)""")


def parse_challenges(fields: Iterable[str]) -> Challenge | None:
    """The challenge to answer: a bearer one if there is any, else a basic one; None when there is neither."""
    found: list[tuple[str, dict[str, str]]] = []
    for text in fields:
        for match in _WORD.finditer(text[:4096]):
            if match[4] is not None:
                found.append((match[4].lower(), {}))
            elif found:
                value = re.sub(r"\\(.)", r"\1", match[2]) if match[2] is not None else match[3]
                found[-1][1].setdefault(match[1].lower(), value)
    for scheme, parameters in found:
        if scheme == "bearer" and parameters.get("realm"):
            return Challenge("bearer", parameters["realm"], parameters.get("service", ""), parameters.get("scope", ""))
    return Challenge("basic") if any(scheme == "basic" for scheme, _ in found) else None


# --- tokens -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Shown:
    """What a request to an upstream shows."""

    token: Secret | None = None
    password: bool = False


NOTHING = Shown()


async def remembered(upstream: Upstream, name: str) -> Shown:
    """What is shown at once, as far as an earlier answer about this repository tells."""
    value = await ReadCache(_challenge_name(upstream, name))
    try:
        challenge = Challenge(**parse_json(value)) if value else None
    except (ValueError, TypeError):
        challenge = None
    if challenge is None:
        return NOTHING
    if challenge.scheme == "basic":
        return Shown(password=upstream.username is not None)
    return Shown(await ReadSecret(_token_name(upstream, challenge, _scope(upstream, name, challenge))))


async def answer_challenge(upstream: Upstream, name: str, fields: Iterable[str], refused: Shown) -> Shown:
    """What to show after an answer of status 401. Raises `UpstreamFailure` when there is nothing that it may see."""
    challenge = parse_challenges(fields)
    if challenge is None:
        raise _denied("it asks for credentials of a kind that is not known here")
    if challenge.scheme == "basic":
        if upstream.username is None:
            raise _denied("it asks for a user and password; none is configured")
        if refused.password:
            raise _denied("it refuses the configured user and password")
    _check_realm(upstream, challenge)
    value = compact_json(
        {"scheme": challenge.scheme, "realm": challenge.realm, "service": challenge.service, "scope": challenge.scope}
    )
    await WriteCache(_challenge_name(upstream, name), value, CHALLENGE_SECONDS)
    if challenge.scheme == "basic":
        return Shown(password=True)
    return Shown(await _get_token(upstream, name, challenge, refused.token))


def _check_realm(upstream: Upstream, challenge: Challenge) -> None:
    """Whether what the upstream says may decide where a request, and a password, goes."""
    if challenge.scheme == "basic":
        return  # for the upstream itself
    realm, own = origin_of(challenge.realm), origin_of(upstream.url)
    if realm is None or own is None:
        raise _denied("it names a token server whose address is not plain http or https")
    if own.startswith("https:") and not realm.startswith("https:"):
        raise _denied(f"it names the token server {realm}, which is not https")
    if upstream.username is not None and not may_show_password(challenge.realm, upstream.url, upstream.token_realms):
        raise _denied(
            f"it wants the password to be shown to {realm}, which is neither its own address nor among its"
            " token_realms; nothing was sent there"
        )


async def _get_token(upstream: Upstream, name: str, challenge: Challenge, refused: Secret | None) -> Secret:
    scope = _scope(upstream, name, challenge)
    remembered_as = _token_name(upstream, challenge, scope)
    token = await ReadSecret(remembered_as)
    if token is not None and token != refused:
        return token
    lease = f"token/{remembered_as}"
    async with leased(lease, seconds=TOKEN_LEASE_SECONDS, wait_seconds=TOKEN_LEASE_SECONDS, needed=False):
        token = await ReadSecret(remembered_as)
        if token is not None and token != refused:
            return token  # somebody else asked for it while we waited
        pairs = [("service", challenge.service)] if challenge.service else []
        query = urlencode([*pairs, ("scope", scope)])
        realm = challenge.realm.partition("#")[0]
        url = f"{realm}{'&' if '?' in realm else '?'}{query}"
        answer = await AskForToken(upstream.name, url, upstream.username is not None)
        if answer.status in (401, 403):
            who = "the configured user and password" if upstream.username is not None else "a request without password"
            raise _denied(f"its token server refuses {who} (status {answer.status})")
        if answer.status == 429:
            wanted = next((value for key, value in answer.headers if key == "retry-after"), None)
            seconds = retry_after(wanted, await ReadClock())
            raise UpstreamFailure(
                "limited", "its token server has had enough requests", status=503, retry_seconds=seconds
            )
        if answer.token is None:
            status = 503 if answer.status >= 500 else 502
            outcome: Outcome = "unavailable" if answer.status >= 500 else "unusable"
            raise UpstreamFailure(outcome, f"its token server gave no token (status {answer.status})", status=status)
        await WriteSecret(remembered_as, answer.token, max(answer.seconds * 0.9 - 1, 1.0))
        return answer.token


def _scope(upstream: Upstream, name: str, challenge: Challenge) -> str:
    """What the token shall be good for: pulling, of this repository.

    The upstream may call it otherwise for a token server of its own; at another one, which may know other registries
    and trust us there, nobody else decides what we ask for."""
    first = challenge.scope.split(" ")[0]
    if _SCOPE.fullmatch(first) and keeps_credentials(upstream.url, challenge.realm):
        return f"{first.rpartition(':')[0]}:pull"
    return f"repository:{name}:pull"


def _token_name(upstream: Upstream, challenge: Challenge, scope: str) -> str:
    parts = (upstream.name, upstream.url, challenge.realm, challenge.service, scope, upstream.username or "")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _challenge_name(upstream: Upstream, name: str) -> str:
    return f"upstream:challenge:{upstream.name}:{upstream.url}:{upstream.username or ''}:{name}"


def _denied(problem: str) -> UpstreamFailure:
    return UpstreamFailure("denied", problem)
