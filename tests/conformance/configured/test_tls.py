"""``[server.tls]``: who the server is, and who may come."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from tests.conformance.certificates import Authority, Issued
from tests.conformance.configured.configured_registry import ConfiguredRegistry, Start, refusal
from tests.conformance.configured.coverage import changes_with

pytestmark = pytest.mark.xdist_group("configured-tls")


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Signs certificates of clients."""
    return Authority(tmp_path_factory.mktemp("clients"), "Clients")


def serving(issued: Issued, **more: str) -> dict[str, object]:
    """``[server.tls]`` with this certificate; a rule lets in Alice by her certificate."""
    files = {"server_certificate_bundle": str(issued.certificate), "server_private_key": str(issued.key)}
    rules = ['"alice" in identity.certificate.common_names', 'request.action == "get-api-version"']
    return {"server": {"tls": {**files, **more}}, "global": {"access_policy": {"rules": rules}}}


def status(
    registry: ConfiguredRegistry, authority: Authority, issued: Issued | None = None, target: str = "/v2/"
) -> int:
    context = ssl.create_default_context(cafile=str(authority.bundle))
    if issued is not None:
        context.load_cert_chain(issued.certificate, issued.key)
    with registry.connect(context=context) as wire:
        return wire.get(target).status


@changes_with("server.tls.server_certificate_bundle", "server.tls.server_private_key")
def test_clients_meet_this_certificate_and_its_key(start: Start, authority: Authority, tmp_path: Path) -> None:
    good, other = authority.issue("127.0.0.1"), authority.issue("elsewhere.example")
    assert status(start(serving(good)), authority) == 200
    with pytest.raises(ssl.SSLCertVerificationError, match="IP address mismatch"):
        status(start(serving(other)), authority)
    said = refusal(tmp_path, serving(Issued(good.certificate, other.key)))
    assert "server.tls" in said
    assert "key" in said


@changes_with("server.tls.client_ca_bundle")
def test_certificates_of_clients_count_when_somebody_vouches_for_them(
    start: Start, authority: Authority, clients: Authority
) -> None:
    alice, mallory = clients.issue(common_names=("alice",)), authority.issue(common_names=("alice",))
    issued = authority.issue("127.0.0.1")
    careless, asking = start(serving(issued)), start(serving(issued, client_ca_bundle=str(clients.bundle)))
    assert status(careless, authority, alice, "/v2/a/tags/list") == 401
    assert status(asking, authority, alice, "/v2/a/tags/list") == 404
    with pytest.raises((ssl.SSLError, ConnectionError)):
        status(asking, authority, mallory)


@changes_with("server.tls.client_auth")
def test_a_certificate_can_be_demanded(start: Start, authority: Authority, clients: Authority) -> None:
    issued = authority.issue("127.0.0.1")
    files = {"client_ca_bundle": str(clients.bundle)}
    lenient, strict = (start(serving(issued, **files, client_auth=mode)) for mode in ("optional", "required"))
    alice = clients.issue(common_names=("alice",))
    assert status(lenient, authority) == status(lenient, authority, alice) == status(strict, authority, alice) == 200
    with pytest.raises((ssl.SSLError, ConnectionError)):
        status(strict, authority)
