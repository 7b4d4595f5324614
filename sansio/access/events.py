"""What the operator is told about access: for the log and the metrics. Nothing in here is secret."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from angos.sansio.progress import Passed, Progress, Removed

Method = Literal["mtls", "token", "oidc", "basic"]


@dataclass(frozen=True, slots=True)
class CredentialTried:
    """A request carried a credential of this kind. One for each kind that was tried."""

    method: Method
    accepted: bool
    problem: str = ""
    """Why not, for a person; never the credential."""


@dataclass(frozen=True, slots=True)
class Who:
    """An identity as the log may show it: no claims, no secrets."""

    id: str | None
    username: str | None
    provider: str | None
    organizations: tuple[str, ...]
    common_names: tuple[str, ...]
    client_ip: str | None


@dataclass(frozen=True, slots=True)
class AccessDenied:
    """A request was not allowed."""

    who: Who
    action: str
    namespace: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class RuleFailed:
    """A rule of a policy gave an error or something other than true or false."""

    where: str
    """The key of the rule in the configuration: ``global.access_policy.rules[2]``."""
    problem: str


@dataclass(frozen=True, slots=True)
class WebhookAsked:
    """An authorization webhook decided, or could not be asked."""

    webhook: str
    outcome: Literal["allow", "deny", "cached_allow", "cached_deny", "unavailable"]
    seconds: float = 0.0
    """How long the answer took; 0 for one that was remembered."""


Event = CredentialTried | AccessDenied | RuleFailed | WebhookAsked | Progress | Passed | Removed
EVENTS = (CredentialTried, Who, AccessDenied, RuleFailed, WebhookAsked, Progress, Passed, Removed)
