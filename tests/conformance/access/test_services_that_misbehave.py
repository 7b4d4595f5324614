"""Identity providers and webhooks in every bad mood: a 503 or a denial within the timeout, never an allow."""

from __future__ import annotations

import itertools
import os
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conformance.access.guarded_registry import ALICE, Issuer, bearer, write_configuration
from tests.conformance.certificates import Authority
from tests.conformance.http_client import Client, Connection, request_head
from tests.conformance.oci.content import digest_of
from tests.conformance.registry_process import RegistryProcess
from tests.conformance.scripted_server import SILENT, Asked, Said, ScriptedServer, said

HEAD = b"HTTP/1.1 200 OK\r\n"


def dribble(asked: Asked) -> Iterator[bytes]:
    """A byte now and then, for ever."""
    yield HEAD + b"Content-Length: 100000\r\n\r\n"
    while True:
        time.sleep(0.1)
        yield b"{"


def endless(beginning: bytes, piece: bytes) -> Iterator[bytes]:
    yield beginning
    yield from itertools.repeat(piece)


Mood = Callable[[Asked], Said]

MOODS: dict[str, Mood] = {
    "silent": lambda asked: SILENT,
    "gone": lambda asked: Said((), "close"),
    "failing": lambda asked: said(b"", "500 Internal Server Error"),
    "busy": lambda asked: said(b"", "429 Too Many Requests"),
    "elsewhere": lambda asked: said(b"", "302 Found", f"Location: {asked.target}?allowed"),
    "not there": lambda asked: said(b"", "404 Not Found"),
    "no HTTP": lambda asked: Said((b"SSH-2.0-OpenSSH_9.9\r\n",), "close"),
    "cut in the head": lambda asked: Said((HEAD,), "close"),
    "two lengths": lambda asked: Said((HEAD + b"Content-Length: 0\r\nContent-Length: 5\r\n\r\n",), "close"),
    "endless head": lambda asked: Said(endless(HEAD, b"X: " + b"x" * 8000 + b"\r\n")),
    "endless hints": lambda asked: Said(endless(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100)),
    "switching": lambda asked: Said((b"HTTP/1.1 101 Switching Protocols\r\n\r\n",), "close"),
}  # fmt: skip

DOCUMENT_MOODS: dict[str, Mood] = {
    "dribbling": lambda asked: Said(dribble(asked)),
    "huge": lambda asked: Said(endless(HEAD + b"Content-Length: 99999999999\r\n\r\n", b" " * 65536)),
    "endless chunks": lambda asked: Said(
        endless(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"8000\r\n" + b" " * 0x8000 + b"\r\n")
    ),
    "no JSON": lambda asked: said(b"<html>"),
    "no keys": lambda asked: said(b"{}"),
    "a list": lambda asked: said(b"[]"),
    "deep": lambda asked: said(b'{"keys":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "keys of no kind": lambda asked: said(b'{"keys": [null, 5, {"kty": ["RSA"]}, {"kid": "rsa", "kty": {}}]}'),
    "a key of nonsense": lambda asked: said(b'{"keys": [{"kty": "RSA", "kid": "rsa", "n": "!", "e": "AQAB"}]}'),
    "a key of zero": lambda asked: said(b'{"keys": [{"kty": "RSA", "kid": "rsa", "n": "AA", "e": "AA"}]}'),
    "a key of no text": lambda asked: said(b'{"keys": [{"kty": "RSA", "kid": "rsa", "n": 5, "e": null}]}'),
    "a tiny key": lambda asked: said(b'{"keys": [{"kty": "RSA", "kid": "rsa", "n": "yQ", "e": "AQAB"}]}'),
    "a shared secret": lambda asked: said(b'{"keys": [{"kty": "oct", "kid": "rsa", "k": "c2VjcmV0"}]}'),
    "cut": lambda asked: said(b'{"keys": []}', length=1000, then="close"),
}


@dataclass
class Services:
    """A registry with one provider and one webhook for each mood."""

    registry: RegistryProcess
    providers: dict[str, ScriptedServer]
    webhooks: dict[str, ScriptedServer]


@pytest.fixture(scope="module")
def services(issuer: Issuer, authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    folder = tmp_path_factory.mktemp("moody")
    stranger = Authority(folder, "Stranger")
    context = authority.server_context("127.0.0.1")
    providers = {name: ScriptedServer(mood, context) for name, mood in {**MOODS, **DOCUMENT_MOODS}.items()}
    webhooks = {name: ScriptedServer(mood, context) for name, mood in MOODS.items()}
    for servers in (providers, webhooks):
        servers["of a stranger"] = ScriptedServer(
            lambda asked: said(b'{"keys": []}'), stranger.server_context("127.0.0.1")
        )
        servers["of another name"] = ScriptedServer(
            lambda asked: said(b'{"keys": []}'), authority.server_context("localhost")
        )
        servers["without TLS"] = ScriptedServer(lambda asked: said(b'{"keys": []}'))
    more = []
    for number, (name, server) in enumerate(providers.items()):
        more.append(
            f'[auth.oidc.provider-{number}]\nissuer = "{secure(server)}"\njwks_uri = "{secure(server)}/keys"\n'
            f'server_ca_bundle = "{authority.bundle}"\nhttp_request_timeout_secs = 1.0\n# {name}\n'
        )
    for number, (name, server) in enumerate(webhooks.items()):
        more.append(
            f'[auth.webhook.webhook-{number}]\nurl = "{secure(server)}/ask"\ntimeout_ms = 1000\ncache_ttl = 600\n'
            f'server_ca_bundle = "{authority.bundle}"\n# {name}\n'
            f'[repository."public/hook-{number}"]\nauthorization_webhook = "webhook-{number}"\n'
        )
    file = write_configuration(folder, issuer, authority, "\n".join(more))
    for server in (*providers.values(), *webhooks.values()):
        server.__enter__()
    registry = RegistryProcess.start(folder / "data", arguments=["-c", str(file)])
    try:
        yield Services(registry, providers, webhooks)
        registry.stop()
    finally:
        registry.kill()
        for server in (*providers.values(), *webhooks.values()):
            server.__exit__(None, None, None)


def secure(server: ScriptedServer) -> str:
    """Its address, as one that is asked over TLS."""
    return server.origin.replace("http://", "https://")


def memory(registry: RegistryProcess) -> int:
    """Resident, in KiB."""
    status = Path(f"/proc/{registry.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


def begin(client: Client, target: str, *fields: tuple[str, str]) -> Connection:
    """Ask, and do not wait."""
    connection = client.connect()
    connection.send(request_head("GET", target, [("Host", "registry"), *fields]))
    return connection


def test_no_mood_of_a_provider_lets_anybody_in(services: Services, issuer: Issuer) -> None:
    before = memory(services.registry)
    with services.registry.client() as client:
        asked = {
            name: [begin(client, "/v2/ci/app/tags/list", bearer(issuer.token(iss=secure(server)))) for _ in range(3)]
            for name, server in services.providers.items()
        }
        assert client.get("/v2/public/app/tags/list").status == 404, "others are served meanwhile"
        statuses = {name: [each.answer("GET").status for each in mine] for name, mine in asked.items()}
    answers_of_keys = {"keys of no kind", "a key of nonsense", "a key of zero", "a key of no text", "a tiny key"}
    answers_of_keys |= {"a shared secret"}
    assert statuses == {name: [401 if name in answers_of_keys else 503] * 3 for name in statuses}
    assert memory(services.registry) - before < 60_000
    for mine in asked.values():
        for connection in mine:
            connection.finish()


def test_no_mood_of_a_webhook_lets_anybody_in(services: Services) -> None:
    names = list(services.webhooks)
    for fields, refusal in (((), 401), ((ALICE,), 403)):
        with services.registry.client() as client:
            target = "/v2/public/hook-{}/tags/list"
            asked = [begin(client, target.format(number), *fields) for number in range(len(names)) for _ in range(3)]
            assert client.get("/v2/public/app/tags/list", fields).status == 404, "others are served meanwhile"
            statuses = [connection.answer("GET").status for connection in asked]
            assert dict(zip(names, statuses[::3], strict=True)) == dict.fromkeys(names, refusal)
            assert set(statuses) == {refusal}
            for connection in asked:
                connection.finish()


def test_hundreds_who_wait_for_services_keep_nobody_from_pulling(services: Services, issuer: Issuer) -> None:
    """Neither their places nor their descriptors are those of others."""
    silent = list(services.webhooks).index("silent")
    token = bearer(issuer.token(iss=secure(services.providers["silent"])))
    before = services.webhooks["silent"].connections
    blob = b"for everybody"
    with services.registry.client() as client:
        digest = digest_of(blob)
        assert client.post(f"/v2/public/app/blobs/uploads/?digest={digest}", blob, [ALICE]).status == 201
        waiting = [begin(client, f"/v2/public/hook-{silent}/tags/list?n={number}") for number in range(300)]
        waiting += [begin(client, "/v2/ci/app/tags/list", token) for _ in range(100)]
        for _ in range(20):
            assert client.get(f"/v2/public/app/blobs/{digest}").body == blob
        assert len(os.listdir(f"/proc/{services.registry.pid}/fd")) < 700
        assert {connection.answer("GET").status for connection in waiting} <= {401, 503}
        for connection in waiting:
            connection.finish()
    assert services.webhooks["silent"].connections - before <= 128 * 3


def test_a_registry_of_few_descriptors_still_answers(issuer: Issuer, authority: Authority, tmp_path: Path) -> None:
    with ScriptedServer(lambda asked: SILENT) as silent:
        more = f"""
[auth.webhook.gate]
url = "{silent.origin}/ask"
timeout_ms = 2000
[repository."public/hooked"]
authorization_webhook = "gate"
"""
        file = write_configuration(tmp_path, issuer, authority, more)
        registry = RegistryProcess.start(tmp_path / "data", arguments=["-c", str(file)])
        try:
            resource.prlimit(registry.pid, resource.RLIMIT_NOFILE, (600, 600))
            with registry.client() as client:
                waiting = [begin(client, f"/v2/public/hooked/tags/list?n={number}") for number in range(350)]
                assert client.get("/readyz").status == 200
                assert client.get("/v2/public/app/tags/list").status == 404
                assert {connection.answer("GET").status for connection in waiting} == {401}
                for connection in waiting:
                    connection.finish()
            registry.stop()
        finally:
            registry.kill()
