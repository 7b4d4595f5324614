"""``kill -9`` at any moment of a push: what was acknowledged is there, what was not is whole or absent."""

from __future__ import annotations

import random
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tests.conformance.http_client import Client, Closed
from tests.conformance.oci.content import (
    OCI_CONFIG,
    OCI_LAYER_GZIP,
    OCI_MANIFEST,
    artifact_of,
    bytes_of,
    config_of,
    descriptor,
    digest_of,
    manifest_of,
)
from tests.conformance.oci.repository import Repository
from tests.conformance.registry_process import RegistryProcess
from tests.nightly import WHOLE

LANES = (("asyncio", 2), ("trio", 1))
"""Loop and workers. The lanes run side by side, so there are never more servers than lanes."""
REQUESTS_OF_PUSH = 9
KILLS_OF_LANE = (12 if WHOLE else 4) * REQUESTS_OF_PUSH
"""Each request of a push is killed as often as the others."""
CHUNK_SIZE = 60_000
KILLED_WITHIN_SECONDS = 0.008  # of the start of a request: about as long as the slowest takes


@dataclass
class Ledger:
    """What a client may rely on."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, bytes] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    latest: str | None = None
    referrers: dict[str, str] = field(default_factory=dict)
    """Subject by referrer."""
    statuses: list[str] = field(default_factory=list)
    """What became of each killed push."""


@dataclass
class Push:
    """One push, and how far it came. Of the last request begun it is not known whether it had an effect."""

    number: int
    seed: str
    killed_at: int
    on_request: threading.Event
    begun: int = 0
    location: str | None = None
    acknowledged: int = 0
    closing: bool = False
    closed: bool = False
    doing: str = ""

    def __post_init__(self) -> None:
        self.layer = bytes_of(f"{self.seed} layer", 3 * CHUNK_SIZE)
        self.config = config_of([self.layer], comment=self.seed)
        layers = [descriptor(OCI_LAYER_GZIP, self.layer)]
        self.manifest = manifest_of(descriptor(OCI_CONFIG, self.config), layers)
        self.referrer = artifact_of("application/x", descriptor(OCI_MANIFEST, self.manifest))

    def begin(self, doing: str) -> None:
        """A request is about to be sent."""
        if self.begun == self.killed_at:
            self.on_request.set()
        self.begun += 1
        self.doing = doing

    def run(self, repository: Repository, ledger: Ledger) -> None:
        """All requests of the push, each noted when it was answered."""
        self.begin("start")
        self.location = repository.start_upload()
        for number in range(2):
            self.begin("chunk")
            chunk = self.layer[number * CHUNK_SIZE : (number + 1) * CHUNK_SIZE]
            answer = repository.append(self.location, chunk, number * CHUNK_SIZE)
            assert answer.status == 202, answer
            self.acknowledged += len(chunk)
        self.begin("close")
        self.closing = True
        answer = repository.complete(self.location, digest_of(self.layer), self.layer[2 * CHUNK_SIZE :])
        assert answer.status == 201, answer
        self.closed = True
        ledger.blobs[digest_of(self.layer)] = self.layer
        self.begin("config")
        repository.push_blob(self.config)
        ledger.blobs[digest_of(self.config)] = self.config
        self.begin("manifest")
        ledger.manifests[repository.push_manifest(self.manifest)] = self.manifest
        self.begin("tag")
        ledger.latest = repository.push_manifest(self.manifest, "latest")
        self.begin("referrer")
        digest = repository.push_manifest(self.referrer)
        ledger.manifests[digest] = self.referrer
        ledger.referrers[digest] = digest_of(self.manifest)
        self.begin("delete")
        assert repository.client.delete(repository.manifest(digest)).status == 202
        _forget(ledger, digest)


def _forget(ledger: Ledger, digest: str) -> None:
    del ledger.manifests[digest]
    del ledger.referrers[digest]
    ledger.gone.add(digest)


def test_killed_again_and_again_in_the_middle_of_a_push(tmp_path: Path) -> None:
    with ThreadPoolExecutor(len(LANES)) as threads:
        ledgers = list(threads.map(lambda lane: _lane(tmp_path / f"lane-{lane}", lane), range(len(LANES))))
    statuses = [status for ledger in ledgers for status in ledger.statuses]
    assert len(statuses) == len(LANES) * KILLS_OF_LANE
    # It is no test of a kill if the kills did not meet the requests. Two of them are chunks; one kind may be missed.
    met = {*statuses} - {"done"}
    assert len(met) >= REQUESTS_OF_PUSH - 2, sorted(met)


def _lane(root: Path, lane: int) -> Ledger:
    choices = random.Random(f"lane {lane}")
    ledger = Ledger()
    loop, workers = LANES[lane]
    push: Push | None = None
    for number in range(KILLS_OF_LANE):
        registry = RegistryProcess.start(root, loop=loop, workers=workers)
        try:
            repository = Repository(registry.client(), "crash/test")
            if push is not None:
                _verify(repository, ledger, push)
            push = Push(number, f"lane {lane} push {number}", number % REQUESTS_OF_PUSH, threading.Event())
            delay = choices.random() ** 2 * KILLED_WITHIN_SECONDS  # often short: so are requests
            killer = threading.Thread(target=_kill_later, args=(registry, push.on_request, delay))
            killer.start()
            try:
                push.run(repository, ledger)
                ledger.statuses.append("done")
            except (Closed, OSError):
                ledger.statuses.append(push.doing)
            finally:
                push.on_request.set()
                killer.join()
        finally:
            registry.kill()
    _verify_at_rest(root, ledger, push, loop=loop)
    return ledger


def _kill_later(registry: RegistryProcess, on_request: threading.Event, delay: float) -> None:
    on_request.wait()
    time.sleep(delay)
    registry.kill()


def _verify(repository: Repository, ledger: Ledger, push: Push) -> None:
    """After the restart: the killed push first, then everything it touched."""
    client = repository.client
    _verify_upload(repository, ledger, push)
    for digest, content in ((digest_of(push.layer), push.layer), (digest_of(push.config), push.config)):
        _whole_or_absent(client, repository.blob(digest), content, acknowledged=digest in ledger.blobs)
    for digest, content in ((digest_of(push.manifest), push.manifest), (digest_of(push.referrer), push.referrer)):
        acknowledged = digest in ledger.manifests and push.doing != "delete"
        there = _whole_or_absent(client, repository.manifest(digest), content, acknowledged=acknowledged)
        assert not (there and digest in ledger.gone), "what was deleted came back"
        if there:
            ledger.manifests[digest] = content
        elif digest in ledger.manifests:
            _forget(ledger, digest)
    _verify_tag(repository, ledger, push)
    _verify_referrers(repository, ledger, push)


def _verify_upload(repository: Repository, ledger: Ledger, push: Push) -> None:
    """The session goes on from where it was, or says that it is gone."""
    if push.location is None:
        return
    client, digest = repository.client, digest_of(push.layer)
    status = client.get(push.location)
    if status.status == 404:
        assert push.closing, f"an upload of which {push.acknowledged} bytes were acknowledged is gone"
        if client.head(repository.blob(digest)).status == 404:
            assert not push.closed
            return
        assert repository.complete(push.location, digest).status == 201, "the retry of a PUT whose answer was lost"
        return
    assert status.status == 204
    match = re.fullmatch(r"0-([0-9]+)", status["range"])
    assert match
    stored = int(match[1]) + 1 if match[1] != "0" else 0
    assert stored >= push.acknowledged, "acknowledged bytes are lost"
    if stored < len(push.layer):
        assert repository.append(push.location, push.layer[stored:], stored).status == 202
    answer = repository.complete(push.location, digest)
    assert answer.status == 201, answer
    ledger.blobs[digest] = push.layer


def _verify_tag(repository: Repository, ledger: Ledger, push: Push) -> None:
    answer = repository.client.get(repository.manifest("latest"))
    possible = {ledger.latest} | ({digest_of(push.manifest)} if push.doing == "tag" else set())
    if answer.status == 404:
        assert None in possible, answer
        return
    found = digest_of(answer.body)
    assert found in possible
    assert answer["docker-content-digest"] == found
    ledger.latest = found
    for layer in answer.json["layers"]:
        assert repository.pull_blob(layer["digest"]) == ledger.blobs[layer["digest"]], "a tag that cannot be pulled"


def _verify_referrers(repository: Repository, ledger: Ledger, push: Push) -> None:
    subject, referrer = digest_of(push.manifest), digest_of(push.referrer)
    listed = {each["digest"] for each in repository.referrers(subject)}
    assert listed <= {referrer}
    if referrer in ledger.referrers:
        assert push.doing == "delete" or listed == {referrer}
    if listed and referrer not in ledger.manifests:
        # A name that leads nowhere would be a lie; this one must at least be removable by pushing and deleting again.
        assert referrer not in ledger.gone
        raise AssertionError("a referrer is listed that cannot be pulled")


def _whole_or_absent(client: Client, target: str, content: bytes, *, acknowledged: bool) -> bool:
    answer = client.get(target)
    assert answer.status in (200, 404), answer
    if answer.status == 404:
        assert not acknowledged, f"{target} was acknowledged and is lost"
        assert client.head(target).status == 404
        return False
    assert answer.body == content, f"{target} is half-written"
    assert client.head(target).size == len(content)
    return True


def _verify_at_rest(root: Path, ledger: Ledger, push: Push | None, *, loop: str) -> None:
    """Everything that was ever acknowledged, and every blob on the disk."""
    registry = RegistryProcess.start(root, loop=loop)
    repository = Repository(registry.client(), "crash/test")
    assert push is not None
    _verify(repository, ledger, push)
    for digest, content in ledger.blobs.items():
        assert repository.pull_blob(digest) == content
    for digest, content in ledger.manifests.items():
        assert repository.pull_manifest(digest).body == content
    for digest in ledger.gone:
        assert repository.client.get(repository.manifest(digest)).status == 404
    assert repository.tags() == ["latest"]
    repository.client.close()
    for path in root.glob("v2/blobs/*/*/*/data"):
        content = path.read_bytes()
        assert digest_of(content, path.parts[-4]) == f"{path.parts[-4]}:{path.parts[-2]}", f"{path} is half-written"
    registry.stop()
