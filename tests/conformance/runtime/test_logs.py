"""Log lines: whole, unforgeable, without secrets, and at the levels that were asked for."""

from __future__ import annotations

import base64
import io
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from angos.runtime.observability.events import REPEAT_SECONDS, EventSink
from angos.runtime.observability.logs import AccessLog, JsonLines, TextLines, configure_logging, visible
from angos.runtime.observability.settings import LogOptions, parse_listen
from angos.sansio.access.events import AccessDenied, CredentialTried, Event, RuleFailed, WebhookAsked, Who
from angos.sansio.effects import BodyHandle, Tell
from angos.sansio.http.message import Headers, Inline, Peer, Request, Response
from tests.conformance.runtime.observed import Observed

HOSTILE = "latest\nangos: ERROR: all is lost\r\x1b[2J\x00\x7f\x85\u2028\u202e"
NOBODY = Who(None, None, None, (), (), "192.0.2.1")
SOMEBODY = Who("ci", "builder", "github", ("Acme",), ("node-1", "node-2"), "192.0.2.1")


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """Where lines go that are logged by the registry from now on; logging is as before at the end."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield io.StringIO()
    configure_logging(LogOptions())
    root.handlers = handlers
    root.setLevel(level)
    logging.getLogger("angos").setLevel(logging.NOTSET)


def lines(written: io.StringIO) -> list[str]:
    found = written.getvalue()
    assert found == "" or found.endswith("\n")
    return found.split("\n")[:-1]


# --- what a line looks like -------------------------------------------------------------------------------------------


def test_a_line_for_people_shows_what_cannot_be_seen(written: io.StringIO) -> None:
    configure_logging(LogOptions(), written)
    logging.getLogger("angos.storage").error("tag %s", HOSTILE)
    assert lines(written) == [r"angos: ERROR: tag latest\nangos: ERROR: all is lost\r\x1b[2J\x00\x7f\x85\u2028\u202e"]


def test_a_line_for_machines_is_one_object_of_ascii(written: io.StringIO) -> None:
    configure_logging(LogOptions(format="json"), written)
    logging.getLogger("angos.storage").error("tag %s", HOSTILE)
    (line,) = lines(written)
    entry = json.loads(line)
    assert line.isascii()
    assert (entry["level"], entry["logger"], entry["message"]) == ("error", "angos.storage", f"tag {HOSTILE}")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", entry["time"])


def record(message: str, *arguments: object) -> logging.LogRecord:
    return logging.LogRecord("angos.server", logging.INFO, "", 0, message, arguments, None)


@given(st.text(st.characters()))
@example("\ud800")  # what a client sent is read as latin-1, but names in certificates are not
def test_no_text_breaks_a_line(text: str) -> None:
    assert visible(text).isprintable()
    assert TextLines().format(record("%s", text)).isprintable()
    whole = JsonLines().format(record("%s", text))
    assert whole.isprintable()
    assert json.loads(whole)["message"] == text


@pytest.mark.parametrize("formatter", [TextLines(), JsonLines()])
def test_a_line_is_short_enough_for_a_pipe_to_take_it_whole(formatter: logging.Formatter) -> None:
    assert len(formatter.format(record("%s", "x" * 100_000))) < 4096


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_traceback_cannot_pass_for_lines_of_its_own(log_format: Any, written: io.StringIO) -> None:
    configure_logging(LogOptions(format=log_format), written)
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        logging.getLogger("angos.server").exception("it failed")
    first, *others = lines(written)
    if log_format == "json":
        assert others == []
        assert "all is lost" in json.loads(first)["exception"]
    else:
        assert first == "angos: ERROR: it failed"
        assert others
        assert all(line.startswith("    ") and line.isprintable() for line in others)


def test_problems_of_a_configuration_are_one_in_a_line(written: io.StringIO) -> None:
    configure_logging(LogOptions(), written)
    logging.getLogger("angos.reload").error("not reloaded:%s", "\n  a.toml: x\n  b.toml: \x1b")
    assert lines(written) == ["angos: ERROR: not reloaded:", "  a.toml: x", r"  b.toml: \x1b"]


# --- levels -----------------------------------------------------------------------------------------------------------


def test_levels_hold_for_modules_and_can_be_changed(written: io.StringIO) -> None:
    def say() -> list[str]:
        written.truncate(0)
        written.seek(0)
        for name in ("angos.storage", "angos.server", "asyncio"):
            for level in (logging.DEBUG, logging.INFO, logging.WARNING):
                logging.getLogger(name).log(level, "%s %s", name, logging.getLevelName(level))
        return [line.partition(": ")[2].partition(": ")[2] for line in lines(written)]

    configure_logging(LogOptions("warning", modules={"angos.storage": "debug"}), written)
    assert say() == [
        *("angos.storage DEBUG", "angos.storage INFO", "angos.storage WARNING"),
        *("angos.server WARNING", "asyncio WARNING"),
    ]
    configure_logging(LogOptions("debug"), written)
    assert "asyncio INFO" not in say()  # a library is not made to talk by the level of the registry
    configure_logging(LogOptions("error"), written)
    assert say() == ["asyncio WARNING"]


# --- the access log ---------------------------------------------------------------------------------------------------


def answer(log: AccessLog, target: str, status: int = 200, *fields: tuple[str, str]) -> None:
    request = Request("GET", target, Headers(fields), BodyHandle(0), 0, Peer("10.0.0.1"))
    log.on_answer(request, Response(status, (), Inline(b"12345")), 0.0015, 7)


def test_the_access_log_has_one_line_for_each_answer(written: io.StringIO) -> None:
    configure_logging(LogOptions(), written)
    answer(AccessLog(), "/v2/team/app/manifests/latest?token=canary")
    answer(AccessLog(), "/v2/", 503)
    assert lines(written) == [
        "angos: INFO: 10.0.0.1 GET /v2/team/app/manifests/latest 200 5 1.5ms",
        "angos: ERROR: 10.0.0.1 GET /v2/ 503 5 1.5ms",
    ]


def test_the_access_log_gives_machines_the_parts(written: io.StringIO) -> None:
    configure_logging(LogOptions(format="json"), written)
    answer(AccessLog(("10.0.0.0/8",)), "/v2/" + "x" * 5000, 404, ("x-forwarded-for", "203.0.113.9"))
    (line,) = lines(written)
    entry = json.loads(line)
    assert len(line) < 4096
    assert entry["path"] == "/v2/" + "x" * 508 + "..."
    expected = {"client": "203.0.113.9", "method": "GET", "status": 404, "sent": 5, "received": 7, "milliseconds": 1.5}
    assert {name: entry[name] for name in expected} == expected


# --- what the core tells ----------------------------------------------------------------------------------------------


def tell(sink: EventSink, *events: Event) -> None:
    for event in events:
        sink.tell(Tell(event))


def test_denials_say_who_and_why(written: io.StringIO) -> None:
    configure_logging(LogOptions(), written)
    tell(
        EventSink(),
        AccessDenied(SOMEBODY, "put-manifest", "team/app", "global.access_policy.rules[0] denies it"),
        AccessDenied(NOBODY, "list-catalog", None, "anonymous"),
        CredentialTried("basic", accepted=False, problem="there is no user of this name with this password"),
        CredentialTried("mtls", accepted=True),
    )
    assert lines(written) == [
        "angos: INFO: denied put-manifest in team/app to identity ci user builder provider github organization Acme "
        "certificate node-1, node-2 from 192.0.2.1: global.access_policy.rules[0] denies it",
        "angos: INFO: denied list-catalog to nobody known from 192.0.2.1: anonymous",
        "angos: INFO: basic credential refused: there is no user of this name with this password",
    ]


def test_failing_rules_and_webhooks_cannot_fill_the_log(written: io.StringIO) -> None:
    configure_logging(LogOptions(), written)
    now = [0.0]
    sink = EventSink(monotonic=lambda: now[0])
    rule, other = RuleFailed("rules[0]", "no such key: sub"), RuleFailed("rules[1]", "no such key: sub")
    webhook = WebhookAsked("gate", "unavailable", 2.0)
    tell(sink, *[rule] * 1000, other, *[webhook] * 1000, WebhookAsked("gate", "deny"))
    assert lines(written) == [
        "angos: WARNING: rules[0] failed: no such key: sub",
        "angos: WARNING: rules[1] failed: no such key: sub",
        "angos: ERROR: webhook gate gave no usable answer, so the request was denied",
    ]
    now[0] += REPEAT_SECONDS
    tell(sink, rule, webhook)
    again = " (and 999 more times since the last line like this)"
    assert lines(written)[3:] == [
        f"angos: WARNING: rules[0] failed: no such key: sub{again}",
        f"angos: ERROR: webhook gate gave no usable answer, so the request was denied{again}",
    ]


# --- a running server -------------------------------------------------------------------------------------------------

CANARY = "c4n4ry"


def _sent_with_canaries() -> list[tuple[str, str, list[tuple[str, str]]]]:
    basic = base64.b64encode(f"known:{CANARY}".encode()).decode()
    claims = base64.urlsafe_b64encode(json.dumps({"iss": "x", "sub": CANARY}).encode()).decode().rstrip("=")
    credentials = [
        f"Basic {basic}",
        f"Bearer {CANARY}",
        f"Bearer e30.{claims}.{CANARY}",
        f"Digest {CANARY}",
        f"Basic {CANARY}!",
        CANARY,
    ]
    return [
        (method, target, [("Authorization", value), *others])
        for value in credentials
        for others in (
            [("X-Forwarded-For", CANARY), ("X-Forwarded-Uri", f"/?{CANARY}"), ("Cookie", f"session={CANARY}")],
            [("X-Forwarded-Proto", CANARY), ("Referer", f"http://example.test/?token={CANARY}")],
        )
        for method, target in (
            ("GET", f"/v2/?token={CANARY}"),
            ("GET", f"/v2/private/app/manifests/latest?access_token={CANARY}"),
            ("PUT", f"/v2/private/app/manifests/latest?tag={CANARY}"),
            ("POST", f"/v2/private/app/blobs/uploads/?digest={CANARY}"),
            ("GET", f"/v2/public/app/tags/list?last={CANARY}"),
            ("GET", f"/nowhere?{CANARY}"),
            ("GET", f"/metrics?{CANARY}"),
            ("DELETE", f"/healthz?{CANARY}"),
        )
    ]


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_no_line_at_any_level_holds_a_secret(log_format: str, tmp_path: Path) -> None:
    basic = base64.b64encode(f"known:{CANARY}".encode()).decode()
    with Observed(tmp_path, log_format=log_format) as observed:
        for method, target, fields in _sent_with_canaries():
            with observed.raw() as sending:
                sending.ask(method, target, fields, CANARY.encode())
        with observed.raw() as sending:
            sending.send(f"GET /v2/?{CANARY} HTTP/1.1\r\nHost: x\r\nAuthorization : Bearer {CANARY}\r\n\r\n".encode())
        with observed.raw() as sending:
            sending.send(f"{CANARY} {CANARY}\r\n\r\n".encode())
        metrics = observed.scrape().text
        observed.end()
        written = observed.log
    assert "denied get-manifest in private/app" in written
    assert "/v2/private/app/manifests/latest" in written
    for secret in (CANARY, basic, basic.rstrip("=")):
        assert secret not in written
        assert secret not in metrics


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_requests_cannot_forge_lines(log_format: str, tmp_path: Path) -> None:
    forged = "angos: ERROR: all is lost"
    with Observed(tmp_path, log_format=log_format) as observed:
        for target in (
            f"/v2/private/x%0a{forged.replace(' ', '%20')}/tags/list",
            "/v2/private/x%1b%5b2J/manifests/latest",
            "/v2/private/%e2%80%a8/blobs/uploads/",
            "/v2/x\x1b[2J/tags/list",
            "/v2/\xff\xfe/tags/list",
            "/v2/x\r" + forged,
        ):
            for fields in ([], [("X-Forwarded-For", f"1.2.3.4\x85{forged}"), ("Authorization", "Basic \xe4\t")]):
                with observed.raw() as sending:
                    sending.ask("GET", target, fields)
        observed.end()
        written = observed.log
    assert "/v2/private/x%0a" in written
    for line in written.splitlines():
        if log_format == "json":
            assert json.loads(line)["logger"].startswith("angos.")
        else:
            assert re.match(r"angos: (DEBUG|INFO|WARNING|ERROR): ", line)
            assert line.isprintable()
            assert not line.startswith(forged)


def test_lines_about_a_request_carry_the_name_that_its_client_got(tmp_path: Path) -> None:
    with Observed(tmp_path, log_format="json") as observed:
        with observed.client() as client:
            names = [client.get("/v2/private/app/tags/list")["X-Request-Id"] for _ in range(2)]
        observed.end()
        entries = [json.loads(line) for line in observed.log.splitlines()]
    assert names[0] != names[1]
    for name in names:
        loggers = [entry["logger"] for entry in entries if entry.get("request_id") == name]
        assert {"angos.authorization", "angos.access"} <= set(loggers)


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [("127.0.0.1:9090", ("127.0.0.1", 9090)), ("[::1]:0", ("::1", 0)), (":9090", ("", 9090)), ("host:1", ("host", 1))],
)
def test_listen_is_an_address_and_a_port(text: str, found: tuple[str, int]) -> None:
    assert parse_listen(text) == found


@pytest.mark.parametrize("text", ["", "9090", "::1:9090", "host:", "host:70000", "host:x", "a b:1", "host:-1"])
def test_listen_refuses_anything_else(text: str) -> None:
    with pytest.raises(ValueError, match="an address and a port"):
        parse_listen(text)


def test_reference_lists_every_logger() -> None:
    root = Path(__file__).parents[3]
    used = {
        name for file in root.glob("runtime/**/*.py") for name in re.findall(r'getLogger\("(.+)"\)', file.read_text())
    }
    described = set(re.findall(r"^\| `(angos\.\w+)` \|", (root / "docs/reference/log.md").read_text(), re.MULTILINE))
    assert {name for name in used if name.startswith("angos.")} == described
