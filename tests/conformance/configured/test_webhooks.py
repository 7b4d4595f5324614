"""``[auth.webhook]``: who is asked, how, and what becomes of the answer."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.conformance.certificates import Authority
from tests.conformance.configured.configured_registry import ConfiguredRegistry, Document, Start, is_silent
from tests.conformance.configured.coverage import changes_with
from tests.conformance.scripted_server import SILENT, Asked, Said, ScriptedServer, said

pytestmark = pytest.mark.xdist_group("configured-webhooks")


@dataclass
class Services:
    """One server for all webhooks, told apart by the path of their address, and one that demands a certificate."""

    common: ScriptedServer
    demanding: ScriptedServer
    opened: threading.Event
    """Until it is set, ``/slow`` does not answer."""

    def asked(self, webhook: str) -> list[Asked]:
        """What this webhook was asked."""
        return [asked for asked in self.common.asked if asked.target == f"/{webhook}"]


@pytest.fixture(scope="module")
def services(authority: Authority) -> Iterator[Services]:
    """Everybody is let in."""
    opened = threading.Event()

    def answer(asked: Asked) -> Said:
        if asked.target == "/hasty":
            return SILENT
        if asked.target == "/slow":
            opened.wait()
        return said()

    tls = authority.server_context("127.0.0.1", clients=authority)
    with ScriptedServer(answer) as common, ScriptedServer(answer, tls) as demanding:
        yield Services(common, demanding, opened)
        opened.set()


@pytest.fixture(scope="module")
def registry(start_shared: Start, services: Services, authority: Authority) -> ConfiguredRegistry:
    """Each webhook is asked about the repository of its name."""
    issued = authority.issue(common_names=("registry",))
    trust = {"server_ca_bundle": str(authority.bundle)}
    shown = {"client_certificate_bundle": str(issued.certificate), "client_private_key": str(issued.key)}
    webhooks: dict[str, Document] = {
        "plain": {},
        "remembered": {"cache_ttl": 3600},
        "forgotten": {"cache_ttl": 0},
        "expiring": {"cache_ttl": 0.05},
        "forwarding": {"forward_headers": ["X-Reason"]},
        "bearer": {"bearer_token": "let-me-in"},
        "basic": {"basic_auth": {"username": "registry", "password": "open sesame"}},
        "hasty": {"timeout_ms": 100},
        "slow": {"timeout_ms": 600_000},
    }
    settings = {
        name: {"url": f"{services.common.origin}/{name}", "timeout_ms": 30_000, **more}
        for name, more in webhooks.items()
    }
    for name, more in (("known", trust | shown), ("stranger", trust), ("distrusted", shown)):
        settings[name] = {"url": services.demanding.origin, "timeout_ms": 30_000, **more}
    return start_shared(
        {
            "global": {"access_policy": {"default": "allow"}, "authorization_webhook": "plain"},
            "auth": {"webhook": settings},
            "repository": {name: {"authorization_webhook": name} for name in settings}
            | {"free": {"authorization_webhook": ""}},
        }
    )


def allowed(registry: ConfiguredRegistry, namespace: str, *fields: str) -> bool:
    """What somebody without a name learns about this repository."""
    status = registry.status(f"/v2/{namespace}/tags/list", *fields)
    assert status in (401, 404)
    return status == 404


@changes_with("auth.webhook.*.url", "global.authorization_webhook", "repository.*.authorization_webhook")
def test_the_webhook_of_a_repository_is_asked_and_that_of_all_for_the_others(
    registry: ConfiguredRegistry, services: Services
) -> None:
    for namespace in ("other", "bearer", "free"):
        assert allowed(registry, namespace)
    by_path = {asked.target: asked.values("X-Registry-Namespace")[0] for asked in services.common.asked}
    assert by_path["/plain"] == "other"
    assert by_path["/bearer"] == "bearer"
    assert "free" not in by_path.values()


@changes_with("auth.webhook.*.cache_ttl")
def test_answers_are_remembered_for_a_while(registry: ConfiguredRegistry, services: Services) -> None:
    for _ in range(1000):
        assert allowed(registry, "expiring")
        assert allowed(registry, "remembered")
        if len(services.asked("expiring")) == 2:
            break
    assert len(services.asked("expiring")) == 2
    assert len(services.asked("remembered")) == 1
    for _ in range(2):
        assert allowed(registry, "forgotten")
    assert len(services.asked("forgotten")) == 2


@changes_with("auth.webhook.*.forward_headers")
def test_fields_of_the_client_are_passed_on_if_that_is_wanted(registry: ConfiguredRegistry, services: Services) -> None:
    for webhook, values in (("forwarding", ["because"]), ("plain", [])):
        assert allowed(registry, webhook, "X-Reason: because")
        assert services.asked(webhook)[-1].values("X-Reason") == values


@changes_with("auth.webhook.*.bearer_token", "auth.webhook.*.basic_auth.username", "auth.webhook.*.basic_auth.password")
def test_the_registry_says_who_it_is(registry: ConfiguredRegistry, services: Services) -> None:
    encoded = base64.b64encode(b"registry:open sesame").decode()
    for webhook, values in (("bearer", ["Bearer let-me-in"]), ("basic", [f"Basic {encoded}"]), ("plain", [])):
        assert allowed(registry, webhook, "X-Anything: that makes it another request")
        assert services.asked(webhook)[-1].values("Authorization") == values


@changes_with("auth.webhook.*.timeout_ms")
def test_an_answer_has_to_come_in_time(registry: ConfiguredRegistry, services: Services) -> None:
    with registry.connect() as wire:
        wire.ask("/v2/slow/tags/list")
        assert not allowed(registry, "hasty")
        assert is_silent(wire)
        services.opened.set()
        assert wire.answer().status == 404


@changes_with(
    "auth.webhook.*.server_ca_bundle",
    "auth.webhook.*.client_certificate_bundle",
    "auth.webhook.*.client_private_key",
)
def test_both_sides_know_each_other_by_certificates(registry: ConfiguredRegistry) -> None:
    assert [allowed(registry, name) for name in ("known", "stranger", "distrusted")] == [True, False, False]
