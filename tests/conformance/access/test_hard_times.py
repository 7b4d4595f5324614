"""Reloads, kills and a full disk while people log in: an answer that comes is the right one."""

from __future__ import annotations

import itertools
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from angos.runtime.maintenance.argon import hash_password
from tests.conformance.access.guarded_registry import (
    ALICE,
    REGISTRY_SECRET,
    Issuer,
    basic,
    bearer,
    is_nobody,
    write_configuration,
)
from tests.conformance.certificates import Authority
from tests.conformance.crash.test_full_disk import Disk
from tests.conformance.http_client import Client, ProtocolViolation
from tests.conformance.registry_process import RegistryProcess
from tests.conformance.runtime.reloading import children, replace_file, wait_for_generation, wait_until

LISTING = "/v2/private/app/tags/list"
TOKEN = "/token?scope=repository:private/app:pull"


def by_token(client: Client, asked_with: tuple[str, str]) -> int:
    """What a token is good for that was just asked for; the status of asking when there is none."""
    answer = client.get(TOKEN, [asked_with])
    return client.get(LISTING, [bearer(answer.json["token"])]).status if answer.status == 200 else answer.status


def test_no_reload_and_no_kill_makes_somebody_of_anybody(issuer: Issuer, authority: Authority, tmp_path: Path) -> None:
    """Every SIGHUP reloads all workers, and now and then one of them dies in the middle of it."""
    file = write_configuration(tmp_path, issuer, authority)
    registry = RegistryProcess.start(tmp_path / "data", workers=2, arguments=["-c", str(file)])
    numbers = itertools.count()
    everybody: dict[str, tuple[Callable[[Client], int], set[int]]] = {
        "alice": (lambda client: client.get(LISTING, [ALICE]).status, {404}),
        "alice by token": (lambda client: by_token(client, ALICE), {404}),
        "a job": (lambda client: client.get(LISTING, [bearer(issuer.token(number=next(numbers)))]).status, {403}),
        "nobody": (lambda client: client.get(LISTING).status, {401}),
        "a guesser": (lambda client: client.get(LISTING, [basic("alice", str(next(numbers)))]).status, {401, 503}),
    }
    answered: Counter[tuple[str, int]] = Counter()
    over = threading.Event()

    def go_on(name: str) -> None:
        ask, _ = everybody[name]
        while not over.is_set():
            try:
                with registry.client() as client:
                    while not over.is_set():
                        answered[name, ask(client)] += 1
            except (OSError, ProtocolViolation):
                over.wait(0.02)  # the worker was killed

    threads = [threading.Thread(target=go_on, args=(name,)) for name in everybody]
    for thread in threads:
        thread.start()
    try:
        for number in range(40):
            os.kill(registry.pid, signal.SIGHUP)
            over.wait(0.04)
            if number in (10, 25):
                os.kill(min(children(registry.pid)), signal.SIGKILL)
        before = answered.copy()
        wait_until(
            lambda: all(answered[name, min(right)] > before[name, min(right)] for name, (_, right) in everybody.items())
        )
    finally:
        over.set()
        for thread in threads:
            thread.join()
        registry.stop()
    assert {(name, status) for name, status in answered if status not in everybody[name][1]} == set()


@pytest.fixture
def reloading(issuer: Issuer, authority: Authority, tmp_path: Path) -> Iterator[tuple[RegistryProcess, Path]]:
    """A registry of its own, and its file."""
    file = write_configuration(tmp_path, issuer, authority)
    registry = RegistryProcess.start(tmp_path / "data", arguments=["-c", str(file)])
    yield registry, file
    registry.stop()


def test_whoever_is_removed_is_nobody_from_the_next_request_on(
    reloading: tuple[RegistryProcess, Path], issuer: Issuer
) -> None:
    """On connections that stay open, and whatever they still hold."""
    registry, file = reloading
    with registry.client() as client:
        job = bearer(issuer.token())
        tokens = [bearer(client.get(TOKEN, [who]).json["token"]) for who in (ALICE, job)]
        everything = [ALICE, job, *tokens]
        assert not any(is_nobody(client, credentials) for credentials in everything)
        text = file.read_text()
        start, end = text.index("[auth.identity.alice]"), text.index("[auth.oidc.away]")
        replace_file(file, text[:start] + text[end:])
        wait_for_generation(registry, 2)
        assert [is_nobody(client, credentials) for credentials in everything] == [True] * 4
        replace_file(file, text)
        wait_for_generation(registry, 3)
        assert not any(is_nobody(client, credentials) for credentials in everything)


def test_an_old_password_and_an_old_secret_end_with_the_next_request(
    reloading: tuple[RegistryProcess, Path],
) -> None:
    registry, file = reloading
    with registry.client() as client:
        token = bearer(client.get(TOKEN, [ALICE]).json["token"])
        text = file.read_text()
        before = text.partition('password = "')[2].partition('"')[0]
        changed = text.replace(before, hash_password("another one")).replace(REGISTRY_SECRET, "bmV3" * 12)
        replace_file(file, changed)
        wait_for_generation(registry, 2)
        assert is_nobody(client, ALICE), "it was remembered as right a moment ago"
        assert is_nobody(client, token)


def test_a_full_disk_keeps_nobody_from_logging_in(issuer: Issuer, authority: Authority, tmp_path: Path) -> None:
    disk = Disk(tmp_path / "disk")
    disk.mount("size=4m")
    try:
        file = write_configuration(tmp_path, issuer, authority)
        log = tmp_path / "registry.log"
        registry = RegistryProcess.start(disk.folder / "data", arguments=["-c", str(file)], log_path=log)
        try:
            disk.fill()
            with registry.client() as client:
                assert by_token(client, ALICE) == 404
                assert by_token(client, bearer(issuer.token())) == 403
                assert is_nobody(client, basic("alice", "wrong"))
                refused = client.post(
                    "/v2/private/app/blobs/uploads/?digest=sha256:" + "0" * 64, b"x" * 100_000, [ALICE]
                )
                assert refused.status in (400, 507)
            registry.stop()
        finally:
            registry.kill()
    finally:
        disk.unmount()
