"""Rows `authorized` and `logins`: what access control costs those who use it, and those who do not."""

from __future__ import annotations

import base64
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from angos.runtime.maintenance.argon import hash_password
from benchmarks.client import MANIFEST_TYPE, Connection, Unexpected, push_as_clients_do, push_manifest
from benchmarks.content import ContentMaker
from benchmarks.result import Result, Target
from benchmarks.servers import Server, angos
from benchmarks.settings import Settings
from benchmarks.small_requests import requests_per_second_wrk

ROWS = ("authorized", "logins")
PROGRAMS = {"taskset", "wrk"}

LOGINS = 200
_CONNECTIONS = 16
_NAMESPACE = "library/image"
_PATH = f"/v2/{_NAMESPACE}/manifests/1.0"
_RULES = (
    'identity.username == "root"',
    'request.action == "put-manifest" && identity.oidc != null && identity.oidc.claims["repository"] == "acme/app"',
    'request.action in ["get-manifest", "get-blob"] && identity.username.startsWith("user") '
    '&& request.namespace.startsWith("library/")',
)
_ANYBODY_READS = 'request.action == "get-manifest"'


def measure(settings: Settings) -> list[Result]:
    """Either row has servers of its own."""
    measured = {"authorized": _measure_authorized, "logins": _measure_logins}
    return [measured[row](settings) for row in ROWS if row in settings.rows]


def _measure_authorized(settings: Settings) -> Result:
    with ExitStack() as stack:
        private = stack.enter_context(_private(settings, "authorized", 1, *_RULES))
        open_ = stack.enter_context(angos(settings.cores, settings.folder / "authorized"))
        figures: dict[int, list[float]] = {private.port: [], open_.port: []}
        for number in range(-1, settings.rounds):
            for server in settings.alternate(number, private, open_):
                headers = [f"Accept: {MANIFEST_TYPE}"]
                if server is private:
                    headers.append(f"Authorization: {_credentials(0)}")
                seconds = settings.seconds if number >= 0 else 1.0  # warm up
                figure = requests_per_second_wrk(f"{server.url}{_PATH}", seconds, _CONNECTIONS, *headers)
                if number >= 0:
                    figures[server.port].append(figure)
    return Result(
        "authorized",
        "manifest GET by tag with Basic and three rules, 16 connections",
        "requests/s",
        tuple(figures[private.port]),
        "the same, open",
        tuple(figures[open_.port]),
        Target("ratio", "at least", 0.7),
    )


def _measure_logins(settings: Settings) -> Result:
    during, before = [], []
    for number in range(settings.rounds):
        with _private(settings, f"logins-{number}", LOGINS, _ANYBODY_READS) as server:
            _latency(server, 1.0)  # warm up
            before.append(_latency(server, settings.seconds))
            burst = _Burst(server)
            during.append(_latency(server, settings.seconds))
            burst.check()
    return Result(
        "logins",
        f"p99 of anonymous manifest GETs while {LOGINS} people log in",
        "ms",
        tuple(during),
        "nobody logs in",
        tuple(before),
        Target("ratio", "at most", 3),
    )


@contextmanager
def _private(settings: Settings, name: str, users: int, *rules: str) -> Iterator[Server]:
    """A server with an image, which was pushed before access to it was closed."""
    root, config = settings.folder / name, ContentMaker(1500).make()
    with angos(settings.cores, root) as server, Connection(server.port) as connection:
        push_as_clients_do(connection, _NAMESPACE, config)
        push_manifest(connection, _NAMESPACE, "1.0", config, [])
    quoted = ", ".join(f"'''{rule}'''" for rule in rules)
    lines = ["[global.access_policy]", 'default = "deny"', f"rules = [{quoted}]"]
    for number in range(users):
        hashed = hash_password(_password(number))
        lines += [f"[auth.identity.user{number}]", f'username = "user{number}"', f'password = "{hashed}"']
    configuration = root.with_suffix(".toml")
    configuration.write_text("\n".join(lines))
    with angos(settings.cores, root, "-c", str(configuration)) as server:
        yield server


def _password(number: int) -> str:
    return f"correct horse {number}"


def _credentials(number: int) -> str:
    return "Basic " + base64.b64encode(f"user{number}:{_password(number)}".encode()).decode()


class _Burst:
    """Everybody logs in at the same moment, each on a connection of their own."""

    def __init__(self, server: Server) -> None:
        self._failures: list[Unexpected] = []
        self._threads = [threading.Thread(target=self._log_in, args=(server, number)) for number in range(LOGINS)]
        for thread in self._threads:
            thread.start()

    def _log_in(self, server: Server, number: int) -> None:
        try:
            with Connection(server.port) as connection:
                connection.ask("GET", "/v2/", 200, [f"Authorization: {_credentials(number)}"])
        except Unexpected as failure:
            self._failures.append(failure)

    def check(self) -> None:
        """Wait until all are in. Raises `Unexpected` when one is not."""
        for thread in self._threads:
            thread.join()
        if self._failures:
            raise Unexpected(f"{len(self._failures)} of {LOGINS} logins failed: {self._failures[0]}")


def _latency(server: Server, seconds: float) -> float:
    """The 99th percentile in milliseconds."""
    command = ["wrk", "-t1", f"-c{_CONNECTIONS}", f"-d{max(1, round(seconds))}s", "--latency"]
    command += ["-H", f"Accept: {MANIFEST_TYPE}", f"{server.url}{_PATH}"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"99% +([0-9.]+)(us|ms|s)", printed)
    if found is None or "Non-2xx" in printed:
        raise Unexpected(f"wrk printed {printed!r}")
    return float(found[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[found[2]]
