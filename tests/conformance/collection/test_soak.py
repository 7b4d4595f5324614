"""Real processes for a while: clients that push, pull and delete, collectors that are killed at any moment, and workers
that stand still for longer than the collector leaves alone what they are about to need.

For a minute in nightly runs.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.nightly import NIGHTLY

COMMAND = [sys.executable, str(Path(__file__).with_name("quick_command_line.py"))]
SECONDS = 60.0 if NIGHTLY else 10.0
GRACE_SECONDS = 4.0
LAYERS = [f"layer {number}".encode() * 20 for number in range(12)]
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


class Image:
    """Layers that others share, and a configuration of its own."""

    def __init__(self, number: int) -> None:
        chosen = random.Random(number).sample(LAYERS, 3)
        self.blobs = [f'{{"number":{number}}}'.encode(), *chosen]
        descriptors = [
            {"mediaType": "application/octet-stream", "digest": digest_of(blob), "size": len(blob)}
            for blob in self.blobs
        ]
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptors[0],
            "layers": descriptors[1:],
        }
        self.manifest = json.dumps(manifest).encode()
        self.digest = digest_of(self.manifest)
        self.lock = threading.Lock()
        """Nobody deletes it while it is pulled or pushed: then everything about it is certain."""
        self.is_there = False


class Soak:
    """Clients in threads, and what they know."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.images = [Image(number) for number in range(40)]
        self.problems: list[str] = []
        self.counts = {"pushed": 0, "pulled": 0, "deleted": 0, "frozen": 0}
        self._until = time.monotonic() + SECONDS

    def go_on(self) -> bool:
        return time.monotonic() < self._until and not self.problems

    def ask(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: bytes = b"", kind: str = ""
    ) -> tuple[int, bytes, str]:
        """Status, body, warnings. A 503 is asked again: a collector that was killed keeps those waiting who need what
        it was at."""
        for _ in range(200):
            connection.request(method, path, body, {"Content-Type": kind} if kind else {})
            answer = connection.getresponse()
            content = answer.read()
            if answer.status != 503:
                return answer.status, content, answer.headers.get("Warning", "")
            time.sleep(0.1)
        return 503, content, ""

    def work(self, seed: int, what: Callable[[http.client.HTTPConnection, Image], None]) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        choose = random.Random(seed)
        while self.go_on():
            image = choose.choice(self.images)
            if image.lock.acquire(blocking=False):
                try:
                    what(connection, image)
                except Exception as error:
                    self.problems.append(f"{type(error).__name__}: {error}")
                finally:
                    image.lock.release()
        connection.close()

    def push(self, connection: http.client.HTTPConnection, image: Image) -> None:
        """As clients do: what is there is not pushed. Who is kept waiting for too long may have to begin again."""
        warning = "not pushed yet"
        while warning:
            begun = time.monotonic()
            for blob in image.blobs:
                path = f"/v2/soak/blobs/{digest_of(blob)}"
                if self.ask(connection, "HEAD", path)[0] == 404:
                    status = self.ask(connection, "POST", f"/v2/soak/blobs/uploads/?digest={digest_of(blob)}", blob)[0]
                    assert status == 201, f"a blob was answered {status}"
            status, content, warning = self.ask(
                connection, "PUT", f"/v2/soak/manifests/{image.digest}", image.manifest, MANIFEST
            )
            assert status == 201, f"a manifest was answered {status} {content!r}"
            late = time.monotonic() - begun > GRACE_SECONDS / 4 and not image.is_there
            assert late or not warning, f"what had been there was missing: {warning}"
        image.is_there = True
        self.counts["pushed"] += 1

    def pull(self, connection: http.client.HTTPConnection, image: Image) -> None:
        """Every byte of it."""
        if not image.is_there:
            return
        for kind, content in (("manifests", image.manifest), *(("blobs", blob) for blob in image.blobs)):
            status, found, _ = self.ask(connection, "GET", f"/v2/soak/{kind}/{digest_of(content)}")
            assert status == 200, f"{kind}/{digest_of(content)} of an image that was acknowledged: {status}"
            assert found == content
        self.counts["pulled"] += 1

    def delete(self, connection: http.client.HTTPConnection, image: Image) -> None:
        if image.is_there:
            status = self.ask(connection, "DELETE", f"/v2/soak/manifests/{image.digest}")[0]
            assert status == 202, f"a deletion was answered {status}"
            image.is_there = False
            self.counts["deleted"] += 1
            time.sleep(0.02)

    def freeze(self, server: int) -> None:
        """Let a worker of this server stand still now and then, wherever it is."""
        workers = [int(word) for word in Path(f"/proc/{server}/task/{server}/children").read_text().split()]
        choose = random.Random(0)
        while self.go_on():
            worker = choose.choice(workers)
            os.kill(worker, signal.SIGSTOP)
            time.sleep(GRACE_SECONDS * 1.25)
            os.kill(worker, signal.SIGCONT)
            self.counts["frozen"] += 1
            time.sleep(choose.uniform(0.5, 2))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[tuple[Path, int, int]]:
    """Where a store lies, and the port and the process of its server."""
    root, config = tmp_path / "store", tmp_path / "angos.toml"
    config.write_text(f"[global]\ngc_grace_secs = {GRACE_SECONDS}\ngc_interval_secs = 0\n")
    command = [*COMMAND, "server", "--port", "0", "--root", str(root), "-c", str(config), "--workers", "2"]
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
    try:
        assert server.stdout is not None
        line = server.stdout.readline().decode()
        yield tmp_path, int(line.partition("127.0.0.1:")[2].split()[0]), server.pid
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(30)
        assert server.stdout is not None
        server.stdout.close()


def collector(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    command = [*COMMAND, "gc", "--root", str(folder / "store"), "-c", str(folder / "angos.toml"), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def test_nothing_acknowledged_is_lost_and_in_the_end_exactly_what_can_be_reached_is_left(
    store: tuple[Path, int, int],
) -> None:
    folder, port, server = store
    soak = Soak(port)
    roles = (soak.push,) * 4 + (soak.delete,) * 2 + (soak.pull,) * 2
    clients = [threading.Thread(target=soak.work, args=(seed, role)) for seed, role in enumerate(roles)]
    clients.append(threading.Thread(target=soak.freeze, args=(server,)))
    for client in clients:
        client.start()
    runs = killed = 0
    patience = random.Random(0)
    # Also while the last ones are answered: who waits for a collector that was killed is let pass by the next one.
    while any(client.is_alive() for client in clients):
        run = collector(folder)
        try:
            run.wait(patience.uniform(0.5, 2.5))
        except subprocess.TimeoutExpired:
            run.kill()
            killed += 1
        run.wait()
        run.communicate()
        runs += 1
    assert not soak.problems, soak.problems[0]
    assert min(soak.counts["pushed"], soak.counts["pulled"], soak.counts["deleted"]) > 10, soak.counts
    assert soak.counts["frozen"]
    assert runs > 2
    needed = {
        digest_of(content) for image in soak.images if image.is_there for content in (image.manifest, *image.blobs)
    }
    until = time.monotonic() + 60
    while (left := stored(folder)) != needed and time.monotonic() < until:
        assert needed <= left, f"lost: {sorted(needed - left)}"
        time.sleep(0.5)
        run = collector(folder, "--json")
        told, _ = run.communicate(timeout=60)
        assert run.returncode == 0, told
    assert left == needed, f"{len(left - needed)} are left that nobody needs, after {killed} of {runs} runs were killed"


def stored(folder: Path) -> set[str]:
    """The digests of all blobs."""
    return {f"sha256:{path.parent.name}" for path in folder.glob("store/v2/blobs/sha256/*/*/data")}
