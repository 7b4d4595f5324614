"""``angos server`` with metrics and logs as its configuration says."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conformance.http_client import Client
from tests.conformance.registry_process import RegistryProcess
from tests.conformance.runtime.observed import Scrape, ask, tries

CONFIGURATION = """
[server]
access_log = true
[global.access_policy]
default = "deny"
rules = ["request.action != 'list-catalog'"]

[observability.log]
format = "json"
level = "debug"

[observability.metrics]
enabled = true
{metrics}
"""


@pytest.fixture(params=[1, 2])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RegistryProcess]:
    """With a listener of its own for metrics; its log lies beside its data."""
    file = tmp_path / "angos.toml"
    file.write_text(CONFIGURATION.format(metrics='listen = "127.0.0.1:0"'))
    server = RegistryProcess.start(tmp_path / "data", workers=request.param, arguments=("-c", str(file)))
    try:
        yield server
        server.stop()
    finally:
        server.kill()


def entries(server: RegistryProcess) -> list[dict[str, object]]:
    return [json.loads(line) for line in server.log.splitlines()]


def scrape(server: RegistryProcess) -> Scrape:
    found = re.search(r"metrics on (http://\S+)", server.said)
    assert found is not None, server.said
    return Scrape(ask("GET", found[1])[2].decode())


def scrape_until(server: RegistryProcess, condition: Callable[[Scrape], bool]) -> Scrape:
    for _ in tries():  # answers are counted after their last byte, and workers tell each other once a second
        if condition(found := scrape(server)):
            return found
    raise AssertionError


def test_what_clients_do_is_counted_and_logged(server: RegistryProcess) -> None:
    with server.client() as client:
        assert client.get("/v2/team/app/tags/list?n=5").status == 404
        denied = client.get("/v2/_catalog")
        assert denied.status == 401
        assert ask("GET", f"{server.url}/metrics")[0] == 404  # they are elsewhere
    denials = {"method": "GET", "route": "catalog", "status": "401"}
    found = scrape_until(server, lambda found: found.value("http_requests_total", **denials) == 1)
    assert found.value("http_requests_total", method="GET", route="tags", status="404") == 1
    assert found.value("angos_access_denied_total", action="list-catalog") == 1
    assert found.sum("angos_storage_operations_total") > 0
    for _ in tries():
        if "GET /v2/_catalog" in server.log:
            break
    about = [entry for entry in entries(server) if entry.get("request_id") == denied["X-Request-Id"]]
    assert {"angos.authorization", "angos.access"} <= {entry["logger"] for entry in about}
    assert [entry["path"] for entry in about if entry["logger"] == "angos.access"] == ["/v2/_catalog"]


def test_what_the_server_counts_is_published(server: RegistryProcess) -> None:
    connections = [Client.of(server.url).connect() for _ in range(4)]
    scrape_until(server, lambda found: found.value("angos_connections_open") == 4)
    for connection in connections:
        connection.close()
    found = scrape_until(server, lambda found: found.value("angos_connections_open") == 0)
    assert found.value("angos_connections_accepted_total") == 4


def test_reloads_are_counted_and_the_log_follows(server: RegistryProcess, tmp_path: Path) -> None:
    file = tmp_path / "angos.toml"
    good = file.read_text()
    assert scrape(server).value("angos_configuration_generation") == 1
    file.write_text(good.replace("access_log = true", "access_log = 7"))
    scrape_until(server, lambda found: found.value("angos_configuration_reloads_total", result="rejected") == 1)
    file.write_text(
        good.replace("access_log = true", "access_log = false").replace('format = "json"', 'format = "text"')
    )
    found = scrape_until(server, lambda found: found.value("angos_configuration_generation") == 2)
    assert found.value("angos_configuration_reloads_total", result="applied") == 1
    for _ in tries():
        if "angos: INFO: configuration reloaded (generation 2)" in server.log:
            break
    with server.client() as client:
        answered = client.get("/v2/team/app/tags/list")
    assert answered.get("X-Request-Id") is None
    scrape_until(server, lambda found: found.sum("http_requests_total") == 1)
    assert "/v2/team/app/tags/list" not in server.log


def test_metrics_can_be_beside_the_registry(tmp_path: Path) -> None:
    file = tmp_path / "angos.toml"
    file.write_text(CONFIGURATION.format(metrics=""))
    server = RegistryProcess.start(tmp_path / "data", arguments=("-c", str(file)))
    try:
        status, _, body = ask("GET", f"{server.url}/metrics")
        assert status == 200
        assert Scrape(body.decode()).value("http_requests_in_flight") == 1  # this one
        server.stop()
    finally:
        server.kill()


def test_without_metrics_there_is_no_trace_of_them(tmp_path: Path) -> None:
    server = RegistryProcess.start(tmp_path / "data")
    try:
        assert ask("GET", f"{server.url}/metrics")[0] == 404
        server.stop()
    finally:
        server.kill()


SECRETS = {
    "password": "c4n4ry-password",
    "wrong password": "c4n4ry-wrong",
    "webhook token": "c4n4ry-webhook",
    "bearer token": "c4n4ry-bearer",
    "query": "c4n4ry-query",
    "forwarded": "c4n4ry-forwarded",
    "signing key": base64.b64encode(b"c4n4ry" * 8).decode(),
}

GUARDED = """
[server]
access_log = true
query_timeout = 20

[global]
authorization_webhook = "gate"

[global.access_policy]
default = "allow"
rules = ["identity.username == 'nobody'"]

[auth.identity.alice]
username = "alice"
password = "{phc}"

[auth.token_service]
secret_key = "{signing}"

[auth.webhook.gate]
url = "http://127.0.0.1:9/decide"
bearer_token = "{webhook}"
timeout_ms = 1000

[observability.log]
format = "{format}"
level = "debug"
"""


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_no_line_of_a_guarded_registry_holds_a_secret(log_format: str, tmp_path: Path) -> None:
    from argon2 import PasswordHasher

    phc = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1).hash(SECRETS["password"])
    file = tmp_path / "angos.toml"
    signing, webhook = SECRETS["signing key"], SECRETS["webhook token"]
    file.write_text(GUARDED.format(phc=phc, signing=signing, webhook=webhook, format=log_format))
    server = RegistryProcess.start(tmp_path / "data", arguments=("-c", str(file)))
    try:
        tokens = []
        with server.client() as client:
            for password in (SECRETS["password"], SECRETS["wrong password"]):
                basic = "Basic " + base64.b64encode(f"alice:{password}".encode()).decode()
                for target in ("/v2/?", "/v2/team/app/manifests/latest?", "/token?scope=repository:team/app:pull&"):
                    fields = [("Authorization", basic), ("X-Forwarded-For", SECRETS["forwarded"])]
                    answered = client.get(f"{target}x={SECRETS['query']}", fields)
                    if answered.status == 200 and target.startswith("/token"):
                        tokens.append(answered.json["token"])
            form = f"grant_type=password&username=alice&password={SECRETS['password']}&service=x".encode()
            client.post("/token", form, [("Content-Type", "application/x-www-form-urlencoded")])
            for token in (*tokens, SECRETS["bearer token"], f"{tokens[0]}x"):
                client.get("/v2/team/app/tags/list", [("Authorization", f"Bearer {token}")])
            fields = [("Authorization", "Basic " + base64.b64encode(f"alice:{tokens[0]}".encode()).decode())]
            client.get("/v2/team/app/tags/list", fields)
        server.stop()
    finally:
        server.kill()
    assert tokens
    assert "/v2/team/app/manifests/latest" in server.log
    assert "webhook gate" in server.log
    signatures = [token.rpartition(".")[2] for token in tokens]
    hidden = [*SECRETS.values(), phc, phc.rpartition("$")[2], *tokens, *signatures]
    assert [secret for secret in hidden if secret in server.log] == []
