"""What `deploy/compose` describes, as processes of this machine: three replicas, a balancer, a Redis and a bucket.

The replicas have the very configuration file of the containers, the secrets that its script makes, and a third file
that says where the servers are here.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.conformance.balancer import Balancer
from tests.conformance.configured.configured_registry import ConfiguredRegistry, merged
from tests.conformance.redis_process import RedisProcess
from tests.conformance.runtime.example_configuration import written
from tests.conformance.s3_process import S3Process, StoredBucket

DEPLOYMENT = Path(__file__).parents[3] / "deploy" / "compose"
CONFIGURATION = DEPLOYMENT / "configuration" / "angos.toml"
COUNT = 3
PASSWORD = "three of a kind"


class ReplicaSet:
    """Made by `replica_set`."""

    def __init__(self, folder: Path, s3: S3Process, redis: RedisProcess, files: list[Path]) -> None:
        self.s3 = s3
        self.redis = redis
        self.bucket: StoredBucket = s3.bucket("registry")
        self._folder = folder
        self._files = files
        self.replicas: list[ConfiguredRegistry] = []
        self.balancer = Balancer([])

    def start(self, count: int = COUNT) -> None:
        """All of them at once."""
        with ThreadPoolExecutor(count) as threads:
            self.replicas = list(threads.map(self._start, range(count)))
        self.balancer.servers = [replica.at for replica in self.replicas]

    def kill(self, index: int) -> None:
        """``kill -9`` of one of them."""
        self.replicas[index].kill()

    def restart(self, index: int) -> None:
        """Of one that has been killed. The balancer learns where it is now."""
        self.replicas[index] = self._start(index)
        self.balancer.servers[index] = self.replicas[index].at

    def index_of(self, address: tuple[str, int]) -> int:
        """Which of them listens there."""
        return [replica.at for replica in self.replicas].index(address)

    def end(self) -> None:
        """Whoever still runs was well all the time."""
        for replica in self.replicas:
            if replica.is_running:
                replica.stop()
            assert "Traceback" not in replica.log, replica.log

    def _start(self, index: int) -> ConfiguredRegistry:
        folder = self._folder / f"replica-{index + 1}"
        folder.mkdir(exist_ok=True)
        return ConfiguredRegistry.of_files(folder, self._files)


def make_secrets(folder: Path) -> Path:
    """Run the script of the deployment. The file with what replicas must know and nobody else may."""
    done = subprocess.run(
        [DEPLOYMENT / "make-secrets"],
        input=f"{PASSWORD}\n",
        env={**os.environ, "ANGOS": f"{shlex.quote(sys.executable)} -m angos.runtime", "SECRETS": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder / "registry" / "secrets.toml"


@contextmanager
def replica_set(folder: Path, changes: Mapping[str, Any] | None = None) -> Iterator[ReplicaSet]:
    """Three replicas that run. `changes`: to their configuration."""
    secrets = make_secrets(folder / "secrets")
    password = re.search(r":([0-9a-f]+)@", tomllib.loads(secrets.read_text())["leases"]["redis"]["url"])
    assert password is not None
    with (
        S3Process(folder) as s3,
        RedisProcess(folder, password=password[1]) as redis,
        ExitStack() as stack,
    ):
        url = f"redis://:{password[1]}@127.0.0.1:{redis.port}"
        here: dict[str, Any] = {
            "server": {"bind_address": "127.0.0.1", "port": 0},
            "blob_store": {"s3": {"endpoint": s3.url}},
            "cache": {"redis": {"url": url}},
            "leases": {"redis": {"url": url}},
            "observability": {"metrics": {"listen": "127.0.0.1:0"}},
        }
        local = folder / "local.toml"
        local.write_text(written(merged(here, changes or {})))
        found = ReplicaSet(folder, s3, redis, [CONFIGURATION, secrets, local])
        found.bucket.make()
        found.start()
        stack.enter_context(found.balancer)
        yield found
        found.end()
