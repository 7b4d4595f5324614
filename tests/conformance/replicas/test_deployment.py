"""`deploy/compose`: what can be said about it without containers."""

from __future__ import annotations

import os
import pty
import re
import shlex
import subprocess
import sys
import tomllib
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped,unused-ignore]
from argon2 import PasswordHasher

from angos.runtime.server.limits import ServerOptions
from tests.conformance.registry_process import RegistryProcess
from tests.conformance.replicas.replica_set import CONFIGURATION, DEPLOYMENT, PASSWORD, make_secrets

COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOYMENT / "compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]


def test_the_configuration_with_its_secrets_passes_the_check(tmp_path: Path) -> None:
    secrets = make_secrets(tmp_path / "secrets")
    command = [sys.executable, "-m", "angos.runtime", "check", "-c", str(CONFIGURATION), "-c", str(secrets)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    # Inside the network of the containers nothing is encrypted, which the README tells to change for production.
    warned = [line.removeprefix("angos: warning: ").partition(": ")[0] for line in done.stderr.splitlines()]
    assert warned == ["blob_store.s3.endpoint", "cache.redis.url"], done.stderr
    for secret in _secrets(tomllib.loads(secrets.read_text())):
        assert secret not in done.stdout


def test_the_file_without_the_secrets_holds_none() -> None:
    assert not list(_secrets(tomllib.loads(CONFIGURATION.read_text())))


def _secrets(document: dict[str, Any]) -> list[str]:
    found = []
    for key, value in document.items():
        if isinstance(value, dict):
            found += _secrets(value)
        elif key in ("secret_key", "password", "url"):
            found.append(value)
    return found


def test_secrets_are_made_once_are_different_each_time_and_fit_each_other(tmp_path: Path) -> None:
    one, two = (tomllib.loads(make_secrets(tmp_path / name).read_text()) for name in ("one", "two"))
    assert not set(_secrets(one)) & set(_secrets(two))
    assert one["blob_store"]["s3"]["secret_key"] == (tmp_path / "one" / "s3-password").read_text()
    assert one["blob_store"]["s3"]["access_key_id"] == (tmp_path / "one" / "s3-user").read_text()
    password = (tmp_path / "one" / "valkey.conf").read_text().split()[1]
    assert one["cache"]["redis"]["url"] == one["leases"]["redis"]["url"] == f"redis://:{password}@valkey:6379"
    assert (tmp_path / "one").stat().st_mode & 0o777 == 0o700
    used = {secret["file"] for secret in COMPOSE["secrets"].values()}
    used |= {volume.split(":")[0] for volume in SERVICES["replica-1"]["volumes"] if volume.startswith("./secrets/")}
    assert {f"./secrets/{path.name}" for path in (tmp_path / "one").iterdir()} == used
    again = subprocess.run(
        [DEPLOYMENT / "make-secrets"],
        input=PASSWORD,
        env={**os.environ, "SECRETS": str(tmp_path / "one")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (again.returncode, again.stdout) == (1, "")
    assert "exists already" in again.stderr


@pytest.mark.parametrize(("again", "made"), [(PASSWORD, True), ("another one", False)], ids=["same", "different"])
def test_on_a_terminal_the_password_is_asked_for_and_not_shown(tmp_path: Path, again: str, *, made: bool) -> None:
    """A container that has a terminal writes its questions where its answer goes: they were not seen by anybody, and
    became part of the hash."""
    docker = tmp_path / "docker"
    angos = f"{shlex.quote(sys.executable)} -m angos.runtime argon"
    docker.write_text(f'#!/bin/sh\ncase " $* " in *" -i angos:local argon "*) exec {angos};; esac\nexit 9\n')
    docker.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "SECRETS": str(tmp_path / "secrets")}
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [DEPLOYMENT / "make-secrets"], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    ) as it:
        os.close(theirs)
        shown = ""
        for question, answer in (("Password of the administrator: ", PASSWORD), ("The same again: ", again)):
            while not shown.endswith(question):
                shown += os.read(ours, 1).decode()
            os.write(ours, f"{answer}\n".encode())
        with suppress(OSError):  # how a terminal ends
            while read := os.read(ours, 1000):
                shown += read.decode()
    os.close(ours)
    assert it.returncode == (0 if made else 1)
    assert ("the two passwords are not the same" in shown) is not made
    assert PASSWORD not in shown
    assert again not in shown
    if made:
        secrets = tomllib.loads((tmp_path / "secrets" / "registry" / "secrets.toml").read_text())
        assert PasswordHasher().verify(secrets["auth"]["identity"]["admin"]["password"], PASSWORD)
    else:
        assert not (tmp_path / "secrets").exists()


def test_every_name_that_the_files_use_for_each_other_exists() -> None:
    configuration = tomllib.loads(CONFIGURATION.read_text())
    assert configuration["blob_store"]["s3"]["endpoint"] == "http://s3:9000"
    assert {"s3", "valkey"} <= SERVICES.keys()
    assert f"store/{configuration['blob_store']['s3']['bucket']}" in SERVICES["make-bucket"]["command"][0]
    (subnet,) = (each["subnet"] for each in COMPOSE["networks"]["inside"]["ipam"]["config"])
    assert configuration["global"]["trusted_proxies"] == [subnet]
    balanced = [line.split() for line in (DEPLOYMENT / "haproxy.cfg").read_text().splitlines() if " server " in line]
    replicas = [f"{name}:{configuration['server']['port']}" for name in SERVICES if name.startswith("replica-")]
    assert [words[2] for words in balanced if words[0] == "server"] == replicas
    assert len(replicas) == 3
    for service in SERVICES.values():
        assert set(service.get("secrets", ())) <= COMPOSE["secrets"].keys()
        assert set(service.get("depends_on", ())) <= SERVICES.keys()
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert source in COMPOSE["volumes"] or source.startswith("./secrets/") or (DEPLOYMENT / source).exists()
    for name, secret in COMPOSE["secrets"].items():
        assert secret["file"] == f"./secrets/{name}"


def test_the_balancer_is_more_patient_than_the_registry() -> None:
    """The end of a large upload was cut off after 90 s, and took as long again with each try."""
    lines = (DEPLOYMENT / "haproxy.cfg").read_text().splitlines()
    patience = {
        words[1]: float(words[2].removesuffix("s")) for line in lines if (words := line.split())[:1] == ["timeout"]
    }
    limits = ServerOptions()
    assert patience["server"] > limits.query_timeout + limits.query_timeout_grace_period
    assert patience["client"] > max(limits.body_stall_timeout, limits.send_stall_timeout)


def test_the_image_is_made_of_what_there_is() -> None:
    """Every file that its recipe copies, every extra that it installs, and the command that it runs."""
    recipe = (DEPLOYMENT / "Containerfile").read_text().replace("\\\n", " ")
    steps = [line.split() for line in recipe.splitlines() if line and not line.startswith("#")]
    checkout = DEPLOYMENT.parents[1]
    copied = [word for step in steps if step[0] == "COPY" and "--from=build" not in step for word in step[1:-1]]
    assert [name for name in copied if not (checkout / name).exists()] == []
    project = tomllib.loads((checkout / "pyproject.toml").read_text())["project"]
    assert {"pyproject.toml", project["readme"], *project["license-files"]} <= set(copied)
    assert {"sansio/", "runtime/", "simulator/", "constraints.txt"} <= set(copied)
    (extras,) = re.findall(r"'\.\[([a-z0-9,]+)\]'", recipe)
    assert set(extras.split(",")) <= project["optional-dependencies"].keys()
    (version,) = re.findall(r"python:(\d+\.\d+)-", recipe)
    assert tuple(map(int, version.split("."))) >= (3, 11)
    assert steps[-2] == ["ENTRYPOINT", '["angos"]']
    assert "angos" in project["scripts"]
    words = [word.strip('[",]') for word in steps[-1][1:]]
    assert SERVICES["replica-1"]["command"][:3] == words
    mounted = [volume.split(":")[1] for volume in SERVICES["replica-1"]["volumes"]]
    assert str(Path(words[-1]).parent) in mounted


def test_the_check_of_a_replica_tells_one_that_runs_from_one_that_does_not(tmp_path: Path) -> None:
    registry = RegistryProcess.start(tmp_path / "data")
    kind, python, option, source = SERVICES["replica-1"]["healthcheck"]["test"]
    assert (kind, python) == ("CMD", "python3")
    command = [sys.executable, option, source.replace("127.0.0.1:8000", registry.address)]
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0
    registry.stop()
    assert subprocess.run(command, check=False, capture_output=True).returncode != 0


def test_nothing_but_the_balancer_is_published_and_nothing_runs_without_a_check() -> None:
    assert [name for name, service in SERVICES.items() if "ports" in service] == ["balancer"]
    for name in ("replica-1", "replica-2", "replica-3", "s3", "valkey"):
        assert SERVICES[name]["healthcheck"]["test"]
    drain_seconds = 30  # the default of server.drain_seconds
    assert int(SERVICES["replica-1"]["stop_grace_period"].removesuffix("s")) > drain_seconds


def test_what_the_image_installs_is_installed_here_in_the_same_versions() -> None:
    """Pins that cannot be installed together had been found by nobody but those who built the image. What is installed
    here was, with all the others."""
    found = re.search(r"'\.\[([a-z0-9,]+)\]'", (DEPLOYMENT / "Containerfile").read_text())
    assert found is not None
    extras = tomllib.loads((DEPLOYMENT.parents[1] / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    pinned = dict(line.split("==") for line in (DEPLOYMENT.parents[1] / "constraints.txt").read_text().splitlines()[1:])
    needed = [re.match(r"[a-z0-9-]+", needed) for extra in found[1].split(",") for needed in extras[extra]]
    assert needed
    for name in needed:
        assert name is not None
        assert version(name[0]) == pinned[name[0]]
