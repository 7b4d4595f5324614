"""Keys of a bucket that are not configured: found by botocore where Amazon's software looks for them."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from angos.sansio.effects import Key, ReadKey, SignUrl, StorageRefused
from tests.conformance.contracts.s3_faults import ask
from tests.conformance.scripted_server import Asked, Said, ScriptedServer, said

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])
KEY = Key("v2/cat/n!")
READ = ReadKey(KEY)
SECRET = "canary-secret-key"


@pytest.fixture(autouse=True)
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests has keys of their own, perhaps."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def whose(asked: Asked) -> str:
    """The access key id of a signed request."""
    return asked.values("authorization")[0].partition("Credential=")[2].partition("/")[0]


@BACKENDS
def test_keys_are_found_in_the_environment(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDOFTHEENVIRONMENT")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    with ScriptedServer(lambda _: said(b"value")) as server:
        assert ask(server, READ, backend=backend, credentials=None) == [b"value"]
    assert [whose(asked) for asked in server.asked] == ["AKIDOFTHEENVIRONMENT"]


def test_keys_are_found_in_a_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = f"[registry]\naws_access_key_id = AKIDOFAPROFILE\naws_secret_access_key = {SECRET}\n"
    (tmp_path / "AWS_SHARED_CREDENTIALS_FILE").write_text(profile)
    monkeypatch.setenv("AWS_PROFILE", "registry")
    with ScriptedServer(lambda _: said(b"value")) as server:
        assert ask(server, READ, credentials=None) == [b"value"]
    assert [whose(asked) for asked in server.asked] == ["AKIDOFAPROFILE"]


@BACKENDS
def test_keys_of_a_role_are_fetched_again_before_they_expire(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expirations = iter(["2000-01-01T00:00:00Z", "2099-01-01T00:00:00Z"])
    given: list[str] = []

    def give(asked: Asked) -> Said:
        given.append(f"AKID{len(given)}")
        token = f"canary-token-{len(given)}"
        keys = {"AccessKeyId": given[-1], "SecretAccessKey": SECRET, "Token": token, "Expiration": next(expirations)}
        return said(json.dumps(keys).encode(), then="close")

    with ScriptedServer(give) as role, ScriptedServer(lambda _: said(b"value")) as server:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"http://127.0.0.1:{role.port}/role")
        *values, url = ask(server, READ, READ, SignUrl(KEY, "text/plain"), backend=backend, credentials=None)
    assert values == [b"value", b"value"]
    assert [whose(asked) for asked in server.asked] == ["AKID1", "AKID1"], "those that have expired are not used"
    assert [asked.values("x-amz-security-token") for asked in server.asked] == [["canary-token-2"]] * 2
    assert "X-Amz-Security-Token=canary-token-2" in url.query.value


def test_a_role_that_cannot_be_asked_is_told_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with ScriptedServer(lambda _: said(SECRET.encode(), "403 Forbidden", then="close")) as role:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"http://127.0.0.1:{role.port}/role")
        with ScriptedServer(lambda _: said()) as server, caplog.at_level(logging.WARNING):
            (reply,) = ask(server, READ, credentials=None)
    assert isinstance(reply, StorageRefused)
    assert "reading v2/cat/n! in bucket images: looking for keys failed with CredentialRetrievalError" in str(reply)
    assert not server.asked
    assert "Traceback" not in caplog.text
    assert SECRET not in caplog.text + str(reply)
