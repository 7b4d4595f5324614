"""Documents of identity providers: discovery and keys (OpenID Connect Discovery 1.0, RFC 7517)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from anyio import fail_after, to_thread

from angos.runtime.access.settings import ProviderEndpoint
from angos.runtime.client.connection import NoAnswer
from angos.runtime.client.http import HttpClient
from angos.runtime.client.url import UrlInvalid, parse_url
from angos.sansio.effects import FetchDocument, PeerUnavailable
from angos.sansio.http.message import Header

DOCUMENT_SIZE_MAX = 1 << 20
TOKEN_SIZE_MAX = 64 << 10

_TOKEN = re.compile(rb"[\x21-\x7e]+")
_ASKED_FOR: tuple[Header, ...] = (
    ("Accept", "application/jwk-set+json, application/json;q=0.9, */*;q=0.8"),
    ("Accept-Encoding", "identity"),
    ("Connection", "close"),  # the next document is fetched an hour later
    ("User-Agent", "angos"),
)


@dataclass(frozen=True, slots=True)
class _Provider:
    endpoint: ProviderEndpoint
    client: HttpClient
    origin: str
    """Of the issuer."""


class Documents:
    """Fetches from each provider with its own trust, certificate and token."""

    def __init__(self, endpoints: Iterable[ProviderEndpoint]) -> None:
        """Raises `ClientTlsUnusable`, or `UrlInvalid` for an issuer that is no address."""
        self._providers = {
            endpoint.name: _Provider(endpoint, HttpClient(endpoint.tls), parse_url(endpoint.issuer).origin)
            for endpoint in endpoints
        }

    async def fetch_document(self, effect: FetchDocument) -> bytes:
        """`FetchDocument`."""
        provider = self._providers.get(effect.provider)
        if provider is None:
            raise PeerUnavailable(f"identity provider {effect.provider} is not configured any more")
        seconds = provider.endpoint.request_seconds
        try:
            with fail_after(seconds):
                return await _fetch(provider, effect.url)
        except (NoAnswer, UrlInvalid) as error:
            raise PeerUnavailable(f"identity provider {effect.provider}: {error}") from None
        except TimeoutError:
            raise PeerUnavailable(f"identity provider {effect.provider}: no document within {seconds:g} s") from None


async def _fetch(provider: _Provider, address: str) -> bytes:
    url = parse_url(address)
    headers = _ASKED_FOR
    token_file = provider.endpoint.bearer_token_file
    # The address may come from a document: whoever wrote that must not get the token by naming a server of theirs.
    if token_file is not None and url.origin == provider.origin:
        headers = (*headers, ("Authorization", f"Bearer {await to_thread.run_sync(_read_token, token_file)}"))
    async with provider.client.get(url, headers) as answer:
        if answer.status != 200:
            raise NoAnswer(f"{url.origin} answered with status {answer.status} instead of a document")
        return await answer.read(DOCUMENT_SIZE_MAX)


def _read_token(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(TOKEN_SIZE_MAX + 1).strip()
    except OSError as error:
        raise NoAnswer(f"bearer_token_file {path} cannot be read: {error.strerror}") from None
    if len(content) > TOKEN_SIZE_MAX or not _TOKEN.fullmatch(content):
        raise NoAnswer(f"bearer_token_file {path} does not hold one token and nothing else")
    return content.decode("ascii")
