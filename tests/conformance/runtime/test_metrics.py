"""Metrics: what is counted, over how many processes, and what clients cannot do to it."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any, get_args

import anyio
import anyio.lowlevel
import pytest
from prometheus_client.parser import text_string_to_metric_families

from angos.runtime.observability.definitions import DEFINITIONS
from angos.runtime.observability.events import EventSink
from angos.runtime.observability.exposition import Exposition
from angos.runtime.observability.metrics import METHODS, ROUTES, Metrics, route_of
from angos.runtime.observability.observed_store import ObservedStore
from angos.runtime.observability.server_figures import METRIC_OF, server_figures
from angos.runtime.observability.shared_cells import CELLS
from angos.runtime.performer import Store
from angos.runtime.server.counters import ServerCounters
from angos.sansio.access.events import AccessDenied, CredentialTried, RuleFailed, WebhookAsked, Who
from angos.sansio.effects import BodyHandle, StorageFull, Tell
from angos.sansio.http.message import Headers, Inline, Request, Response
from angos.sansio.http.route import Endpoint
from tests.conformance.runtime.observed import Observed, Scrape, ask, tries

GET_VERSION = {"method": "GET", "route": "version", "status": "200"}
NOBODY = Who(None, None, None, (), (), "192.0.2.1")


def scrape(metrics: Metrics) -> Scrape:
    _, text = Exposition(metrics).metrics_text()
    return Scrape(text.decode())


def answer(metrics: Metrics, method: str, target: str, status: int = 200, seconds: float = 0.001) -> None:
    request = Request(method, target, Headers(), BodyHandle(0), 0)
    metrics.on_answer(request, Response(status, (), Inline(b"12345")), seconds, 3)


def in_a_child(act: Callable[[], None]) -> int:
    """Do something in a forked process, which ends without tidying up; its id."""
    process = os.fork()
    if process == 0:
        try:
            act()
        except BaseException:
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
    return process


# --- counting ---------------------------------------------------------------------------------------------------------


def test_an_answer_is_counted_with_its_time_and_bytes() -> None:
    metrics = Metrics()
    answer(metrics, "GET", "/v2/team/app/manifests/latest?secret=1", seconds=0.002)
    answer(metrics, "HEAD", "/v2/team/app/manifests/latest", seconds=400.0)
    found = scrape(metrics)
    labels = {"method": "GET", "route": "manifest"}
    assert found.value("http_requests_total", **labels, status="200") == 1
    assert found.value("http_request_duration_seconds_bucket", **labels, le="0.001") == 0
    assert found.value("http_request_duration_seconds_bucket", **labels, le="0.0025") == 1
    assert found.value("http_request_duration_seconds_sum", **labels) == 0.002
    labels = {"method": "HEAD", "route": "manifest"}
    assert found.value("http_request_duration_seconds_bucket", **labels, le="300.0") == 0
    assert found.value("http_request_duration_seconds_bucket", **labels, le="+Inf") == 1
    assert found.value("http_request_bytes_total", route="manifest") == 6
    assert found.value("http_response_bytes_total", route="manifest") == 5  # an answer to HEAD has no body


def test_every_endpoint_has_a_route() -> None:
    assert set(ROUTES) == set(get_args(Endpoint))


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/v2/", "version"),
        ("/v2/a/blobs/uploads/", "upload"),
        ("/v2/a/b/tags/list", "tags"),
        ("/healthz", "healthz"),
        ("/metrics", "metrics"),
        ("/metrics/", "unknown"),
        ("/v2/UPPER/tags/list", "unknown"),
        ("", "unknown"),
        ("*", "unknown"),
        ("/v2/%ff/manifests/x", "unknown"),
    ],
)
def test_paths_become_one_of_few_routes(path: str, route: str) -> None:
    assert route_of(path) == route


def test_clients_cannot_make_up_series() -> None:
    metrics = Metrics()
    for number in range(500):
        answer(metrics, f"METHOD{number}", f"/v2/team/app{number}/manifests/tag{number}")
        answer(metrics, "GET", f'/{number}/\n"}} 1\nforged_total 1', 404)
        answer(metrics, "GET", f"/v2/x{number}/tags/list?{number}")
    found = scrape(metrics)
    requests = [dict(labels) for name, labels in found.samples if name == "http_requests_total"]
    assert {labels["method"] for labels in requests} <= METHODS | {"other"}
    assert len(requests) == 3
    assert found.value("http_requests_total", method="other", route="manifest", status="200") == 500
    assert "forged" not in found.text


def test_too_many_series_are_dropped_and_said_to_be() -> None:
    metrics = Metrics()
    for number in range(CELLS):
        metrics.count("angos_policy_rule_failures_total", f"rule {number}")
    answer(metrics, "GET", "/v2/")
    metrics.observe("webhook_authorization_duration_seconds", "hook", seconds=100.0)
    found = scrape(metrics)
    shown = [labels for name, labels in found.samples if name == "angos_policy_rule_failures_total"]
    assert 0 < len(shown) < CELLS
    assert found.value("angos_metrics_dropped_total") >= CELLS - len(shown)
    assert all(found.samples["angos_policy_rule_failures_total", labels] == 1 for labels in shown)


def test_operations_of_a_store_are_counted_by_outcome() -> None:
    async def later(effect: object) -> bytes:
        await anyio.lowlevel.checkpoint()
        if effect == "full":
            raise StorageFull("no space")
        return b"value"

    def at_once(effect: object) -> bytes:
        if effect == "broken":
            raise KeyError("a bug")
        return b"value"

    async def use() -> None:
        read, write = (
            metrics.observed("storage", "read_key", at_once),
            metrics.observed("storage", "create_keys", later),
        )
        assert read("fine") == b"value"
        with pytest.raises(KeyError):
            read("broken")
        assert await write("fine") == b"value"
        with pytest.raises(StorageFull):
            await write("full")
        waiting = write("fine")
        waiting.send(None)
        waiting.close()

    metrics = Metrics()
    anyio.run(use)
    found = scrape(metrics)
    outcomes = {
        tuple(dict(labels)[label] for label in ("operation", "outcome")): value
        for (name, labels), value in found.samples.items()
        if name == "angos_storage_operations_total"
    }
    assert outcomes == {
        ("read_key", "ok"): 1,
        ("read_key", "error"): 1,
        ("create_keys", "ok"): 1,
        ("create_keys", "full"): 1,
        ("create_keys", "cancelled"): 1,
    }
    assert found.value("angos_storage_operation_duration_seconds_count", operation="create_keys") == 3


def test_every_method_of_a_store_is_observed() -> None:
    class Anything:
        def __getattr__(self, name: str) -> Callable[[object], str]:
            return lambda _: name

    store: Any = Anything()
    observed = ObservedStore(store, Metrics())
    methods = [name for name, member in vars(Store).items() if not name.startswith("_") and callable(member)]
    assert methods
    assert [getattr(observed, name)(None) for name in methods] == methods


def test_what_the_core_tells_is_counted() -> None:
    metrics = Metrics()
    sink = EventSink(metrics)
    for event in (
        CredentialTried("basic", accepted=False, problem="wrong"),
        CredentialTried("oidc", accepted=True),
        AccessDenied(NOBODY, "get-manifest", "team/app", "no rule allows it"),
        RuleFailed("global.access_policy.rules[0]", "no such key"),
        WebhookAsked("gate", "allow", 0.02),
        WebhookAsked("gate", "cached_deny"),
        WebhookAsked("gate", "unavailable", 2.0),
    ):
        sink.tell(Tell(event))
    found = scrape(metrics)
    assert found.value("auth_attempts_total", method="basic", result="failed") == 1
    assert found.value("auth_attempts_total", method="oidc", result="success") == 1
    assert found.value("angos_access_denied_total", action="get-manifest") == 1
    assert found.value("angos_policy_rule_failures_total", rule="global.access_policy.rules[0]") == 1
    assert found.value("webhook_authorization_requests_total", webhook="gate", result="cached_deny") == 1
    assert found.value("webhook_authorization_duration_seconds_count", webhook="gate") == 2
    assert found.value("webhook_authorization_duration_seconds_sum", webhook="gate") == pytest.approx(2.02)


def test_everything_that_the_server_counts_is_published() -> None:
    assert set(METRIC_OF) == {field.name for field in fields(ServerCounters)}
    metrics, counters = Metrics(), ServerCounters()
    metrics.follow(server_figures(counters))
    metrics.publish()
    before = scrape(metrics)
    for field in fields(ServerCounters):
        value = getattr(counters, field.name)
        if isinstance(value, dict):
            for kind in value:
                value[kind] += 1
        else:
            setattr(counters, field.name, value + 1)
    metrics.publish()
    metrics.publish()  # what was published already is not added again
    after = scrape(metrics)
    changed = {sample for sample, value in after.samples.items() if value == before.samples.get(sample, 0) + 1}
    expected = sum(
        len(value) if isinstance(value := getattr(counters, field.name), dict) else 1 for field in fields(counters)
    )
    assert len({sample for sample in changed if not sample[0].startswith("process_")}) == expected


def test_reloads_are_counted() -> None:
    metrics = Metrics()
    metrics.count_reload("applied", 2)
    metrics.count_reload("rejected", 2)
    found = scrape(metrics)
    assert found.value("angos_configuration_reloads_total", result="applied") == 1
    assert found.value("angos_configuration_reloads_total", result="rejected") == 1
    assert found.value("angos_configuration_generation") == 2


# --- several processes ------------------------------------------------------------------------------------------------


def test_processes_add_up_and_those_that_ended_still_count() -> None:
    metrics = Metrics(workers=2)
    answer(metrics, "GET", "/v2/")

    def work() -> None:
        metrics.begin()
        answer(metrics, "GET", "/v2/")
        metrics.set("http_requests_in_flight", value=5)

    for _ in range(6):  # more than there is room for at a time
        in_a_child(work)
    found = scrape(metrics)
    assert found.value("http_requests_total", **GET_VERSION) == 7
    assert found.value("http_requests_in_flight") == 0  # what has ended answers nothing any more


def test_a_gauge_starts_over_in_the_process_that_takes_a_place() -> None:
    metrics = Metrics(workers=1)

    def leave_something() -> None:
        metrics.begin()
        metrics.set("http_requests_in_flight", value=5)

    def look() -> None:
        metrics.begin()
        assert scrape(metrics).value("http_requests_in_flight") == 0
        metrics.set("http_requests_in_flight", value=1)
        assert scrape(metrics).value("http_requests_in_flight") == 1

    in_a_child(leave_something)
    in_a_child(look)


def test_metrics_leave_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    answer(Metrics(workers=2), "GET", "/v2/")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(params=["asyncio", "trio"])
def observed(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Observed]:
    with Observed(tmp_path, loop=request.param, workers=2) as observed:
        yield observed


def has_answered(count: int, found: Scrape) -> bool:
    return found.value("http_requests_total", **GET_VERSION) == count


def test_workers_are_one_to_those_who_scrape(observed: Observed) -> None:
    for count in range(1, 51):  # each a connection of its own, so that no worker gets all of them
        with observed.client() as client:
            assert client.get("/v2/").status == 200
        if count % 10 == 0:
            observed.scrape_until(partial(has_answered, count))
    found = observed.scrape()
    assert found.value("http_request_duration_seconds_count", method="GET", route="version") == 50
    processes = {dict(labels)["process"] for name, labels in found.samples if name == "process_cpu_seconds_total"}
    assert processes == {"main", "worker-1", "worker-2"}
    observed.scrape_until(lambda found: found.value("angos_connections_accepted_total") == 50)
    observed.end()


def test_a_worker_that_is_killed_takes_no_counts_along(observed: Observed) -> None:
    for _ in range(20):
        with observed.client() as client:
            client.get("/v2/")
            client.put("/v2/team/app/manifests/latest", b"{}")
            client.get("/v2/team/app/manifests/latest")
    before = observed.scrape_until(lambda found: found.sum("http_requests_total") == 60)
    (killed,) = _workers_of(observed.parent.pid)[:1]
    os.kill(killed, signal.SIGKILL)
    for _ in tries():
        workers = _workers_of(observed.parent.pid)
        if killed not in workers and len(workers) == 2:
            break
    after = observed.scrape()
    assert before.value("http_requests_total", **GET_VERSION) == 20
    assert before.sum("angos_storage_operations_total") > 0
    lower = {sample for sample, value in before.counters().items() if after.samples.get(sample, 0) < value}
    assert lower == set()
    for _ in range(20):
        with observed.client() as client:
            client.get("/v2/")
    observed.scrape_until(partial(has_answered, 40))
    observed.end()


def _workers_of(parent: int) -> list[int]:
    return [int(process) for process in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


# --- reading ----------------------------------------------------------------------------------------------------------


def test_metrics_are_read_beside_the_registry_or_apart(observed: Observed) -> None:
    assert observed.url != observed.metrics_url
    for url in (f"{observed.url}/metrics", observed.metrics_url):
        status, headers, body = ask("GET", f"{url}?x=1")
        assert (status, headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
        names = {family.name for family in text_string_to_metric_families(body.decode())}
        assert {name.removesuffix("_total") for name in DEFINITIONS} <= names
        status, headers, body = ask("HEAD", url)
        assert (status, body) == (200, b"")
        assert int(headers["Content-Length"]) > 1000
        status, headers, _ = ask("POST", url)
        assert (status, headers["Allow"]) == (405, "GET, HEAD")
    status, _, _ = ask("GET", f"{observed.metrics_url.removesuffix('/metrics')}/v2/")
    assert status == 404
    observed.end()


def test_reference_lists_every_metric_with_its_labels() -> None:
    text = (Path(__file__).parents[3] / "docs/reference/metrics.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| ([^|]*) \| ([^|]*) \|$", text, re.MULTILINE)
    described = {name: (kind, tuple(re.findall(r"`(\w+)`", labels)), help_) for name, kind, labels, help_ in rows}
    expected = {
        definition.name: (definition.kind, definition.labels, definition.help) for definition in DEFINITIONS.values()
    }
    assert {name: found for name, found in described.items() if name in expected} == expected
    others = {name for name in described if name not in expected}
    made = {family.name for family in scrape(Metrics()).families.values()} - {
        name.removesuffix("_total") for name in DEFINITIONS
    }
    assert {name.removesuffix("_total") for name in others} == made
