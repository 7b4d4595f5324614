"""Traces of requests to a private registry: they replay, and whoever reads them cannot log in with them."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from angos.runtime.driver import drive
from angos.runtime.recorder import Recorder
from angos.sansio.access.config import Webhook
from angos.sansio.access.expression_nodes import Binary, Constant, Select, Variable
from angos.sansio.access.policy import Policy, Rule
from angos.sansio.effects import BodyHandle
from angos.sansio.http.message import Headers, Inline, Request, Response
from angos.sansio.registry import handle
from angos.simulator.outcomes import replay_outcomes
from angos.simulator.registry import SimulatedRegistry
from angos.simulator.world.bodies import SyntheticBody

from .access_values import TOKENS, access, basic, bearer, job_token, registry

PASSWORD = "canary-password"
API_KEY = "canary-api-key"
FAILING = Policy("allow", (Rule("", "rules[0]", Binary("==", Select(Variable("request"), "x"), Constant("int", 1))),))


class _Recorded:
    """A private registry whose every request is recorded."""

    def __init__(self, folder: Path, *, status: int | None = 200) -> None:
        webhook = Webhook("acl", forward_headers=("authorization", "x-api-key"))
        config = access(token_service=TOKENS, webhooks=(webhook,), webhook="acl")
        self.world: SimulatedRegistry = registry(config)
        self.world.services.passwords["alice"] = PASSWORD
        self.world.services.webhooks["acl"] = lambda headers: status
        self.files: list[Path] = []
        self._recorder = Recorder(folder, self.world.config)

    def send(self, method: str, target: str, headers: dict[str, str], body: bytes = b"") -> Response:
        """Through the real driver and the real recorder."""
        handle_ = BodyHandle(self.world.world.open_body(SyntheticBody(body)))
        fields = tuple((name.lower(), value) for name, value in {**headers, "x-api-key": API_KEY}.items())
        request = Request(method, target, Headers(fields), handle_, len(body))
        recording = self._recorder.begin(request, self.world)
        response: Response = anyio.run(drive, handle(request, self.world.config), recording)
        self.files.append(self._recorder.end(recording, response))
        return response

    def check(self, *secrets: str) -> None:
        """Every file replays and holds none of these, in whatever spelling."""
        for path in self.files:
            text = path.read_text()
            assert replay_outcomes(text) is None, text
            for secret in (PASSWORD, API_KEY, *secrets):
                assert secret not in text
                for shift in range(3):  # wherever it lies in base64
                    encoded = base64.b64encode(b" " * shift + secret.encode()).decode()
                    assert encoded[4:-4] not in text


def _signature(token: str) -> str:
    return token.rpartition(".")[2]


def _token_in(response: Response) -> str:
    assert isinstance(response.body, Inline)
    token = json.loads(response.body.value)["token"]
    assert isinstance(token, str)
    return token


@pytest.mark.parametrize("password", [PASSWORD, f"not-{PASSWORD}"])
@pytest.mark.parametrize("status", [200, 403, 500, None])
def test_a_request_with_a_password_replays(tmp_path: Path, password: str, status: int | None) -> None:
    recorded = _Recorded(tmp_path, status=status)
    for _ in range(2):  # the second time what the webhook said is remembered
        response = recorded.send("GET", "/v2/a/tags/list", basic("alice", password))
        assert response.status == (404 if status == 200 else 403 if password == PASSWORD else 401)
    recorded.check()


@pytest.mark.parametrize("carrier", ["bearer", "password"])
def test_a_request_with_a_token_of_a_provider_replays(tmp_path: Path, carrier: str) -> None:
    """The first one fetches keys, the second one does not; another one is forged."""
    recorded = _Recorded(tmp_path)
    token = job_token(sub="job")
    for shown in (token, token, f"{token.rpartition('.')[0]}.{_signature(job_token(sub='other'))}"):
        headers = bearer(shown) if carrier == "bearer" else basic("ci", shown)
        assert recorded.send("GET", "/v2/a/tags/list", headers).status == 404
    recorded.check(_signature(token), _signature(job_token(sub="other")))


def test_a_provider_that_is_down_replays(tmp_path: Path) -> None:
    recorded = _Recorded(tmp_path)
    recorded.world.services.documents.clear()
    assert recorded.send("GET", "/v2/a/tags/list", bearer(job_token())).status == 503
    recorded.check(_signature(job_token()))


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_request_for_a_token_and_one_with_it_replay(tmp_path: Path, method: str) -> None:
    """The answer with the token, and the form with the password, are not in the file."""
    recorded = _Recorded(tmp_path)
    scope = "repository:a:pull,push"
    if method == "GET":
        response = recorded.send("GET", f"/token?scope={scope}&service=angos", basic("alice", PASSWORD))
    else:
        form = f"grant_type=password&username=alice&password={PASSWORD}&client_id=test&scope={scope}"
        form_type = {"content-type": "application/x-www-form-urlencoded"}
        response = recorded.send("POST", "/token", form_type, form.encode())
    token = _token_in(response)
    assert recorded.send("GET", "/v2/a/tags/list", bearer(token)).status == 404
    assert recorded.send("GET", "/v2/b/tags/list", bearer(token)).status == 401
    assert recorded.send("GET", "/token", bearer(token)).status == 401
    recorded.check(_signature(token))


@pytest.mark.parametrize(
    "form",
    [
        f"grant_type=password&username=alice&password=not-{PASSWORD}",
        f"grant_type=refresh_token&refresh_token={PASSWORD}",
        f"username=alice&password={PASSWORD}&password=more&password_again={PASSWORD}",
        f"username=alice&password=%63anary-password&x={PASSWORD}",
        "username=ci&password=" + job_token(),
        f"{PASSWORD}",
        "",
        "\xff" + PASSWORD,
        "&".join(f"n{number}=x" for number in range(101)) + PASSWORD,
    ],
)
def test_any_form_replays_without_what_is_in_it(tmp_path: Path, form: str) -> None:
    recorded = _Recorded(tmp_path)
    recorded.send("POST", "/token", {}, form.encode("latin-1"))
    recorded.check(_signature(job_token()), "%63anary")


@pytest.mark.parametrize(
    "value",
    [
        "Basic",
        f"Basic {PASSWORD}",
        "Basic " + base64.b64encode(PASSWORD.encode()).decode(),
        "Basic " + base64.b64encode(f"alice:\0{PASSWORD}".encode()).decode(),
        "Basic " + base64.b64encode(b"\xff:" + PASSWORD.encode()).decode(),
        "Bearer",
        f"Bearer {PASSWORD} {PASSWORD}",
        f"Bearer {PASSWORD}",
        f"Bearer a.b.{PASSWORD}",
        f"Digest {PASSWORD}",
        PASSWORD,
    ],
)
def test_credentials_that_mean_nothing_replay(tmp_path: Path, value: str) -> None:
    recorded = _Recorded(tmp_path)
    recorded.send("GET", "/v2/", {"authorization": value})
    recorded.send("GET", "/v2/a/tags/list", {"authorization": value})
    recorded.check()


def test_rules_that_fail_replay(tmp_path: Path) -> None:
    """They are compiled again from the trace, and fail in the same words."""
    recorded = _Recorded(tmp_path)
    assert recorded.world.config.access is not None
    config = replace(recorded.world.config, access=replace(recorded.world.config.access, policy=FAILING))
    recorded.world.config = config
    recorded._recorder = recorded._recorder.under(config)
    assert recorded.send("GET", "/v2/a/tags/list", basic("alice", PASSWORD)).status == 403
    recorded.check()
