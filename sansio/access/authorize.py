"""Whether somebody may do something: token scope, global policy, policy of the repository, webhook, in this order.

All of them must agree. A repository can only narrow what the global policy allows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from angos.sansio.access.action import Action, action_of, read_blob
from angos.sansio.access.authenticate import Authentication, authenticate
from angos.sansio.access.challenge import challenge
from angos.sansio.access.config import AccessConfig
from angos.sansio.access.events import AccessDenied, RuleFailed
from angos.sansio.access.identity import Identity
from angos.sansio.access.peer import client_scheme
from angos.sansio.access.policy import Decision, Policy, decide_about
from angos.sansio.access.webhook import WebhookVerdict, ask_webhook
from angos.sansio.config import RegistryConfig
from angos.sansio.effects import Tell
from angos.sansio.errors import RegistryError
from angos.sansio.http.message import Request
from angos.sansio.http.query import Query
from angos.sansio.http.route import Endpoint
from angos.sansio.oci.digest import Digest
from angos.sansio.oci.reference import Namespace


class Verdict(NamedTuple):
    """What was decided, and everything that had a part in it."""

    allowed: bool
    reason: str
    """Why not, for the operator; empty when it is allowed."""
    decisions: tuple[tuple[str, Decision], ...] = ()
    """The key of each policy that was asked, with what it said."""
    webhook: WebhookVerdict | None = None


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever makes one request, and what they may do beside it."""

    request: Request
    config: RegistryConfig
    access: AccessConfig
    authentication: Authentication

    async def may_read(self, namespace: Namespace, digest: Digest) -> bool:
        """Whether they could read this blob; mounting it elsewhere amounts to that."""
        verdict = await self._authorize(read_blob(namespace, digest))
        await _tell_failed_rules(verdict)
        return verdict.allowed

    async def require_upload(self, namespace: Namespace) -> None:
        """Raises a 401 or 403 unless they may begin an upload: what a mount that fails ends in."""
        action = Action("start-upload", namespace)
        await self.settle(Judgement(action, self.authentication, await self._authorize(action)))

    async def settle(self, judgement: Judgement) -> None:
        """Raises the refusal, if it is one."""
        await _tell_failed_rules(judgement.verdict)
        if not judgement.verdict.allowed:
            identity = self.authentication.identity
            action, reason = judgement.action, judgement.verdict.reason
            # Clients begin by asking without credentials which ones are wanted: that is no denial.
            if action.name != "get-api-version" or self.authentication.tried:
                await Tell(AccessDenied(identity.who(), action.name, action.namespace, reason))
            raise refusal(self.request, judgement, self.access)

    async def _authorize(self, action: Action) -> Verdict:
        return await authorize(action, self.authentication.identity, self.request, self.config, self.access)


class Judgement(NamedTuple):
    """What becomes of a request, and why."""

    action: Action
    authentication: Authentication
    verdict: Verdict


async def admit(
    request: Request, endpoint: Endpoint, query: Query, config: RegistryConfig, access: AccessConfig
) -> Caller | None:
    """Let the request pass, or raise the 401, 403 or 503 that it gets instead. None: it needs no permission."""
    action = _action(request.method, endpoint, query.text)
    if action is None:
        return None
    authentication = await authenticate(request, access)
    for attempt in authentication.tried:
        await Tell(attempt)
    judgement = await judge(request, action, authentication, config, access)
    caller = Caller(request, config, access, authentication)
    await caller.settle(judgement)
    return caller


@lru_cache(maxsize=1024)  # clients ask for the same few things again and again
def _action(method: str, endpoint: Endpoint, query: str) -> Action | None:
    return action_of(method, endpoint, Query(query))


async def judge(
    request: Request, action: Action, authentication: Authentication, config: RegistryConfig, access: AccessConfig
) -> Judgement:
    """Whether a request may pass. `admit` acts on it, ``angos explain`` shows it."""
    identity, rejected = authentication.identity, authentication.rejected
    version_check = action.name == "get-api-version"
    if rejected is not None and (version_check or access.invalid_credentials == "reject"):
        return Judgement(action, authentication, Verdict(False, rejected.problem))
    if version_check:
        # Clients ask this to find out whether a login works and how to get a token (docker login, podman login).
        if identity.methods:
            return Judgement(action, authentication, Verdict(True, ""))
        if access.token_service is not None:
            return Judgement(action, authentication, Verdict(False, "a token is needed, even an anonymous one"))
    return Judgement(action, authentication, await authorize(action, identity, request, config, access))


async def authorize(
    action: Action, identity: Identity, request: Request, config: RegistryConfig, access: AccessConfig
) -> Verdict:
    """Ask everything that has a say, until one of them refuses."""
    if identity.scopes is not None and not action.is_covered_by(identity.scopes):
        return Verdict(False, "the token was not issued for this")
    repository = None if action.namespace is None else config.repository(action.namespace)
    policies: list[tuple[str, Policy]] = [("global.access_policy", access.policy)]
    if repository is not None and repository.policy is not None:
        policies.append((f'repository."{repository.namespace}".access_policy', repository.policy))
    decisions: list[tuple[str, Decision]] = []
    for where, policy in policies:
        decision = decide_about(policy, identity, action, has_repository_policy=len(policies) > 1)
        decisions.append((where, decision))
        if not decision.allowed:
            return Verdict(False, _why_not(where, decision), tuple(decisions))
    name = access.webhook if repository is None or repository.webhook is None else repository.webhook
    webhook = next((webhook for webhook in access.webhooks if webhook.name == name), None) if name else None
    if webhook is None:
        return Verdict(True, "", tuple(decisions))
    scheme = client_scheme(request.peer, request.headers, access.trusted_proxies)
    asked = await ask_webhook(webhook, action, identity, request, scheme)
    reason = "" if asked.allowed else f"webhook {webhook.name}: {asked.problem or 'it denied'}"
    return Verdict(asked.allowed, reason, tuple(decisions), asked)


def _why_not(where: str, decision: Decision) -> str:
    last = decision.outcomes[-1] if decision.outcomes else None
    if last is not None and last.value is True:
        return f"{last.rule.where} denies it"
    if last is not None and last.value is None and last.denies:
        return f"{last.rule.where} failed, which denies it"
    return f"no rule of {where} allows it"


async def _tell_failed_rules(verdict: Verdict) -> None:
    for _, decision in verdict.decisions:
        for outcome in decision.outcomes:
            if outcome.value is None:
                await Tell(RuleFailed(outcome.rule.where, outcome.problem))


def refusal(request: Request, judgement: Judgement, access: AccessConfig) -> RegistryError:
    """401 to anybody, 403 to somebody (ARCHITECTURE 3.4); what exactly refused is for the operator."""
    action, identity = judgement.action, judgement.authentication.identity
    rejected = judgement.authentication.rejected is not None
    out_of_scope = identity.scopes is not None and not action.is_covered_by(identity.scopes)
    if identity.known and not out_of_scope and not rejected:
        return RegistryError(403, "DENIED", "you may not do this")
    message = "the credentials are not valid" if rejected else "log in to do this"
    error = "insufficient_scope" if out_of_scope else "invalid_token" if rejected else None
    return RegistryError(401, "UNAUTHORIZED", message, headers=challenge(request, action.scopes(), error, access))
