"""TLS itself: what is refused at the start, who is let in, and what clients that misbehave in it can do."""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
from contextlib import ExitStack
from pathlib import Path

import pytest

from angos.runtime.server.certificate import read_subject
from angos.runtime.server.tls import TlsOptions, TlsUnusable, load_tls
from angos.sansio.http.message import Certificate, Peer
from tests.conformance.certificates import Issued
from tests.conformance.server.running import RunningServer, StartServer
from tests.conformance.server.stand_in import SMALL
from tests.conformance.server.tls_material import HOST, TlsMaterial
from tests.conformance.server.wire import PATIENCE_SECONDS, Wire


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> TlsMaterial:
    """What servers and clients of this module have in common."""
    return TlsMaterial(tmp_path_factory.mktemp("tls"))


def failures(server: RunningServer) -> dict[str, int]:
    """Handshakes that failed, by their kind."""
    return {kind: count for kind, count in server.surroundings.counters.tls_handshakes_failed.items() if count}


# --- what is served with ----------------------------------------------------------------------------------------------


def problem_of(options: TlsOptions) -> str:
    with pytest.raises(TlsUnusable) as refused:
        load_tls(options)
    assert refused.value.__cause__ is None
    return str(refused.value)


def test_a_missing_file_is_named(material: TlsMaterial, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    for key in ("server_certificate_bundle", "server_private_key", "client_ca_bundle"):
        problem = problem_of(material.options(**{key: nowhere}))
        assert problem == f"{key} {nowhere} cannot be read: No such file or directory"


def test_a_folder_instead_of_a_file_is_named(material: TlsMaterial, tmp_path: Path) -> None:
    problem = problem_of(material.options(server_private_key=tmp_path))
    assert problem == f"server_private_key {tmp_path} cannot be read: Is a directory"


def test_the_wrong_kind_of_file_is_named(material: TlsMaterial) -> None:
    options = material.options()
    certificate, key = options.server_certificate_bundle, options.server_private_key
    assert problem_of(TlsOptions(key, key)).startswith(f"server_certificate_bundle {key} holds no certificate in PEM")
    assert problem_of(TlsOptions(certificate, certificate)).startswith(
        f"server_private_key {certificate} holds no private key in PEM"
    )
    assert problem_of(TlsOptions(certificate, key, key)).startswith(f"client_ca_bundle {key} holds no certificate")


def test_damaged_files_are_named(material: TlsMaterial, tmp_path: Path) -> None:
    options = material.options()
    certificate, key = options.server_certificate_bundle, options.server_private_key
    secret = key.read_text().splitlines()[1]
    damaged_certificate, damaged_key = tmp_path / "certificate", tmp_path / "key"
    damaged_certificate.write_text(certificate.read_text().replace("MII", "M!!"))
    damaged_key.write_text(key.read_text().replace(secret, secret[:-9]))
    for broken, culprit in (
        (TlsOptions(damaged_certificate, key), f"server_certificate_bundle {damaged_certificate} "),
        (TlsOptions(certificate, damaged_key), f"server_private_key {damaged_key} "),
        (TlsOptions(certificate, key, damaged_certificate), f"client_ca_bundle {damaged_certificate} "),
    ):
        problem = problem_of(broken)
        assert problem.startswith(culprit + "cannot be read as PEM: ")
        assert secret[:20] not in problem


def test_a_key_of_another_certificate_is_refused(material: TlsMaterial) -> None:
    options, other = material.options(), material.options().server_private_key
    assert problem_of(TlsOptions(options.server_certificate_bundle, other)) == (
        f"server_private_key {other} does not belong to the first certificate in {options.server_certificate_bundle}"
    )


def test_an_encrypted_key_is_refused_without_asking_anybody(material: TlsMaterial) -> None:
    issued = material.servers.issue(HOST)
    key = material.servers.encrypted(issued, b"a passphrase")
    problem = problem_of(TlsOptions(issued.certificate, key))
    assert problem == f"server_private_key {key} is encrypted; store it without a passphrase"


def test_demanding_certificates_without_saying_whose_is_refused(material: TlsMaterial) -> None:
    assert problem_of(material.options(client_auth="required")) == (
        "client_auth is required, but no client_ca_bundle says which certificates are trusted"
    )


# --- who is let in ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_both_current_versions_are_served(
    start_server: StartServer, material: TlsMaterial, version: ssl.TLSVersion
) -> None:
    context = material.client()
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(["h2", "http/1.1"])
    server = start_server(tls=material.server(), context=context)
    (server.stand_in.folder / "content").write_bytes(bytes(1_000_000))
    with server.connect() as wire:
        assert isinstance(wire.socket, ssl.SSLSocket)
        assert wire.socket.selected_alpn_protocol() == "http/1.1"
        assert wire.get().body == SMALL
        assert wire.put("/receive", bytes(1_000_000)).json()["whole"]
        assert wire.get("/file?name=content&length=1000000").body == bytes(1_000_000)
    assert {request.peer for request in server.stand_in.requests} == {Peer(HOST, "https")}
    assert all(request.peer is server.stand_in.requests[0].peer for request in server.stand_in.requests)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_older_versions_are_not(start_server: StartServer, material: TlsMaterial) -> None:
    context = material.client()
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    server = start_server(tls=material.server(), context=context)
    with pytest.raises(ssl.SSLError):
        server.connect()
    server.wait_until(lambda _: failures(server) == {"other": 1})


def test_the_application_learns_who_a_client_is(start_server: StartServer, material: TlsMaterial) -> None:
    issued = material.clients.issue(common_names=("ci", "deploy"), organizations=("Müller & Co",))
    tls = material.server(client_ca_bundle=material.clients.bundle)
    server = start_server(tls=tls, context=material.client(issued))
    with server.connect() as wire:
        wire.get()
    assert server.stand_in.requests[0].peer == Peer(HOST, "https", Certificate(("Müller & Co",), ("ci", "deploy")))


def test_a_plain_connection_has_an_address_and_nothing_else(start_server: StartServer) -> None:
    server = start_server()
    with server.connect() as wire:
        wire.get()
    assert server.stand_in.requests[0].peer == Peer(HOST, "http")


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this system has no sockets for both families")
def test_an_ipv4_address_stays_one_on_a_socket_for_both_families(start_server: StartServer) -> None:
    both = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    both.setblocking(False)
    server = start_server(sockets=[both])
    for address in (HOST, "::1"):
        with Wire((address, server.address[1])) as wire:
            wire.get()
    assert [request.peer.address for request in server.stand_in.requests] == [HOST, "::1"]


def refused(server: RunningServer, context: ssl.SSLContext) -> bool:
    """In TLS 1.3 a client learns only after the handshake what the server thinks of its certificate."""
    try:
        with Wire(server.address, context=context) as wire:
            wire.get()
    except ssl.SSLError as error:
        assert "ALERT" in (error.reason or "")
        return True
    return False


def test_without_a_certificate_only_a_server_that_demands_one_refuses(
    start_server: StartServer, material: TlsMaterial, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = material.clients.bundle
    optional = start_server(tls=material.server(client_ca_bundle=bundle))
    assert not refused(optional, material.client())
    assert optional.stand_in.requests[0].peer.certificate is None
    required = start_server(tls=material.server(client_ca_bundle=bundle, client_auth="required"))
    assert not refused(required, material.client(material.clients.issue(common_names=("ci",))))
    with caplog.at_level(logging.DEBUG, "angos.server"):
        assert refused(required, material.client())
        required.wait_until(lambda _: failures(required) == {"certificate": 1})
    assert any("it has no certificate" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("client_auth", ["optional", "required"])
@pytest.mark.parametrize("kind", ["of another authority", "expired"])
def test_a_certificate_that_is_not_trusted_is_never_let_in(
    start_server: StartServer, material: TlsMaterial, client_auth: str, kind: str
) -> None:
    issued: Issued = (
        material.clients.issue(common_names=("ci",), expired=True)
        if kind == "expired"
        else material.servers.issue(common_names=("ci",))
    )
    server = start_server(tls=material.server(client_ca_bundle=material.clients.bundle, client_auth=client_auth))
    assert refused(server, material.client(issued))
    server.wait_until(lambda _: failures(server) == {"certificate": 1})
    assert not server.stand_in.requests


def test_the_certificates_of_all_authorities_in_a_bundle_are_trusted(
    start_server: StartServer, material: TlsMaterial, tmp_path: Path
) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(material.servers.bundle.read_bytes() + b"\n# comment\n" + material.clients.bundle.read_bytes())
    server = start_server(tls=material.server(client_ca_bundle=both, client_auth="required"))
    assert not refused(server, material.client(material.servers.issue(common_names=("a",))))
    assert not refused(server, material.client(material.clients.issue(common_names=("b",))))


def test_a_client_shows_its_certificate_each_time(start_server: StartServer, material: TlsMaterial) -> None:
    context = material.client(material.clients.issue(common_names=("ci",)))
    server = start_server(tls=material.server(client_ca_bundle=material.clients.bundle), context=context)
    with server.connect() as wire:
        wire.get()
        assert isinstance(wire.socket, ssl.SSLSocket)
        session = wire.socket.session
    with (
        socket.create_connection(server.address, PATIENCE_SECONDS) as plain,
        context.wrap_socket(plain, server_hostname=HOST, session=session) as again,
    ):
        assert not again.session_reused


# --- clients that misbehave -------------------------------------------------------------------------------------------


def test_plain_http_is_told_to_use_https(start_server: StartServer, material: TlsMaterial) -> None:
    server = start_server(tls=material.server())
    with Wire(server.address) as wire:
        wire.ask("/v2/secret", "Content-Length: 100000", method="PUT", body=bytes(100_000))
        answer = wire.answer()
        assert (answer.status, answer.closes, answer.error_code()) == (400, True, "UNSUPPORTED")
        assert "https://" in answer.json()["errors"][0]["message"]
        assert wire.is_closed()
    server.wait_until(lambda _: failures(server) == {"plain_http": 1})
    assert not server.stand_in.requests


@pytest.mark.parametrize(
    "value", [b"\0" * 100, b"\x80\x2e\x01\x03\x01", b"\x16\x03\x01\x00\x05hello", b"\x16" * 70_000]
)
def test_what_is_no_tls_is_closed(start_server: StartServer, material: TlsMaterial, value: bytes) -> None:
    server = start_server(tls=material.server(), linger_seconds=0.1)
    with Wire(server.address) as wire:
        wire.send(value)
        wire.end_sending()
        with contextlib.suppress(ConnectionError):
            wire.rest()
    server.wait_until(lambda _: server.surroundings.counters.connections_open == 0)
    assert failures(server) in ({"other": 1}, {})


def test_somebody_who_only_looks_whether_the_port_is_open_is_no_failure(
    start_server: StartServer, material: TlsMaterial
) -> None:
    server = start_server(tls=material.server(), context=material.client())
    for _ in range(3):
        Wire(server.address).close()
    with server.connect() as wire:
        wire.get()
    assert failures(server) == {}


def client_hello() -> bytes:
    """What a client says first."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


@pytest.mark.parametrize("said", [0, 1, 3, 100, -1, None])
def test_a_handshake_that_stalls_is_ended(start_server: StartServer, material: TlsMaterial, said: int | None) -> None:
    hello = client_hello()[:said]
    server = start_server(tls=material.server(handshake_timeout=0.3))
    with Wire(server.address) as wire:
        wire.send(hello)
        with contextlib.suppress(ConnectionError):
            wire.rest()
    server.wait_until(lambda _: failures(server) == {"timeout": 1})
    assert server.surroundings.counters.timeouts["handshake"] == 1


def test_hundreds_of_handshakes_that_stall_hold_up_nobody(start_server: StartServer, material: TlsMaterial) -> None:
    server = start_server(tls=material.server(handshake_timeout=3600), context=material.client(), drain_seconds=0.1)
    hello = client_hello()
    wires: list[Wire] = []
    try:
        for number in range(600):
            wires.append(Wire(server.address))
            wires[-1].send(hello[: (0, 50, None)[number % 3]])
        for _ in range(3):
            with server.connect() as other:
                assert other.get().body == SMALL
        assert server.surroundings.counters.connections_open >= 600
    finally:
        for wire in wires:
            wire.close()


def test_the_memory_of_handshakes_that_stall_is_bounded(
    start_server: StartServer, material: TlsMaterial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("angos.runtime.server.encrypted.HANDSHAKES_MAX", 5)
    server = start_server(tls=material.server(handshake_timeout=3600), context=material.client(), drain_seconds=0.1)
    hello = client_hello()
    with ExitStack() as stack:
        for number in range(30):
            stalling = stack.enter_context(Wire(server.address))
            stalling.send(hello[: 100 if number % 2 else None])
            if number % 3 == 0:
                with server.connect() as other:
                    assert other.get().body == SMALL
        server.wait_until(lambda _: len(server.surroundings.handshakes) == 5)
        server.wait_until(lambda _: failures(server).get("timeout", 0) >= 25)
        assert server.surroundings.counters.connections_open == 5


def test_connections_beyond_the_limit_are_closed(start_server: StartServer, material: TlsMaterial) -> None:
    server = start_server(tls=material.server(), context=material.client(), connections_max=2)
    with server.connect() as first, server.connect() as second:
        first.ask("/read", "Content-Length: 5", method="PUT")
        second.ask("/read", "Content-Length: 5", method="PUT")
        server.wait_until(lambda stand_in: stand_in.working == 2)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            server.connect()
        first.send(b"hello")
        assert first.answer().body == b"hello"
        second.send(b"hello")
        assert second.answer().body == b"hello"
    assert server.surroundings.counters.connections_refused == {"total": 1, "client": 0}


def test_handshakes_under_way_make_room_for_others(
    start_server: StartServer, material: TlsMaterial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("angos.runtime.server.acceptor.EVICTABLE_SECONDS", 0.0)
    server = start_server(tls=material.server(), context=material.client(), connections_max=2)
    with Wire(server.address) as first, Wire(server.address) as second:
        first.send(b"\x16")
        server.wait_until(lambda _: server.surroundings.counters.connections_open == 2)
        with server.connect() as other:
            assert other.get().body == SMALL
        assert first.is_closed()
        second.close()


# --- new certificates -------------------------------------------------------------------------------------------------


def test_a_new_certificate_is_shown_to_new_clients_while_others_go_on(
    start_server: StartServer, material: TlsMaterial
) -> None:
    before, after = material.options(), material.options(client_ca_bundle=material.clients.bundle)
    server = start_server(tls=load_tls(before), context=material.client())
    content = bytes(range(256)) * 80_000
    (server.stand_in.folder / "content").write_bytes(content)
    with server.connect(receive_buffer=8192) as download, server.connect() as idle, server.connect() as upload:
        upload.ask("/receive", "Content-Length: 1000000", method="PUT", body=bytes(500_000))
        idle.get()
        download.ask(f"/file?name=content&length={len(content)}")
        server.wait_until(lambda stand_in: bool(stand_in.opened) and stand_in.working == 1)
        server.change(lambda surroundings: setattr(surroundings, "tls", load_tls(after)))
        known = material.client(material.clients.issue(common_names=("ci",)))
        with Wire(server.address, context=known) as fresh:
            assert shown(fresh) == certificate_in(after.server_certificate_bundle)
            fresh.get()
        assert server.stand_in.requests[-1].peer.certificate == Certificate((), ("ci",))
        upload.send(bytes(500_000))
        assert upload.answer().json()["whole"]
        assert download.answer().body == content
        assert idle.get().body == SMALL
        for old in (download, idle, upload):
            assert shown(old) == certificate_in(before.server_certificate_bundle)


def shown(wire: Wire) -> bytes | None:
    """The certificate of the server."""
    assert isinstance(wire.socket, ssl.SSLSocket)
    return wire.socket.getpeercert(binary_form=True)


def certificate_in(path: Path) -> bytes:
    """The first certificate of a bundle."""
    value = ssl.PEM_cert_to_DER_cert(path.read_text())
    assert read_subject(value).common_names == ("server",)
    return value
