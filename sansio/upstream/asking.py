"""One question to the upstreams of a repository, in their order: whoever has it first wins.

The next one is asked when an upstream has nothing or fails. Only when all of them say that they have nothing, nothing
is there; if some could not be asked, nobody knows.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Literal, TypeVar

from angos.sansio.config import RepositoryConfig
from angos.sansio.effects import ReadClock, Tell
from angos.sansio.oci.reference import Namespace
from angos.sansio.upstream.config import Upstream, name_at_upstream
from angos.sansio.upstream.effects import AskUpstream, Opened, OpenUpstream, UpstreamAnswer, UpstreamUnavailable
from angos.sansio.upstream.events import Outcome, UpstreamAsked
from angos.sansio.upstream.failure import NotThere, UpstreamFailure, failure_of, refusal_of_all
from angos.sansio.upstream.health import check_health, note_failure, note_limits, note_success, retry_after
from angos.sansio.upstream.tokens import Shown, answer_challenge, remembered

T = TypeVar("T")
A = TypeVar("A", UpstreamAnswer, Opened)
What = Literal["manifest", "manifest head", "blob", "blob head", "referrers", "tags"]
Question = Callable[[Upstream, str], Coroutine[Any, Any, T]]
"""Asks one upstream for something of the repository that has this name there. Raises `NotThere`, `UpstreamFailure` or
`UpstreamUnavailable`."""


async def ask_in_order(
    repository: RepositoryConfig,
    namespace: Namespace,
    what: What,
    subject: str,
    question: Question[T],
    *,
    without: frozenset[str] = frozenset(),
) -> tuple[Upstream, T] | None:
    """The first answer, and whose it is. None when no upstream has it; raises `RegistryError` when nobody knows.

    `subject` is what it is about, for people. Upstreams `without` which it shall be done count as failing.
    """
    failures: list[tuple[str, UpstreamFailure]] = []
    for upstream in repository.upstreams:
        if upstream.name in without:
            failures.append((upstream.name, UpstreamFailure("unusable", "what it sent a moment ago was wrong")))
            continue
        skipped = await check_health(upstream, what)
        if skipped is not None:
            failures.append((upstream.name, skipped))
            continue
        failure: UpstreamFailure | None = None
        outcome: Outcome = "ok"
        answer: T | None = None
        try:
            answer = await question(upstream, name_at_upstream(namespace, repository.namespace, upstream))
        except NotThere:
            outcome = "absent"
        except UpstreamFailure as error:
            failure = error
        except UpstreamUnavailable as error:
            failure = failure_of(error)
        if failure is not None:
            await note_failure(upstream, what, failure)
            await Tell(UpstreamAsked(upstream.name, what, namespace, failure.outcome, failure.problem))
            failures.append((upstream.name, failure))
            continue
        await note_success(upstream)
        await Tell(UpstreamAsked(upstream.name, what, namespace, outcome))
        if answer is not None:
            return upstream, answer
    if failures:
        raise refusal_of_all(subject, failures)
    return None


async def ask(
    upstream: Upstream, name: str, method: Literal["GET", "HEAD"], path: str, *, accept: str, size_max: int
) -> UpstreamAnswer:
    """A small answer of status 200 to ``/v2/<name>/<path>``. Raises what a `Question` may."""

    async def send(shown: Shown) -> UpstreamAnswer:
        url = f"{upstream.url}/v2/{name}/{path}"
        return await AskUpstream(upstream.name, method, url, accept, shown.token, shown.password, size_max)

    answer = await _authorized(upstream, name, send)
    if answer.status != 200:
        raise await _failure_of_status(answer)
    return answer


async def open_blob(upstream: Upstream, name: str, digest: str, start: int = 0) -> Opened:
    """The bytes of a blob, from an offset on. Raises what a `Question` may."""

    async def send(shown: Shown) -> Opened:
        url = f"{upstream.url}/v2/{name}/blobs/{digest}"
        return await OpenUpstream(upstream.name, url, shown.token, shown.password, start)

    opened = await _authorized(upstream, name, send)
    if opened.stream is None:
        raise await _failure_of_status(opened)
    return opened


async def _authorized(upstream: Upstream, name: str, send: Callable[[Shown], Coroutine[Any, Any, A]]) -> A:
    """An answer that is not a wish for credentials. A challenge is answered once."""
    shown = await remembered(upstream, name)
    answer = await send(shown)
    if answer.status == 401:
        fields = [value for key, value in answer.headers if key == "www-authenticate"]
        answer = await send(await answer_challenge(upstream, name, fields, shown))
        if answer.status == 401:
            what = "the configured user" if upstream.username is not None else "a token for anybody"
            problem = f"it refuses {what} (401): it has no such repository, or shows it to others only"
            raise UpstreamFailure("denied", problem)
    await note_limits(upstream, answer)
    return answer


async def _failure_of_status(answer: UpstreamAnswer | Opened) -> Exception:
    status = answer.status
    if status in (404, 410):
        return NotThere()
    if status == 403:
        problem = "it does not let us have it (403)"
        return UpstreamFailure("denied", problem)
    if status == 429:
        seconds = retry_after(answer.get("retry-after"), await ReadClock())
        problem = f"it has had enough requests (429), the next one is possible in {seconds:.0f} s"
        return UpstreamFailure("limited", problem, status=503, retry_seconds=seconds)
    if status >= 500 or status == 408:
        return UpstreamFailure("unavailable", f"it answered with status {status}", status=503)
    return UpstreamFailure("unusable", f"it answered with status {status}")
