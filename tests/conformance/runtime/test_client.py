"""Asking a server over HTTP/1.1: real sockets, real TLS, and servers in every mood."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from angos.runtime.access.settings import ClientTls
from angos.runtime.client.connection import NoAnswer, NotPermitted, Permit
from angos.runtime.client.http import HttpClient
from angos.runtime.client.trust import ClientTlsUnusable, client_context
from angos.runtime.client.url import Url, UrlInvalid, parse_url
from tests.conformance.certificates import Authority
from tests.conformance.runtime.loops import LOOPS, Run, runner
from tests.conformance.scripted_server import SILENT, Asked, Said, Script, ScriptedServer, said

NO_TLS = ClientTls()


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Run:
    return runner(request.param)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def fetch(run: Run, address: str, tls: ClientTls = NO_TLS, size_max: int = 1000) -> tuple[int, bytes]:
    """Status and body of one answer."""

    async def main() -> tuple[int, bytes]:
        async with HttpClient(tls).get(parse_url(address), ()) as answer:
            return answer.status, await answer.read(size_max)

    status, body = run(main)
    return status, body


def problem_with(run: Run, script: Script) -> str:
    """Why there is no answer from such a server, with its address shortened."""
    with ScriptedServer(script) as server, pytest.raises(NoAnswer) as raised:
        fetch(run, f"{server.origin}/path?secret=canary")
    assert "canary" not in str(raised.value)
    return str(raised.value).replace(server.origin, "SERVER")


class TestAnswers:
    def test_status_fields_and_body_arrive(self, run: Run) -> None:
        async def main() -> None:
            async with HttpClient(NO_TLS).get(parse_url(f"{server.origin}/a/b?c=d"), [("X-Some", "Ä")]) as answer:
                assert answer.status == 203
                assert answer.headers.all("x-many") == ["1", "2"]
                assert await answer.receive() == b"body"
                assert await answer.receive() == b""

        with ScriptedServer(lambda asked: said(b"body", "203 Odd", "X-Many: 1", "X-Many: 2")) as server:
            run(main)
        assert server.asked == [
            Asked(0, "GET /a/b?c=d HTTP/1.1", (("Host", server.origin.removeprefix("http://")), ("X-Some", "Ä")))
        ]

    def test_a_body_in_chunks_and_one_that_ends_with_the_connection(self, run: Run) -> None:
        chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
        with ScriptedServer(lambda asked: Said((chunked,))) as server:
            assert fetch(run, server.origin) == (200, b"abcde")
        with ScriptedServer(lambda asked: Said((b"HTTP/1.0 200 OK\r\n\r\nabc", b"de"), "close")) as server:
            assert fetch(run, server.origin) == (200, b"abcde")

    def test_provisional_answers_are_passed_over(self, run: Run) -> None:
        early = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
        with ScriptedServer(lambda asked: Said((early, early, *said(b"real").parts))) as server:
            assert fetch(run, server.origin) == (200, b"real")

    def test_a_redirect_is_an_answer_like_any_other(self, run: Run) -> None:
        with ScriptedServer(lambda asked: said(b"", "302 Found", "Location: /elsewhere")) as server:
            assert fetch(run, server.origin) == (302, b"")
        assert len(server.asked) == 1

    def test_a_large_body_can_be_read_piece_by_piece(self, run: Run) -> None:
        size = 64 << 20
        piece = bytes(1 << 20)

        async def main() -> int:
            async with HttpClient(NO_TLS).get(parse_url(server.origin), ()) as answer:
                received = 0
                while data := await answer.receive():
                    assert len(data) <= 1 << 20
                    received += len(data)
                return received

        head = f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode()
        with ScriptedServer(lambda asked: Said((head, *[piece] * 64))) as server:
            assert run(main) == size


class TestBadAnswers:
    def test_a_body_larger_than_allowed(self, run: Run) -> None:
        endless = (b"HTTP/1.1 200 OK\r\n\r\n", *[bytes(1000)] * 3)
        assert problem_with(run, lambda asked: Said(endless, "silent")) == "SERVER answered with more than 1000 bytes"

    def test_a_head_without_end(self, run: Run) -> None:
        endless = (b"HTTP/1.1 200 OK\r\n", *[b"X-Field: value\r\n"] * 20_000)
        assert problem_with(run, lambda asked: Said(endless, "silent")) == "SERVER did not answer in HTTP"

    @pytest.mark.parametrize(
        "garbage",
        [
            b"220 mail.example ESMTP\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
            b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nab",
            b"HTTP/1.1 200 OK\r\nNo colon\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        ],
    )
    def test_garbage(self, run: Run, garbage: bytes) -> None:
        assert problem_with(run, lambda asked: Said((garbage,), "silent")) == "SERVER did not answer in HTTP"

    def test_a_body_that_is_cut_short(self, run: Run) -> None:
        problem = "SERVER closed the connection in the middle of its answer"
        assert problem_with(run, lambda asked: said(b"abc", length=4, then="close")) == problem
        half = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
        assert problem_with(run, lambda asked: Said((half,), "close")) == problem

    def test_a_head_that_is_cut_short(self, run: Run) -> None:
        problem = "SERVER closed the connection in the middle of its answer"
        assert problem_with(run, lambda asked: Said((b"HTTP/1.1 200 O",), "close")) == problem

    def test_no_answer_at_all(self, run: Run) -> None:
        assert problem_with(run, lambda asked: Said((), "close")) == "SERVER closed the connection without an answer"

    def test_nobody_listens(self, run: Run) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        with pytest.raises(NoAnswer, match=rf"^http://127\.0\.0\.1:{port} cannot be reached: connection refused$"):
            fetch(run, f"http://127.0.0.1:{port}/?canary")

    def test_a_name_that_does_not_exist(self, run: Run) -> None:
        with pytest.raises(NoAnswer, match=r"^http://nowhere\.invalid cannot be reached: its name cannot be resolved$"):
            fetch(run, "http://nowhere.invalid/")

    def test_silence_ends_with_the_time_limit_of_the_caller(self, run: Run) -> None:
        async def main() -> None:
            with anyio.fail_after(0.05):
                async with HttpClient(NO_TLS).get(parse_url(server.origin), ()):
                    pass

        with ScriptedServer(lambda asked: SILENT) as server, pytest.raises(TimeoutError):
            run(main)

    def test_a_field_that_cannot_be_sent_is_not_quoted(self, run: Run) -> None:
        async def main() -> None:
            async with HttpClient(NO_TLS).get(parse_url(server.origin), [("X-Some", "canary\r\nX-Other: 1")]):
                pass

        with ScriptedServer(lambda asked: said()) as server, pytest.raises(NoAnswer) as raised:
            run(main)
        assert "canary" not in str(raised.value)
        assert server.asked == []


class TestConnections:
    """RFC 9112 section 9.3."""

    def ask_repeatedly(self, run: Run, server: ScriptedServer, times: int, idle_max: int = 4) -> list[int]:
        async def main() -> list[int]:
            client = HttpClient(NO_TLS, idle_max=idle_max)
            statuses = []
            for _ in range(times):
                async with client.get(parse_url(server.origin), ()) as answer:
                    statuses.append(answer.status)
            await client.close()
            return statuses

        statuses: list[int] = run(main)
        return statuses

    def test_one_connection_serves_many_requests(self, run: Run) -> None:
        with ScriptedServer(lambda asked: said(b"not read by anybody")) as server:
            assert self.ask_repeatedly(run, server, 5) == [200] * 5
        assert server.connections == 1

    def test_without_a_place_for_idle_ones_each_request_has_its_own(self, run: Run) -> None:
        with ScriptedServer(lambda asked: said(b"body")) as server:
            assert self.ask_repeatedly(run, server, 3, idle_max=0) == [200] * 3
        assert server.connections == 3

    def test_a_connection_that_the_server_closed_meanwhile_is_replaced(self, run: Run) -> None:
        with ScriptedServer(lambda asked: said(b"body", then="close")) as server:
            assert self.ask_repeatedly(run, server, 3) == [200] * 3
        assert server.connections == 3

    def test_a_timeout_said_to_the_idle_connection_is_not_the_next_answer(self, run: Run) -> None:
        farewell = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

        def script(asked: Asked) -> Said:
            return said(b"body") if len(server.asked) % 2 else Said((farewell,), "close")

        with ScriptedServer(script) as server:
            assert self.ask_repeatedly(run, server, 3) == [200] * 3
        assert [asked.connection for asked in server.asked] == [0, 0, 1, 1, 2]

    def test_bytes_after_an_answer_are_not_taken_for_the_next_one(self, run: Run) -> None:
        smuggled = b"HTTP/1.1 204 No Content\r\n\r\n"
        with ScriptedServer(lambda asked: Said((*said(b"body").parts, smuggled))) as server:
            statuses = self.ask_repeatedly(run, server, 1)
            assert statuses == [200]

        def in_one_piece(asked: Asked) -> Said:
            return Said((b"".join(said(b"body").parts) + smuggled,))

        with ScriptedServer(in_one_piece) as server:
            assert self.ask_repeatedly(run, server, 3) == [200] * 3
        assert server.connections == 3

    def test_a_long_rest_costs_the_connection_rather_than_the_time_to_read_it(self, run: Run) -> None:
        with ScriptedServer(lambda asked: Said((*said(b"", length=1 << 40).parts, bytes(200_000)), "silent")) as server:
            assert self.ask_repeatedly(run, server, 2) == [200] * 2
        assert server.connections == 2

    def test_an_answer_that_breaks_off_where_nobody_reads_it_counts(self, run: Run) -> None:
        with ScriptedServer(lambda asked: said(b"abc", length=4, then="close")) as server:
            assert self.ask_repeatedly(run, server, 2) == [200] * 2

    def test_nothing_stays_open(self, run: Run, authority: Authority) -> None:
        before = len(os.listdir("/proc/self/fd"))
        with ScriptedServer(lambda asked: said(b"body")) as server:
            self.ask_repeatedly(run, server, 2)
            self.ask_repeatedly(run, server, 2, idle_max=0)
        with ScriptedServer(lambda asked: Said((b"garbage\r\n\r\n",))) as server, pytest.raises(NoAnswer):
            self.ask_repeatedly(run, server, 2)
        with ScriptedServer(lambda asked: said(), authority.server_context("127.0.0.1")) as server:
            assert fetch(run, server.origin, ClientTls(authority.bundle)) == (200, b"")
            with pytest.raises(NoAnswer):
                fetch(run, server.origin)
        assert len(os.listdir("/proc/self/fd")) == before


class TestTls:
    """RFC 8446, RFC 9525."""

    @pytest.fixture
    def secure(self, authority: Authority) -> Iterator[ScriptedServer]:
        context = authority.server_context("127.0.0.1", "localhost")
        with ScriptedServer(lambda asked: said(b"secure"), context) as server:
            yield server

    def test_a_private_authority_is_trusted_when_it_is_named(
        self, run: Run, authority: Authority, secure: ScriptedServer
    ) -> None:
        trusting = ClientTls(server_ca_bundle=authority.bundle)
        assert fetch(run, secure.origin, trusting) == (200, b"secure")
        assert fetch(run, f"https://localhost:{secure.port}/", trusting) == (200, b"secure")

    def test_what_the_system_trusts_does_not_include_it(self, run: Run, secure: ScriptedServer) -> None:
        with pytest.raises(NoAnswer, match=r"cannot be reached: its certificate is not accepted, "):
            fetch(run, secure.origin)
        assert secure.asked == []

    def test_another_authority(self, run: Run, secure: ScriptedServer, tmp_path: Path) -> None:
        other = ClientTls(server_ca_bundle=Authority(tmp_path, "Other").bundle)
        with pytest.raises(NoAnswer, match=r"its certificate is not accepted, unable to get local issuer certificate$"):
            fetch(run, secure.origin, other)

    def test_another_host_name(self, run: Run, authority: Authority) -> None:
        trusting = ClientTls(server_ca_bundle=authority.bundle)
        context = authority.server_context("idp.example", "127.0.0.2")
        with (
            ScriptedServer(lambda asked: said(), context) as server,
            pytest.raises(NoAnswer, match="is not accepted, IP address mismatch"),
        ):
            fetch(run, server.origin, trusting)
        assert server.asked == []

    def test_a_common_name_is_no_host_name(self, run: Run, authority: Authority) -> None:
        issued = authority.issue(common_names=("localhost",))
        context = authority.server_context("idp.example")
        context.load_cert_chain(issued.certificate, issued.key)
        with (
            ScriptedServer(lambda asked: said(), context) as server,
            pytest.raises(NoAnswer, match="Hostname mismatch"),
        ):
            fetch(run, f"https://localhost:{server.port}", ClientTls(server_ca_bundle=authority.bundle))

    def test_an_expired_certificate(self, run: Run, authority: Authority) -> None:
        issued = authority.issue("127.0.0.1", expired=True)
        context = authority.server_context("127.0.0.1")
        context.load_cert_chain(issued.certificate, issued.key)
        with ScriptedServer(lambda asked: said(), context) as server, pytest.raises(NoAnswer, match="has expired"):
            fetch(run, server.origin, ClientTls(server_ca_bundle=authority.bundle))

    def test_a_server_certificate_can_be_trusted_by_itself(self, run: Run, authority: Authority) -> None:
        issued = authority.issue("127.0.0.1")
        context = authority.server_context("127.0.0.1")
        context.load_cert_chain(issued.certificate, issued.key)
        with ScriptedServer(lambda asked: said(b"pinned"), context) as server:
            assert fetch(run, server.origin, ClientTls(server_ca_bundle=issued.certificate)) == (200, b"pinned")

    def test_a_client_certificate_is_shown_when_it_is_demanded(
        self, run: Run, authority: Authority, tmp_path: Path
    ) -> None:
        clients = Authority(tmp_path, "Clients")
        shown = clients.issue(common_names=("angos",))
        context = authority.server_context("127.0.0.1", clients=clients)
        with ScriptedServer(lambda asked: said(b"known"), context) as server:
            mutual = ClientTls(authority.bundle, shown.certificate, shown.key)
            assert fetch(run, server.origin, mutual) == (200, b"known")
            with pytest.raises(NoAnswer, match=r"certificate required|handshake failure|broke the connection off"):
                fetch(run, server.origin, ClientTls(authority.bundle))
            stranger = authority.issue(common_names=("angos",))
            with pytest.raises(NoAnswer, match=r"unknown ca|broke the connection off"):
                fetch(run, server.origin, ClientTls(authority.bundle, stranger.certificate, stranger.key))

    def test_plain_http_where_tls_is_spoken(self, run: Run, secure: ScriptedServer) -> None:
        with pytest.raises(NoAnswer):
            fetch(run, f"http://127.0.0.1:{secure.port}")
        assert secure.asked == []

    def test_tls_where_plain_http_is_spoken(self, run: Run, authority: Authority) -> None:
        refusal = b"HTTP/1.1 400 Bad Request\r\n\r\n"
        with (
            ScriptedServer(lambda asked: said(), greeting=refusal) as server,
            pytest.raises(NoAnswer, match="cannot be reached: wrong version number"),
        ):
            fetch(run, f"https://127.0.0.1:{server.port}", ClientTls(server_ca_bundle=authority.bundle))

    def test_a_handshake_that_is_never_answered(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("angos.runtime.client.http.CONNECT_SECONDS", 0.1)
        with (
            socket.create_server(("127.0.0.1", 0)) as silent,
            pytest.raises(NoAnswer, match=r"cannot be reached: no connection within 0\.1 s$"),
        ):
            fetch(run, f"https://127.0.0.1:{silent.getsockname()[1]}")

    def test_a_body_without_length_must_end_in_tls_too(self, run: Run, authority: Authority) -> None:
        # Otherwise anybody on the way could end it where they like.
        context = authority.server_context("127.0.0.1")
        with (
            ScriptedServer(lambda asked: Said((b"HTTP/1.0 200 OK\r\n\r\nhalf",), "close"), context) as server,
            pytest.raises(NoAnswer, match="broke the connection off"),
        ):
            fetch(run, server.origin, ClientTls(server_ca_bundle=authority.bundle))


class TestTlsFiles:
    def test_good_ones_are_loaded_and_demand_all_checks(self, authority: Authority) -> None:
        issued = authority.issue("client.example")
        context = client_context(ClientTls(authority.bundle, issued.certificate, issued.key))
        assert context.check_hostname
        assert client_context(NO_TLS).check_hostname
        assert client_context(NO_TLS) is client_context(ClientTls())

    def test_a_private_bundle_replaces_what_the_system_trusts(self, authority: Authority) -> None:
        assert client_context(ClientTls(authority.bundle)).cert_store_stats()["x509"] == 1

    @pytest.mark.parametrize(
        ("bundle", "certificate", "key", "problem"),
        [
            ("missing", None, None, "server_ca_bundle .*missing cannot be read: No such file or directory"),
            ("empty", None, None, "server_ca_bundle .*empty has no certificate in PEM form"),
            ("text", None, None, "server_ca_bundle .*text has no certificate in PEM form"),
            ("folder", None, None, "server_ca_bundle .*folder cannot be read: Is a directory"),
            (None, "good.pem", None, "client_private_key is missing"),
            (None, None, "good.key", "client_certificate_bundle is missing"),
            (None, "missing", "good.key", "client_certificate_bundle .*missing cannot be read"),
            (None, "good.pem", "missing", "client_private_key .*missing cannot be read"),
            (None, "good.pem", "other.key", "other.key is not the key of client_certificate_bundle .*good.pem"),
            (None, "text", "good.key", "text and client_private_key .*good.key are not a certificate and its key"),
            (None, "good.pem", "text", "good.pem and client_private_key .*text are not a certificate and its key"),
            (None, "good.pem", "encrypted", "client_private_key .*encrypted is encrypted"),
        ],
    )
    def test_bad_ones_are_named(
        self, tmp_path: Path, bundle: str | None, certificate: str | None, key: str | None, problem: str
    ) -> None:
        authority = Authority(tmp_path)
        good, other = authority.issue("one.example"), authority.issue("two.example")
        good.certificate.rename(tmp_path / "good.pem")
        authority.encrypted(good, b"canary").rename(tmp_path / "encrypted")
        good.key.rename(tmp_path / "good.key")
        other.key.rename(tmp_path / "other.key")
        (tmp_path / "empty").touch()
        (tmp_path / "text").write_text("canary")
        (tmp_path / "folder").mkdir()
        paths = (None if name is None else tmp_path / name for name in (bundle, certificate, key))
        with pytest.raises(ClientTlsUnusable, match=problem) as raised:
            HttpClient(ClientTls(*paths))
        assert "canary" not in str(raised.value)


class TestUrls:
    """RFC 3986, as narrow as it can be."""

    @pytest.mark.parametrize(
        ("text", "url", "authority"),
        [
            ("https://idp.example", Url("https", "idp.example", 443, "/"), "idp.example"),
            ("HTTP://IdP.Example:80/a?b=c", Url("http", "idp.example", 80, "/a?b=c"), "idp.example"),
            ("https://idp.example:8443?q", Url("https", "idp.example", 8443, "/?q"), "idp.example:8443"),
            ("http://[2001:DB8::1]:81/%20", Url("http", "2001:db8::1", 81, "/%20"), "[2001:db8::1]:81"),
            ("https://10.0.0.1/", Url("https", "10.0.0.1", 443, "/"), "10.0.0.1"),
            ("http://my_host.svc/", Url("http", "my_host.svc", 80, "/"), "my_host.svc"),
        ],
    )
    def test_what_can_be_asked(self, text: str, url: Url, authority: str) -> None:
        assert parse_url(text) == url
        assert url.authority == authority
        assert url.origin == f"{url.scheme}://{authority}"

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "idp.example",
            "//idp.example/",
            "file:///etc/passwd",
            "ftp://idp.example/keys",
            "https:///keys",
            "https://user:canary@idp.example/",
            "https://user@idp.example/",
            "https://idp.example:/",
            "https://idp.example:0/",
            "https://idp.example:65536/",
            "https://idp.example:8x/",
            "https://idp..example/",
            "https://-idp.example/",
            f"https://{'a' * 64}.example/",
            f"https://{'a.' * 130}example/",
            "https://[::1/",
            "https://[::g]/",
            "https://[1.2.3.4]/",
            "https://idp.example/#fragment",
            "https://idp.example/a b",
            "https://idp.example/\r\nX-Field: 1",
            "https://idp.example\\@other.example/",
            "https://bücher.example/",
            "https://idp%2eexample/",
        ],
    )
    def test_what_is_refused(self, text: str) -> None:
        with pytest.raises(UrlInvalid) as raised:
            parse_url(text)
        assert "canary" not in str(raised.value)

    @given(st.text(max_size=60).map(lambda text: f"https://{text}") | st.text(max_size=60))
    def test_any_text_is_an_address_or_refused(self, text: str) -> None:
        try:
            url = parse_url(text)
        except UrlInvalid:
            return
        assert parse_url(url.origin + url.target) == url


class TestPermits:
    """A rule that is asked about the addresses of a host before any of them is connected to."""

    def addresses(self, monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
        async def resolve(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
            return [(0, 0, 0, "", (address, port)) for address in addresses]

        monkeypatch.setattr("angos.runtime.client.connection.getaddrinfo", resolve)

    def fetch(self, run: Run, server: ScriptedServer, permit: Permit) -> bytes:
        async def main() -> bytes:
            client = HttpClient(NO_TLS, permit=permit)
            async with client.get(parse_url(f"http://some.example:{server.port}/"), ()) as answer:
                return await answer.read(100)

        found: bytes = run(main)
        return found

    def test_only_addresses_that_pass_are_connected_to(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        asked = []

        def permit(url: Url, address: str) -> None:
            asked.append((url.host, address))
            if address != "127.0.0.1":
                raise NotPermitted(f"{address} is not for us")

        self.addresses(monkeypatch, "127.0.0.2", "::1", "127.0.0.1")
        with ScriptedServer(lambda _: said(b"here")) as server:
            assert self.fetch(run, server, permit) == b"here"
            assert asked == [("some.example", address) for address in ("127.0.0.2", "::1", "127.0.0.1")]
            self.addresses(monkeypatch, "127.0.0.2", "::1")
            with pytest.raises(NotPermitted, match=r"127\.0\.0\.2 is not for us"):
                self.fetch(run, server, permit)
            assert server.connections == 1

    def test_an_address_where_nobody_listens_does_not_keep_from_the_next(
        self, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.addresses(monkeypatch, "127.0.0.2", "127.0.0.1")
        with ScriptedServer(lambda _: said(b"here")) as server:
            assert self.fetch(run, server, lambda *_: None) == b"here"
            self.addresses(monkeypatch, "127.0.0.2")
            with pytest.raises(NoAnswer, match="cannot be reached: connection refused"):
                self.fetch(run, server, lambda *_: None)
