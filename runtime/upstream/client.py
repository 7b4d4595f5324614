"""Asking upstreams: one request each, redirects followed, credentials shown to their owner only.

The rules are those of `angos.sansio.upstream.effects`. What is attached is decided here once more, whatever an effect
says: a password goes to the origin of its upstream and of the token servers that are allowed for it, a token to the
origin of its upstream. After a redirect to anywhere else nothing is attached any more, not even on the way back: where
that leads was somebody else's choice.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from typing import Literal

from anyio import fail_after

from angos.runtime.client.connection import NoAnswer, NotPermitted
from angos.runtime.client.http import Answer, HttpClient
from angos.runtime.client.url import Url, UrlInvalid, parse_url
from angos.runtime.upstream.egress import EgressRule
from angos.runtime.upstream.settings import UpstreamEndpoint
from angos.sansio.http.message import Header
from angos.sansio.secret import Secret
from angos.sansio.upstream.effects import (
    ANSWER_FIELDS,
    AskForToken,
    AskUpstream,
    CloseUpstream,
    Opened,
    OpenUpstream,
    TokenAnswer,
    UpstreamAnswer,
    UpstreamForbidden,
    UpstreamSilent,
    UpstreamStream,
    UpstreamUnavailable,
    UpstreamUnusable,
)
from angos.sansio.upstream.origin import keeps_credentials, may_show_password, redirect_target
from angos.sansio.upstream.tokens import read_token

IDLE_MAX = 32  # connections to one upstream that wait for the next request
TOKEN_SIZE_MAX = 256 << 10
REDIRECTS = frozenset({301, 302, 303, 307, 308})

_numbers = count(1)


class OpenedStream(int):
    """A body that is still to come: the handle that the core gets is the thing itself, so it lives as long as this."""

    answer: Answer
    seconds: float

    @classmethod
    def of(cls, answer: Answer, seconds: float) -> OpenedStream:
        """`seconds`: the longest silence."""
        stream = cls(next(_numbers))
        stream.answer, stream.seconds = answer, seconds
        return stream

    async def receive(self) -> bytes:
        """The next bytes, none at the end. Fails with `UpstreamUnavailable` or `UpstreamSilent`."""
        with _told(self.seconds):
            return await self.answer.receive()

    async def close(self) -> None:
        """Do without the rest. Twice is no error."""
        await self.answer.abandon()

    async def finish(self) -> None:
        """All of it has been received: the connection may be used again."""
        await self.answer.finish()


@dataclass(frozen=True, slots=True)
class _Registry:
    endpoint: UpstreamEndpoint
    own: HttpClient
    """For its own origin."""
    others: HttpClient
    """For wherever it leads: without the certificate that only the upstream itself is shown."""

    def client(self, url: Url) -> HttpClient:
        return self.own if url.origin == self.endpoint.url.origin else self.others


class Upstreams:
    """Those of one configuration. Used on one event loop."""

    def __init__(self, endpoints: Iterable[UpstreamEndpoint]) -> None:
        """Raises `ClientTlsUnusable`."""
        self._registries = {endpoint.name: _registry(endpoint) for endpoint in endpoints}

    async def ask(self, effect: AskUpstream) -> UpstreamAnswer:
        """`AskUpstream`."""
        registry = self._find(effect.upstream)
        credential = _credential(registry.endpoint, effect.url, effect.token, password=effect.password)
        with _told(registry.endpoint.read_seconds):
            answer = await _exchange(registry, effect.method, effect.url, (("Accept", effect.accept),), credential)
            try:
                body = await _read(answer, effect.size_max)
                await answer.finish()
            finally:
                await answer.abandon()
        return UpstreamAnswer(answer.status, _shown(answer), body)

    async def ask_for_token(self, effect: AskForToken) -> TokenAnswer:
        """`AskForToken`."""
        registry = self._find(effect.upstream)
        endpoint = registry.endpoint
        headers: tuple[Header, ...] = (("Accept", "application/json"), *_COMMON)
        if effect.password and may_show_password(effect.url, endpoint.url.origin, endpoint.token_realms):
            headers += (("Authorization", _basic(endpoint)),)
        with _told(endpoint.read_seconds):
            url = _parsed(effect.url)
            answer = await registry.client(url).open(url, headers)
            try:
                body = await _read(answer, TOKEN_SIZE_MAX)
                await answer.finish()
            finally:
                await answer.abandon()
        return read_token(answer.status, _shown(answer), body)

    async def open(self, effect: OpenUpstream) -> Opened:
        """`OpenUpstream`."""
        registry = self._find(effect.upstream)
        credential = _credential(registry.endpoint, effect.url, effect.token, password=effect.password)
        headers: tuple[Header, ...] = (("Accept", "*/*"),)
        if effect.start:
            headers += (("Range", f"bytes={effect.start}-"),)
        with _told(registry.endpoint.read_seconds):
            answer = await _exchange(registry, "GET", effect.url, headers, credential)
            if answer.status not in (200, 206):
                await answer.finish()
                return Opened(answer.status, _shown(answer), None, None)
        stream = OpenedStream.of(answer, registry.endpoint.read_seconds)
        return Opened(answer.status, _shown(answer), UpstreamStream(stream), _length(answer))

    async def close_stream(self, effect: CloseUpstream) -> None:
        """`CloseUpstream`."""
        stream: int = effect.stream
        if isinstance(stream, OpenedStream):
            await stream.close()

    async def close(self) -> None:
        """End the idle connections. What is under way goes on."""
        for registry in self._registries.values():
            await registry.own.close()
            if registry.others is not registry.own:
                await registry.others.close()

    def _find(self, name: str) -> _Registry:
        registry = self._registries.get(name)
        if registry is None:
            raise UpstreamUnavailable("it is not configured any more")
        return registry


def _registry(endpoint: UpstreamEndpoint) -> _Registry:
    permit = EgressRule(endpoint).check
    own = HttpClient(endpoint.tls, idle_max=IDLE_MAX, connect_seconds=endpoint.connect_seconds, permit=permit)
    tls = replace(endpoint.tls, client_certificate_bundle=None, client_private_key=None)
    if tls == endpoint.tls:
        return _Registry(endpoint, own, own)
    others = HttpClient(tls, idle_max=IDLE_MAX, connect_seconds=endpoint.connect_seconds, permit=permit)
    return _Registry(endpoint, own, others)


# --- requests ---------------------------------------------------------------------------------------------------------

_COMMON: tuple[Header, ...] = (("Accept-Encoding", "identity"), ("User-Agent", "angos"))


async def _exchange(
    registry: _Registry, method: Literal["GET", "HEAD"], address: str, headers: tuple[Header, ...], credential: str
) -> Answer:
    """The answer after redirects. Whoever asks ends it."""
    current, at_home = address, True
    for _ in range(registry.endpoint.redirects_max + 1):
        url = _parsed(current)
        shown = (*headers, *_COMMON)
        if credential and at_home:
            shown += (("Authorization", credential),)
        answer = await registry.client(url).open(url, shown, method)
        if answer.status not in REDIRECTS:
            if not at_home and answer.status in (401, 403, 404, 410):
                await answer.finish()
                raise UpstreamUnusable(f"it redirects to {url.origin}, which answered with status {answer.status}")
            return answer
        target = redirect_target(current, answer.headers.get("location"))
        await answer.finish()
        if target is None:
            raise UpstreamUnusable("it redirects to where nobody can follow: to no address, or from https to http")
        at_home = at_home and keeps_credentials(address, target)
        current = target
    raise UpstreamUnusable(f"it redirects more than {registry.endpoint.redirects_max} times")


def _credential(endpoint: UpstreamEndpoint, address: str, token: Secret | None, *, password: bool) -> str:
    """The value of ``Authorization``; empty when nothing is shown."""
    if not keeps_credentials(endpoint.url.origin, address):
        return ""
    if token is not None:
        return f"Bearer {token.value}"
    return _basic(endpoint) if password else ""


def _basic(endpoint: UpstreamEndpoint) -> str:
    if endpoint.username is None or endpoint.password is None:
        raise UpstreamUnavailable("its password is not configured any more")
    return f"Basic {base64.b64encode(f'{endpoint.username}:{endpoint.password.value}'.encode()).decode()}"


def _parsed(address: str) -> Url:
    try:
        return parse_url(address)
    except UrlInvalid as error:
        raise UpstreamUnusable(f"it leads to what is no address: {error}") from None


async def _read(answer: Answer, size_max: int) -> bytes:
    body = bytearray()
    while len(body) <= size_max and (data := await answer.receive()):
        body += data
    if len(body) > size_max and answer.status == 200:
        raise UpstreamUnusable(f"it sent more than {size_max} bytes")
    return bytes(body[:size_max])


def _shown(answer: Answer) -> tuple[Header, ...]:
    return tuple((name, value) for name, value in answer.headers.fields if name in ANSWER_FIELDS)


def _length(answer: Answer) -> int | None:
    text = answer.headers.get("content-length") or ""
    if answer.headers.get("transfer-encoding") is not None or not text.isdecimal():
        return None
    return int(text)


@contextmanager
def _told(seconds: float) -> Iterator[None]:
    """What goes wrong within this time, or does not end in it, in the words of the core."""
    try:
        with fail_after(seconds):
            yield
    except NotPermitted as error:
        raise UpstreamForbidden(str(error)) from None
    except NoAnswer as error:
        raise UpstreamUnavailable(str(error)) from None
    except TimeoutError:
        raise UpstreamSilent(f"it was silent for {seconds:g} s") from None
