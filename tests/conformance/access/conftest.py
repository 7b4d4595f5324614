"""One guarded registry for each test process; nothing that a test does to it may change what others see."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conformance.access.guarded_registry import PASSWORD, REGISTRY_SECRET, Issuer, write_configuration
from tests.conformance.certificates import Authority
from tests.conformance.http_client import Client
from tests.conformance.registry_process import RegistryProcess


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Everybody trusts it."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def issuer(authority: Authority) -> Iterator[Issuer]:
    """An identity provider."""
    issuer = Issuer(authority)
    with issuer.server:
        yield issuer


@pytest.fixture(scope="session")
def guarded(
    issuer: Issuer, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RegistryProcess]:
    """What is attacked. Whatever comes, it ends well and has said no secret."""
    folder = tmp_path_factory.mktemp("guarded")
    file = write_configuration(folder, issuer, authority)
    registry = RegistryProcess.start(folder / "data", arguments=["-c", str(file)])
    yield registry
    registry.stop()
    for secret in (PASSWORD, REGISTRY_SECRET, "canary"):
        assert secret not in registry.log


@pytest.fixture
def attacker(guarded: RegistryProcess) -> Iterator[Client]:
    """Somebody who can reach the registry."""
    with guarded.client() as client:
        yield client
