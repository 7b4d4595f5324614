"""Why an upstream gave nothing, and what a client is told when no upstream did.

Only *absent* is a fact about the content. Everything else is one about the upstream, and never becomes a 404.
"""

from __future__ import annotations

from collections.abc import Sequence

from angos.sansio.effects import EffectError
from angos.sansio.errors import RegistryError
from angos.sansio.upstream.effects import UpstreamForbidden, UpstreamSilent, UpstreamUnusable
from angos.sansio.upstream.events import Outcome

RETRY_SECONDS = 5


class NotThere(Exception):
    """The upstream says that it has no such thing."""


class UpstreamFailure(Exception):
    """The upstream gave no answer that says anything about the content."""

    def __init__(self, outcome: Outcome, problem: str, *, status: int = 502, retry_seconds: float = 0) -> None:
        super().__init__(problem)
        self.outcome: Outcome = outcome
        self.problem = problem
        self.status = status
        self.retry_seconds = retry_seconds


def failure_of(error: EffectError) -> UpstreamFailure:
    """The failure of an effect that asks an upstream."""
    match error:
        case UpstreamSilent():
            return UpstreamFailure("unavailable", str(error) or "no answer in time", status=504)
        case UpstreamForbidden():
            return UpstreamFailure("unusable", str(error) or "the egress rule forbids it")
        case UpstreamUnusable():
            return UpstreamFailure("unusable", str(error) or "its answer cannot be used")
        case _:
            return UpstreamFailure("unavailable", str(error) or "no connection", status=503)


def refusal_of_all(what: str, failures: Sequence[tuple[str, UpstreamFailure]]) -> RegistryError:
    """What the client is told when some upstreams could not say whether they have it."""
    said = "; ".join(f"{upstream}: {failure.problem}" for upstream, failure in failures)
    worst = max((failure for _, failure in failures), key=lambda failure: failure.status == 503)
    waits = [failure.retry_seconds for _, failure in failures if failure.retry_seconds > 0]
    headers = {}
    if worst.status in (503, 504):
        headers["Retry-After"] = str(max(1, round(min(waits, default=RETRY_SECONDS))))
    return RegistryError(worst.status, "UNAVAILABLE", f"{what} cannot be had from upstream now: {said}", None, headers)
