"""What the core tells the operator: as log lines and as counts."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Final

from angos.sansio.access.events import AccessDenied, CredentialTried, RuleFailed, WebhookAsked, Who
from angos.sansio.effects import Tell
from angos.sansio.progress import Passed, Progress, Removed

if TYPE_CHECKING:
    from angos.runtime.observability.metrics import Metrics
    from angos.runtime.observability.progress_events import ProgressEvents

REPEAT_SECONDS: Final = 60.0  # between two lines about the same rule or webhook

_authentication_log = logging.getLogger("angos.authentication")
_authorization_log = logging.getLogger("angos.authorization")


class EventSink:
    """Takes every `Tell`. Nothing that it is told is secret, but parts of it are words of clients."""

    def __init__(self, metrics: Metrics | None = None, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._metrics = metrics
        self._repeats = _Repeats(monotonic)

    @cached_property
    def _progress(self) -> ProgressEvents:
        from angos.runtime.observability.progress_events import ProgressEvents

        return ProgressEvents(self._metrics)

    def tell(self, effect: Tell) -> None:
        """Log it and count it."""
        event = effect.event
        match event:
            case CredentialTried():
                self._tell_credential(event)
            case AccessDenied():
                self._tell_denial(event)
            case RuleFailed():
                self._tell_rule(event)
            case WebhookAsked():
                self._tell_webhook(event)
            case Progress() | Passed() | Removed():
                self._progress.tell(event)
            case _:
                # An open registry without upstreams starts without it.
                from angos.runtime.observability.upstream_events import tell_upstream_event

                tell_upstream_event(event, self._metrics)

    def _tell_credential(self, event: CredentialTried) -> None:
        if self._metrics is not None:
            self._metrics.count("auth_attempts_total", event.method, "success" if event.accepted else "failed")
        if event.accepted:
            _authentication_log.debug("%s credential accepted", event.method)
        else:
            _authentication_log.info("%s credential refused: %s", event.method, event.problem)

    def _tell_denial(self, event: AccessDenied) -> None:
        if self._metrics is not None:
            self._metrics.count("angos_access_denied_total", event.action)
        if _authorization_log.isEnabledFor(logging.INFO):
            where = "" if event.namespace is None else f" in {event.namespace}"
            _authorization_log.info("denied %s%s to %s: %s", event.action, where, describe(event.who), event.reason)

    def _tell_rule(self, event: RuleFailed) -> None:
        if self._metrics is not None:
            self._metrics.count("angos_policy_rule_failures_total", event.where)
        # A client can make a rule fail as often as it likes.
        if (times := self._repeats.due(event.where)) is not None:
            _authorization_log.warning("%s failed: %s%s", event.where, event.problem, _again(times))

    def _tell_webhook(self, event: WebhookAsked) -> None:
        if self._metrics is not None:
            self._metrics.count("webhook_authorization_requests_total", event.webhook, event.outcome)
            if not event.outcome.startswith("cached_"):
                self._metrics.observe("webhook_authorization_duration_seconds", event.webhook, seconds=event.seconds)
        if event.outcome != "unavailable":
            _authorization_log.debug("webhook %s: %s", event.webhook, event.outcome)
        elif (times := self._repeats.due(f"webhook {event.webhook}")) is not None:
            _authorization_log.error(
                "webhook %s gave no usable answer, so the request was denied%s", event.webhook, _again(times)
            )


def describe(who: Who) -> str:
    """An identity in a few words: names that the operator or a trusted issuer gave, never claims."""
    parts = [
        f"{name} {value}"
        for name, value in (
            ("identity", who.id),
            ("user", who.username),
            ("provider", who.provider),
            ("organization", ", ".join(who.organizations)),
            ("certificate", ", ".join(who.common_names)),
        )
        if value
    ]
    named = " ".join(parts) or "nobody known"
    return f"{named} from {who.client_ip}" if who.client_ip else named


def _again(times: int) -> str:
    return f" (and {times} more times since the last line like this)" if times else ""


class _Repeats:
    """Lets one line of a kind through now and then, and counts the others."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._kinds: dict[str, tuple[float, int]] = {}

    def due(self, kind: str) -> int | None:
        """How many lines of this kind were held back since the last one; None when this one is held back too."""
        now = self._monotonic()
        next_at, held_back = self._kinds.get(kind, (now, 0))
        if now < next_at:
            self._kinds[kind] = (next_at, held_back + 1)
            return None
        self._kinds[kind] = (now + REPEAT_SECONDS, 0)
        return held_back
