"""A running server takes up a changed configuration, or says why it does not."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from tests.conformance.http_client import Client, Connection, request_head
from tests.conformance.oci.content import digest_of
from tests.conformance.registry_process import RegistryProcess
from tests.conformance.runtime.reloading import (
    PATIENCE_SECONDS,
    StartRegistry,
    children,
    replace_file,
    wait_for,
    wait_for_generation,
)

SMALL, LARGE = "[global]\nmax_manifest_size = 1000\n", "[global]\nmax_manifest_size = 5000\n"
BETWEEN = b" " * 3000
"""A manifest that is none: refused with 413 or 400, as the size allowed says."""


def size_allowed(client: Client) -> str:
    """Which of the two configurations answers."""
    status = client.put("/v2/a/manifests/x", BETWEEN).status
    return {413: SMALL, 400: LARGE}[status]


def sizes_allowed(registry: RegistryProcess) -> set[str]:
    """Which configurations answer to many new connections."""
    found = set()
    for _ in range(30):
        with registry.client() as client:
            found.add(size_allowed(client))
    return found


# --- ways to change files ---------------------------------------------------------------------------------------------


def test_a_file_that_is_written_in_place(start: StartRegistry, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(SMALL)
    registry = start(tmp_path / "a.toml")
    (tmp_path / "a.toml").write_text(LARGE)
    wait_for_generation(registry, 2)
    assert sizes_allowed(registry) == {LARGE}
    assert f"(generation 2) after a change of {tmp_path / 'a.toml'}\n" in registry.log


def test_a_relative_path_with_another_file_renamed_over_it(start: StartRegistry, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(SMALL)
    registry = start("a.toml", loop="trio")
    replace_file(tmp_path / "a.toml", LARGE)
    wait_for_generation(registry, 2)
    assert sizes_allowed(registry) == {LARGE}


def test_a_swap_of_a_kubernetes_volume_twice(start: StartRegistry, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    for name, content in (("..1", SMALL), ("..2", LARGE), ("..3", SMALL)):
        (volume / name).mkdir(parents=True)
        (volume / name / "a.toml").write_text(content)
    (volume / "..data").symlink_to("..1")
    (volume / "a.toml").symlink_to("..data/a.toml")
    registry = start(volume / "a.toml", workers=2)
    for generation, (name, content) in enumerate((("..2", LARGE), ("..3", SMALL)), 2):
        (volume / "..data_tmp").symlink_to(name)
        (volume / "..data_tmp").rename(volume / "..data")
        wait_for_generation(registry, generation)
        assert sizes_allowed(registry) == {content}


def test_a_linked_folder_and_two_files(start: StartRegistry, tmp_path: Path) -> None:
    for name, content in (("1", SMALL), ("2", LARGE)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.toml").write_text(content)
    (tmp_path / "current").symlink_to("1")
    (tmp_path / "b.toml").write_text("[server]\nidle_timeout = 50\n")
    registry = start(tmp_path / "current" / "a.toml", tmp_path / "b.toml")
    (tmp_path / "next").symlink_to("2")
    (tmp_path / "next").rename(tmp_path / "current")
    wait_for_generation(registry, 2)
    assert sizes_allowed(registry) == {LARGE}
    replace_file(tmp_path / "b.toml", SMALL)
    wait_for_generation(registry, 3)
    assert sizes_allowed(registry) == {SMALL}, "the later file wins"


# --- what becomes of it -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 3])
def test_a_configuration_with_mistakes_is_refused_with_all_of_them(
    start: StartRegistry, workers: int, tmp_path: Path
) -> None:
    file = tmp_path / "a.toml"
    file.write_text(SMALL)
    registry = start(file, workers=workers)
    replace_file(file, "[global]\nmax_manifest_size = 5000\nmax_blob_sise = 1\n[server]\nidle_timeout = -1\n")
    wait_for(registry, "configuration not reloaded")
    refusal = registry.log.splitlines()[-3:]
    assert refusal[0].endswith(
        f"configuration not reloaded after a change of {file}, the one before (generation 1) stays in use:"
    )
    assert refusal[1:] == [
        f"  {file}: global.max_blob_sise: unknown key; did you mean global.max_blob_size?",
        f"  {file}: server.idle_timeout: found -1; allowed is a number of seconds above 0",
    ]
    assert sizes_allowed(registry) == {SMALL}
    replace_file(file, LARGE)
    wait_for_generation(registry, 2)
    assert sizes_allowed(registry) == {LARGE}
    file.unlink()
    wait_for(registry, f"  {file}: cannot be read: No such file or directory")
    assert sizes_allowed(registry) == {LARGE}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_hangup_reloads_even_if_nothing_has_changed(start: StartRegistry, workers: int, tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text(SMALL)
    registry = start(file, workers=workers)
    registry.interrupt(signal.SIGHUP)
    wait_for_generation(registry, 2)
    assert "(generation 2)\n" in registry.log
    replace_file(file, LARGE)
    registry.interrupt(signal.SIGHUP)
    wait_for_generation(registry, 3)
    replace_file(file, "wrong")
    for count in (1, 2, 3):
        registry.interrupt(signal.SIGHUP)
        wait_for(registry, "configuration not reloaded", count)
    assert sizes_allowed(registry) == {LARGE}


def test_without_files_a_hangup_ends_the_server(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "angos.runtime", "server", "--port", "0", "--root", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "listening on" in process.stdout.readline()
        process.send_signal(signal.SIGHUP)
        assert process.wait(PATIENCE_SECONDS) == -signal.SIGHUP


def test_after_the_line_in_the_log_no_worker_answers_by_the_old_one(start: StartRegistry, tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text(SMALL)
    registry = start(file, workers=4)
    with contextlib.ExitStack() as stack:
        kept = [stack.enter_context(registry.client()) for _ in range(16)]
        assert {size_allowed(client) for client in kept} == {SMALL}
        for generation, content in enumerate((LARGE, SMALL, LARGE), 2):
            replace_file(file, content)
            registry.interrupt(signal.SIGHUP)
            wait_for_generation(registry, generation)
            assert {size_allowed(client) for client in kept} == {content}
            assert sizes_allowed(registry) == {content}


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_an_upload_goes_on_over_a_reload(start: StartRegistry, loop: str, tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text("")
    registry = start(file, loop=loop)
    content = os.urandom(1000)
    with registry.client() as client, contextlib.closing(_connect(registry)) as busy:
        location = client.post("/v2/a/blobs/uploads/").location
        busy.send(request_head("PATCH", location, (("Host", "x"), ("Content-Length", "600"))))
        busy.send(content[:300])
        replace_file(file, "[global]\nmax_blob_size = 900\n")
        wait_for_generation(registry, 2)
        busy.send(content[300:600])
        assert busy.answer("PATCH").status == 202
        assert client.patch(location, content[600:]).status == 413, "the next request obeys the new limit"
        replace_file(file, "")
        wait_for_generation(registry, 3)
        assert client.put(f"{location}?digest={digest_of(content)}", content[600:]).status == 201
        assert client.get(f"/v2/a/blobs/{digest_of(content)}").body == content


def _connect(registry: RegistryProcess) -> Connection:
    host, _, port = registry.address.rpartition(":")
    return Connection(host, int(port))


def test_what_needs_a_restart_is_named_with_both_values(start: StartRegistry, tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text(f"[server]\nbacklog = 100\n{SMALL}")
    registry = start(file, workers=2)
    metadata = tmp_path / "metadata"
    server = "[server]\nbind_address = '127.0.0.9'\nbacklog = 200\nport = 1\n"
    replace_file(file, f"{server}{LARGE}[metadata_store.fs]\nroot_dir = '{metadata}'\n")
    wait_for(registry, "needs a restart", 3)
    assert sizes_allowed(registry) == {LARGE}, "everything else takes effect"
    lines = [line.partition("WARNING: ")[2] for line in registry.log.splitlines() if "needs a restart" in line]
    assert lines == [
        "server.backlog: still 100, since a change to 200 needs a restart",
        "server.bind_address: still 127.0.0.1, since a change to 127.0.0.9 needs a restart",
        f"metadata_store: still none, since a change to {metadata} needs a restart",
    ], "the command line gave the port, and still does"
    assert not metadata.exists()


def test_a_worker_that_is_killed_comes_back_with_the_newest_configuration(start: StartRegistry, tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text(SMALL)
    registry = start(file, workers=2)
    replace_file(file, LARGE)
    wait_for_generation(registry, 2)
    replace_file(file, "wrong")
    wait_for(registry, "configuration not reloaded")
    before = children(registry.pid)
    assert len(before) == 2
    for process in before:
        os.kill(process, signal.SIGKILL)
    wait_for(registry, "ended unexpectedly, killed by SIGKILL", 2)
    ends = time.monotonic() + PATIENCE_SECONDS
    while True:
        with contextlib.suppress(OSError):
            assert sizes_allowed(registry) == {LARGE}
            break
        assert time.monotonic() < ends
        time.sleep(0.02)
    assert not children(registry.pid) & before


@pytest.mark.parametrize("workers", [1, 2])
def test_reloads_are_counted_and_the_log_changes_with_them(start: StartRegistry, workers: int, tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    metrics = "[observability.metrics]\nenabled = true\n"
    file.write_text(metrics)
    registry = start(file, workers=workers)
    replace_file(file, "wrong")
    wait_for(registry, "configuration not reloaded")
    replace_file(file, f"{metrics}[server]\naccess_log = true\n[observability.log]\nformat = 'json'\n")
    wait_for_generation(registry, 2)
    with urllib.request.urlopen(f"{registry.url}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    assert 'angos_configuration_reloads_total{result="applied"} 1.0' in lines
    assert 'angos_configuration_reloads_total{result="rejected"} 1.0' in lines
    assert "angos_configuration_generation 2.0" in lines
    wait_for(registry, '"path": "/metrics"')
    assert json.loads(registry.log.splitlines()[-1])["status"] == 200
