"""``angos explain``: what becomes of a request, and why.

It runs the code that decides in the server: credentials are verified, providers and webhooks are really asked. Only the
registry itself is left out, so nothing is read from the stores or changed.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from getpass import getpass
from typing import Any

import anyio

from angos.runtime.access.services import AccessServices
from angos.runtime.clock import SystemClock
from angos.runtime.command_line import add_config_argument, refuse
from angos.runtime.config.file import BadConfiguration
from angos.runtime.config.schema import Configuration, load_configuration
from angos.runtime.driver import drive
from angos.runtime.leases.local import LocalLeases
from angos.runtime.observability.events import EventSink
from angos.runtime.performer import Perform
from angos.sansio.access.action import action_of
from angos.sansio.access.authenticate import Authentication, authenticate
from angos.sansio.access.authorize import Judgement, judge, refusal
from angos.sansio.access.config import AccessConfig
from angos.sansio.access.events import Method
from angos.sansio.access.identity import Identity, OidcIdentity
from angos.sansio.access.policy import Decision
from angos.sansio.config import RegistryConfig
from angos.sansio.effects import AcquireLease, BodyHandle, Effect, ReadClock, ReleaseLease, Sleep
from angos.sansio.errors import RegistryError
from angos.sansio.http.message import Certificate, Headers, Peer, Request
from angos.sansio.http.query import Query
from angos.sansio.http.route import parse_endpoint
from angos.sansio.operation import Operation
from angos.sansio.secret import Secret

INDENT = "  "


class CannotExplain(Exception):
    """The question makes no sense. Says why."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    add_config_argument(parser, "as for server")
    parser.add_argument("method", help="GET, PUT, ...")
    parser.add_argument("target", help="path and query: /v2/team/app/manifests/latest")
    who = parser.add_mutually_exclusive_group()
    who.add_argument("--user", metavar="NAME[:PASSWORD]", help="log in; without a password it is asked for")
    who.add_argument("--token", metavar="TOKEN", help="a bearer token; - reads it from standard input")
    who.add_argument(
        "--identity", metavar="JSON", help='as policies see it: \'{"username": "alice"}\'; nothing is verified'
    )
    parser.add_argument("--common-name", action="append", default=[], metavar="CN", help="of a client certificate")
    parser.add_argument("--organization", action="append", default=[], metavar="O", help="of a client certificate")
    parser.add_argument("--client-ip", default="127.0.0.1", metavar="IP", help="default: 127.0.0.1")
    parser.add_argument("--host", default="localhost", help="what the client calls the registry; default: localhost")


def run(arguments: argparse.Namespace) -> int:
    """0 when the request is allowed, 2 when it is not, 1 when that cannot be said."""
    try:
        configuration = load_configuration(arguments.config)
        request = _request(arguments)
        given = None if arguments.identity is None else _identity(arguments.identity, request)
        judgement = anyio.run(_judge, configuration, request, given)
    except BadConfiguration as error:
        return refuse(error.problems)
    except (CannotExplain, RegistryError) as error:
        return refuse([error.message if isinstance(error, RegistryError) else error])
    registry = configuration.registry
    for line in _lines(judgement, request, registry):
        print(line)  # noqa: T201
    return 0 if judgement is None or judgement.verdict.allowed else 2


# --- the question -----------------------------------------------------------------------------------------------------


def _request(arguments: argparse.Namespace) -> Request:
    fields = [("host", arguments.host)]
    if arguments.user is not None:
        username, colon, password = arguments.user.partition(":")
        if not colon:
            password = getpass(f"password of {username}: ") if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
        fields.append(("authorization", "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()))
    if arguments.token is not None:
        token = sys.stdin.read().strip() if arguments.token == "-" else arguments.token
        fields.append(("authorization", f"Bearer {token}"))
    certificate = None
    if arguments.common_name or arguments.organization:
        certificate = Certificate(tuple(arguments.organization), tuple(arguments.common_name))
    peer = Peer(arguments.client_ip, "http" if certificate is None else "https", certificate)
    return Request(arguments.method.upper(), arguments.target, Headers(tuple(fields)), BodyHandle(0), 0, peer)


def _identity(text: str, request: Request) -> Authentication:
    """An identity that is not verified, written as policies see it."""
    try:
        value = json.loads(text)
        oidc, certificate = value.get("oidc"), value.get("certificate", {})
        found = Identity(
            id=value.get("id"),
            username=value.get("username"),
            certificate=Certificate(
                tuple(certificate.get("organizations", ())), tuple(certificate.get("common_names", ()))
            ),
            oidc=None if oidc is None else OidcIdentity(oidc["provider_name"], oidc.get("claims", {})),
            client_ip=value.get("client_ip", request.peer.address),
        )
    except (ValueError, AttributeError, TypeError, KeyError):
        shape = '{"id": ..., "username": ..., "certificate": {...}, "oidc": {"provider_name": ..., "claims": {...}}}'
        raise CannotExplain(f"--identity must be JSON like {shape}; every part may be left out") from None
    methods: tuple[Method, ...] = ("basic",) if found.id is not None else ()
    return Authentication(replace(found, methods=methods if oidc is None else (*methods, "oidc")))


# --- the decision -----------------------------------------------------------------------------------------------------


async def _judge(configuration: Configuration, request: Request, given: Authentication | None) -> Judgement | None:
    path, _, text = request.target.partition("?")
    query = Query(text)
    action = action_of(request.method, parse_endpoint(path), query)
    access = configuration.registry.access
    if access is None or action is None:
        return None

    async def decide(access: AccessConfig, registry: RegistryConfig) -> Judgement:
        authentication = await authenticate(request, access) if given is None else given
        return await judge(request, action, authentication, registry, access)

    return await drive(Operation(decide(access, configuration.registry)), _Performer(configuration))


class _Performer:
    """The services of the server, without its stores."""

    def __init__(self, configuration: Configuration) -> None:
        clock, leases = SystemClock(), LocalLeases()
        settings = configuration.access
        if settings.token_secret is None:
            # Tokens of a running server cannot be verified then: it made its secret by itself.
            settings = replace(settings, token_secret=Secret(base64.b64encode(os.urandom(48)).decode()))
        self._table: dict[type[Effect[Any]], Perform] = {
            **AccessServices(EventSink()).performers(settings),
            ReadClock: clock.read,
            Sleep: clock.sleep,
            AcquireLease: leases.acquire,
            ReleaseLease: leases.release,
        }

    def perform(self, effect: Effect[Any]) -> Any:
        return self._table[type(effect)](effect)


# --- the answer -------------------------------------------------------------------------------------------------------


def _lines(judgement: Judgement | None, request: Request, registry: RegistryConfig) -> Iterator[str]:
    yield f"{request.method} {request.target}"
    if judgement is None or registry.access is None:
        why = "nothing about access is configured" if registry.access is None else "it needs no permission"
        yield f"verdict: allowed, {why}"
        return
    action, authentication, verdict = judgement.action, judgement.authentication, judgement.verdict
    yield "credentials"
    for attempt in authentication.tried:
        yield f"{INDENT}{attempt.method}: {'accepted' if attempt.accepted else f'not accepted, {attempt.problem}'}"
    if not authentication.tried:
        yield f"{INDENT}none were shown"
    yield "what rules see"
    yield f"{INDENT}identity = {json.dumps(authentication.identity.variables(), ensure_ascii=False)}"
    yield f"{INDENT}request = {json.dumps(action.variables(), ensure_ascii=False)}"
    if authentication.identity.scopes is not None:
        yield f"{INDENT}(the token is good for: {' '.join(map(str, authentication.identity.scopes)) or 'nothing'})"
    for where, decision in verdict.decisions:
        yield from _policy_lines(where, decision)
    if verdict.webhook is not None:
        problem = f", {verdict.webhook.problem}" if verdict.webhook.problem else ""
        yield f"webhook {verdict.webhook.webhook}: {verdict.webhook.outcome}{problem}"
    if verdict.allowed:
        yield "verdict: allowed"
    else:
        refused = refusal(request, judgement, registry.access)
        yield f"verdict: {refused.status} {refused.code}, {verdict.reason}"


def _policy_lines(where: str, decision: Decision) -> Iterator[str]:
    yield f"{where}: {'allows' if decision.allowed else 'denies'}"
    for outcome in decision.outcomes:
        value = f"failed, {outcome.problem}" if outcome.value is None else str(outcome.value).lower()
        text = " ".join(outcome.rule.text.split())
        yield f"{INDENT}{outcome.rule.where.removeprefix(f'{where}.')}: {value} <- {text}"
