"""Authorization webhooks: exactly what they are told, and that nothing but an answer counts as one."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import anyio
import pytest

from angos.runtime.access.settings import ClientTls, WebhookEndpoint
from angos.runtime.access.webhooks import NOT_FORWARDED, Webhooks
from angos.runtime.client.trust import ClientTlsUnusable
from angos.runtime.client.url import UrlInvalid
from angos.sansio.effects import AskWebhook, PeerUnavailable
from angos.sansio.http.message import Header
from angos.sansio.secret import Secret
from tests.conformance.certificates import Authority
from tests.conformance.runtime.loops import LOOPS, Run, runner
from tests.conformance.scripted_server import SILENT, Asked, Said, ScriptedServer, said

CANARY = "canary"


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Run:
    return runner(request.param)


def ask(run: Run, endpoint: WebhookEndpoint, *headers: Header) -> int:
    status: int = run(lambda: Webhooks([endpoint]).ask_webhook(AskWebhook(endpoint.name, headers)))
    return status


def endpoint_of(
    server: ScriptedServer, timeout_seconds: float = 20, authorization: str | None = None
) -> WebhookEndpoint:
    secret = None if authorization is None else Secret(authorization)
    return WebhookEndpoint("gate", f"{server.origin}/check?key={CANARY}", timeout_seconds, secret)


def problem_with(run: Run, endpoint: WebhookEndpoint, *headers: Header) -> str:
    with pytest.raises(PeerUnavailable) as raised:
        ask(run, endpoint, *headers)
    assert CANARY not in str(raised.value)
    return str(raised.value)


def test_it_is_told_what_the_effect_says_and_nothing_else(run: Run) -> None:
    headers = (
        ("X-Forwarded-Method", "GET"),
        ("X-Registry-Certificate-CN", "one"),
        ("X-Registry-Certificate-CN", "two"),
        ("X-Registry-Username", "Zoë"),
        ("X-Empty", ""),
    )
    with ScriptedServer(lambda asked: said()) as server:
        assert ask(run, endpoint_of(server), *headers) == 200
    (asked,) = server.asked
    assert asked.line == f"GET /check?key={CANARY} HTTP/1.1"
    assert asked.fields == (("Host", server.origin.removeprefix("http://")), *headers)


def test_it_sees_the_credential_that_is_configured_for_it(run: Run) -> None:
    with ScriptedServer(lambda asked: said()) as server:
        ask(run, endpoint_of(server, authorization=f"Bearer {CANARY}"), ("X-Some", "1"))
    assert server.asked[0].values("authorization") == [f"Bearer {CANARY}"]


@pytest.mark.parametrize("status", [200, 204, 302, 307, 401, 403, 404, 429, 500, 503])
def test_its_status_is_the_reply(run: Run, status: int) -> None:
    with ScriptedServer(lambda asked: said(b"", f"{status} Some", "Location: /allow")) as server:
        assert ask(run, endpoint_of(server)) == status
    assert len(server.asked) == 1


def test_questions_share_a_connection(run: Run) -> None:
    async def main() -> None:
        webhooks = Webhooks([endpoint_of(server)])
        for _ in range(10):
            assert await webhooks.ask_webhook(AskWebhook("gate", ())) == 200
        await webhooks.close()

    with ScriptedServer(lambda asked: said(b"welcome")) as server:
        run(main)
    assert len(server.asked) == 10
    assert server.connections == 1


def test_questions_at_the_same_time_do_not_wait_for_each_other(run: Run) -> None:
    async def main() -> list[int]:
        webhooks = Webhooks([endpoint_of(server)])
        statuses = []

        async def one(number: int) -> None:
            statuses.append(await webhooks.ask_webhook(AskWebhook("gate", (("X-Number", str(number)),))))

        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(one, number)
        await webhooks.close()
        return statuses

    def script(asked: Asked) -> Said:
        together.wait(20)  # nobody is answered before all have asked
        return said(b"", f"{200 + int(asked.values('x-number')[0])} Some")

    together = threading.Barrier(20)
    with ScriptedServer(script) as server:
        assert sorted(run(main)) == list(range(200, 220))


def test_tls_with_a_private_authority_and_a_client_certificate(run: Run, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    shown = authority.issue(common_names=("angos",))
    context = authority.server_context("127.0.0.1", clients=authority)
    with ScriptedServer(lambda asked: said(), context) as server:
        tls = ClientTls(authority.bundle, shown.certificate, shown.key)
        assert ask(run, WebhookEndpoint("gate", server.origin, 20, tls=tls)) == 200
        assert "gate: https://127.0.0.1" in problem_with(run, WebhookEndpoint("gate", server.origin, 20))
    assert len(server.asked) == 1


def test_what_is_wrong_with_the_configuration_is_found_before_anything_is_asked(tmp_path: Path) -> None:
    tls = ClientTls(server_ca_bundle=tmp_path / "missing.pem")
    with pytest.raises(ClientTlsUnusable, match=r"missing\.pem cannot be read"):
        Webhooks([WebhookEndpoint("gate", "https://gate.example", 1, tls=tls)])
    with pytest.raises(UrlInvalid, match="begins with http"):
        Webhooks([WebhookEndpoint("gate", "gate.example", 1)])


class TestFailures:
    def test_nobody_listens(self, run: Run) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            origin = f"http://127.0.0.1:{listener.getsockname()[1]}"
        problem = problem_with(run, WebhookEndpoint("gate", f"{origin}/?key={CANARY}", 20, Secret(CANARY)))
        assert problem == f"webhook gate: {origin} cannot be reached: connection refused"

    def test_silence(self, run: Run) -> None:
        with ScriptedServer(lambda asked: SILENT) as server:
            problem = problem_with(run, endpoint_of(server, timeout_seconds=0.1, authorization=CANARY))
        assert problem == f"webhook gate: {server.origin} gave no answer within 0.1 s"

    def test_half_a_status(self, run: Run) -> None:
        with ScriptedServer(lambda asked: Said((b"HTTP/1.1 200 OK\r\n",), "silent")) as server:
            assert "gave no answer within" in problem_with(run, endpoint_of(server, timeout_seconds=0.1))
        with ScriptedServer(lambda asked: Said((b"HTTP/1.1 200 OK\r\n",), "close")) as server:
            assert "in the middle of its answer" in problem_with(run, endpoint_of(server))

    def test_garbage(self, run: Run) -> None:
        with ScriptedServer(lambda asked: Said((b"200 go ahead\r\n\r\n",), "close")) as server:
            assert "did not answer in HTTP" in problem_with(run, endpoint_of(server))

    def test_an_endless_body_does_not_matter(self, run: Run) -> None:
        endless = (b"HTTP/1.1 403 No\r\n\r\n", *[bytes(1 << 16)] * 10)
        with ScriptedServer(lambda asked: Said(endless, "silent")) as server:
            assert ask(run, endpoint_of(server)) == 403

    def test_a_body_that_never_comes_does_not_change_the_status(self, run: Run) -> None:
        with ScriptedServer(lambda asked: Said(said(b"", "200 OK", length=5).parts, "silent")) as server:
            assert ask(run, endpoint_of(server, timeout_seconds=0.1)) == 200

    def test_a_webhook_that_is_gone_from_the_configuration(self, run: Run) -> None:
        with pytest.raises(PeerUnavailable, match="webhook gate is not configured any more"):
            run(lambda: Webhooks([]).ask_webhook(AskWebhook("gate", ())))


class TestRefusedFields:
    """A field that would arrive as something else is not sent, and neither is the rest."""

    @pytest.mark.parametrize(
        "value",
        [
            "canary\r\nX-Registry-Username: admin",
            "canary\n",
            "\0canary",
            " canary",
            "canary ",
            "canary\x7f",
            "canary\u2713",
        ],
    )
    def test_values(self, run: Run, value: str) -> None:
        with ScriptedServer(lambda asked: said()) as server:
            assert "'x-some' has a value that cannot be sent" in problem_with(
                run, endpoint_of(server), ("X-Some", value)
            )
        assert server.asked == []

    @pytest.mark.parametrize("name", ["", "X Some", "X-Some:", "X\r\nY", "Ü"])
    def test_names(self, run: Run, name: str) -> None:
        with ScriptedServer(lambda asked: said()) as server:
            problem_with(run, endpoint_of(server), (name, CANARY))
        assert server.asked == []

    @pytest.mark.parametrize("name", sorted(NOT_FORWARDED))
    def test_fields_about_the_connection(self, run: Run, name: str) -> None:
        with ScriptedServer(lambda asked: said()) as server:
            problem = problem_with(run, endpoint_of(server), (name.title(), CANARY))
        assert problem == f"webhook gate: the field {name} of a client cannot be passed on"
        assert server.asked == []

    def test_a_second_credential(self, run: Run) -> None:
        with ScriptedServer(lambda asked: said()) as server:
            problem_with(run, endpoint_of(server, authorization="Bearer ours"), ("authorization", CANARY))
            assert server.asked == []
            assert ask(run, endpoint_of(server), ("authorization", "Basic theirs")) == 200
        assert server.asked[0].values("authorization") == ["Basic theirs"]
