"""Documents of identity providers: what is sent where, and that nothing but a document is taken for one."""

from __future__ import annotations

from pathlib import Path

import pytest

from angos.runtime.access.documents import Documents
from angos.runtime.access.settings import ClientTls, ProviderEndpoint
from angos.runtime.client.trust import ClientTlsUnusable
from angos.sansio.effects import FetchDocument, PeerUnavailable
from tests.conformance.certificates import Authority
from tests.conformance.runtime.loops import LOOPS, Run, runner
from tests.conformance.scripted_server import SILENT, Asked, Said, Script, ScriptedServer, said


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Run:
    return runner(request.param)


def fetch(run: Run, endpoint: ProviderEndpoint, url: str) -> bytes:
    document: bytes = run(lambda: Documents([endpoint]).fetch_document(FetchDocument(endpoint.name, url)))
    return document


def problem_with(run: Run, script: Script, seconds: float = 20) -> str:
    """Why such a provider gives no document, with its address shortened."""
    with ScriptedServer(script) as server:
        endpoint = ProviderEndpoint("ci", server.origin, request_seconds=seconds)
        with pytest.raises(PeerUnavailable) as raised:
            fetch(run, endpoint, f"{server.origin}/keys?secret=canary")
    assert "canary" not in str(raised.value)
    return str(raised.value).replace(server.origin, "SERVER")


def test_a_document_is_asked_for_as_keys_or_json(run: Run) -> None:
    with ScriptedServer(lambda asked: said(b'{"keys": []}')) as server:
        endpoint = ProviderEndpoint("ci", server.origin)
        assert fetch(run, endpoint, f"{server.origin}/keys") == b'{"keys": []}'
    (asked,) = server.asked
    assert asked.line == "GET /keys HTTP/1.1"
    assert asked.values("accept") == ["application/jwk-set+json, application/json;q=0.9, */*;q=0.8"]
    assert asked.values("authorization") == []


def test_private_authority_and_client_certificate(run: Run, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    shown = authority.issue(common_names=("angos",))
    with ScriptedServer(lambda asked: said(b"{}"), authority.server_context("127.0.0.1", clients=authority)) as server:
        tls = ClientTls(authority.bundle, shown.certificate, shown.key)
        assert fetch(run, ProviderEndpoint("ci", server.origin, tls), f"{server.origin}/keys") == b"{}"
        with pytest.raises(PeerUnavailable, match=r"^identity provider ci: https://127\.0\.0\.1:\d+ "):
            fetch(run, ProviderEndpoint("ci", server.origin), f"{server.origin}/keys")


def test_unusable_certificates_are_found_before_anything_is_asked(tmp_path: Path) -> None:
    tls = ClientTls(server_ca_bundle=tmp_path / "missing.pem")
    with pytest.raises(ClientTlsUnusable, match=r"server_ca_bundle .*missing\.pem cannot be read"):
        Documents([ProviderEndpoint("ci", "https://idp.example", tls)])


class TestTokens:
    """The bearer token is for the origin of the issuer and nobody else."""

    def test_it_is_read_for_every_request(self, run: Run, tmp_path: Path) -> None:
        file = tmp_path / "token"

        async def main() -> None:
            documents = Documents([ProviderEndpoint("ci", f"{server.origin}/issuer", bearer_token_file=file)])
            for token in ("first", "second"):
                file.write_text(f"{token}\n")
                await documents.fetch_document(FetchDocument("ci", f"{server.origin}/keys"))

        with ScriptedServer(lambda asked: said(b"{}")) as server:
            run(main)
        assert [asked.values("authorization") for asked in server.asked] == [["Bearer first"], ["Bearer second"]]

    def test_another_origin_does_not_get_it(self, run: Run, tmp_path: Path) -> None:
        file = tmp_path / "token"
        file.write_text("canary")
        with ScriptedServer(lambda asked: said(b"{}")) as issuer, ScriptedServer(lambda asked: said(b"{}")) as other:
            endpoint = ProviderEndpoint("ci", issuer.origin, bearer_token_file=file)
            fetch(run, endpoint, f"{other.origin}/keys")  # another port
            fetch(run, endpoint, f"http://localhost:{issuer.port}/keys")  # another name for the same place
            fetch(run, endpoint, f"{issuer.origin.upper().replace('HTTP', 'http')}/keys")
        assert [asked.values("authorization") for asked in other.asked] == [[]]
        assert [asked.values("authorization") for asked in issuer.asked] == [[], ["Bearer canary"]]

    @pytest.mark.parametrize("content", [None, "", " \n", "two canaries", "canary\r\nX-Field: 1", "c" * 70_000, "ü"])
    def test_a_file_without_one_token_is_said_so(self, run: Run, tmp_path: Path, content: str | None) -> None:
        file = tmp_path / "token"
        if content is not None:
            file.write_text(content)
        with ScriptedServer(lambda asked: said(b"{}")) as server, pytest.raises(PeerUnavailable) as raised:
            fetch(run, ProviderEndpoint("ci", server.origin, bearer_token_file=file), f"{server.origin}/keys")
        assert server.asked == []
        assert f"bearer_token_file {file}" in str(raised.value)
        assert "canar" not in str(raised.value)


class TestFailures:
    @pytest.mark.parametrize("status", ["204 No Content", "401 Unauthorized", "404 Not Found", "500 Oops", "206 Part"])
    def test_any_status_but_200(self, run: Run, status: str) -> None:
        assert problem_with(run, lambda asked: said(b"", status)) == (
            f"identity provider ci: SERVER answered with status {status[:3]} instead of a document"
        )

    def test_redirects_are_not_followed(self, run: Run) -> None:
        def script(asked: Asked) -> Said:
            return said(b"{}") if asked.target == "/elsewhere" else said(b"", "302 Found", "Location: /elsewhere")

        assert "status 302" in problem_with(run, script)

    def test_a_document_of_more_than_a_mebibyte(self, run: Run) -> None:
        endless = (b"HTTP/1.1 200 OK\r\n\r\n", *[bytes(1 << 20)] * 2)
        assert problem_with(run, lambda asked: Said(endless, "silent")) == (
            "identity provider ci: SERVER answered with more than 1048576 bytes"
        )

    def test_silence(self, run: Run) -> None:
        problem = "identity provider ci: no document within 0.1 s"
        assert problem_with(run, lambda asked: SILENT, seconds=0.1) == problem
        assert problem_with(run, lambda asked: Said(said(b"{", length=2).parts, "silent"), seconds=0.1) == problem

    def test_a_document_that_is_cut_short(self, run: Run) -> None:
        problem = problem_with(run, lambda asked: said(b"{}", length=3, then="close"))
        assert problem == "identity provider ci: SERVER closed the connection in the middle of its answer"

    @pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://idp.example/keys", "/keys", "javascript:1", ""])
    def test_addresses_that_are_not_of_the_web(self, run: Run, url: str) -> None:
        with pytest.raises(PeerUnavailable, match=r"^identity provider ci: an address "):
            fetch(run, ProviderEndpoint("ci", "https://idp.example"), url)

    def test_a_provider_that_is_gone_from_the_configuration(self, run: Run) -> None:
        with pytest.raises(PeerUnavailable, match="identity provider ci is not configured any more"):
            run(lambda: Documents([]).fetch_document(FetchDocument("ci", "https://idp.example")))
