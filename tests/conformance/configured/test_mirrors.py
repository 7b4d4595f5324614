"""``[[repository."<namespace>".upstream]]``: whom a mirror asks, how patiently, and what it shows to whom."""

from __future__ import annotations

import base64
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from tests.conformance.certificates import Authority
from tests.conformance.configured.configured_registry import ConfiguredRegistry, Start
from tests.conformance.configured.coverage import changes_with
from tests.conformance.http_client import Answer, refused
from tests.conformance.oci.content import digest_of
from tests.conformance.scripted_server import SILENT, Asked, Said, ScriptedServer, said
from tests.conformance.upstream.scripted_upstream import Case, Held, Upstream

pytestmark = pytest.mark.xdist_group("configured-mirrors")

PASSWORD = f"Basic {base64.b64encode(b'mirror:canary').decode()}"
TOKEN = said(b'{"token": "the-token", "expires_in": 300}', "200 OK", "Content-Type: application/json")


@dataclass
class World:
    """A registry with a mirror for each test, and the servers that its mirrors know of."""

    registry: ConfiguredRegistry
    upstream: Upstream
    demanding: Upstream
    """Speaks TLS with whoever shows a certificate."""
    elsewhere: ScriptedServer
    """Another origin; has a token for everybody, and content."""

    def case(self, name: str, upstream: Upstream | None = None) -> Case:
        """The mirror of this name."""
        case = Case(name, self.registry)
        (upstream or self.upstream).cases[name] = case
        return case

    def shown_elsewhere(self, name: str) -> list[str]:
        """The credentials that another origin was shown for this mirror."""
        asked = [each for each in self.elsewhere.asked if name in each.target]
        assert asked
        return [value for each in asked for value in each.values("authorization")]


@contextmanager
def full_backlog() -> Iterator[int]:
    """A port of the loopback address whose connections are never made."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        port = listener.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(("127.0.0.1", port))
        yield port
        for each in waiting:
            each.close()


@pytest.fixture(scope="module")
def world(start_shared: Start, authority: Authority) -> Iterator[World]:
    issued = authority.issue(common_names=("registry",))
    upstream, demanding = Upstream.made(), Upstream.made()
    demanding.server.tls = authority.server_context("127.0.0.1", clients=authority)

    def other(asked: Asked) -> Said:
        return TOKEN if asked.target.startswith("/token") else said(b"from elsewhere")

    elsewhere = ScriptedServer(other)
    with upstream.server, demanding.server, elsewhere, full_backlog() as deaf:
        here, patience = upstream.server.origin, {"read_timeout_secs": 1}
        user = {"username": "mirror", "password": "canary"}
        trust = {"server_ca_bundle": str(authority.bundle)}
        shown = {"client_certificate": str(issued.certificate), "client_private_key": str(issued.key)}
        tls = {"url": f"{demanding.server.origin}/tls", **trust, **shown}
        private = {"private_networks": ["127.0.0.0/8"]}
        repositories: dict[str, Any] = {
            "plain": {"upstream": [{"url": here}]},
            "mirrored": {"namespace": "Registry.Example:5000", "upstream": [{"url": f"{here}/mirrored"}]},
            "fresh": {"cache": {"fresh_secs": 3600}, "upstream": [{"url": f"{here}/fresh"}]},
            "compared": {"cache": {"fresh_secs": 0}, "upstream": [{"url": f"{here}/compared"}]},
            "fixed": {
                "immutable_tags": True,
                "immutable_tags_exclusions": ["^latest$"],
                "cache": {"fresh_secs": 0},
                "upstream": [{"url": f"{here}/fixed"}],
            },
            "strict": {"cache": {"fresh_secs": 0, "stale_secs": 0}, "upstream": [{"url": f"{here}/strict"}]},
            "missing": {"cache": {"missing_secs": 3600}, "upstream": [{"url": f"{here}/missing"}]},
            "asking": {"cache": {"missing_secs": 0}, "upstream": [{"url": f"{here}/asking"}]},
            "user": {"upstream": [{"url": f"{here}/user", **user}]},
            "nobody": {"upstream": [{"url": f"{here}/nobody"}]},
            "realm": {
                "upstream": [{"url": f"{here}/realm", **user, **private, "token_realms": [elsewhere.origin]}],
            },
            "evil": {"upstream": [{"url": f"{here}/evil", **user, **private}]},
            "anonymous": {"upstream": [{"url": f"{here}/anonymous", **private}]},
            "redirected": {"upstream": [{"url": f"{here}/redirected", **user, **private}]},
            "guarded": {"upstream": [{"url": f"{here}/guarded", **user}]},
            "unmoved": {"upstream": [{"url": f"{here}/unmoved", "max_redirect": 0}]},
            "deaf": {"upstream": [{"url": f"http://127.0.0.1:{deaf}/deaf", "connect_timeout_secs": 0.2}]},
            "silent": {"upstream": [{"url": f"{here}/silent", "read_timeout_secs": 0.2}]},
            "tls": {"upstream": [tls]},
            "untrusted": {"upstream": [{**tls, "url": f"{demanding.server.origin}/untrusted", **patience}]},
            "unshown": {"upstream": [{"url": f"{demanding.server.origin}/unshown", **trust, **patience}]},
            "several": {"upstream": [{"url": f"http://127.0.0.1:1/{n}"} for n in "ab"] + [{"url": f"{here}/several"}]},
        }
        del repositories["untrusted"]["upstream"][0]["server_ca_bundle"]
        registry = start_shared(
            {
                "repository": repositories,
                "global": {"max_concurrent_cache_jobs": 1},
                "observability": {"log": {"level": "debug"}},
            }
        )
        yield World(registry, upstream, demanding, elsewhere)


def got(case: Case) -> Answer:
    case.manifest("v1")
    return case.get("manifests/v1")


@changes_with("repository.*.upstream.url")
def test_a_mirror_asks_the_host_of_its_url_for_names_below_its_path(world: World) -> None:
    case = world.case("plain")
    world.upstream.cases["image"] = world.upstream.cases["library"] = case
    case.get("manifests/v1")
    case.asked.clear()
    world.case("fresh").get("manifests/v1")
    (asked,) = world.upstream.cases["fresh"].asked
    assert asked.target == "/v2/fresh/image/manifests/v1"
    with world.registry.client() as client:
        client.get("/v2/plain/library/debian/manifests/v1")
    assert [each.target for each in case.asked] == ["/v2/library/debian/manifests/v1"]


@changes_with("repository.*.namespace")
def test_pulls_that_name_a_host_are_for_its_mirror(world: World) -> None:
    case = world.case("mirrored")
    content, _ = case.manifest("v1")
    with world.registry.client() as client:
        answer = client.get("/v2/image/manifests/v1?ns=registry.example:5000")
        assert (answer.status, answer.body, answer["oci-namespace"]) == (200, content, "registry.example:5000")
        refused(client.get("/v2/image/manifests/v1?ns=registry.example"), 404, "MANIFEST_UNKNOWN")
        refused(client.get("/v2/image/manifests/v1"), 404, "MANIFEST_UNKNOWN")


@changes_with("repository.*.cache.fresh_secs")
def test_a_fresh_tag_is_not_compared_again(world: World) -> None:
    for name, asked in (("fresh", 1), ("compared", 3)):
        case = world.case(name)
        case.manifest("again")
        for _ in range(3):
            assert case.get("manifests/again").status == 200
        assert len(case.asked) == asked


def test_an_immutable_tag_is_never_compared(world: World) -> None:
    case = world.case("fixed")
    for tag, asked in (("v1", 1), ("latest", 3)):
        case.asked.clear()
        case.manifest(tag)
        for _ in range(3):
            assert case.get(f"manifests/{tag}").status == 200
        assert len(case.asked) == asked


@changes_with("repository.*.cache.stale_secs")
def test_a_stale_tag_is_served_only_where_that_is_allowed(world: World) -> None:
    for name, status in (("compared", 200), ("strict", 503)):
        case = world.case(name)
        assert got(case).status == 200
        case.script = lambda _: said(b"", "500 Internal Server Error")
        assert case.get("manifests/v1").status == status


@changes_with("repository.*.cache.missing_secs")
def test_what_was_missing_is_not_asked_for_again_at_once(world: World) -> None:
    for name, status in (("missing", 404), ("asking", 200)):
        case = world.case(name)
        refused(case.get("manifests/v1"), 404, "MANIFEST_UNKNOWN")
        assert got(case).status == status


@changes_with("repository.*.upstream.username", "repository.*.upstream.password")
def test_a_password_is_shown_when_it_is_asked_for(world: World) -> None:
    for name, status in (("user", 200), ("nobody", 502)):
        case = world.case(name)

        def guarded(asked: Asked) -> Said | None:
            if asked.values("authorization") == [PASSWORD]:
                return None
            return said(b"", "401 Unauthorized", 'WWW-Authenticate: Basic realm="x"')

        case.script = guarded
        assert got(case).status == status
    assert "canary" not in world.registry.log


def challenging(realm: str) -> Any:
    def answer(asked: Asked) -> Said | None:
        if asked.values("authorization") == ["Bearer the-token"]:
            return None
        return said(b"", "401 Unauthorized", f'WWW-Authenticate: Bearer realm="{realm}",service="x"')

    return answer


@changes_with("repository.*.upstream.token_realms")
def test_a_password_goes_to_no_token_server_but_those_that_are_allowed(world: World) -> None:
    """CVE-2020-15157 and its kin: an upstream names a token server of its own choice."""
    for name, status, shown in (("realm", 200, [PASSWORD]), ("anonymous", 200, [])):
        case = world.case(name)
        case.script = challenging(f"{world.elsewhere.origin}/token/{name}")
        assert got(case).status == status
        assert world.shown_elsewhere(name) == shown
    case = world.case("evil")
    case.script = challenging(f"{world.elsewhere.origin}/token/evil")
    answer = got(case)
    refused(answer, 502, "UNAVAILABLE")
    assert "token_realms" in answer.json["errors"][0]["message"]
    assert not [each for each in world.elsewhere.asked if "evil" in each.target]


def test_a_redirect_takes_no_credential_along(world: World) -> None:
    case = world.case("redirected")
    content = b"from elsewhere"
    path = f"blobs/{digest_of(content)}"
    there = f"{world.elsewhere.origin}/redirected"

    def redirecting(asked: Asked) -> Said | None:
        if asked.values("authorization") != [PASSWORD]:
            return said(b"", "401 Unauthorized", 'WWW-Authenticate: Basic realm="x"')
        return said(b"", "307 Temporary Redirect", f"Location: {there}")

    case.script = redirecting
    assert case.get(path).body == content
    assert world.shown_elsewhere("redirected") == []


@changes_with("repository.*.upstream.private_networks")
def test_a_redirect_does_not_lead_into_the_network_of_the_registry(world: World) -> None:
    """The redirect of the test before, where the network is not allowed: by address, and by a name that leads there."""
    for host in ("127.0.0.1", "localhost"):
        case = world.case("guarded")
        there = f"http://{host}:{world.elsewhere.port}/guarded"
        case.script = lambda _, there=there: said(b"", "307 Temporary Redirect", f"Location: {there}")  # type: ignore[misc]
        answer = case.get(f"manifests/{host}")
        refused(answer, 502, "UNAVAILABLE")
        assert "list it in private_networks" in answer.json["errors"][0]["message"]
    assert not [each for each in world.elsewhere.asked if "guarded" in each.target]


@changes_with("repository.*.upstream.max_redirect")
def test_redirects_are_followed_as_far_as_is_allowed(world: World) -> None:
    for name, status in (("fresh", 200), ("unmoved", 502)):
        case = world.case(name)
        content, _ = case.manifest("there")
        case.script = lambda asked, name=name: (  # type: ignore[misc]
            said(b"", "302 Found", f"Location: /v2/{name}/image/manifests/there") if "/here" in asked.target else None
        )
        answer = case.get("manifests/here")
        assert answer.status == status
        assert (answer.body == content) is (status == 200)


@changes_with("repository.*.upstream.connect_timeout_secs")
def test_nobody_waits_long_for_a_connection(world: World) -> None:
    answer = world.case("deaf").get("manifests/v1")
    refused(answer, 503, "UNAVAILABLE")
    assert "no connection within 0.2 s" in answer.json["errors"][0]["message"]


@changes_with("repository.*.upstream.read_timeout_secs")
def test_nobody_waits_long_for_an_answer(world: World) -> None:
    case = world.case("silent")
    case.script = lambda _: SILENT
    answer = case.get("manifests/v1")
    refused(answer, 504, "UNAVAILABLE")
    assert "silent for 0.2 s" in answer.json["errors"][0]["message"]


@changes_with(
    "repository.*.upstream.server_ca_bundle",
    "repository.*.upstream.client_certificate",
    "repository.*.upstream.client_private_key",
)
def test_an_upstream_may_have_an_authority_of_its_own_and_ask_who_asks(world: World) -> None:
    for name, status in (("tls", 200), ("untrusted", 503), ("unshown", 503)):
        case = world.case(name, world.demanding)
        assert got(case).status == status, name


def test_a_second_upstream_is_asked_when_the_first_fails(world: World) -> None:
    case = world.case("several")
    assert got(case).status == 200
    assert "127.0.0.1:1 (several)" in world.registry.log
    assert "127.0.0.1:1 (several, 2)" in world.registry.log


def test_metrics_tell_where_content_came_from(world: World, start: Start) -> None:
    """Rate limits as Docker Hub tells them, a stale tag, and what crossed the link."""
    upstream = [{"url": f"{world.upstream.server.origin}/counted"}]
    registry = start(
        {
            "repository": {"counted": {"upstream": upstream, "cache": {"fresh_secs": 0}}},
            "observability": {"metrics": {"enabled": True}},
        }
    )
    case = Case("counted", registry)
    world.upstream.cases["counted"] = case
    content, path = case.blob(5000)
    case.manifest("v1")
    case.get(path)
    case.wait_for_log("is stored, 5000 bytes")
    case.get(path)
    limits = ("RateLimit-Limit: 100;w=21600", "RateLimit-Remaining: 76;w=21600")
    good = case.good
    case.script = lambda asked: Said(tuple(_with_fields(part, limits) for part in good(asked).parts))
    case.get("manifests/v1")
    case.script = lambda _: said(b"", "500 Internal Server Error")
    case.get("manifests/v1")
    with registry.connect() as wire:
        lines = set(wire.get("/metrics").body.decode().splitlines())
    name = f"127.0.0.1:{world.upstream.server.port} (counted)"
    assert {
        f'angos_cache_fill_bytes_total{{upstream="{name}"}} {float(len(content))}',
        f'angos_cache_fills_total{{outcome="stored",upstream="{name}"}} 1.0',
        "angos_cache_fills_running 0.0",
        'angos_cache_requests_total{kind="blob",outcome="followed",repository="counted"} 1.0',
        'angos_cache_requests_total{kind="blob",outcome="hit",repository="counted"} 1.0',
        'angos_cache_requests_total{kind="manifest",outcome="fetched",repository="counted"} 1.0',
        'angos_cache_requests_total{kind="manifest",outcome="stale",repository="counted"} 1.0',
        f'angos_upstream_requests_total{{outcome="ok",upstream="{name}",what="blob"}} 1.0',
        f'angos_upstream_requests_total{{outcome="unavailable",upstream="{name}",what="manifest head"}} 1.0',
        f'angos_upstream_rate_limit{{upstream="{name}"}} 100.0',
        f'angos_upstream_rate_limit_remaining{{upstream="{name}"}} 76.0',
    } <= lines


def _with_fields(answer: bytes, fields: tuple[str, ...]) -> bytes:
    head, blank, body = answer.partition(b"\r\n\r\n")
    return b"\r\n".join((head, *(field.encode() for field in fields))) + blank + body


@changes_with("global.max_concurrent_cache_jobs")
def test_no_more_blobs_are_fetched_at_once_than_is_allowed(world: World, start: Start) -> None:
    """With one fill allowed, a second blob waits for the first one."""
    more = start({"repository": {"plain": {"upstream": [{"url": world.upstream.server.origin}]}}})
    for registry, asked_at_once in ((world.registry, 1), (more, 2)):
        case = Case("plain", registry)
        world.upstream.cases["image"] = case
        (first, first_path), (second, second_path) = case.blob(300_000), case.blob()
        held = Held(first, 100_000)
        case.script = held.script(first_path)
        filling, waiting = case.client().connect(), case.client().connect()
        filling.send(f"GET {case.target(first_path)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        filling.answer("GET", head_only=True)
        waiting.send(f"GET {case.target(second_path)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        if asked_at_once == 2:
            assert waiting.answer("GET").body == second
        with case.client() as client:  # answered after the second one has had its turn
            assert client.get("/v2/").status == 200
        assert len(case.asked) == asked_at_once
        held.go.set()
        assert filling.receive(len(first)) == first
        if asked_at_once == 1:
            assert waiting.answer("GET").body == second
        filling.finish()
        waiting.finish()
