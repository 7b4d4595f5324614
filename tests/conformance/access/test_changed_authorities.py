"""Certificates over real handshakes: policies see what they say, and only as long as their issuer is believed."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.conformance.access.guarded_registry import ALICE, Issuer, basic, write_configuration
from tests.conformance.certificates import Authority, Issued
from tests.conformance.http_client import Answer, Client, Connection, request_head
from tests.conformance.registry_process import RegistryProcess
from tests.conformance.runtime.reloading import wait_until

TLS = """
[server.tls]
server_certificate_bundle = "{certificate}"
server_private_key = "{key}"
client_ca_bundle = "{clients}"

[repository."certificates"]
[repository."certificates".access_policy]
rules = [
    '"Robots" in identity.certificate.organizations && request.action == "list-tags"',
    'request.reference in identity.certificate.common_names',
    'request.reference == "two-organizations" && size(identity.certificate.organizations) == 2',
]
"""
LISTING = "/v2/certificates/tags/list"


@dataclass
class Encrypted:
    """A registry over TLS whose authorities of clients can be changed."""

    registry: RegistryProcess
    file: Path
    bundle: Path
    servers: Authority
    clients: Authority
    generation: int = 1
    connections: list[Connection] = field(default_factory=list)

    def connect(self, issued: Issued | None = None) -> Connection:
        context = ssl.create_default_context(cafile=self.servers.bundle)
        if issued is not None:
            context.load_cert_chain(issued.certificate, issued.key)
        client = Client.of(self.registry.url)
        connection = Connection(client.host, client.port)
        self.connections.append(connection)
        connection.socket = context.wrap_socket(connection.socket, server_hostname="127.0.0.1")
        return connection

    def change(self, action: Callable[[], object]) -> None:
        action()
        self.generation += 1
        wait_until(lambda: f"(generation {self.generation})" in self.registry.log)


@pytest.fixture(params=["asyncio", "trio"])
def encrypted(
    request: pytest.FixtureRequest, issuer: Issuer, authority: Authority, tmp_path: Path
) -> Iterator[Encrypted]:
    clients = Authority(tmp_path, "Clients")
    bundle = tmp_path / "trusted.pem"
    bundle.write_bytes(clients.bundle.read_bytes())
    server = authority.issue("127.0.0.1")
    text = TLS.format(certificate=server.certificate, key=server.key, clients=bundle)
    file = write_configuration(tmp_path, issuer, authority, text)
    rules = file.read_text().replace("rules = [", "rules = [\n    'request.namespace == \"certificates\"',", 1)
    file.write_text(rules)
    registry = RegistryProcess.start(tmp_path / "data", loop=request.param, arguments=["-c", str(file)])
    encrypted = Encrypted(registry, file, bundle, authority, clients)
    yield encrypted
    for connection in encrypted.connections:
        connection.close()
    registry.stop()


def ask(connection: Connection, target: str = LISTING, *fields: tuple[str, str]) -> Answer:
    connection.send(request_head("GET", target, [("Host", "127.0.0.1"), *fields]))
    return connection.answer("GET", target)


def statuses(connection: Connection, references: list[str]) -> list[int]:
    return [ask(connection, f"/v2/certificates/manifests/{reference}").status for reference in references]


def replaced(path: Path, content: bytes) -> Callable[[], object]:
    def replace() -> None:
        path.with_suffix(".next").write_bytes(content)
        path.with_suffix(".next").rename(path)

    return replace


def test_a_certificate_counts_as_long_as_its_issuer_is_believed(encrypted: Encrypted, tmp_path: Path) -> None:
    robot = encrypted.clients.issue(organizations=("Robots",))
    busy, idle, anonymous = encrypted.connect(robot), encrypted.connect(robot), encrypted.connect()
    begun = request_head("GET", LISTING, [("Host", "127.0.0.1")])
    assert [ask(each).status for each in (busy, idle, anonymous)] == [404, 404, 401]

    busy.send(begun[:20])
    encrypted.change(replaced(encrypted.file, encrypted.file.read_bytes() + b"# another comment\n"))
    assert [ask(each).status for each in (idle, anonymous)] == [404, 401], "nothing about certificates has changed"

    others = Authority(tmp_path, "Others")
    encrypted.change(replaced(encrypted.bundle, others.bundle.read_bytes()))
    assert idle.closed_by_server()
    busy.send(begun[20:])
    assert busy.answer("GET").status == 421
    assert busy.closed_by_server()
    with pytest.raises((ssl.SSLError, OSError)):
        ask(encrypted.connect(robot))
    newcomer = encrypted.connect(others.issue(organizations=("Robots",)))
    assert ask(newcomer).status == 404


def test_those_without_a_certificate_are_asked_when_one_is_required(encrypted: Encrypted) -> None:
    anonymous = encrypted.connect()
    begun = request_head("GET", LISTING, [("Host", "127.0.0.1"), ALICE])
    anonymous.send(begun[:20])
    text = encrypted.file.read_text()
    required = text.replace("client_ca_bundle = ", 'client_auth = "required"\nclient_ca_bundle = ')
    encrypted.change(replaced(encrypted.file, required.encode()))
    anonymous.send(begun[20:])
    assert anonymous.answer("GET").status == 421


def test_policies_see_exactly_what_a_certificate_says(encrypted: Encrypted) -> None:
    names = ["exact", "Exact", "exact2", "exac", "two-organizations"]
    for issued, expected in (
        (encrypted.clients.issue(common_names=("exact",)), [404, 403, 403, 403, 403]),
        (encrypted.clients.issue(common_names=("other", "exact")), [404, 403, 403, 403, 403]),
        (encrypted.clients.issue(common_names=("exact ", " exact", "exact\u200b", "ex\u0430ct")), [403] * 5),
        (encrypted.clients.issue(common_names=("exact,CN=Exact", "CN=exact", "exact/O=Robots")), [403] * 5),
        (encrypted.clients.issue(organizations=("exact", "Robots\u00a0")), [403, 403, 403, 403, 404]),
        (encrypted.clients.issue("exact", "exact2"), [401] * 5),
        (encrypted.clients.issue("exact.example", common_names=("\u202etcaxe",)), [403] * 5),
    ):
        connection = encrypted.connect(issued)
        assert statuses(connection, names) == expected
        assert ask(connection).status in (401, 403)


def test_certificate_and_password_add_up_and_neither_replaces_the_other(encrypted: Encrypted) -> None:
    connection = encrypted.connect(encrypted.clients.issue(common_names=("alice",), organizations=("Robots",)))
    assert ask(connection).status == 404
    assert ask(connection, "/v2/private/app/tags/list").status == 403, "a certificate's name is no user's name"
    assert ask(connection, "/v2/private/app/tags/list", ALICE).status == 404
    assert ask(connection, LISTING, basic("alice", "wrong")).status == 404, (
        "who is wrong about a password is still a robot"
    )
    assert ask(connection, "/v2/", basic("alice", "wrong")).status == 401
    assert ask(connection, "/v2/private/app/tags/list").status == 403


def test_whoever_is_not_believed_is_not_let_in(encrypted: Encrypted, tmp_path: Path) -> None:
    strangers = Authority(tmp_path, "Clients Of Others")
    (tmp_path / "same").mkdir()
    same_name = Authority(tmp_path / "same", "Clients")
    for issued in (
        strangers.issue(organizations=("Robots",)),
        same_name.issue(organizations=("Robots",)),
        encrypted.clients.issue(organizations=("Robots",), expired=True),
    ):
        with pytest.raises((ssl.SSLError, ConnectionError, AssertionError)):
            ask(encrypted.connect(issued))
