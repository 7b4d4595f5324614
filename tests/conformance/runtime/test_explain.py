"""``angos explain``: what it prints is what the server decides, for everybody and every way to say who one is."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from angos.runtime.maintenance.argon import hash_password
from tests.conformance.certificates import Authority
from tests.conformance.identity_provider import IdentityProvider
from tests.conformance.registry_process import RegistryProcess
from tests.conformance.scripted_server import ScriptedServer, said

SECRET = "c2VjcmV0" * 8
CONFIGURATION = """
[auth.identity.alice]
username = "alice"
password = "{hash}"

[auth.oidc.ci]
issuer = "{issuer}"
server_ca_bundle = "{authority}"

[auth.token_service]
secret_key = "{secret}"

[auth.webhook.acl]
url = "{webhook}"
timeout_ms = 10000
cache_ttl = 0

[global.access_policy]
rules = [
    'identity.username == "alice"',
    'identity.oidc != null && identity.oidc.claims["repository"] == "acme/app"',
    '"ops" in identity.certificate.organizations',
    'identity.client_ip == "198.51.100.7"',
]

[repository."closed"]
authorization_webhook = "acl"

[repository."closed".access_policy]
rules = ['request.digest == "x"', 'request.action == "get-manifest"']
"""


class Explained:
    """A configuration with everything, and the command on it."""

    def __init__(self, folder: Path, provider: IdentityProvider, authority: Authority, webhook: str) -> None:
        self.path = folder / "angos.toml"
        self.path.write_text(
            CONFIGURATION.format(
                hash=hash_password("open sesame"),
                issuer=provider.issuer,
                authority=authority.bundle,
                secret=SECRET,
                webhook=webhook,
            )
        )
        self.provider = provider
        self.statuses: list[int] = []

    def run(self, *arguments: str, told: str = "") -> tuple[int, str]:
        """The exit status, and what is printed."""
        command = [sys.executable, "-m", "angos.runtime", "explain", "-c", str(self.path), *arguments]
        done = subprocess.run(command, input=told, capture_output=True, text=True, check=False)
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def explained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Explained]:
    """One for all tests of this module."""
    folder = tmp_path_factory.mktemp("explained")
    authority = Authority(folder)
    with (
        IdentityProvider(authority) as provider,
        ScriptedServer(lambda asked: said(status="200 OK" if "alice" in str(asked.fields) else "403 No")) as webhook,
    ):
        yield Explained(folder, provider, authority, f"{webhook.origin}/check")


def test_nobody_is_denied_with_every_rule(explained: Explained) -> None:
    status, printed = explained.run("GET", "/v2/open/manifests/1")
    assert status == 2
    assert "none were shown" in printed
    assert printed.count(": false <- ") == 4
    assert "verdict: 401 UNAUTHORIZED, no rule of global.access_policy allows it" in printed


@pytest.mark.parametrize("given", ["in the argument", "on standard input"])
def test_a_user_is_verified(explained: Explained, given: str) -> None:
    named = ("--user", "alice:open sesame" if given == "in the argument" else "alice")
    status, printed = explained.run(*named, "PUT", "/v2/open/manifests/1", told="open sesame\n")
    assert status == 0
    assert "basic: accepted" in printed
    assert "rules[0]: true <- identity.username" in printed
    assert "verdict: allowed" in printed
    assert "open sesame" not in printed


def test_a_wrong_password_is_told_without_it(explained: Explained) -> None:
    status, printed = explained.run("--user", "alice:hunter2", "GET", "/v2/")
    assert status == 2
    assert "basic: not accepted" in printed
    assert "hunter2" not in printed


def test_a_token_of_a_provider_is_verified(explained: Explained) -> None:
    token = explained.provider.token(repository="acme/app")
    status, printed = explained.run("--token", "-", "GET", "/v2/open/manifests/1", told=f"{token}\n")
    assert status == 0
    assert "oidc: accepted" in printed
    assert '"repository": "acme/app"' in printed
    status, printed = explained.run("--token", f"{token[:-6]}AAAAAA", "GET", "/v2/open/manifests/1")
    assert status == 2
    assert "oidc: not accepted" in printed


def test_a_token_of_the_registry_shows_what_it_is_good_for(explained: Explained, tmp_path: Path) -> None:
    registry = RegistryProcess.start(tmp_path / "data", arguments=["-c", str(explained.path)])
    try:
        with registry.client() as client:
            headers = [("Authorization", "Basic YWxpY2U6b3BlbiBzZXNhbWU=")]
            answer = client.get("/token?scope=repository:open:pull", headers=headers)
            token = json.loads(answer.body)["token"]
    finally:
        registry.stop()
    status, printed = explained.run("--token", token, "GET", "/v2/open/manifests/1")
    assert status == 0
    assert "(the token is good for: repository:open:pull)" in printed
    status, printed = explained.run("--token", token, "PUT", "/v2/open/manifests/1")
    assert status == 2
    assert "verdict: 401 UNAUTHORIZED, the token was not issued for this" in printed


def test_certificate_and_address_count_as_if_they_were_there(explained: Explained) -> None:
    assert explained.run("--organization", "ops", "GET", "/v2/_catalog")[0] == 0
    assert explained.run("--client-ip", "198.51.100.7", "GET", "/v2/_catalog")[0] == 0
    assert explained.run("--common-name", "ops", "GET", "/v2/_catalog")[0] == 2


def test_repository_policy_and_webhook_are_shown_after_the_global_policy(explained: Explained) -> None:
    status, printed = explained.run("--user", "alice:open sesame", "GET", "/v2/closed/app/manifests/1")
    assert status == 0
    lines = printed.splitlines()
    shown = [line.partition(":")[0] for line in lines if not line.startswith((" ", "GET"))]
    assert shown == [
        "credentials",
        "what rules see",
        "global.access_policy",
        'repository."closed".access_policy',
        "webhook acl",
        "verdict",
    ]
    assert "rules[0]: failed, " in printed
    status, printed = explained.run("--organization", "ops", "GET", "/v2/closed/app/manifests/1")
    assert status == 2
    assert "webhook acl: deny, it answered 403" in printed
    assert "verdict: 403 DENIED" in printed


def test_an_identity_is_taken_as_it_is_written(explained: Explained) -> None:
    status, printed = explained.run("--identity", '{"username": "alice"}', "GET", "/v2/open/manifests/1")
    assert status == 0, printed
    for nonsense in ("[]", "{", '{"oidc": {}}', '{"certificate": 7}'):
        status, printed = explained.run("--identity", nonsense, "GET", "/v2/open/manifests/1")
        assert status == 1
        assert "--identity must be JSON like" in printed


@pytest.mark.parametrize(
    ("arguments", "said_"),
    [
        (("GET", "/nowhere"), "there is no endpoint"),
        (("GET", "/v2/UPPER/manifests/1"), "UPPER"),
        (("GET", "/healthz"), "verdict: allowed, it needs no permission"),
    ],
)
def test_what_is_no_question_of_permission_is_said_so(
    explained: Explained, arguments: tuple[str, str], said_: str
) -> None:
    status, printed = explained.run(*arguments)
    assert said_ in printed
    assert status == (0 if "healthz" in arguments[1] else 1)


def test_without_access_in_the_configuration_everything_is_allowed(tmp_path: Path) -> None:
    path = tmp_path / "open.toml"
    path.write_text("")
    command = [sys.executable, "-m", "angos.runtime", "explain", "-c", str(path), "DELETE", "/v2/a/manifests/1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "nothing about access is configured" in done.stdout
